package agent

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

// New terms are in force when the sessions by the former ones have ended, however often that had
// to be tried.
func TestNewTermsAreNotConfirmedWhileOldSessionsLast(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
		w.spoil("Close", errBroken)
		w.tell(change(11, assign(11, v, "a", 2)))
		w.want(refused, v, "a", 2)
		w.spoil("Close", nil)
		time.Sleep(backoffMax)
		synctest.Wait()
		w.want(granted, v, "a", 2) // world.report holds it against the sessions
	})
}

// spoiledOnce makes a replica be told away and told anew before the first word was carried out.
func (w *world) spoiledOnce(v san.VolumeID) {
	w.t.Helper()
	w.tell(full(10, replica(9, v), assign(9, v, "a", 1)))
	w.spoil("Delete", errBroken)
	w.tell(change(11, noReplica(11, v), release(11, v, "a", 2)))
	w.want(failed, v, "", 0)
	w.tell(change(12, gone(12, v, "a", 2), replica(12, v), assign(12, v, "b", 3)))
	if w.in(v, "b") {
		w.t.Error("a host is let in to bytes that were to be deleted")
	}
}

// What was to be deleted stays so over a restart, whatever was told since.
func TestADeletionIsNotForgottenByARestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.spoiledOnce(v)
		w.restart()
		w.wantIn(v, "b", false)
		w.spoil("Delete", nil)
		w.tell(full(13, replica(12, v), assign(12, v, "b", 3)))
		w.wantIn(v, "b", true)
		if w.deletes != 1 {
			t.Errorf("the former replica was deleted %d times", w.deletes)
		}
	})
}

// A replica that is made in the place of a deleted one is not deleted too when what follows fails, or the
// same is told again meanwhile.
func TestADeletionIsCarriedOutOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		v := vol(1)
		w.spoiledOnce(v)
		w.spoil("Delete", nil)
		w.spoil("Show", errBroken)
		time.Sleep(backoffMax)
		synctest.Wait()
		if w.deletes != 1 || !w.replicas[v] {
			t.Fatalf("%d deletions, replica there: %v", w.deletes, w.replicas[v])
		}
		w.spoil("Show", nil)
		w.tell(full(13, replica(12, v), assign(12, v, "b", 3)))
		w.wantIn(v, "b", true)
		if w.deletes != 1 {
			t.Errorf("the new replica was deleted with all that was on it")
		}
	})
}

// Stations that were restored from a backup are at a lower generation of an assignment and at a higher one of
// the cluster, which is what counts.
func TestARestoredClusterCountsGenerationsAnew(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		v := vol(1)
		w.tell(full(10, replica(9, v), assign(9, v, "a", 5)))
		m := full(8, replica(7, v), release(7, v, "a", 2))
		m.Stamp.ClusterGeneration = 2
		m.Replicas[0].Stamp.ClusterGeneration = 2
		m.Assignments[0].Stamp.ClusterGeneration = 2
		w.tell(m)
		w.want(released, v, "a", 2)
		w.wantIn(v, "a", false)
	})
}

// However many hosts a volume is assigned to and however much is said of each, the record holds it, and
// each of them can be released.
func TestTheLargestRecordIsKept(t *testing.T) {
	bubble(t, func(_ *testing.T, w *world) {
		v := vol(1)
		m := full(10, replica(9, v))
		for i := range maxRemembered + 1 {
			a := assign(9, v, san.HostID(fmt.Sprintf("h%062d", i)), 1<<63)
			a.ChapUser, a.ChapSecret = strings.Repeat("u", maxCHAPBytes), strings.Repeat("s", maxCHAPBytes)
			a.Initiators = nil
			for n := range san.MaxInitiatorsPerHost {
				a.Initiators = append(a.Initiators, fmt.Sprintf("iqn.%0219d", n))
			}
			for n := range san.MaxAllowFromPerHost {
				a.AllowFrom = append(a.AllowFrom, fmt.Sprintf("fd00:1111:2222:3333:4444:5555:6666:%x/128", 0x1000+n))
			}
			m.Assignments = append(m.Assignments, a)
		}
		w.tell(m)
		first, over := san.HostID(m.Assignments[0].HostId), san.HostID(m.Assignments[maxGranted].HostId)
		w.want(granted, v, first, 1<<63)
		w.want(refused, v, over, 1<<63)
		w.wantIn(v, over, false)
		w.tell(change(11, &pb.DesiredAssignment{Stamp: stamp(11), VolumeId: string(v), HostId: string(first), Generation: 1<<63 + 1, Release: true}))
		w.want(released, v, first, 1<<63+1)
	})
}

// The record of a deletion stays until it has been carried out, even if the floor makes the word of it superfluous
// while an earlier order is under way.
func TestADeletionUnderWayIsNotOver(t *testing.T) {
	v, word := vol(1), &Replica{Seen: Seen{AsOf: san.Stamp{Index: 30}}, Deleted: true}
	a := &Agent{book: book{kept: san.Stamp{Index: 30}, volumes: map[san.VolumeID]told{v: {Record: Record{Volume: v, Replica: word}, Purge: word}}}}
	if a.over(v) {
		t.Error("its record may be removed")
	}
	a.book.volumes[v] = told{Record: Record{Volume: v, Replica: word}}
	if !a.over(v) {
		t.Error("its record stays for ever")
	}
}
