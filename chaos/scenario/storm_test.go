package scenario

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

const stormSize = 8 << 20

// storm creates and deletes volumes, several at a time, and keeps account of what was acknowledged.
type storm struct {
	c *cluster
	// sure says that every change must succeed: enough of the cluster is always there.
	sure   bool
	cancel context.CancelFunc
	wg     sync.WaitGroup
	pulse  chan struct{} // has something after each round

	mu   sync.Mutex
	want map[string]bool // volume → there; none where a change failed, which may have happened or not
	left map[string]bool // volumes of failed changes
}

func startStorm(c *cluster, sure bool) *storm {
	ctx, cancel := context.WithCancel(c.t.Context())
	s := &storm{c: c, sure: sure, cancel: cancel, pulse: make(chan struct{}, 1), want: map[string]bool{}, left: map[string]bool{}}
	for lane := range 2 {
		s.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				s.round(fmt.Sprintf("storm-%d-%d", lane, i), i%3 != 0)
				select {
				case s.pulse <- struct{}{}:
				default:
				}
			}
		})
	}
	c.t.Cleanup(s.stop)
	return s
}

// round makes a volume and maybe deletes it.
func (s *storm) round(name string, andDelete bool) {
	if r := s.c.CLI(s.c.t.Context(), "volume", "create", name, "--size", fmt.Sprint(stormSize), "--timeout", "20s"); r.Code != 0 {
		s.failed(name, r)
		return
	}
	s.note(name, true)
	if !andDelete {
		return
	}
	if r := s.c.CLI(s.c.t.Context(), "volume", "delete", name, "--timeout", "20s"); r.Code != 0 {
		s.failed(name, r)
		return
	}
	s.note(name, false)
}

func (s *storm) note(name string, there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want[name] = there
}

// failed notes a change of unknown outcome. With its only unit away a pool refuses to make volumes.
func (s *storm) failed(name string, r lab.Result) {
	if s.sure && s.c.t.Context().Err() == nil {
		s.c.t.Error(r.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.want, name)
	s.left[name] = true
}

// rounds waits until some rounds have ended.
func (s *storm) rounds(n int) {
	s.c.t.Helper()
	for range n {
		select {
		case <-s.pulse:
		case <-time.After(patience):
			s.c.t.Fatal("nothing is made any more")
		}
	}
}

func (s *storm) stop() {
	s.cancel()
	s.wg.Wait()
}

// settles waits until all is as acknowledged and the pool's books agree with what there is; kept
// are the volumes besides.
func (s *storm) settles(kept ...string) {
	s.c.t.Helper()
	for _, name := range kept {
		s.want[name] = true
	}
	s.c.await("the storm settles", patience, func(ctx context.Context) error {
		vols, err := s.c.Volumes(ctx)
		if err != nil {
			return err
		}
		for name, there := range s.want {
			if v, ok := vols[name]; ok != there || ok && v.State != "Ready" {
				return fmt.Errorf("volume %s: there %v, want %v; state %s", name, ok, there, v.State)
			}
		}
		for name, v := range vols {
			if !s.want[name] && !(s.left[name] && v.State == "Ready") {
				return fmt.Errorf("volume %s is %s", name, v.State)
			}
		}
		p, err := s.c.Pool(ctx)
		if err == nil && p.ReservedBytes != int64(len(vols))*stormSize {
			err = fmt.Errorf("%d bytes are reserved for %d volumes of %d", p.ReservedBytes, len(vols), stormSize)
		}
		return err
	})
}

// TestKillUnitInStorm kills a unit again and again amid creations and deletions.
func TestKillUnitInStorm(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "1", "--units", "1", "--hosts", "0")
	c.ok("host", "add", "a", "--initiator", otherIQN)
	c.give("kept", fmt.Sprint(stormSize), "a")
	u := c.Process("unit-1")
	s := startStorm(c, false)
	for range stormRounds() {
		s.rounds(4)
		c.kill(u)
		c.restart(u)
		if err := c.AwaitState(t.Context(), "unit", u.ID, "Online", patience); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	s.settles("kept")
	// The unit agrees when it tells what it has.
	c.terminate(u)
	c.restart(u)
	c.await("the unit's figures agree with the books", patience, func(ctx context.Context) error {
		now, err := c.Unit(ctx, u.ID)
		if err != nil {
			return err
		}
		if now.State != "Online" || now.Media[0].UsedBytes != now.Media[0].ReservedBytes {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	readsZeros(t, open(t, c.login("kept", "a", otherIQN)), stormSize)
	vols, err := c.Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name := range vols {
		if name != "kept" {
			c.ok("volume", "delete", name, "--wait")
		}
	}
	p, err := c.Pool(t.Context())
	if err != nil || p.ReservedBytes != stormSize || p.Volumes != 1 {
		t.Errorf("the pool in the end: %+v, %v", p, err)
	}
}

// TestKillLeaderInStorm kills whatever station leads, amid creations and deletions: each succeeds
// none the less, and all that was acknowledged is there.
func TestKillLeaderInStorm(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "3", "--units", "2", "--hosts", "0")
	s := startStorm(c, true)
	for range stormRounds() {
		s.rounds(4)
		id, err := c.Leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		leader := c.Process(id)
		c.kill(leader)
		s.rounds(4)
		c.restart(leader)
		c.whole()
	}
	s.stop()
	s.settles()
}

func stormRounds() int {
	if testing.Short() {
		return 1
	}
	return 3
}
