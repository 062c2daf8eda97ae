package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// in a bubble, with an agent that runs.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.mustStart()
		defer func() { w.stop() }()
		f(t, w)
	})
}

func TestFromCreationToDeletion(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10))
		w.tell(change(11, replica(11, v), assign(11, v, "a", 1)))
		w.want(ready, v, "", 0)
		w.want(granted, v, "a", 1)
		w.wantIn(v, "a", true)

		w.tell(change(12, release(12, v, "a", 2)))
		w.want(released, v, "a", 2)
		w.wantIn(v, "a", false)
		w.tell(change(13, gone(13, v, "a", 2)))

		w.tell(change(14, assign(14, v, "b", 3)))
		w.want(granted, v, "b", 3)
		w.tell(change(15, release(15, v, "b", 4)))
		w.tell(change(16, gone(16, v, "b", 4), noReplica(16, v)))
		w.want(deleted, v, "", 0)
		if w.replicas[v] {
			t.Error("the replica is still there")
		}
	})
}

func TestGrowth(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
		w.tell(change(11, larger(11, v, 2)))
		w.want(ready, v, "", 0)
		w.wantIn(v, "a", true)
		if w.sizes[v] != 2*san.ExtentSizeBytes || len(w.grown) != 1 || w.creates != 1 {
			t.Errorf("it has %d bytes, told to hosts %v, made %d times", w.sizes[v], w.grown, w.creates)
		}
		// The station may not have heard: a restart finds it extended and says so, and wakes nobody.
		w.restart()
		w.tell(full(12, larger(11, v, 2), assign(9, v, "a", 1)))
		w.want(ready, v, "", 0)
		if len(w.grown) != 1 {
			t.Errorf("hosts were told %v", w.grown)
		}
	})
}

func TestAGrowthThatFailsHurtsNobody(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
		w.spoil("Grow", errBroken)
		w.tell(change(11, larger(11, v, 2)))
		w.want(failed, v, "", 0)
		if w.has(ready, v, "", 0) || w.has(refused, v, "a", 1) {
			t.Errorf("reports: %v", w.reports)
		}
		// Another host gets it all the same.
		w.tell(change(12, release(12, v, "a", 2)))
		w.want(released, v, "a", 2)
		w.tell(change(13, gone(13, v, "a", 2), assign(13, v, "b", 3)))
		w.want(granted, v, "b", 3)
		w.wantIn(v, "b", true)
		w.spoil("Grow", nil)
		time.Sleep(backoffMax + tick)
		synctest.Wait()
		w.want(ready, v, "", 0)
		if w.sizes[v] != 2*san.ExtentSizeBytes {
			t.Errorf("it has %d bytes", w.sizes[v])
		}
	})
}

// What is to be extended is never made anew: its data would be missed by nobody until it is read.
func TestAGrowthOfNothingIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, larger(9, v, 2)))
		w.want(failed, v, "", 0)
		if w.creates != 0 || w.replicas[v] {
			t.Error("a replica was made")
		}
	})
}

func TestAReleaseThatWasCommittedWithADeletionIsConfirmed(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
		w.tell(change(11, noReplica(11, v), release(11, v, "a", 2)))
		w.want(released, v, "a", 2)
		w.want(deleted, v, "", 0)
	})
}

func TestARestartNeedsNoStation(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v, u := vol(1), vol(2)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 1), assign(9, v, "b", 2), replica(9, u), assign(9, u, "a", 1)))
		w.tell(change(11, release(11, v, "b", 3)))
		w.restart()
		w.wantIn(v, "a", true)
		w.wantIn(u, "a", true)
		w.wantIn(v, "b", false)
		if len(w.reports) != 0 {
			t.Errorf("reported without being told anything: %v", w.reports)
		}
		// The station may not have heard of the release.
		w.tell(full(12, replica(9, v), assign(9, v, "a", 1), release(11, v, "b", 3), replica(9, u), assign(9, u, "a", 1)))
		w.want(released, v, "b", 3)
		w.want(granted, v, "a", 1)
		w.want(granted, u, "a", 1)
		w.want(ready, u, "", 0)
	})
}

func TestADeletionGoesOnAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v)))
		w.spoil("Delete", errBroken)
		w.tell(change(11, noReplica(11, v)))
		w.want(failed, v, "", 0)
		w.spoil("Delete", nil)
		w.restart()
		if w.replicas[v] {
			t.Error("a restart left a replica whose deletion is on disk")
		}
		w.tell(full(12, noReplica(11, v)))
		w.want(deleted, v, "", 0)
	})
}

func TestStaleOrdersAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
		w.tell(change(20, release(20, v, "a", 2)))
		w.tell(change(21, assign(9, v, "a", 1)))
		w.wantIn(v, "a", false)
		w.tell(change(22, noReplica(8, v)))
		if !w.replicas[v] {
			t.Error("an order older than the last one deleted a replica")
		}
		w.restart()
		w.tell(change(23, assign(9, v, "a", 1)))
		w.wantIn(v, "a", false)
		if err := w.agent.Apply(full(19, replica(9, v), assign(9, v, "a", 1))); err == nil {
			t.Error("a station that is behind was believed")
		}
		synctest.Wait()
		w.wantIn(v, "a", false)
	})
}

func TestADeletedReplicaDoesNotComeBackFromAStationThatIsBehind(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v)))
		w.tell(change(20, noReplica(20, v)))
		w.restart()
		if err := w.agent.Apply(full(15, replica(9, v))); err == nil {
			t.Error("a station that is behind was believed")
		}
		synctest.Wait()
		if w.replicas[v] {
			t.Error("a deleted replica came back")
		}
	})
}

func TestAFullStateWithdrawsWhatItLacks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
		w.tell(full(11))
		w.wantIn(v, "a", false)
		if !w.replicas[v] {
			t.Error("data was deleted because a full state lacked it")
		}
		w.restart()
		w.wantIn(v, "a", false)
		// The very same row comes back, as after a unit's approval.
		w.tell(full(12, replica(9, v), assign(9, v, "a", 1)))
		w.want(granted, v, "a", 1)
		w.wantIn(v, "a", true)
	})
}

func TestNonsenseIsReportedAndChangesNothing(t *testing.T) {
	many := make([]string, san.MaxInitiatorsPerHost+1)
	for i := range many {
		many[i] = "iqn.2004-10.com.example:x"
	}
	for name, ruin := range map[string]func(*pb.DesiredAssignment){
		"no initiators":       func(a *pb.DesiredAssignment) { a.Initiators = nil },
		"too many initiators": func(a *pb.DesiredAssignment) { a.Initiators = many },
		"a bad initiator":     func(a *pb.DesiredAssignment) { a.Initiators = []string{"x"} },
		"a bad range":         func(a *pb.DesiredAssignment) { a.AllowFrom = []string{"everywhere"} },
		"no secret":           func(a *pb.DesiredAssignment) { a.ChapSecret = "" },
		"a long secret":       func(a *pb.DesiredAssignment) { a.ChapSecret = strings.Repeat("x", 256) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(_ *testing.T, w *world) {
				v := vol(1)
				w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
				bad := assign(11, v, "a", 2)
				ruin(bad)
				w.tell(change(11, bad))
				w.want(refused, v, "a", 2)
				w.wantIn(v, "a", true)
				if w.shown[nexus{v, "a"}].Generation != 1 {
					t.Error("the terms in force were changed")
				}
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		w.tell(full(10, replica(9, "../../etc/passwd"), assign(9, "x", "a", 1), assign(9, vol(1), "../a", 1)))
		w.want(failed, "../../etc/passwd", "", 0)
		w.want(refused, "x", "a", 1)
		w.want(refused, vol(1), "../a", 1)
		if w.creates != 0 {
			t.Error("something was made of it")
		}
	})
}

func TestNewTermsCloseTheSessionsOfTheOld(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
		w.tell(change(11, assign(11, v, "a", 5))) // report checks the session's generation
		w.want(granted, v, "a", 5)
		more := assign(12, v, "a", 5)
		more.AllowFrom = []string{"192.0.2.77/24"}
		w.tell(change(12, more))
		g := w.shown[nexus{v, "a"}]
		if len(g.AllowFrom) != 1 || g.AllowFrom[0].String() != "192.0.2.0/24" {
			t.Errorf("allowed from %v", g.AllowFrom)
		}
		w.restart()
		if g := w.shown[nexus{v, "a"}]; len(g.AllowFrom) != 1 {
			t.Errorf("after a restart allowed from %v", g.AllowFrom)
		}
	})
}

func TestFailuresAreReportedAndTriedAgain(t *testing.T) {
	for method, want := range map[string]pb.ReportKind{"Create": failed, "Show": refused} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(_ *testing.T, w *world) {
				v := vol(1)
				w.spoil(method, errBroken)
				w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
				if want == failed {
					w.want(failed, v, "", 0)
				}
				w.want(refused, v, "a", 1)
				w.wantIn(v, "a", false)
				w.spoil(method, nil)
				time.Sleep(backoffMin + 2*tick)
				w.want(granted, v, "a", 1)
				w.wantIn(v, "a", true)
			})
		})
	}
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
		w.spoil("Close", errBroken)
		w.tell(change(11, release(11, v, "a", 2)))
		w.wantIn(v, "a", false)
		if w.has(released, v, "a", 2) {
			t.Error("released with commands that may be in flight")
		}
		w.want(refused, v, "a", 2)
		w.spoil("Close", nil)
		time.Sleep(backoffMin + 2*tick)
		w.want(released, v, "a", 2)
	})
}

func TestADiskThatFailsLetsNobodyIn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v)))
		w.power.CutAt(w.power.Ops() + 1)
		w.tell(change(11, assign(11, v, "a", 1)))
		w.wantIn(v, "a", false)
		w.want(refused, v, "a", 1)
	})
}

func TestWhatIsOverIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.tell(full(1))
		index := uint64(1)
		for n := range 50 {
			v := vol(n)
			index += 10
			w.tell(change(index, replica(index, v), assign(index, v, "a", 1)))
			w.tell(change(index+1, release(index+1, v, "a", 2)))
			w.tell(change(index+2, noReplica(index+2, v), gone(index+2, v, "a", 2)))
		}
		time.Sleep(2 * floorTicks * tick)
		synctest.Wait()
		if n := len(w.agent.entries) + len(w.agent.book.volumes); n != 0 {
			t.Errorf("%d volumes that are no more are remembered", n)
		}
		dir, err := w.agent.cfg.Records.List()
		if err != nil || len(dir) != 1 {
			t.Errorf("records left: %v (%v)", dir, err)
		}
		w.restart()
		if err := w.agent.Apply(full(20, replica(11, vol(0)))); err == nil {
			t.Error("the floor was forgotten too")
		}
	})
}

func TestADamagedRecordLetsNobodyIn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
		w.stop()
		w.power.Kill()
		dir, err := w.dir.Open()
		if err != nil {
			t.Fatal(err)
		}
		f, err := dir.Open(string(v) + ".rec")
		if err != nil {
			t.Fatal(err)
		}
		for off := int64(0); off < f.SizeBytes(); off += disktest.SectorBytes {
			if _, err := f.WriteAt([]byte("rot"), off+100); err != nil {
				t.Fatal(err)
			}
			off += 64 << 10
		}
		if _, err := f.WriteAt([]byte("rot"), 1<<20+100); err != nil {
			t.Fatal(err)
		}
		w.power.Kill()
		w.mustStart()
		w.wantIn(v, "a", false)
		w.tell(full(11, replica(9, v), assign(9, v, "a", 1)))
		w.wantIn(v, "a", true)
		w.restart()
		w.wantIn(v, "a", true)
	})
}

// Commands that hang hold up their own volume alone, however many volumes that are; and what waits for a worker
// when the agent stops ends too.
func TestOtherVolumesDoNotWaitForAHostThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const stuck = 3 * workers
		var give, take []any
		for n := range stuck {
			v := vol(n)
			w.hang[v] = true
			give = append(give, replica(9, v), assign(9, v, "a", 1))
			take = append(take, release(11, v, "a", 2))
		}
		w.tell(full(10, give...))
		w.tell(change(11, take...))
		if w.hanging != stuck {
			t.Errorf("%d of %d volumes wait for their commands", w.hanging, stuck)
		}
		began, other := time.Now(), vol(stuck)
		w.tell(change(12, replica(12, other), assign(12, other, "b", 1)))
		w.want(granted, other, "b", 1)
		if took := time.Since(began); took > 0 {
			t.Errorf("it waited for %v", took)
		}
		time.Sleep(closeWait) // they are given up, and tried again
		w.mu.Lock()
		clear(w.hang)
		w.mu.Unlock()
		time.Sleep(closeWait + backoffMax)
		synctest.Wait()
		for n := range stuck {
			w.want(released, vol(n), "a", 2)
		}
	})
}
