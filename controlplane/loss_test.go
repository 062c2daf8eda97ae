package controlplane

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// TestLoss runs what takes stations away from a cluster, and what crowds it.
func TestLoss(t *testing.T) {
	c := foundCluster(t, 3, true)
	if !t.Run("more creations than room", func(t *testing.T) { testRush(t, c.in(t)) }) {
		return
	}
	c.unit("big", 1, 4000)
	c.awaitUnit(c.admin(), "big", "Online")
	for _, test := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"leader cut off", testLeaderCut},
		{"station away", testAway},
		{"all restarted", testAllRestarted},
		{"fourth station", testFourthStation},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.run(t, c.in(t)) }) {
			return
		}
	}
}

func pool(t *testing.T, cl *stationclient.Client) *pb.GetPoolResponse {
	t.Helper()
	out, err := ask(cl, 10*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.GetPoolResponse], error) {
		return cl.Units(ep).GetPool(ctx, connect.NewRequest(&pb.GetPoolRequest{}))
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// testRush: of 64 creations at once on five units with room for 8 each, exactly 40 succeed.
func testRush(t *testing.T, c *cluster) {
	token := c.read("admin.token")
	for i := range 5 {
		id := fmt.Sprintf("small%d", i)
		defer c.unit(id, 1, 8).end()
		c.awaitUnit(c.admin(), id, "Online")
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var made []string
	for i := range 64 {
		cl := c.at(i%3, token)
		wg.Go(func() {
			m := &pb.CreateVolumeRequest{RequestId: uuid.NewString(), Name: fmt.Sprintf("rush%d", i), SizeBytes: extent}
			v, err := create(cl, m)
			// On a machine that is busy with other things a unit may be taken for lost, for a moment.
			for end := time.Now().Add(patience); err != nil && time.Now().Before(end) && crowded(err); v, err = create(cl, m) {
				<-time.After(100 * time.Millisecond) // until it is back
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made = append(made, v.Id)
				return
			}
			wantErr(t, err, san.KindNoSpace, "small0: full", "small4: full")
		})
	}
	wg.Wait()
	if len(made) != 40 {
		t.Errorf("%d volumes were made where 40 have room", len(made))
	}
	if p := pool(t, c.admin()); p.FreeBytes != 0 || p.ReservedBytes != 40*extent || p.CapacityBytes != 40*extent || p.Volumes != 40 {
		t.Errorf("full pool: %v", p)
	}
	for _, id := range made {
		if err := deleteVolume(c.admin(), id); err != nil {
			t.Error(err)
		}
	}
	c.await("the room to be free again", func() error {
		if p := pool(t, c.admin()); p.FreeBytes != 40*extent || p.Volumes != 0 || p.ReservedBytes != 0 {
			return fmt.Errorf("%v", p)
		}
		return nil
	})
}

// crowded reports whether a creation was refused for anything but a full pool.
func crowded(err error) bool {
	return san.KindOf(err) == san.KindUnavailable || strings.Contains(err.Error(), "not online")
}

// stream makes volumes one after the other, by several clients, until n are there; half is closed
// when half of them are.
func (c *cluster) stream(prefix string, n int) (half <-chan struct{}, finish func() map[string]string) {
	reached := make(chan struct{})
	var mu sync.Mutex
	ids := map[string]string{}
	var wg sync.WaitGroup
	const clients = 4
	for k := range clients {
		cl := c.client(c.read("admin.token"))
		wg.Go(func() {
			for i := k; i < n; i += clients {
				name := fmt.Sprintf("%s%d", prefix, i)
				v, err := create(cl, &pb.CreateVolumeRequest{RequestId: uuid.NewString(), Name: name, SizeBytes: extent})
				mu.Lock()
				if err != nil {
					c.t.Errorf("create %s: %v", name, err)
				} else if ids[name] = v.Id; len(ids) == n/2 {
					close(reached)
				}
				mu.Unlock()
			}
		})
	}
	return reached, func() map[string]string { wg.Wait(); return ids }
}

// check holds what station i lists against what was acknowledged.
func (c *cluster) check(i int, ids map[string]string, stale bool) error {
	cl := c.at(i, c.read("admin.token"))
	got := map[string]string{}
	m := &pb.ListVolumesRequest{PageSize: 1000, Stale: stale}
	out, err := once(volumes(cl).ListVolumes, m)
	if err != nil {
		return err
	}
	for _, v := range out.Volumes {
		if got[v.Name] != "" {
			return fmt.Errorf("volume %s is there twice", v.Name)
		}
		got[v.Name] = v.Id
	}
	for name, id := range ids {
		if got[name] != id {
			return fmt.Errorf("acknowledged volume %s (%s) is %q at station %d", name, id, got[name], i+1)
		}
	}
	return nil
}

// testLeaderCut: the leader vanishes in the middle of a stream of creations. None that was
// acknowledged is lost and none is doubled; what the old leader still says is never out of date.
func testLeaderCut(t *testing.T, c *cluster) {
	leader, _ := c.leader()
	half, finish := c.stream("cut", 120)
	select {
	case <-half:
	case <-time.After(30 * time.Second):
		t.Fatal("the stream of creations does not get on")
	}
	for _, k := range c.stations[leader].link {
		k.setCut(true)
	}
	heal := sync.OnceFunc(func() {
		for _, k := range c.stations[leader].link {
			k.setCut(false)
		}
	})
	defer heal()
	ids := finish()
	if len(ids) != 120 {
		t.Fatalf("%d of 120 creations were acknowledged", len(ids))
	}
	// Asked alone, the one that was cut off may say that it can't tell, and nothing else that is wrong.
	cl := c.at(leader, c.read("admin.token"))
	for name, id := range ids {
		out, err := once(volumes(cl).GetVolume, &pb.GetVolumeRequest{Volume: name})
		if err == nil && out.Volume.Id != id || err != nil && san.KindOf(err) != san.KindUnavailable {
			t.Errorf("the former leader says of %s: %v, %v", name, out, err)
		}
		err = deleteOnce(cl, "nobody-made-this")
		if k := san.KindOf(err); k != san.KindUnavailable && k != san.KindNotFound && k != san.KindUnknown {
			t.Errorf("the former leader deletes: %v", err)
		}
		break // each holds for as long as it waits for a leader
	}
	heal()
	for i := range c.stations {
		c.await("the station to agree", func() error { return c.check(i, ids, false) })
	}
}

func deleteOnce(cl *stationclient.Client, volume string) error {
	_, err := once(volumes(cl).DeleteVolume, &pb.DeleteVolumeRequest{Volume: volume})
	return err
}

// testAway: a station that was away while much was changed catches up.
func testAway(t *testing.T, c *cluster) {
	_, follower := c.leader()
	if err := c.halt(follower); err != nil {
		t.Fatal(err)
	}
	_, finish := c.stream("away", 100)
	ids := finish()
	c.start(follower)
	c.await("the station to catch up", func() error { return c.check(follower, ids, true) })
}

// testAllRestarted: all stations stop in the middle of a stream and start again; the stream
// goes on by itself.
func testAllRestarted(t *testing.T, c *cluster) {
	half, finish := c.stream("all", 60)
	select {
	case <-half:
	case <-time.After(30 * time.Second):
		t.Fatal("the stream of creations does not get on")
	}
	var wg sync.WaitGroup
	for i := range c.stations {
		wg.Go(func() {
			if err := c.halt(i); err != nil {
				t.Errorf("station %d: %v", i+1, err)
			}
		})
	}
	wg.Wait()
	for i := range c.stations {
		c.start(i)
	}
	ids := finish()
	if len(ids) != 60 {
		t.Fatalf("%d of 60 creations were acknowledged", len(ids))
	}
	for i := range c.stations {
		c.await("the station to have all", func() error { return c.check(i, ids, false) })
	}
}

// testFourthStation: a station that joins a cluster that runs is taken in without a vote first.
func testFourthStation(t *testing.T, c *cluster) {
	c.plan(3)
	defer func() {
		if err := c.halt(3); err != nil {
			t.Error(err)
		}
		c.stations = c.stations[:3]
	}()
	c.join(3)
	seen := map[string]bool{}
	c.await("a vote for the fourth station", func() error {
		out, err := once(stations(c.at(0, c.read("admin.token"))).ListStations, &pb.ListStationsRequest{})
		if err != nil {
			return err
		}
		for _, s := range out.Stations {
			if s.Id == "station-4" {
				seen[s.Suffrage] = true
			}
		}
		if !seen["Voter"] {
			return errors.New("it has none")
		}
		return nil
	})
	if !seen["Nonvoter"] {
		t.Errorf("it was given its vote at once: %v", seen)
	}
	if _, err := once(volumes(c.at(3, c.read("admin.token"))).GetVolume, &pb.GetVolumeRequest{Volume: "all0"}); err != nil {
		t.Errorf("read at the new station: %v", err)
	}
}
