package hostlib

import (
	"context"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// TestRangeLockGrants: a place is granted exactly when no earlier one that is still held stands
// in its way.
func TestRangeLockGrants(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var l rangeLock
		var held []*hold // in order of arrival
		granted := func(h *hold) bool {
			if h.granted == nil {
				return true
			}
			select {
			case <-h.granted:
				return true
			default:
				return false
			}
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			if len(held) > 0 && rapid.Bool().Draw(rt, "leave") {
				i := rapid.IntRange(0, len(held)-1).Draw(rt, "which")
				l.leave(held[i])
				held = append(held[:i:i], held[i+1:]...)
			} else {
				from := rapid.Int64Range(0, 20).Draw(rt, "from")
				held = append(held, l.enter(from, from+rapid.Int64Range(1, 6).Draw(rt, "length"), rapid.Bool().Draw(rt, "shared")))
			}
			for i, h := range held {
				want := true
				for _, o := range held[:i] {
					overlap := o.from < h.to && h.from < o.to
					want = want && !(overlap && !(o.shared && h.shared))
				}
				if granted(h) != want {
					rt.Fatalf("place %d of %d: granted %v, want %v", i, len(held), granted(h), want)
				}
			}
		}
	})
}

func TestRangeLockGivesUp(t *testing.T) {
	var l rangeLock
	h, err := l.lock(t.Context(), 0, 10, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.lock(ctx, 5, 15, false); err == nil {
		t.Fatal("a lock that is held was granted")
	}
	l.leave(h)
	if _, err := l.lock(ctx, 5, 15, false); err != nil || len(l.held) != 1 {
		t.Errorf("%v, %d held", err, len(l.held))
	}
}

func TestRangeLockExcludes(t *testing.T) {
	var l rangeLock
	var wg sync.WaitGroup
	counters := make([]int, 32)
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				from := (i*7 + g*3) % 28
				h, err := l.lock(t.Context(), int64(from), int64(from+4), false)
				if err != nil {
					t.Error(err)
					return
				}
				for at := from; at < from+4; at++ {
					counters[at]++ // the race detector watches
				}
				l.leave(h)
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range counters {
		sum += n
	}
	if sum != 8*500*4 || len(l.held) != 0 {
		t.Errorf("%d, %d held", sum, len(l.held))
	}
}
