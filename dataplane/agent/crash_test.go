package agent

import (
	"fmt"
	"testing"
	"testing/synctest"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/san"
)

// story is what the stations want, one state after the other.
func story() []*pb.DesiredState {
	v, u := vol(1), vol(2)
	return []*pb.DesiredState{
		full(10),
		change(11, replica(11, v), assign(11, v, "a", 1)),
		change(12, replica(12, u), assign(12, u, "a", 1)),
		change(13, release(13, v, "a", 2)),
		change(14, gone(14, v, "a", 2)),
		change(15, assign(15, v, "b", 3)),
		full(16, replica(11, v), assign(15, v, "b", 3), replica(12, u)), // u is withdrawn
		change(17, release(17, v, "b", 4), noReplica(17, v)),
		change(18, gone(18, v, "b", 4), assign(18, u, "b", 2)),
	}
}

// confirmed is what the stations have been told, and may rely on.
type confirmed struct {
	ready    map[nexus]bool
	released map[nexus]bool
	deleted  map[san.VolumeID]bool
}

func newConfirmed() *confirmed {
	return &confirmed{ready: map[nexus]bool{}, released: map[nexus]bool{}, deleted: map[san.VolumeID]bool{}}
}

func (c *confirmed) take(reports []*pb.Report) {
	for _, r := range reports {
		n := nexus{san.VolumeID(r.VolumeId), san.HostID(r.HostId)}
		switch r.Kind {
		case granted:
			c.ready[n] = true
			delete(c.released, n)
		case released:
			c.released[n] = true
			delete(c.ready, n)
		case deleted:
			c.deleted[n.volume] = true
		}
	}
}

// play goes through the story until the power fails; it returns how far it came.
func (w *world) play(states []*pb.DesiredState, c *confirmed) int {
	for i, m := range states {
		w.mu.Lock()
		w.reports = nil
		w.mu.Unlock()
		if w.power.IsCut() || w.agent.Apply(m) != nil {
			return i
		}
		synctest.Wait()
		w.mu.Lock()
		c.take(w.reports)
		w.mu.Unlock()
		// A withdrawal by a full state is not confirmed, nor is it relied upon.
		for n := range c.ready {
			if m.Full && !w.agent.grants(n) {
				delete(c.ready, n)
			}
		}
	}
	return len(states)
}

func (a *Agent) grants(n nexus) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.book.volumes[n.volume].grant(n.host) != nil
}

// TestCrashesAtEveryWrite cuts the power at each write of the records. After it, whoever the stations
// believe to be let in is let in, unless an order under way says otherwise, and nobody is
// let in whose release they were told.
func TestCrashesAtEveryWrite(t *testing.T) {
	total := 0
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustStart()
		if n := w.play(story(), newConfirmed()); n != len(story()) {
			t.Fatalf("the story ended at %d", n)
		}
		total = w.power.Ops()
		w.stop()
	})
	if total < 20 {
		t.Fatalf("only %d operations", total)
	}
	for _, seed := range []uint64{disktest.KeepNothing, disktest.KeepAll, 7} {
		for k := 1; k <= total; k++ {
			t.Run(fmt.Sprintf("seed %d operation %d", seed, k), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { crashOnce(t, seed, k) })
			})
		}
	}
}

func crashOnce(t *testing.T, seed uint64, k int) {
	w := newWorld(t)
	w.power.CutAt(k)
	c := newConfirmed()
	came := 0
	if err := w.start(); err == nil {
		came = w.play(story(), c)
		w.stop()
	}
	w.power.Restore(seed)
	w.mustStart()
	defer func() { w.stop() }()
	for n := range c.released {
		if w.in(n.volume, n.host) {
			t.Errorf("%v is let in after its release was confirmed", n)
		}
	}
	// The order in whose middle the power failed may be on disk or not.
	for n := range c.ready {
		if !w.in(n.volume, n.host) && w.agent.grants(n) {
			t.Errorf("%v is on disk and not let in", n)
		}
		if !w.in(n.volume, n.host) && !concerns(story()[:min(came+1, len(story()))], n) {
			t.Errorf("%v is not let in after it was confirmed", n)
		}
	}
	for v := range c.deleted {
		if w.replicas[v] {
			t.Errorf("volume %s is there after its deletion was confirmed", v)
		}
	}
	w.finishStory(max(0, came-1))
}

// concerns reports whether one of the last two states takes n away.
func concerns(states []*pb.DesiredState, n nexus) bool {
	for _, m := range states[max(0, len(states)-2):] {
		if m.Full {
			return true
		}
		for _, a := range m.Assignments {
			if a.VolumeId == string(n.volume) && a.HostId == string(n.host) {
				return true
			}
		}
	}
	return false
}

// finishStory goes on after a crash as the stations do, with a full state: all ends as it would have.
func (w *world) finishStory(from int) {
	w.t.Helper()
	v, u := vol(1), vol(2)
	w.tell(full(19, replica(12, u), assign(18, u, "b", 2), noReplica(17, v)))
	w.wantIn(v, "a", false)
	w.wantIn(v, "b", false)
	w.wantIn(u, "a", false)
	w.wantIn(u, "b", true)
	w.want(deleted, v, "", 0)
	w.want(granted, u, "b", 2)
	if w.replicas[v] {
		w.t.Errorf("volume %s is still there; the story had come to state %d", v, from)
	}
}
