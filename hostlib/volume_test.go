package hostlib

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/san"
)

// TestVolumeIsLikeMemory does single requests of any offset and length, with a unit that loses sessions and
// its cache at any of them: what a Volume shows is what was written to it, always.
func TestVolumeIsLikeMemory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		block := rapid.SampledFrom([]int64{512, 4096}).Draw(rt, "block")
		size := block * rapid.Int64Range(1, 20).Draw(rt, "blocks")
		u := newFakeUnit(size, block)
		fates := rapid.SliceOfN(rapid.SampledFrom([]fate{fine, fine, fine, fine, lostBefore, lostAfter, powerBefore, powerAfter, powerLater}), 0, 200).Draw(rt, "fates")
		var mu sync.Mutex
		row := 0 // losses on end: a unit that never lasts can't be reached in any time
		u.judge = func(string) fate {
			mu.Lock()
			defer mu.Unlock()
			if len(fates) == 0 || row == 5 {
				row = 0
				return fine
			}
			f := fates[0]
			fates = fates[1:]
			if row++; f == fine {
				row = 0
			}
			return f
		}
		synctestVolume(t, u, volumeOptions{unflushedBytes: minUnflushedBytes}, func(t *testing.T, v *Volume) {
			model := make([]byte, size)
			for range rapid.IntRange(1, 30).Draw(rt, "requests") {
				off := rapid.Int64Range(0, size).Draw(rt, "off")
				n := rapid.Int64Range(0, size-off).Draw(rt, "length")
				switch rapid.IntRange(0, 7).Draw(rt, "kind") {
				case 0, 1, 2:
					p := bytes.Repeat([]byte{rapid.Byte().Draw(rt, "byte")}, int(n))
					if m, err := v.WriteAt(p, off); err != nil || m != len(p) {
						rt.Fatalf("write of %d at %d: %d, %v", n, off, m, err)
					}
					copy(model[off:], p)
				case 3, 4, 5:
					p := make([]byte, n+3)
					m, err := v.ReadAt(p, off)
					want := model[off:min(off+n+3, size)]
					if m != len(want) || (m < len(p)) != (err == io.EOF) || !bytes.Equal(p[:m], want) {
						rt.Fatalf("read of %d at %d: %d, %v, equal %v", len(p), off, m, err, bytes.Equal(p[:m], want))
					}
				case 6:
					if err := v.Flush(); err != nil {
						rt.Fatal(err)
					}
					if !u.holdsStable(0, model) {
						rt.Fatal("a flush returned while something was not stable")
					}
				case 7:
					if err := v.Discard(off, n); err != nil {
						rt.Fatal(err)
					}
					if from, to := (off+block-1)/block*block, (off+n)/block*block; from < to {
						clear(model[from:to])
					}
				}
			}
			if err := v.Close(); err != nil {
				rt.Fatal(err)
			}
			if !u.holdsStable(0, model) {
				rt.Fatal("Close left something that is not stable")
			}
		})
	})
}

// synctestVolume runs f with a volume at u in a bubble of fake time, so that waiting costs nothing.
func synctestVolume(t *testing.T, u *fakeUnit, opts volumeOptions, f func(*testing.T, *Volume)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, openFake(t, u, opts)) })
}

func TestRefusals(t *testing.T) {
	u := newFakeUnit(64<<10, 512)
	v := openFake(t, u, volumeOptions{})
	p := make([]byte, 100)
	for name, err := range map[string]error{
		"write beyond the end": second(v.WriteAt(p, 64<<10-99)),
		"write before 0":       second(v.WriteAt(p, -1)),
		"read before 0":        second(v.ReadAt(p, -1)),
		"discard beyond":       v.Discard(1, 64<<10),
		"discard negative":     v.Discard(0, -1),
		"discard that wraps":   v.Discard(1, 1<<63-1),
		"write far beyond":     second(v.WriteAt(p, 1<<63-50)),
	} {
		if san.KindOf(err) != san.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n, err := v.ReadAt(p, 64<<10); n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	if n, err := v.ReadAt(nil, 64<<10); n != 0 || err != nil {
		t.Errorf("empty read at the end: %d, %v", n, err)
	}
	if v.Size() != 64<<10 || v.BlockSize() != 512 || !v.CanDiscard() || v.Name() != "data" {
		t.Error("Size, BlockSize, CanDiscard or Name is wrong")
	}
}

func second(_ int, err error) error { return err }

func TestTheUnitsWordIsFinal(t *testing.T) {
	u := newFakeUnit(64<<10, 512)
	u.judge = func(what string) fate { return refused }
	v := openFake(t, u, volumeOptions{})
	for name, err := range map[string]error{
		"write": second(v.WriteAt(make([]byte, 512), 0)), "read": second(v.ReadAt(make([]byte, 512), 0)), "flush": v.Flush(), "discard": v.Discard(0, 512),
	} {
		if san.KindOf(err) != san.KindInternal || errors.Is(err, ErrLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if u.dials != 1 {
		t.Errorf("%d logins; an answer is no reason for another", u.dials)
	}
}

func TestBusyUnitIsAskedAgain(t *testing.T) {
	u := newFakeUnit(64<<10, 512)
	left := 3
	u.judge = func(what string) fate {
		if left--; left >= 0 {
			return busy
		}
		return fine
	}
	synctestVolume(t, u, volumeOptions{}, func(t *testing.T, v *Volume) {
		if _, err := v.WriteAt(make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
		left = 1 << 30
		began := time.Now()
		_, err := v.ReadAt(make([]byte, 512), 0)
		if d := time.Since(began); san.KindOf(err) != san.KindUnavailable || d < defaultRetryLimit || d > 2*defaultRetryLimit {
			t.Errorf("after %v: %v", d, err)
		}
		left = 0
	})
}

func TestAnOutageIsAPause(t *testing.T) {
	u := newFakeUnit(64<<10, 512)
	synctestVolume(t, u, volumeOptions{}, func(t *testing.T, v *Volume) {
		want := bytes.Repeat([]byte{7}, 1000)
		if _, err := v.WriteAt(want, 11); err != nil {
			t.Fatal(err)
		}
		u.setDialErr(san.Errorf(san.KindUnavailable, "no route"))
		u.cut(true)
		began := time.Now()
		time.AfterFunc(time.Minute, func() { u.setDialErr(nil) })
		got := make([]byte, 1000)
		if _, err := v.ReadAt(got, 11); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v, equal %v", err, bytes.Equal(got, want))
		}
		if d := time.Since(began); d < time.Minute || d > time.Minute+redialMax {
			t.Errorf("it took %v", d)
		}
	})
}

func TestTheRetryLimit(t *testing.T) {
	u := newFakeUnit(64<<10, 512)
	synctestVolume(t, u, volumeOptions{retryLimit: 10 * time.Second}, func(t *testing.T, v *Volume) {
		u.setDialErr(san.Errorf(san.KindDenied, "not you"))
		u.cut(false)
		synctest.Wait()
		check := func(what string, limit time.Duration, do func() error) {
			t.Helper()
			began := time.Now()
			err := do()
			if !errors.Is(err, ErrLost) || !errors.Is(err, context.DeadlineExceeded) || san.KindOf(err) != san.KindUnavailable || time.Since(began) != limit {
				t.Errorf("%s after %v: %v", what, time.Since(began), err)
			}
		}
		p := make([]byte, 512)
		check("read", 10*time.Second, func() error { return second(v.ReadAt(p, 0)) })
		check("write", 10*time.Second, func() error { return second(v.WriteAt(p, 0)) })
		check("flush", 10*time.Second, v.Flush)
		check("discard", 10*time.Second, func() error { return v.Discard(0, 512) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		check("write with a deadline", time.Hour, func() error { return second(v.WriteAtContext(ctx, p, 0)) })
		u.setDialErr(nil)
		if _, err := v.WriteAt(p, 0); err != nil {
			t.Errorf("after it came back: %v", err)
		}
	})
}

func TestGoneIsForGood(t *testing.T) {
	u := newFakeUnit(64<<10, 512)
	synctestVolume(t, u, volumeOptions{}, func(t *testing.T, v *Volume) {
		if _, err := v.WriteAt(make([]byte, 512), 0); err != nil {
			t.Fatal(err)
		}
		u.setDialErr(san.Errorf(san.KindConflict, "%w", ErrGone))
		u.cut(false)
		for range 2 {
			if _, err := v.ReadAt(make([]byte, 512), 0); !errors.Is(err, ErrGone) || san.KindOf(err) != san.KindConflict {
				t.Errorf("%v", err)
			}
			u.setDialErr(nil)
		}
		if err := v.Close(); err != nil {
			t.Errorf("closing what is gone: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	u := newFakeUnit(64<<10, 512)
	synctestVolume(t, u, volumeOptions{}, func(t *testing.T, v *Volume) {
		if _, err := v.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		u.setDialErr(errCut)
		u.cut(false)
		synctest.Wait()
		waits := make(chan error)
		go func() { waits <- second(v.ReadAt(make([]byte, 1), 0)) }()
		synctest.Wait()
		began := time.Now()
		if err := v.Close(); !errors.Is(err, ErrLost) {
			t.Errorf("closed with something not flushed: %v", err)
		}
		if err := <-waits; !errors.Is(err, ErrClosed) {
			t.Errorf("a request that waited: %v", err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("it took %v", d)
		}
		if err := v.Close(); !errors.Is(err, ErrLost) {
			t.Errorf("closed again: %v", err)
		}
		for name, err := range map[string]error{
			"write": second(v.WriteAt([]byte("x"), 0)), "read": second(v.ReadAt(make([]byte, 1), 0)), "flush": v.Flush(), "discard": v.Discard(0, 512),
		} {
			if !errors.Is(err, ErrClosed) || san.KindOf(err) != san.KindConflict {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestAbandonedWriteKeepsItsRange: whoever reads or writes the range of a write that nobody waits for any more
// waits for its end, and others don't.
func TestAbandonedWriteKeepsItsRange(t *testing.T) {
	u := newFakeUnit(64<<10, 512)
	var gate chan struct{}
	var first atomic.Bool
	first.Store(true)
	synctest.Test(t, func(t *testing.T) {
		gate = make(chan struct{})
		u.judge = func(what string) fate {
			if what == "write" && first.Swap(false) {
				<-gate
			}
			return fine
		}
		v := openFake(t, u, volumeOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		want := bytes.Repeat([]byte{1}, 512)
		p := bytes.Clone(want)
		n, err := v.WriteAtContext(ctx, p, 512)
		if n != 0 || san.KindOf(err) != san.KindUnknown || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%d, %v", n, err)
		}
		clear(p) // it is the caller's again
		if _, err := v.WriteAt([]byte{9}, 2000); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		got := make([]byte, 512)
		go func() { done <- second(v.ReadAt(got, 512)) }()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("a read went past a write that may still take effect")
		default:
		}
		close(gate)
		if err := <-done; err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v, equal %v", err, bytes.Equal(got, want))
		}
	})
}

// TestCancelledWhileWaiting: a request that never left is told so.
func TestCancelledWhileWaiting(t *testing.T) {
	u := newFakeUnit(64<<10, 512)
	synctestVolume(t, u, volumeOptions{}, func(t *testing.T, v *Volume) {
		u.setDialErr(errCut)
		u.cut(false)
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := v.WriteAtContext(ctx, []byte("x"), 0)
		if san.KindOf(err) != san.KindUnavailable || !errors.Is(err, context.Canceled) || errors.Is(err, ErrLost) {
			t.Errorf("%v", err)
		}
		u.setDialErr(nil)
		if err := v.Flush(); err != nil || u.count("write") != 0 {
			t.Errorf("%v, %d writes", err, u.count("write"))
		}
	})
}

// TestUnflushedIsBounded: the library flushes by itself, and writes wait where it can't.
func TestUnflushedIsBounded(t *testing.T) {
	u := newFakeUnit(64<<20, 512)
	var fail atomic.Bool
	u.judge = func(what string) fate {
		if fail.Load() && what == "flush" {
			return refused
		}
		return fine
	}
	v := openFake(t, u, volumeOptions{unflushedBytes: 4 << 20})
	p := bytes.Repeat([]byte{5}, 64<<10)
	for off := int64(0); off < 64<<20; off += int64(len(p)) {
		if _, err := v.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
		if b := v.line.unflushedBytes(); b > 4<<20+int64(len(p))+64 {
			t.Fatalf("%d bytes are kept", b)
		}
	}
	if n := u.count("flush"); n < 8 {
		t.Errorf("%d flushes for 64 MiB", n)
	}
	fail.Store(true)
	var err error
	for off := int64(0); off < 64<<20 && err == nil; off += int64(len(p)) {
		_, err = v.WriteAt(p, off)
	}
	if san.KindOf(err) != san.KindInternal {
		t.Errorf("writing on while no flush succeeds: %v", err)
	}
}

// TestLongRequests are done in steps.
func TestLongRequests(t *testing.T) {
	u := newFakeUnit(16<<20, 4096)
	v := openFake(t, u, volumeOptions{})
	want := bytes.Repeat([]byte("0123456789abc"), 1<<20)
	if n, err := v.WriteAt(want, 12345); err != nil || n != len(want) || !u.holds(12345, want) {
		t.Fatalf("%d, %v", n, err)
	}
	if n := u.count("read"); n != 2 {
		t.Errorf("%d blocks were read; only the two ends are partial", n)
	}
	got := make([]byte, len(want))
	if n, err := v.ReadAt(got, 12345); err != nil || n != len(want) || !bytes.Equal(got, want) {
		t.Fatalf("%d, %v", n, err)
	}
}
