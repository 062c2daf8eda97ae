package volume

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// TestRangeLockOrder checks every grant against the list of all accesses by arrival.
func TestRangeLockOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type access struct {
			off, length int64
			shared      bool
		}
		accesses := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) access {
			return access{rapid.Int64Range(0, 20).Draw(rt, "off"), rapid.Int64Range(1, 8).Draw(rt, "length"), rapid.Bool().Draw(rt, "shared")}
		}), 1, 12).Draw(rt, "accesses")
		cancelled := rapid.IntRange(-1, len(accesses)-1).Draw(rt, "cancelled")
		synctest.Test(t, func(*testing.T) {
			var l rangeLock
			n := len(accesses)
			ctx, cancel := context.WithCancel(context.Background())
			granted, gone := make([]*span, n), make([]bool, n)
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i, a := range accesses {
				wg.Go(func() {
					c := context.Background()
					if i == cancelled {
						c = ctx
					}
					s, err := l.lock(c, a.off, a.length, a.shared)
					mu.Lock()
					defer mu.Unlock()
					granted[i], gone[i] = s, err != nil
				})
				synctest.Wait()
			}
			cancel()
			for finished := 0; ; finished++ {
				synctest.Wait()
				next := -1
				for i, a := range accesses {
					mayRun := true
					for j, b := range accesses[:i] {
						overlap := a.off < b.off+b.length && b.off < a.off+a.length && !(a.shared && b.shared)
						mayRun = mayRun && (gone[j] || !overlap)
					}
					switch {
					case gone[i]:
					case mayRun != (granted[i] != nil):
						rt.Fatalf("access %d of %v: may run %v, runs %v", i, accesses, mayRun, granted[i] != nil)
					case next < 0:
						next = i
					}
				}
				if next < 0 {
					break
				}
				gone[next] = true
				l.unlock(granted[next])
			}
			wg.Wait()
			if l.head != nil || l.tail != nil {
				rt.Fatal("something is left")
			}
		})
	})
}

func TestRangeLockGivesUpInTheQueue(t *testing.T) {
	var l rangeLock
	first, err := l.lock(context.Background(), 0, 10, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.lock(ctx, 5, 10, true); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was given up: %v", err)
	}
	l.unlock(first)
	if again, err := l.lock(ctx, 0, 100, false); err != nil { // free: no wait, no error
		t.Error(err)
	} else {
		l.unlock(again)
	}
}

func FuzzParseRecord(f *testing.F) {
	good, err := encodeRecord(Spec{ID: "00000001-0000-4000-8000-000000000000", SizeBytes: 8192, BlockSizeBytes: 512,
		Slices: []Slice{{Medium: "00000001-1111-4111-8111-111111111111", Extents: 2}}}, StateReady)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"state":"ready","slices":[{"extents":4294967295}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		spec, state, err := parseRecord(b, 4096)
		if err != nil {
			return
		}
		again, err := encodeRecord(spec, state)
		if err != nil {
			t.Fatal(err)
		}
		if s, st, err := parseRecord(again, 4096); err != nil || st != state || !s.equal(spec) {
			t.Errorf("%q was taken, but not when written anew: %v", b, err)
		}
	})
}
