package dataplane_test

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/initiator"
	"github.com/sandbar-san/sandbar/san"
)

func TestLoginIsJudged(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 4*mib)
	w.give(volumeB, "b", hostB, 4*mib)
	far := access(volumeB, "c", 1, "iqn.2004-10.com.example:c")
	far.AllowFrom = []string{"192.0.2.0/24"}
	near := access(volumeB, "d", 1, "iqn.2004-10.com.example:D", "iqn.2004-10.com.example:d2")
	near.AllowFrom = []string{"192.0.2.0/24", "127.0.0.0/8"}
	w.station.want(nil, far, near)
	w.station.reported(pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, volumeB, "d", 1)

	for _, c := range []struct {
		what string
		cfg  initiator.Config
		kind san.Kind // KindInternal: let in
	}{
		{"its own volume", w.initiator(volumeA, "a", hostA), san.KindInternal},
		{"a name in other letters", w.initiator(volumeA, "a", "iqn.2004-10.COM.example:a"), san.KindInternal},
		{"a second name of a host", w.initiator(volumeB, "d", "iqn.2004-10.com.example:d2"), san.KindInternal},
		{"another host's volume", w.initiator(volumeB, "a", hostA), san.KindDenied},
		{"another host's secret", w.initiator(volumeA, "b", hostA), san.KindUnauthenticated},
		{"an unknown name", w.initiator(volumeA, "a", "iqn.2004-10.com.example:x"), san.KindDenied},
		{"an unknown volume", w.initiator("6f0a1c9e-55d0-4a58-8a7b-0b7d3f3e0c03", "a", hostA), san.KindNotFound},
		{"an address outside", w.initiator(volumeB, "c", "iqn.2004-10.com.example:c"), san.KindDenied},
	} {
		s, err := initiator.Dial(t.Context(), c.cfg)
		if s != nil {
			s.Close()
		}
		if (err == nil) != (c.kind == san.KindInternal) || err != nil && san.KindOf(err) != c.kind {
			t.Errorf("%s: %v (%v)", c.what, err, san.KindOf(err))
		}
	}
	noCHAP := w.initiator(volumeA, "a", hostA)
	noCHAP.CHAP = initiator.CHAP{}
	if s, err := initiator.Dial(t.Context(), noCHAP); err == nil {
		s.Close()
		t.Error("a login without CHAP was let in")
	}
	w.shutdown()
}

func TestHostsSeeOnlyTheirOwn(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 4*mib)
	w.give(volumeB, "b", hostB, 4*mib)
	for name, want := range map[string][]string{
		hostA:                       {san.TargetName("u1", volumeA)},
		hostB:                       {san.TargetName("u1", volumeB)},
		"iqn.2004-10.com.example:x": nil,
	} {
		found, err := initiator.Discover(t.Context(), initiator.Config{Portal: w.cfg.PortalListen, InitiatorName: name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var names []string
		for _, f := range found {
			names = append(names, f.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s sees %v, want %v", name, names, want)
		}
	}
	w.shutdown()
}

// A host has a secret for each volume; in a discovery session any of them proves who it is, and
// another host's proves nothing.
func TestDiscoveryByAnyOfAHostsSecrets(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 4*mib)
	w.give(volumeB, "a", hostA, 4*mib)
	for secret, want := range map[string]int{secretOf(volumeA, "a"): 2, secretOf(volumeB, "a"): 2, secretOf(volumeB, "b"): 0} {
		found, err := initiator.Discover(t.Context(), initiator.Config{
			Portal: w.cfg.PortalListen, InitiatorName: hostA, CHAP: initiator.CHAP{User: "a", Secret: secret},
		})
		if len(found) != want || (err == nil) != (want > 0) {
			t.Errorf("by secret %q it finds %v, %v", secret, found, err)
		}
		if err != nil && san.KindOf(err) != san.KindUnauthenticated {
			t.Errorf("secret %q: %v", secret, err)
		}
	}
	w.shutdown()
}

func hashOf(t *testing.T, path string) [32]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// While many writes are in flight the volume is taken away: from the moment of the confirmation
// on, nothing changes on the medium.
func TestNoWriteTakesEffectAfterARelease(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 8*mib)
	d := w.mustLogin(volumeA, "a", hostA)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writers sync.WaitGroup
	var written atomic.Uint64
	enough := make(chan struct{})
	for i := range 16 {
		writers.Go(func() {
			buf := make([]byte, 64<<10)
			for n := 0; ; n++ {
				for j := range buf {
					buf[j] = byte(n + j*i)
				}
				if d.WriteAt(ctx, buf, int64(i)*int64(len(buf))) != nil {
					return
				}
				if written.Add(1) == 200 {
					close(enough)
				}
			}
		})
	}
	<-enough
	release := access(volumeA, "a", 2, hostA)
	release.Release = true
	w.station.want(nil, release)
	w.station.reported(pb.ReportKind_REPORT_KIND_RELEASED, volumeA, "a", 2)
	before := hashOf(t, w.cfg.Media[0])
	writers.Wait()
	if after := hashOf(t, w.cfg.Media[0]); after != before {
		t.Error("a write took effect after the release was confirmed")
	}

	w.station.want(nil, access(volumeA, "b", 3, hostB))
	w.station.reported(pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, volumeA, "b", 3)
	w.mustLogin(volumeA, "b", hostB)
	if _, err := w.login(volumeA, "a", hostA); err == nil {
		t.Error("the former host was let in again")
	}
	w.shutdown()
}

func TestStaleOrdersDoNothing(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 4*mib)
	old := w.station.access[volumeA+"a"]
	release := access(volumeA, "a", 2, hostA)
	release.Release = true
	w.station.want(nil, release)
	w.station.reported(pb.ReportKind_REPORT_KIND_RELEASED, volumeA, "a", 2)
	w.station.note(func() { w.station.index++ })
	w.station.tell(&pb.DesiredState{Stamp: w.station.stamp(), Assignments: []*pb.DesiredAssignment{old}})
	// A state that is older as a whole ends the stream.
	w.station.mu.Lock()
	streams := w.station.streams
	w.station.mu.Unlock()
	w.station.tell(&pb.DesiredState{Stamp: &pb.Stamp{ClusterGeneration: 1, Index: 1}, Assignments: []*pb.DesiredAssignment{old}})
	w.station.wait("new stream", func() bool { return w.station.streams > streams })
	if _, err := w.login(volumeA, "a", hostA); err == nil {
		t.Error("a stale order let a host in")
	}
	w.shutdown()
}

func TestAFullStateWithdrawsAccessAndKeepsData(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 4*mib)
	w.give(volumeB, "a", hostA, 4*mib)
	d := w.mustLogin(volumeA, "a", hostA)
	want := []byte("still here")
	block := append(want, make([]byte, 512-len(want))...)
	if err := d.WriteAt(t.Context(), block, 0); err != nil {
		t.Fatal(err)
	}
	kept := w.station.replicas[volumeA]
	w.station.forget(volumeA, "a")
	w.station.forgetReports()
	w.station.tell(func() *pb.DesiredState { w.station.mu.Lock(); defer w.station.mu.Unlock(); return w.station.full() }())
	w.station.reported(pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, volumeB, "a", 1)
	<-d.Session().Done()
	if _, err := w.login(volumeA, "a", hostA); err == nil {
		t.Error("a host was let in to what the full state lacks")
	}
	w.station.forgetReports()
	w.station.want([]*pb.DesiredReplica{kept}, access(volumeA, "a", 5, hostA))
	w.station.reported(pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, volumeA, "a", 5)
	got := make([]byte, 512)
	if err := w.mustLogin(volumeA, "a", hostA).ReadAt(t.Context(), got, 0); err != nil || !slices.Equal(got, block) {
		t.Errorf("the data is %q (%v)", got[:10], err)
	}
	w.shutdown()
}
