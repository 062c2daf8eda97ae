package controlplane

import (
	"fmt"
	"testing"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
)

// TestMainJob: stations found a cluster, a unit joins the pool, a host without agent gets a
// volume, loses it, and the volume goes; then the whole cluster restarts and knows everything.
func TestMainJob(t *testing.T) {
	c := newCluster(t, 3)
	cl := c.client(c.read("admin.token"))
	c.unit("u1", 1, 100)
	c.awaitUnit(cl, "u1", "Online")
	addHost(t, cl, "h1", "iqn.2004-10.com.example:h1")

	vol, err := create(cl, &pb.CreateVolumeRequest{Name: "v1", SizeBytes: 80 << 20, HostId: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	c.await("v1 to be assigned", func() error {
		v, err := show(cl, "v1")
		if err == nil && (v.State != "Ready" || len(v.Assignments) != 1 || v.Assignments[0].State != "Assigned") {
			err = fmt.Errorf("%v", v)
		}
		return err
	})
	cred := credentials(t, cl, "v1", "h1")
	if cred.ChapUser == "" || len(cred.ChapSecret) < 12 {
		t.Errorf("credentials: %v", cred)
	}

	for i := range c.stations {
		if err := c.halt(i); err != nil {
			t.Fatalf("station %d: %v", i+1, err)
		}
	}
	for i := range c.stations {
		c.start(i)
	}
	c.awaitStations(3)
	again, err := show(cl, "v1")
	if err != nil || again.Id != vol.Id || again.Assignments[0].Generation != 1 {
		t.Fatalf("after a restart of all stations: %v, %v", again, err)
	}
	if now := credentials(t, cl, "v1", "h1"); now.ChapSecret != cred.ChapSecret {
		t.Error("the secret changed over a restart")
	}
	c.awaitUnit(cl, "u1", "Online")
	unassign(t, cl, "v1", "h1")
	c.await("v1 to be released", func() error {
		v, err := show(cl, "v1")
		if err == nil && len(v.Assignments) != 0 {
			err = fmt.Errorf("%v", v.Assignments)
		}
		return err
	})
	remove(t, cl, "v1")
	c.await("v1 to be gone", func() error {
		if _, err := show(cl, "v1"); err == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	})
}
