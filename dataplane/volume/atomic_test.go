package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

// smallJournal holds few writes, so that it is emptied often; atomicLimit is what fits it.
const (
	smallJournal = 8 << 10
	atomicLimit  = 7680
)

// store is one write of a story: everything that it stores has its number in the story.
type store struct {
	number   byte
	atomic   bool
	stable   bool // acknowledged as stable
	failed   bool
	off, end int
}

func (s store) covers(at int) bool { return s.off <= at && at < s.end }

// story is a replica's life, told so that one can say what may be in each byte after a crash.
type story struct {
	*unit
	r      *volume.Replica
	stores []store
}

func newStory(t testing.TB) *story {
	u := newUnit(t)
	u.journal = smallJournal
	return &story{unit: u}
}

// begin starts the unit and makes the volume, which is on both media.
func (s *story) begin() error {
	if err := s.start(); err != nil {
		return err
	}
	return s.create()
}

func (s *story) create() (err error) {
	s.r, err = s.manager.Create(context.Background(), specOf(1, 4, 3))
	return err
}

// store is the next write: kind is 'a' for atomic, 'f' with FUA, 'w' without.
func (s *story) store(kind byte, off, length int) error {
	w := store{number: byte(len(s.stores) + 1), atomic: kind == 'a', off: off, end: off + length}
	p := bytes.Repeat([]byte{w.number}, length)
	var err error
	if w.atomic {
		err = s.r.WriteAtomic(context.Background(), p, int64(off))
	} else {
		err = s.r.WriteAt(context.Background(), p, int64(off), kind == 'f')
	}
	w.stable, w.failed = err == nil && kind != 'w', err != nil
	s.stores = append(s.stores, w)
	return err
}

// check holds what the volume has to what was written: after a crash, and with now set without one.
func (s *story) check(now bool) error {
	got, err := readAll(s.r)
	if err != nil {
		return err
	}
	for at, have := range got {
		if err := s.checkByte(at, have, now); err != nil {
			return err
		}
	}
	for i, w := range s.stores {
		if !w.atomic || s.overwritten(i) {
			continue
		}
		n := bytes.Count(got[w.off:w.end], []byte{w.number})
		if n != 0 && n != w.end-w.off || n == 0 && w.stable || n != 0 && w.failed && now {
			return fmt.Errorf("of atomic write %d (%+v), %d bytes are there", w.number, w, n)
		}
	}
	return nil
}

// checkByte: a byte is from the last stable write to it or from a later one.
func (s *story) checkByte(at int, have byte, now bool) error {
	if have > 0 && (int(have) > len(s.stores) || !s.stores[have-1].covers(at) || now && s.stores[have-1].failed) {
		return fmt.Errorf("byte %d is from write %d, which did not write there", at, have)
	}
	for _, w := range s.stores[have:] {
		if w.covers(at) && (w.stable || now && !w.failed) {
			return fmt.Errorf("byte %d is from write %d, but there was write %d", at, have, w.number)
		}
	}
	return nil
}

func (s *story) overwritten(i int) bool {
	for _, later := range s.stores[i+1:] {
		if later.off < s.stores[i].end && s.stores[i].off < later.end {
			return true
		}
	}
	return false
}

// tell is the story that is cut everywhere.
func (s *story) tell() error {
	if err := s.begin(); err != nil {
		return err
	}
	for _, w := range []struct {
		kind        byte
		off, length int
	}{
		{'f', 0, 28160},
		{'a', 4096*4 - 1024, 2048},   // over the end of a medium
		{'a', 4096*4 - 512, 1024},    // over a part of it
		{'w', 0, 512},                // elsewhere
		{'a', 1024, 512},             // one block
		{'f', 4096*4 - 1024, 512},    // what is in the journal: it is emptied
		{'a', 4096*3 - 512, 4096},    // full: it is emptied
		{'a', 4096 * 3, atomicLimit}, // as long as can be
		{'a', 4096*3 + 512, 4096},
		{'w', 4096 * 3, 1024},
		{'a', 4096*3 + 512, 2048},
		{'a', 28160 - 512, 512},
		{'f', 4096*3 + 1024, 512},
		{'a', 0, 1536},
	} {
		if err := s.store(w.kind, w.off, w.length); err != nil {
			return err
		}
	}
	return s.manager.Close()
}

// resume starts the unit after a crash, checks, and goes on; another loss of power then brings
// nothing old back.
func (s *story) resume() error {
	again := func() error {
		if err := s.start(); err != nil {
			return err
		}
		r, err := s.manager.Lookup(volumeID(1))
		if errors.Is(err, disk.ErrNoRecord) || san.KindOf(err) == san.KindNotFound || san.KindOf(err) == san.KindUnavailable && len(s.stores) == 0 {
			r, err = s.manager.Create(context.Background(), specOf(1, 4, 3))
		}
		s.r = r
		if err != nil {
			return err
		}
		return s.check(false)
	}
	if err := again(); err != nil {
		return err
	}
	// What the crash has left is what there is from here on.
	for _, w := range []struct {
		kind        byte
		off, length int
	}{{'a', 512, 1024}, {'f', 0, 28160}} {
		if err := s.store(w.kind, w.off, w.length); err != nil {
			return err
		}
	}
	s.power.Restore(disktest.KeepNothing)
	return again()
}

// TestAtomicWriteAndPowerCut cuts the power at every operation: each atomic write is there whole
// or not at all, and nothing that was stable comes back older.
func TestAtomicWriteAndPowerCut(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 3
	}
	cuts := 0
	for k, done := 1, false; !done; k++ {
		for seed := range seeds {
			s := newStory(t)
			s.power.CutAt(s.power.Ops() + k)
			err := s.tell()
			if done = err == nil; !done && !errors.Is(err, disktest.ErrPowerCut) {
				t.Fatalf("cut at %d: %v", k, err)
			}
			s.power.Restore(seed)
			if err := s.resume(); err != nil {
				t.Fatalf("cut at %d, seed %d: %v", k, seed, err)
			}
			cuts++
		}
	}
	if cuts < 150 {
		t.Errorf("the story was cut %d times only", cuts)
	}
}

// TestAtomicWriteKillThenPowerCut kills the process at an operation, and cuts the power while its
// successor carries the journal out.
func TestAtomicWriteKillThenPowerCut(t *testing.T) {
	step := 3
	if testing.Short() {
		step = 7
	}
	for k, done := 1, false; !done; k += step {
		for cut := 1; cut <= 9; cut += 2 {
			s := newStory(t)
			s.power.CutAt(s.power.Ops() + k)
			done = s.tell() == nil
			s.power.Kill()
			s.power.CutAt(s.power.Ops() + cut)
			_ = s.start()
			s.power.Restore(uint64(k*31 + cut))
			if err := s.resume(); err != nil {
				t.Fatalf("kill at %d, cut at +%d: %v", k, cut, err)
			}
		}
	}
}

// TestAtomicWriteProperty is the same with stories that nobody wrote.
func TestAtomicWriteProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStory(t)
		s.power.CutAt(s.power.Ops() + rapid.IntRange(40, 250).Draw(rt, "cut"))
		err := s.begin()
		for err == nil && len(s.stores) < 40 {
			kind := rapid.SampledFrom([]byte("aaafw")).Draw(rt, "kind")
			off := rapid.IntRange(0, 54).Draw(rt, "block") * 512
			length := rapid.IntRange(1, min((28160-off)/512, atomicLimit/512)).Draw(rt, "blocks") * 512
			if err = s.store(kind, off, length); err == nil && len(s.stores)%8 == 0 {
				err = s.check(true)
			}
		}
		if err != nil && !errors.Is(err, disktest.ErrPowerCut) {
			rt.Fatal(err)
		}
		s.power.Restore(rapid.Uint64().Draw(rt, "seed"))
		if err := s.resume(); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestAtomicWriteThatFails: where the medium fails a write half-way, the old content is there, and
// no restart brings the new one over what was written later.
func TestAtomicWriteThatFails(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		for n := 1; n <= 2; n++ { // the write has two parts, on two media
			s := newStory(t)
			left := 0
			s.rule = func(op disktest.Op) error {
				if op.Kind == disktest.OpWrite && op.File[:6] == "medium" && left > 0 {
					if left--; left == 0 {
						return cause
					}
				}
				return nil
			}
			err := s.begin()
			if err == nil {
				err = s.store('f', 0, 28160)
			}
			if err == nil {
				err = s.store('a', 512, 512)
			}
			if err != nil {
				t.Fatal(err)
			}
			left = n
			if err := s.store('a', 4096*4-1024, 2048); !errors.Is(err, cause) {
				t.Fatalf("the medium failed with %v, the write with %v", cause, err)
			}
			if err := s.check(true); err != nil {
				t.Error(err)
			}
			if err := s.store('f', 4096*4, 512); err != nil {
				t.Errorf("a write after the one that failed: %v", err)
			}
			s.power.Restore(disktest.KeepAll)
			s.rule = nil
			if err := s.resume(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestAtomicWriteThatCannotBeTakenBack: the bytes that are neither old nor new can't be read or
// written until a restart has finished the write; all others can.
func TestAtomicWriteThatCannotBeTakenBack(t *testing.T) {
	s := newStory(t)
	dead := false
	s.rule = func(op disktest.Op) error {
		if dead && op.Kind == disktest.OpWrite && op.File == "medium1" {
			return syscall.EIO
		}
		return nil
	}
	if err := s.begin(); err != nil {
		t.Fatal(err)
	}
	if err := s.store('f', 0, 28160); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	// The second medium fails every write: what went to the first is taken back.
	dead = true
	if err := s.store('a', 4096*4-1024, 2048); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
	if err := s.check(true); err != nil {
		t.Fatal(err)
	}
	// Now the first one fails too, but only after it has taken the new bytes.
	writes := 0
	s.rule = func(op disktest.Op) error {
		if op.Kind != disktest.OpWrite || op.File[:6] != "medium" {
			return nil
		}
		if writes++; writes > 1 {
			return syscall.EIO
		}
		return nil
	}
	if err := s.store('a', 4096*4-1024, 2048); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
	p := make([]byte, 512)
	for name, err := range map[string]error{
		"a read of it":              s.r.ReadAt(ctx, p, 4096*4),
		"a write to it":             s.r.WriteAt(ctx, p, 4096*4, false),
		"zeros over it":             s.r.Zero(ctx, 4096*4, 512),
		"another atomic write":      s.r.WriteAtomic(ctx, p, 0),
		"a read that begins before": s.r.ReadAt(ctx, make([]byte, 8192), 4096*2),
	} {
		if san.KindOf(err) != san.KindUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.rule = func(disktest.Op) error { return nil }
	if err := s.r.ReadAt(ctx, p, 0); err != nil {
		t.Errorf("a read elsewhere: %v", err)
	}
	if err := s.r.WriteAt(ctx, p, 512, false); err != nil {
		t.Errorf("a write elsewhere: %v", err)
	}
	s.power.Kill()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	r, err := s.manager.Lookup(volumeID(1))
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(r)
	if err != nil || bytes.Count(got[4096*4-1024:4096*4+1024], []byte{3}) != 2048 {
		t.Errorf("after a restart %d bytes of the write are there (%v)", bytes.Count(got, []byte{3}), err)
	}
}

// TestJournalThatFails: a journal that can't be written fails atomic writes, and later ordinary ones
// to what may be in it, and no others.
func TestJournalThatFails(t *testing.T) {
	for _, c := range []struct {
		kind  disktest.OpKind
		fresh bool // the journal is not there yet
	}{{disktest.OpZero, true}, {disktest.OpDatasync, true}, {disktest.OpWrite, false}, {disktest.OpDatasync, false}} {
		t.Run(fmt.Sprintf("%s of a new journal %v", c.kind, c.fresh), func(t *testing.T) {
			s := newStory(t)
			fail := false
			s.rule = func(op disktest.Op) error {
				if fail && op.Kind == c.kind && op.File[:6] != "medium" {
					return syscall.ENOSPC
				}
				return nil
			}
			if err := s.begin(); err != nil {
				t.Fatal(err)
			}
			ctx, p := context.Background(), make([]byte, 512)
			if !c.fresh {
				if err := s.r.WriteAtomic(ctx, p, 8192); err != nil {
					t.Fatal(err)
				}
			}
			fail = true
			if err := s.r.WriteAtomic(ctx, filled(1, 512), 0); !errors.Is(err, disk.ErrNoSpace) {
				t.Errorf("got %v", err)
			}
			if err := s.r.ReadAt(ctx, p, 0); err != nil || p[0] != 0 {
				t.Errorf("after the write has failed %d is there (%v)", p[0], err)
			}
			fail = false
			// Nothing was put into a journal that was not made; what a failed write left is unknown.
			if err := s.r.WriteAtomic(ctx, filled(2, 512), 4096); (err == nil) != c.fresh {
				t.Errorf("another try: %v", err)
			}
			if err := s.r.WriteAt(ctx, p, 0, true); (err == nil) != c.fresh {
				t.Errorf("an ordinary write to what failed: %v", err)
			}
			if err := s.r.WriteAt(ctx, p, 512, true); err != nil {
				t.Errorf("an ordinary write elsewhere: %v", err)
			}
		})
	}
}

// TestAtomicWriteRefuses: lengths and ranges that can't be.
func TestAtomicWriteRefuses(t *testing.T) {
	s := newStory(t)
	if err := s.begin(); err != nil {
		t.Fatal(err)
	}
	if n := s.r.MaxAtomicBytes(); n != atomicLimit {
		t.Errorf("up to %d bytes, want %d", n, atomicLimit)
	}
	ctx, cancel := context.WithCancel(context.Background())
	for name, err := range map[string]error{
		"too long":       s.r.WriteAtomic(ctx, make([]byte, atomicLimit+512), 0),
		"before the end": s.r.WriteAtomic(ctx, make([]byte, 1024), 28160-512),
		"negative":       s.r.WriteAtomic(ctx, make([]byte, 512), -512),
	} {
		if san.KindOf(err) != san.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.r.WriteAtomic(ctx, nil, 28160); err != nil {
		t.Errorf("nothing at the end: %v", err)
	}
	cancel()
	if err := s.r.WriteAtomic(ctx, make([]byte, 512), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, size := range []int64{1, 128 << 20} {
		if _, err := volume.Open(volume.Config{JournalBytes: size}); san.KindOf(err) != san.KindInvalid {
			t.Errorf("a journal of %d bytes: %v", size, err)
		}
	}
}

// TestDeletedVolumeLeavesNoJournal: what was in it must not go to the next volume of that name.
func TestDeletedVolumeLeavesNoJournal(t *testing.T) {
	s := newStory(t)
	if err := s.begin(); err != nil {
		t.Fatal(err)
	}
	if err := s.store('a', 0, 512); err != nil {
		t.Fatal(err)
	}
	if err := s.manager.Delete(context.Background(), volumeID(1)); err != nil {
		t.Fatal(err)
	}
	s.stores = nil
	if err := s.create(); err != nil {
		t.Fatal(err)
	}
	s.power.Restore(disktest.KeepAll)
	if err := s.resume(); err != nil {
		t.Error(err)
	}
}

// TestAtomicWritesShareSyncs: those that come while the journal is being made stable go into one cell.
func TestAtomicWritesShareSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(t)
		var syncs atomic.Int32
		s.rule = func(op disktest.Op) error {
			if op.Kind == disktest.OpDatasync && strings.HasSuffix(op.File, ".journal") {
				syncs.Add(1)
				time.Sleep(time.Millisecond)
			}
			return nil
		}
		if err := s.begin(); err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		if err := s.r.WriteAtomic(ctx, filled(100, 512), 28160-512); err != nil {
			t.Fatal(err)
		}
		syncs.Store(0)
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				if err := s.r.WriteAtomic(ctx, filled(byte(i+1), 512), int64(i)*512); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := syncs.Load(); n < 1 || n > 4 {
			t.Errorf("12 writes at once took %d syncs of the journal", n)
		}
		got, err := readAll(s.r)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 12 {
			if bytes.Count(got[i*512:(i+1)*512], []byte{byte(i + 1)}) != 512 {
				t.Errorf("write %d is not there", i)
			}
		}
		if err := s.manager.Close(); err != nil {
			t.Error(err)
		}
	})
}
