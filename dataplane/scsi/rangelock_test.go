package scsi

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// TestRangeLockOrder: conflicting claims are granted in order; others don't wait.
func TestRangeLockOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l rangeLock
		ctx, cancel := context.WithCancel(context.Background())
		var mu sync.Mutex
		granted := map[string]*claim{}
		get := func(name string, first, blocks uint64, exclusive bool) {
			go func() {
				c, err := l.acquire(ctx, first, blocks, exclusive)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					granted[name] = c
				} else {
					granted[name+" failed"] = nil
				}
			}()
			synctest.Wait()
		}
		expect := func(when string, names ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(granted) != len(names) {
				t.Fatalf("%s: granted %v, want %v", when, granted, names)
			}
			for _, n := range names {
				if _, ok := granted[n]; !ok {
					t.Fatalf("%s: granted %v, want %v", when, granted, names)
				}
			}
		}
		drop := func(name string) {
			mu.Lock()
			c := granted[name]
			delete(granted, name)
			mu.Unlock()
			l.release(c)
		}
		get("write a", 0, 10, false)
		get("write b", 5, 10, false)
		expect("writes share", "write a", "write b")
		get("atomic", 8, 4, true)
		get("write c", 11, 1, false)
		get("write d", 50, 1, false)
		expect("atomic waits for both, c behind it, d is elsewhere", "write a", "write b", "write d")
		drop("write a")
		expect("b still holds it", "write b", "write d")
		drop("write b")
		expect("atomic alone", "atomic", "write d")
		get("atomic 2", 9, 1, true)
		cancel()
		expect("cancelled while waiting", "atomic", "write d", "write c failed", "atomic 2 failed")
		drop("atomic")
		drop("write d")
		if l.head != nil || l.tail != nil || l.exclusive != 0 {
			t.Error("claims were left behind")
		}
	})
}

// TestRangeLockExcludes: no two conflicting claims are ever held at once, and all come
// to their turn.
func TestRangeLockExcludes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l rangeLock
		held := make([]struct{ shared, exclusive int }, 16)
		var mu sync.Mutex
		var wg sync.WaitGroup
		enter := func(first, n uint64, exclusive bool, by int) bool {
			mu.Lock()
			defer mu.Unlock()
			ok := true
			for i := first; i < first+n; i++ {
				if exclusive {
					held[i].exclusive += by
				} else {
					held[i].shared += by
				}
				ok = ok && (held[i].exclusive == 0 || held[i].exclusive == 1 && held[i].shared == 0)
			}
			return ok
		}
		bad := false
		for range rapid.IntRange(1, 12).Draw(t, "claims") {
			first := rapid.Uint64Range(0, 15).Draw(t, "first")
			n := rapid.Uint64Range(1, 16-first).Draw(t, "blocks")
			exclusive := rapid.Bool().Draw(t, "exclusive")
			wg.Go(func() {
				c, err := l.acquire(context.Background(), first, n, exclusive)
				if err != nil {
					return
				}
				ok := enter(first, n, exclusive, 1)
				mu.Lock()
				bad = bad || !ok
				mu.Unlock()
				enter(first, n, exclusive, -1)
				l.release(c)
			})
		}
		wg.Wait()
		if bad {
			t.Fatal("conflicting claims were held at once")
		}
		if l.head != nil || l.exclusive != 0 {
			t.Fatal("claims were left behind")
		}
	})
}

// TestCompareAndWriteIsAtomic: many nexuses count up one number by COMPARE AND WRITE
// while plain writes hit the blocks beside it; no count is lost.
func TestCompareAndWriteIsAtomic(t *testing.T) {
	r := newRig(t, 64, 512)
	const workers, each = 8, 50
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				for !countUp(r) {
				}
			}
		})
	}
	wg.Go(func() {
		for range each {
			want(t, "write beside", r.do(cdb.Write16(5, 2, false), make([]byte, 1024), 0), 0, 0)
		}
	})
	wg.Wait()
	if got := binary.BigEndian.Uint64(r.store.data[4*512:]); got != workers*each {
		t.Errorf("counted to %d, want %d", got, workers*each)
	}
}

// countUp adds 1 to the number in block 4 unless another did meanwhile.
func countUp(r *rig) bool {
	old := r.do(cdb.Read16(4, 1, false), nil, 512).DataIn
	next := make([]byte, 512)
	binary.BigEndian.PutUint64(next, binary.BigEndian.Uint64(old)+1)
	return r.do(cdb.CompareAndWrite(4, 1, false), append(old, next...), 0).Status == cdb.StatusGood
}

// TestWriteWaitsForAtomic: a plain write to the same blocks waits for a COMPARE AND WRITE
// in progress, and one that is aborted while it waits has no effect.
func TestWriteWaitsForAtomic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 64, 512)
		r.store.gate = make(chan struct{})
		var swap, write, stopped Result
		var wg sync.WaitGroup
		wg.Go(func() { swap = r.do(cdb.CompareAndWrite(0, 1, false), append(make([]byte, 512), fill(1)...), 0) })
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		wg.Go(func() { write = r.do(cdb.Write16(0, 1, false), fill(2), 0) })
		wg.Go(func() { stopped = r.exec(ctx, cdb.Write16(0, 1, false), fill(3), 0) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		r.store.gate <- struct{}{}
		r.store.gate <- struct{}{}
		wg.Wait()
		want(t, "compare and write", swap, 0, 0)
		want(t, "write", write, 0, 0)
		if stopped.Status != cdb.StatusTaskAborted {
			t.Errorf("aborted write: %s", describe(stopped))
		}
		if r.store.data[0] != 2 || r.store.writes != 2 {
			t.Errorf("block 0 holds %d after %d writes", r.store.data[0], r.store.writes)
		}
	})
}

func fill(v byte) []byte {
	b := make([]byte, 512)
	for i := range b {
		b[i] = v
	}
	return b
}
