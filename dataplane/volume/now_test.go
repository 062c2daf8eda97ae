package volume_test

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
)

func TestNowRefuses(t *testing.T) {
	u := startUnit(t)
	r := mustCreate(t, u, specOf(1, 4))
	size := r.SizeBytes()
	for _, c := range []struct{ off, n int64 }{{-4096, 4096}, {size, 4096}, {4096, size}, {1 << 62, 4096}, {0, 0}} {
		p := make([]byte, c.n)
		if done, err := r.WriteNow(p, c.off); done || err != nil {
			t.Errorf("write of %d at %d: done %v, %v", c.n, c.off, done, err)
		}
		if r.ReadNow(p, c.off) {
			t.Errorf("read of %d at %d is done", c.n, c.off)
		}
	}
	if err := u.manager.Delete(ctx, volumeID(1)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	if done, err := r.WriteNow(p, 0); done || err != nil || r.ReadNow(p, 0) {
		t.Errorf("a deleted volume is read or written: %v, %v", done, err)
	}
	if s := r.Stats(); s.Reads+s.Writes+s.Errors != 0 {
		t.Errorf("counted: %+v", s)
	}
}

// What is under way goes first; what does not overlap with it is in nobody's way.
func TestNowWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnit(t)
		gate := make(chan struct{})
		u.rule = func(op disktest.Op) error {
			if op.Kind == disktest.OpRead && op.Len == 8192 {
				<-gate
			}
			return nil
		}
		if err := u.start(); err != nil {
			t.Fatal(err)
		}
		r := mustCreate(t, u, specOf(1, 4))
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := r.ReadAt(ctx, make([]byte, 8192), 0); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		write := func(off int64) bool {
			done, err := r.WriteNow(make([]byte, 4096), off)
			if err != nil {
				t.Error(err)
			}
			return done
		}
		if write(0) || write(4096) || !write(8192) {
			t.Error("a write passed the read that it overlaps, or waited for one that it does not")
		}
		close(gate)
		wg.Wait()
		if !write(0) {
			t.Error("no write after the read has ended")
		}
		// This medium can't tell what is in memory.
		if r.ReadNow(make([]byte, 4096), 0) {
			t.Error("a read that may wait was done")
		}
	})
}

func TestFailedWriteNow(t *testing.T) {
	u, f := startFaulty(t)
	r := mustCreate(t, u, specOf(1, 2))
	f.set(disktest.OpWrite, syscall.EIO)
	if done, err := r.WriteNow(make([]byte, 4096), 0); !done || !errors.Is(err, disk.ErrIO) {
		t.Errorf("done %v, %v", done, err)
	}
	if s := r.Stats(); s.Errors != 1 || s.Writes != 0 {
		t.Errorf("counted: %+v", s)
	}
}

// What the journal would write again after a crash must be settled first, which takes its time.
func TestNowLeavesTheJournalAlone(t *testing.T) {
	u := startUnit(t)
	r := mustCreate(t, u, specOf(1, 4))
	if err := r.WriteAtomic(ctx, filled(1, 4096), 4096); err != nil {
		t.Fatal(err)
	}
	data := filled(2, 4096)
	if done, err := r.WriteNow(data, 4096); done || err != nil {
		t.Errorf("written over what the journal has: %v", err)
	}
	if done, err := r.WriteNow(data, 8192); !done || err != nil {
		t.Errorf("not written beside it: %v", err)
	}
	if err := r.WriteAt(ctx, data, 4096, false); err != nil {
		t.Fatal(err)
	}
	if done, err := r.WriteNow(data, 4096); !done || err != nil {
		t.Errorf("not written once it was settled: %v", err)
	}
}
