package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFailover(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(3)
		first := g.leader()
		for i := range 20 {
			first.mustPropose(t, fmt.Sprintf("a%d", i))
		}
		g.crash(first)
		began := time.Now()
		second := g.leader()
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("new leader after %v", d)
		}
		res := second.mustPropose(t, "b")
		for _, m := range g.members {
			if err := m.WaitApplied(t.Context(), res.Index); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				if !has(m.View(), fmt.Sprintf("a%d", i)) {
					t.Errorf("%s lost a%d", m.id, i)
				}
			}
		}
	})
}

func TestProposeOnFollowerNamesLeader(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(3)
		l := g.leader()
		res := l.mustPropose(t, "a")
		for _, m := range g.members {
			if m == l {
				continue
			}
			if err := m.WaitApplied(t.Context(), res.Index); err != nil {
				t.Fatal(err)
			}
			_, err := m.Propose(t.Context(), request("x"))
			var nl *NotLeader
			if !errors.As(err, &nl) || nl.ID != l.id || nl.Addr != l.addr || san.KindOf(err) != san.KindUnavailable {
				t.Errorf("%s: %v (%+v), want the leader %s", m.id, err, nl, l.id)
			}
			if _, err := m.ReadIndex(t.Context()); !errors.As(err, &nl) {
				t.Errorf("%s: read: %v, want NotLeader", m.id, err)
			}
			if id, ok := m.Leader(); !ok || id != l.id {
				t.Errorf("%s takes %q for the leader", m.id, id)
			}
		}
	})
}

// A change that was under way when the leader was cut off has an unknown outcome, for both outcomes.
func TestUnknownOutcome(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(3)
		old := g.leader()
		old.mustPropose(t, "before")
		g.mem.isolate(old.addr, true)
		_, err := old.Propose(t.Context(), request("lost"))
		if san.KindOf(err) != san.KindUnknown {
			t.Fatalf("change on a leader that is cut off: %v (%v), want unknown", err, san.KindOf(err))
		}
		fresh := g.leader(old.id)
		res := fresh.mustPropose(t, "after")
		g.mem.isolate(old.addr, false)
		if err := old.WaitApplied(t.Context(), res.Index); err != nil {
			t.Fatal(err)
		}
		if v := old.View(); has(v, "lost") || !has(v, "before") || !has(v, "after") {
			t.Errorf("after it came back: lost=%v before=%v after=%v", has(v, "lost"), has(v, "before"), has(v, "after"))
		}
	})
}

func TestProposeGivesUpWithContext(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(3)
		l := g.leader()
		g.mem.isolate(l.addr, true)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := l.Propose(ctx, request("x"))
		if san.KindOf(err) != san.KindUnknown || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v (%v), want unknown and the deadline", err, san.KindOf(err))
		}
		if _, err := l.Propose(ctx, request("y")); san.KindOf(err) != san.KindUnavailable {
			t.Errorf("a proposal that was never made: %v (%v), want unavailable", err, san.KindOf(err))
		}
		g.mem.isolate(l.addr, false)
	})
}

// A fresh leader has everything that its predecessor acknowledged in its log, but has not applied it all.
func TestReadOnFreshLeader(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(3)
		for round := range 10 {
			l := g.leader()
			id := fmt.Sprintf("r%d", round)
			l.mustPropose(t, id)
			if err := l.TransferLeadership(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			seen := false
			for !seen {
				for _, m := range g.members {
					v, err := m.ReadIndex(t.Context())
					if err == nil {
						seen = true
						if !has(v, id) {
							t.Fatalf("round %d: read on %s misses what was acknowledged", round, m.id)
						}
					}
				}
				if !seen {
					time.Sleep(time.Millisecond)
				}
			}
		}
	})
}

// A leader that is cut off must not answer reads, though it takes itself for the leader for a while.
func TestNoStaleRead(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(3)
		old := g.leader()
		g.mem.isolate(old.addr, true)
		if !old.IsLeader() {
			t.Fatal("leader stepped down too soon for this test")
		}
		if v, err := old.ReadIndex(t.Context()); err == nil {
			t.Fatalf("read at index %d on a leader that is cut off", v.Index())
		} else if san.KindOf(err) != san.KindUnavailable {
			t.Errorf("got %v (%v), want unavailable", err, san.KindOf(err))
		}
		g.leader(old.id).mustPropose(t, "x")
		g.mem.isolate(old.addr, false)
	})
}

func TestReadsShareOneConfirmation(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(3)
		l := g.leader()
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				id := fmt.Sprintf("c%d", i)
				l.mustPropose(t, id)
				v, err := l.ReadIndex(t.Context())
				if err != nil || !has(v, id) {
					t.Errorf("%s: err %v, read its own write: %v", id, err, err == nil && has(v, id))
				}
			})
		}
		wg.Wait()
	})
}

func TestReadsResumeAfterFailedHandover(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(3)
		l := g.leader()
		var target *member
		for _, m := range g.members {
			if m != l {
				target = m
			}
		}
		g.mem.isolate(target.addr, true)
		if err := l.TransferLeadership(t.Context(), target.id); san.KindOf(err) != san.KindUnavailable {
			t.Fatalf("handover to a station that is away: %v", err)
		}
		if _, err := l.ReadIndex(t.Context()); err != nil {
			t.Errorf("read after the failed handover: %v", err)
		}
		g.mem.isolate(target.addr, false)
	})
}

func TestTermsRunOneAtATime(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(3)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		running := make(map[san.StationID]int)
		terms := make(map[uint64]san.StationID)
		var wg sync.WaitGroup
		for _, m := range g.members {
			wg.Go(func() {
				err := m.Terms(ctx, func(ctx context.Context, term uint64) {
					mu.Lock()
					running[m.id]++
					if running[m.id] != 1 || terms[term] != "" {
						t.Errorf("%s: %d terms at once; term %d was %q's", m.id, running[m.id], term, terms[term])
					}
					terms[term] = m.id
					mu.Unlock()
					<-ctx.Done()
					mu.Lock()
					running[m.id]--
					mu.Unlock()
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		for range 8 {
			if err := g.leader().TransferLeadership(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
		}
		g.leader()
		cancel()
		wg.Wait()
		if len(terms) < 8 {
			t.Errorf("served %d terms, want at least 8", len(terms))
		}
	})
}

func TestHandoverAtStop(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(3)
		l := g.leader()
		l.mustPropose(t, "x")
		began := time.Now()
		l.end(t)
		delete(g.members, l.id)
		next := g.leader()
		if d := time.Since(began); d > 500*time.Millisecond {
			t.Errorf("next leader after %v: it was elected, not handed the leadership", d)
		}
		next.mustPropose(t, "y")
		if _, err := l.Propose(t.Context(), request("z")); san.KindOf(err) != san.KindUnavailable {
			t.Errorf("proposal on a stopped station: %v", err)
		}
	})
}

func TestRestartKeepsAll(t *testing.T) {
	inBubble(t, Safe(), func(c *Config) { c.TrailingEntries = 4 }, func(t *testing.T, g *group) {
		g.found(3)
		l := g.leader()
		var last fsm.Result
		for i := range 30 {
			last = l.mustPropose(t, fmt.Sprintf("k%d", i))
			if i == 20 {
				if err := l.TakeSnapshot(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		g.endAll()
		for id := range g.members {
			g.start(id)
		}
		if has, err := g.members["s1"].HasState(); err != nil || !has {
			t.Errorf("HasState = %v, %v after a restart", has, err)
		}
		err := g.members["s1"].Bootstrap([]Server{{ID: "s1", Addr: "s1:1", Voter: true}})
		if san.KindOf(err) != san.KindConflict {
			t.Errorf("founding again: %v", err)
		}
		g.leader()
		for _, m := range g.members {
			if err := m.WaitApplied(t.Context(), last.Index); err != nil {
				t.Fatal(err)
			}
			for i := range 30 {
				if !has(m.View(), fmt.Sprintf("k%d", i)) {
					t.Errorf("%s lost k%d", m.id, i)
				}
			}
		}
	})
}

// A station that was away for longer than the log reaches back is sent a snapshot; one that joins, too.
func TestSnapshotInstall(t *testing.T) {
	inBubble(t, Safe(), func(c *Config) { c.TrailingEntries = 1 }, func(t *testing.T, g *group) {
		g.found(3)
		l := g.leader()
		var away *member
		for _, m := range g.members {
			if m != l {
				away = m
			}
		}
		away.end(t)
		delete(g.members, away.id)
		for i := range 40 {
			l.mustPropose(t, fmt.Sprintf("k%d", i))
		}
		if err := l.TakeSnapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		last := l.mustPropose(t, "end")
		back, joiner := g.start(away.id), g.start("s4")
		if err := l.AddNonvoter(t.Context(), "s4", joiner.addr); err != nil {
			t.Fatal(err)
		}
		for _, m := range []*member{back, joiner} {
			if err := m.WaitApplied(t.Context(), last.Index); err != nil {
				t.Fatal(err)
			}
			if !has(m.View(), "k0") || !has(m.View(), "k39") {
				t.Errorf("%s misses entries of the snapshot", m.id)
			}
		}
	})
}

func TestMembership(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(1)
		l := g.leader()
		if err := l.RemoveServer(t.Context(), l.id); san.KindOf(err) != san.KindConflict {
			t.Errorf("removing the only voter: %v", err)
		}
		for _, id := range []san.StationID{"s2", "s3"} {
			m := g.start(id)
			if err := l.AddNonvoter(t.Context(), id, m.addr); err != nil {
				t.Fatal(err)
			}
			if err := l.AddVoter(t.Context(), id, m.addr); err != nil {
				t.Fatal(err)
			}
		}
		if st := l.Status(); len(st.Servers) != 3 || st.State != "Leader" || st.Leader != l.id || st.Applied == 0 {
			t.Errorf("status %+v", st)
		}
		for _, c := range []struct {
			id   san.StationID
			addr string
			want san.Kind
		}{{"s9", "s2:1", san.KindConflict}, {"s9", "nowhere", san.KindInvalid}, {"", "s9:1", san.KindInvalid}} {
			if err := l.AddNonvoter(t.Context(), c.id, c.addr); san.KindOf(err) != c.want {
				t.Errorf("adding %q at %q: %v, want %v", c.id, c.addr, err, c.want)
			}
			if err := l.AddVoter(t.Context(), c.id, c.addr); san.KindOf(err) != c.want {
				t.Errorf("adding voter %q at %q: %v, want %v", c.id, c.addr, err, c.want)
			}
		}
		if err := l.RemoveServer(t.Context(), "s9"); san.KindOf(err) != san.KindNotFound {
			t.Errorf("removing a stranger: %v", err)
		}
		if err := l.TransferLeadership(t.Context(), "s9"); san.KindOf(err) != san.KindNotFound {
			t.Errorf("handover to a stranger: %v", err)
		}
		if err := l.RemoveServer(t.Context(), l.id); err != nil {
			t.Fatal(err)
		}
		next := g.leader(l.id)
		if len(next.Configuration()) != 2 {
			t.Errorf("configuration %v", next.Configuration())
		}
		next.mustPropose(t, "x")
	})
}
