package fsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fill(f *feed, from, to san.Index) {
	for i := from; i <= to; i++ {
		f.add(i, []Change{{Index: i, Table: TableVolumes, ID: fmt.Sprint(i)}})
	}
}

func TestFeedOverrun(t *testing.T) {
	f := newFeed(4)
	slow, err := f.subscribe(0)
	if err != nil {
		t.Fatal(err)
	}
	fill(f, 1, 4)
	kept, err := f.subscribe(1)
	if err != nil {
		t.Fatal(err)
	}
	fill(f, 5, 5) // 1 falls out
	for range 2 {
		if _, err := slow.Next(t.Context()); !errors.Is(err, ErrResync) || san.KindOf(err) != san.KindConflict {
			t.Fatalf("a slow watcher got %v", err)
		}
	}
	got, err := kept.Next(t.Context())
	if err != nil || len(got) != 4 || got[0].Index != 2 || got[3].Index != 5 {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := f.subscribe(0); !errors.Is(err, ErrResync) {
		t.Fatalf("too old an index: %v", err)
	}
	if _, err := f.subscribe(1); err != nil {
		t.Fatalf("the oldest index that is kept: %v", err)
	}
}

func TestFeedBatches(t *testing.T) {
	f := newFeed(3 * feedBatch)
	s, err := f.subscribe(0)
	if err != nil {
		t.Fatal(err)
	}
	fill(f, 1, 2*feedBatch+1)
	want := san.Index(1)
	for _, n := range []int{feedBatch, feedBatch, 1} {
		got, err := s.Next(t.Context())
		if err != nil || len(got) != n || got[0].Index != want {
			t.Fatalf("got %d from %v, %v; want %d from %d", len(got), got[0].Index, err, n, want)
		}
		want += san.Index(n)
	}
}

func TestFeedFuture(t *testing.T) {
	f := newFeed(8)
	s, err := f.subscribe(3) // of another station, which was ahead
	if err != nil {
		t.Fatal(err)
	}
	fill(f, 1, 4)
	got, err := s.Next(t.Context())
	if err != nil || len(got) != 1 || got[0].Index != 4 {
		t.Fatalf("got %v, %v", got, err)
	}
}

// TestNextWaits: Next sleeps until there is a change, a restore, a Close or the end of its context.
func TestNextWaits(t *testing.T) {
	ends := map[string]func(f *feed, s *Subscription, cancel func()) error{
		"change":  func(f *feed, _ *Subscription, _ func()) error { fill(f, 1, 1); return nil },
		"restore": func(f *feed, _ *Subscription, _ func()) error { f.reset(9); return ErrResync },
		"close":   func(_ *feed, s *Subscription, _ func()) error { s.Close(); s.Close(); return ErrClosed },
		"context": func(_ *feed, _ *Subscription, cancel func()) error { cancel(); return context.Canceled },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(4)
				s, err := f.subscribe(0)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				answer := make(chan error, 1)
				go func() {
					_, err := s.Next(ctx)
					answer <- err
				}()
				synctest.Wait()
				select {
				case err := <-answer:
					t.Fatalf("Next did not wait: %v", err)
				default:
				}
				want := end(f, s, cancel)
				if got := <-answer; !errors.Is(got, want) {
					t.Fatalf("got %v, want %v", got, want)
				}
			})
		})
	}
}

// TestWatchersSeeTheLog: watchers of every speed, begun while Apply runs, see each change exactly once, in
// the order of the log, and their views are never behind what they saw.
func TestWatchersSeeTheLog(t *testing.T) {
	m := benchPool(t, 1)
	first := m.AppliedIndex()
	const writes = 400
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			v, s, err := m.Watch()
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			want := v.Index() + 1
			for want <= first+writes {
				changes, err := s.Next(t.Context())
				if err != nil {
					t.Errorf("watcher %d: %v", w, err)
					return
				}
				for _, c := range changes {
					if c.Index != want {
						t.Errorf("watcher %d: change of %d, due %d", w, c.Index, want)
						return
					}
					want++
				}
				if now := m.View(); now.Index() < want-1 || now.Host(san.HostID(changes[0].ID)) == nil {
					t.Errorf("watcher %d: view of %d after a change of %d", w, now.Index(), want-1)
					return
				}
			}
		})
	}
	for i := range writes {
		mustApply(t, m, &AddHost{ID: san.HostID(fmt.Sprintf("host%d", i)), Initiators: []string{fmt.Sprintf("iqn.x:%d", i)}})
	}
	wg.Wait()
}
