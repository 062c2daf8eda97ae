package scenario

import (
	"context"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

// hostVolume makes a volume for a host with an agent and returns what its initiator needs.
func (c *cluster) hostVolume(name, size, host string) lab.Volume {
	c.t.Helper()
	v := c.give(name, size, host)
	if len(v.Assignments) != 1 || v.Assignments[0].State != "Assigned" {
		c.t.Fatalf("the assignment: %+v", v.Assignments)
	}
	return v
}

// iqnOf is the first initiator name of a host.
func (c *cluster) iqnOf(host string) string {
	c.t.Helper()
	var h struct {
		Initiators []string `json:"initiators"`
	}
	if err := c.CLI(c.t.Context(), "host", "show", host, "-o", "json").JSON(&h); err != nil {
		c.t.Fatal(err)
	}
	if len(h.Initiators) == 0 {
		c.t.Fatalf("host %s has no initiator name", host)
	}
	return h.Initiators[0]
}

// TestKillEachProcess kills every process once while a host writes and an operator works: no
// flushed byte and no acknowledged change is lost, and each process comes back with all it had.
func TestKillEachProcess(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "3", "--units", "2", "--hosts", "2")
	v := c.hostVolume("work", "16MiB", "host-1")
	c.hostVolume("quiet", "8MiB", "host-2")
	w := startWriter(t, c.Process("host-1").Flag("data"), "work")
	w.progress(c, "at first")
	before := map[string]lab.Unit{}
	made := []string{"work", "quiet"}
	for i, p := range c.Of("") {
		if testing.Short() && i%3 != 0 {
			continue
		}
		if p.Role == "unit" {
			u, err := c.Unit(t.Context(), p.ID)
			if err != nil {
				t.Fatal(err)
			}
			before[p.ID] = u
		}
		c.kill(p)
		serves := p.ID == v.Copies[0].UnitID
		if !serves {
			w.progress(c, "without "+p.ID)
		}
		// The operator goes on too: units that are left have room.
		name := fmt.Sprintf("during-%d", i)
		c.ok("volume", "create", name, "--size", "8MiB")
		made = append(made, name)
		c.restart(p)
		c.whole()
		if u, ok := before[p.ID]; ok && serves {
			c.cameBack(u, "kill -9 of "+p.ID)
		}
		w.progress(c, "after the return of "+p.ID)
	}
	c.allThere(made)

	// All at once, as when the power fails.
	for _, p := range c.Of("") {
		if err := p.Signal(9); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range c.Of("") {
		if err := p.WaitGone(patience); err != nil {
			t.Fatal(err)
		}
		c.restart(p)
	}
	c.whole()
	w.progress(c, "after everything was killed")
	c.allThere(made)
	rounds := w.finish(t)

	// Once more without the library's help, after another loss of the unit's memory.
	u := c.Process(v.Copies[0].UnitID)
	c.kill(u)
	c.restart(u)
	if err := c.AwaitState(t.Context(), "unit", u.ID, "Online", patience); err != nil {
		t.Fatal(err)
	}
	w.check(t, open(t, c.login("work", "host-1", c.iqnOf("host-1"))))
	t.Logf("%d rounds of writes and flush, the longest %v", rounds, time.Duration(w.slowest.Load()).Round(time.Millisecond))
}

// allThere checks that all volumes that were acknowledged are there, and become Ready.
func (c *cluster) allThere(names []string) {
	c.t.Helper()
	c.await("every volume is there and Ready", patience, func(ctx context.Context) error {
		vols, err := c.Volumes(ctx)
		if err != nil {
			return err
		}
		if len(vols) != len(names) {
			return fmt.Errorf("%d volumes, want %d", len(vols), len(names))
		}
		for _, name := range names {
			if v, ok := vols[name]; !ok || v.State != "Ready" {
				return fmt.Errorf("volume %s: there %v, state %s", name, ok, v.State)
			}
		}
		return nil
	})
}

// TestStationsGone: I/O and logins need no station. All three are killed and come back.
func TestStationsGone(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "3", "--units", "1", "--hosts", "1")
	c.hostVolume("work", "16MiB", "host-1")
	c.hostVolume("other", "8MiB", "host-1")
	c.ok("host", "add", "qemu", "--initiator", qemuIQN)
	c.give("disk", "8MiB", "qemu")
	url := c.url("disk", "qemu")
	cfg := c.login("work", "host-1", c.iqnOf("host-1"))
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	index := c.index()
	w := startWriter(t, c.Process("host-1").Flag("data"), "work")
	w.progress(c, "at first")
	for _, s := range c.Of("station") {
		if err := s.Signal(9); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range c.Of("station") {
		if err := s.WaitGone(patience); err != nil {
			t.Fatal(err)
		}
	}
	w.progress(c, "without stations")
	// New logins: an initiator that was configured before, and the host's programs by their agent.
	if _, err := exec.LookPath("qemu-io"); err == nil {
		do(t, "qemu-io", "-f", "raw", "-c", "write -P 9 0 64k", "-c", "flush", "-c", "read -P 9 0 64k", url)
	}
	second := startWriter(t, c.Process("host-1").Flag("data"), "other")
	second.progress(c, "on a volume opened without stations")
	// The agent itself may even start without them, and the unit too if it must.
	host := c.Process("host-1")
	c.kill(host)
	c.restart(host)
	third := startWriter(t, host.Flag("data"), "other")
	third.progress(c, "after the agent was started without stations")
	third.finish(t)
	for _, s := range c.Of("station") {
		c.restart(s)
	}
	c.whole()
	w.progress(c, "after the stations' return")
	if now := c.index(); now < index {
		t.Errorf("the cluster's log is at index %d, was at %d", now, index)
	}
	c.allThere([]string{"work", "other", "disk"})
	c.ok("host", "show", "qemu")
	c.give("after", "8MiB", "qemu")
	for _, w := range []*writer{w, second} {
		w.finish(t)
		if d := time.Duration(w.slowest.Load()); d > 5*time.Second {
			t.Errorf("a write and flush took %v", d)
		}
	}
	w.check(t, open(t, cfg))
	t.Logf("leader was %s; longest rounds of write and flush: %v", leader, time.Duration(w.slowest.Load()).Round(time.Millisecond))
}
