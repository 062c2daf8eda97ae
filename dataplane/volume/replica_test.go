package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// TestReplicaAgainstModel compares a replica, scattered over two media, with a slice of
// bytes, over restarts and power cuts after a flush.
func TestReplicaAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		u := startUnit(t)
		// Leave holes, so that the replica is in several pieces.
		for n := byte(10); n < 16; n++ {
			mustCreate(t, u, specOf(n, 1, 1))
		}
		for n := byte(10); n < 16; n += 2 {
			if err := u.manager.Delete(ctx, volumeID(n)); err != nil {
				rt.Fatal(err)
			}
		}
		spec := specOf(1, 8, 7)
		r := mustCreate(t, u, spec)
		model := make([]byte, spec.SizeBytes)
		blocks := int(spec.SizeBytes / 512)
		pick := func(rt *rapid.T) (off, n int64) {
			first := rapid.IntRange(0, blocks-1).Draw(rt, "first")
			count := rapid.IntRange(1, min(40, blocks-first)).Draw(rt, "count")
			return int64(first) * 512, int64(count) * 512
		}
		check := func(rt *rapid.T, err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				off, n := pick(rt)
				data := filled(rapid.Byte().Draw(rt, "byte"), n)
				check(rt, r.WriteAt(ctx, data, off, rapid.Bool().Draw(rt, "fua")))
				copy(model[off:], data)
			},
			"zero": func(rt *rapid.T) {
				off, n := pick(rt)
				check(rt, r.Zero(ctx, off, n))
				clear(model[off : off+n])
			},
			"read": func(rt *rapid.T) {
				off, n := pick(rt)
				got := make([]byte, n)
				check(rt, r.ReadAt(ctx, got, off))
				if !bytes.Equal(got, model[off:off+n]) {
					rt.Fatalf("%d bytes at %d differ", n, off)
				}
			},
			"write now": func(rt *rapid.T) {
				off, n := pick(rt)
				data := filled(rapid.Byte().Draw(rt, "byte"), n)
				done, err := r.WriteNow(data, off)
				check(rt, err)
				if whole := off%4096 == 0 && n%4096 == 0; done != whole {
					rt.Fatalf("%d bytes at %d: done %v, though the pages are whole: %v", n, off, done, whole)
				}
				if done {
					copy(model[off:], data)
				}
			},
			"read now": func(rt *rapid.T) {
				off, n := pick(rt)
				got := make([]byte, n)
				if !r.ReadNow(got, off) || !bytes.Equal(got, model[off:off+n]) {
					rt.Fatalf("%d bytes at %d differ, or were not to be had", n, off)
				}
			},
			"flush and lose power": func(rt *rapid.T) {
				check(rt, r.Flush(ctx))
				u.power.Restore(disktest.KeepNothing)
				check(rt, u.start())
				var err error
				r, err = u.manager.Lookup(volumeID(1))
				check(rt, err)
			},
			"": func(rt *rapid.T) {
				got, err := readAll(r)
				check(rt, err)
				if !bytes.Equal(got, model) {
					rt.Fatal("the volume differs from its model")
				}
			},
		})
	})
}

func TestReplicaRefuses(t *testing.T) {
	u := startUnit(t)
	r := mustCreate(t, u, specOf(1, 2))
	size := r.SizeBytes()
	for _, c := range []struct{ off, n int64 }{{-512, 512}, {size, 512}, {size - 512, 1024}, {1 << 62, 512}} {
		if err := r.WriteAt(ctx, make([]byte, c.n), c.off, false); san.KindOf(err) != san.KindInvalid {
			t.Errorf("write of %d at %d: %v", c.n, c.off, err)
		}
		if err := r.Zero(ctx, c.off, c.n); san.KindOf(err) != san.KindInvalid {
			t.Errorf("zero of %d at %d: %v", c.n, c.off, err)
		}
	}
	if err := r.ReadAt(ctx, nil, size); err != nil {
		t.Errorf("nothing read at the end: %v", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.WriteAt(done, make([]byte, 512), 0, false); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled write: %v", err)
	}
	if got, _ := readAll(r); bytes.Count(got, []byte{0}) != len(got) {
		t.Error("a refused write changed something")
	}
}

// faults makes every operation of a kind fail for as long as err is set.
type faults struct {
	mu   sync.Mutex
	kind disktest.OpKind
	err  error
}

func (f *faults) set(kind disktest.OpKind, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kind, f.err = kind, err
}

func (f *faults) rule(op disktest.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if op.Kind == f.kind {
		return f.err
	}
	return nil
}

func startFaulty(t *testing.T) (*unit, *faults) {
	f := &faults{}
	u := newUnit(t)
	u.rule = f.rule
	if err := u.start(); err != nil {
		t.Fatal(err)
	}
	return u, f
}

func TestFailedSyncIsRemembered(t *testing.T) {
	u, f := startFaulty(t)
	a, b := mustCreate(t, u, specOf(1, 2)), mustCreate(t, u, specOf(2, 2))
	other := mustCreate(t, u, specOf(3, 0, 2)) // on the other medium
	write := func(fua bool) error { return a.WriteAt(ctx, make([]byte, 512), 0, fua) }
	if err := errors.Join(write(false), b.WriteAt(ctx, make([]byte, 512), 0, false)); err != nil {
		t.Fatal(err)
	}
	f.set(disktest.OpDatasync, syscall.EIO)
	if err := a.Flush(ctx); !errors.Is(err, disk.ErrIO) || !errors.Is(err, extent.ErrFailed) {
		t.Errorf("flush with EIO: %v", err)
	}
	f.set("", nil) // the medium says that it is well again
	for what, err := range map[string]error{
		"a later flush":               a.Flush(ctx),
		"a flush of the other volume": b.Flush(ctx),
		"a write with FUA":            write(true),
		"a creation":                  func() error { _, err := u.manager.Create(ctx, specOf(4, 1)); return err }(),
	} {
		if !errors.Is(err, extent.ErrFailed) {
			t.Errorf("%s: %v, want ErrFailed", what, err)
		}
	}
	if err := errors.Join(other.WriteAt(ctx, make([]byte, 512), 0, true), other.Flush(ctx)); err != nil {
		t.Errorf("a volume on the other medium: %v", err)
	}
	u.power.Kill()
	if err := u.start(); err != nil {
		t.Fatal(err)
	}
	r, err := u.manager.Lookup(volumeID(1))
	if err == nil {
		err = r.Flush(ctx)
	}
	if err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// TestMapped: what is mapped follows writes and zeros, over the ends of extents and media.
func TestMapped(t *testing.T) {
	u := startUnit(t)
	r := mustCreate(t, u, specOf(1, 4, 3))
	ctx, size := context.Background(), r.SizeBytes()
	check := func(off, length, run int64, mapped bool) {
		t.Helper()
		gotRun, got, err := r.Mapped(ctx, off, length)
		if err != nil || gotRun != run || got != mapped {
			t.Errorf("%d bytes from %d: %d of them mapped=%v (%v), want %d, %v", length, off, gotRun, got, err, run, mapped)
		}
	}
	check(0, size, size, false)
	if err := r.WriteAt(ctx, filled(1, 3*4096), 2*4096, false); err != nil {
		t.Fatal(err)
	}
	check(0, size, 2*4096, false)
	check(2*4096, size-2*4096, 3*4096, true)
	check(5*4096, size-5*4096, size-5*4096, false)
	if err := r.Zero(ctx, 4*4096, 4096); err != nil {
		t.Fatal(err)
	}
	check(2*4096, 3*4096, 2*4096, true)
	check(3*4096+512, 512, 512, true)
	check(4*4096, 1024, 1024, false)
	for _, c := range [][2]int64{{-512, 512}, {0, 0}, {size, 512}, {0, size + 512}} {
		if _, _, err := r.Mapped(ctx, c[0], c[1]); san.KindOf(err) != san.KindInvalid {
			t.Errorf("%d bytes at %d: %v", c[1], c[0], err)
		}
	}
	if err := u.manager.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Mapped(ctx, 0, 512); !errors.Is(err, volume.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestFullAndFailingMedium(t *testing.T) {
	u, f := startFaulty(t)
	r := mustCreate(t, u, specOf(1, 2))
	for _, c := range []struct {
		kind        disktest.OpKind
		errno, want error
		do          func() error
	}{
		{disktest.OpWrite, syscall.ENOSPC, disk.ErrNoSpace, func() error { return r.WriteAt(ctx, make([]byte, 512), 0, false) }},
		{disktest.OpWrite, syscall.EIO, disk.ErrIO, func() error { return r.WriteAt(ctx, make([]byte, 512), 0, false) }},
		{disktest.OpRead, syscall.EIO, disk.ErrIO, func() error { return r.ReadAt(ctx, make([]byte, 512), 0) }},
		{disktest.OpPunch, syscall.EIO, disk.ErrIO, func() error { return r.Zero(ctx, 0, r.SizeBytes()) }},
	} {
		f.set(c.kind, c.errno)
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s with %v: %v", c.kind, c.errno, err)
		}
		f.set("", nil)
		if err := c.do(); err != nil {
			t.Errorf("%s after the fault: %v", c.kind, err)
		}
	}
	if s := r.Stats(); s.Errors != 4 || s.Writes != 2 || s.Reads != 1 || s.Zeros != 1 || s.ReadBytes != 512 {
		t.Errorf("counters %+v", s)
	}
}

// TestCreationThatFailsLeavesNothing fails each kind of operation in a creation.
func TestCreationThatFailsLeavesNothing(t *testing.T) {
	for _, kind := range []disktest.OpKind{disktest.OpZero, disktest.OpWrite} {
		for nth := 1; ; nth++ {
			u := newUnit(t)
			var armed, hit atomic.Bool
			count := 0
			u.rule = func(op disktest.Op) error {
				if op.Kind == kind && armed.Load() {
					if count++; count == nth {
						hit.Store(true)
						return syscall.ENOSPC
					}
				}
				return nil
			}
			if err := u.start(); err != nil {
				t.Fatal(err)
			}
			armed.Store(true)
			_, err := u.manager.Create(ctx, specOf(1, 3, 3))
			armed.Store(false)
			if !hit.Load() {
				break
			}
			name := fmt.Sprintf("%s %d", kind, nth)
			switch {
			case err == nil: // a second copy only; the next start repairs it
			case !errors.Is(err, disk.ErrNoSpace) || san.KindOf(err) != san.KindNoSpace:
				t.Errorf("%s: %v", name, err)
			case len(u.manager.List()) != 0 || u.used() != 0:
				t.Errorf("%s left %v and %d extents", name, u.manager.List(), u.used())
			}
			u.power.Restore(disktest.KeepAll)
			if startErr := u.start(); startErr != nil || (err != nil && u.used() != 0) || u.used() != u.recorded() {
				t.Errorf("%s, after a restart: %v, %d extents used", name, startErr, u.used())
			}
			mustCreate(t, u, specOf(1, 3, 3))
		}
	}
}

func TestFlushesAreSharedAndSkipped(t *testing.T) {
	u := startUnit(t)
	r := mustCreate(t, u, specOf(1, 2))
	if err := r.WriteAt(ctx, make([]byte, 512), 0, false); err != nil {
		t.Fatal(err)
	}
	before := u.media[0].Syncs()
	for range 3 {
		if err := r.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if got := u.media[0].Syncs() - before; got != 1 {
		t.Errorf("%d fdatasyncs for one write and three flushes, want 1", got)
	}
}

func TestFlushesAtTheSameTimeShareOneSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hold atomic.Pointer[chan struct{}]
		u := newUnit(t)
		u.rule = func(op disktest.Op) error {
			if c := hold.Load(); c != nil && op.Kind == disktest.OpDatasync {
				<-*c
			}
			return nil
		}
		if err := u.start(); err != nil {
			t.Fatal(err)
		}
		r := mustCreate(t, u, specOf(1, 10))
		gate := make(chan struct{})
		hold.Store(&gate)
		before := u.media[0].Syncs()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if err := r.WriteAt(ctx, filled(1, 512), int64(i)*512, true); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait() // the first is in its sync, the others wait for the next
		}
		close(gate)
		wg.Wait()
		if got := u.media[0].Syncs() - before; got != 2 {
			t.Errorf("%d fdatasyncs for 8 writes at the same time, want 2", got)
		}
	})
}

func TestCloseWaitsForIO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hold atomic.Pointer[chan struct{}]
		u := newUnit(t)
		u.rule = func(op disktest.Op) error {
			if c := hold.Load(); c != nil && op.Kind == disktest.OpRead {
				<-*c
			}
			return nil
		}
		if err := u.start(); err != nil {
			t.Fatal(err)
		}
		r := mustCreate(t, u, specOf(1, 2))
		gate := make(chan struct{})
		hold.Store(&gate)
		var readErr, deleteErr error
		var deleted atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() { readErr = r.ReadAt(ctx, make([]byte, 512), 0) })
		synctest.Wait()
		wg.Go(func() { deleteErr = u.manager.Delete(ctx, volumeID(1)); deleted.Store(true) })
		synctest.Wait()
		if deleted.Load() {
			t.Error("the volume was deleted under a read")
		}
		close(gate)
		wg.Wait()
		if readErr != nil || deleteErr != nil {
			t.Error(readErr, deleteErr)
		}
	})
}
