package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
)

// state is a record's contents in generation i; the sizes differ so that a mix of two
// would show.
func state(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 700+i*900) }

// saveAll saves states 1 to n and returns the highest that was acknowledged.
func saveAll(d disk.Dir, from, n int) (acked int, err error) {
	r, err := disk.OpenRecord(d, "r")
	if err != nil {
		return 0, err
	}
	for i := from; i <= n; i++ {
		if err := r.Save(state(i)); err != nil {
			return acked, err
		}
		acked = i
	}
	return acked, nil
}

// found returns which state the record has, 0 for none, and -1 for what never was.
func found(t *testing.T, d disk.Dir) int {
	t.Helper()
	r, err := disk.OpenRecord(d, "r")
	if err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	got, err := r.Load()
	if errors.Is(err, disk.ErrNoRecord) {
		return 0
	}
	for i := range 40 {
		if bytes.Equal(got, state(i)) {
			return i
		}
	}
	return -1
}

func openDir(t *testing.T, d *disktest.Dir) disk.Dir {
	t.Helper()
	h, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestRecordSurvivesACutAtEveryOperation(t *testing.T) {
	const states = 5
	for k, done := 1, false; !done; k++ {
		for seed := range uint64(12) {
			p := disktest.NewPower()
			d := p.NewDir("d")
			p.CutAt(k)
			acked, err := saveAll(openDir(t, d), 1, states)
			done = err == nil
			p.Restore(seed)
			got := found(t, openDir(t, d))
			if got != acked && got != acked+1 {
				t.Fatalf("cut at %d, seed %d: %d was acknowledged, found %d", k, seed, acked, got)
			}
		}
	}
}

// A killed process leaves its last write in the cache; the power may go during the next
// process's first Save.
func TestRecordSurvivesAKillAndThenACut(t *testing.T) {
	for k, done := 1, false; !done; k++ {
		for cut := 1; cut < 12; cut++ {
			for seed := range uint64(6) {
				p := disktest.NewPower()
				d := p.NewDir("d")
				p.CutAt(k)
				acked, err := saveAll(openDir(t, d), 1, 3)
				done = err == nil
				p.Kill()
				h := openDir(t, d)
				before := found(t, h)
				if before < acked {
					t.Fatalf("kill at %d: %d was acknowledged, found %d", k, acked, before)
				}
				p.CutAt(p.Ops() + cut)
				acked, _ = saveAll(h, 10, 12)
				p.Restore(seed)
				got := found(t, openDir(t, d))
				ok := acked == 0 && (got == before || got == 10) || acked > 0 && (got == acked || got == acked+1)
				if !ok {
					t.Fatalf("kill at %d, cut at +%d, seed %d: %d, then %d was acknowledged, found %d", k, cut, seed, before, acked, got)
				}
			}
		}
	}
}

func TestRecordOnAFileSystem(t *testing.T) {
	path := t.TempDir()
	d, err := disk.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if acked, err := saveAll(d, 1, 4); err != nil || acked != 4 {
		t.Fatal(acked, err)
	}
	file := filepath.Join(path, "r.rec")
	damage := func(off int64) {
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("rot"), off); err != nil {
			t.Fatal(err)
		}
	}
	damage(100)
	if got := found(t, d); got != 4 {
		t.Errorf("with one slot rotten, state %d was found; both hold the last one", got)
	}
	damage(1<<20 + 100)
	if _, err := disk.OpenRecord(d, "r"); !errors.Is(err, disk.ErrDamaged) {
		t.Errorf("both slots rotten: %v", err)
	}
	if names, err := disk.ListRecords(d); err != nil || len(names) != 1 || names[0] != "r" {
		t.Errorf("names %v, %v", names, err)
	}
}

func TestRecordCopiedOverAnotherIsFoundOut(t *testing.T) {
	d := openDir(t, disktest.NewPower().NewDir("d"))
	if _, err := saveAll(d, 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := d.Rename("r.rec", "other.rec"); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.OpenRecord(d, "other"); !errors.Is(err, disk.ErrDamaged) {
		t.Errorf("opened under a wrong name: %v", err)
	}
}

func TestRecordRemoveAndLimits(t *testing.T) {
	d := openDir(t, disktest.NewPower().NewDir("d"))
	r, err := disk.OpenRecord(d, "r")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	if err := r.Save(make([]byte, disk.MaxRecordBytes+1)); err == nil {
		t.Error("a record over the limit was taken")
	}
	for _, want := range [][]byte{{}, make([]byte, disk.MaxRecordBytes), []byte("x")} {
		if err := r.Save(want); err != nil {
			t.Fatal(err)
		}
		again, err := disk.OpenRecord(d, "r")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := again.Load(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d, %v", len(want), len(got), err)
		}
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Load(); !errors.Is(err, disk.ErrNoRecord) {
		t.Errorf("after Remove: %v", err)
	}
	if got := found(t, d); got != 0 {
		t.Errorf("state %d after Remove", got)
	}
}

func TestRecordFaults(t *testing.T) {
	for _, kind := range []disktest.OpKind{disktest.OpWrite, disktest.OpDatasync} {
		t.Run(string(kind), func(t *testing.T) {
			plain := openDir(t, disktest.NewPower().NewDir("d"))
			var fail error
			d := disktest.DirWithFaults(plain, func(op disktest.Op) error {
				if op.Kind == kind {
					return fail
				}
				return nil
			})
			r, err := disk.OpenRecord(d, "r")
			if err != nil {
				t.Fatal(err)
			}
			for i := 1; i < 7; i++ {
				fail = syscall.ENOSPC
				if err := r.Save(state(30)); !errors.Is(err, disk.ErrNoSpace) {
					t.Fatalf("save %d: %v, want ErrNoSpace", i, err)
				}
				fail = nil
				if err := r.Save(state(i)); err != nil {
					t.Fatal(err)
				}
				if got := found(t, plain); got != i {
					t.Fatalf("state %d, want %d", got, i)
				}
			}
		})
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(disk.AppendCell(nil, 0x43524253, 1, 2, []byte("payload")), []byte("x"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		d := openDir(t, disktest.NewPower().NewDir("d"))
		file, err := d.Create("r.rec")
		if err != nil {
			t.Fatal(err)
		}
		for slot, content := range [][]byte{a, b} {
			if _, err := file.WriteAt(content, int64(slot)<<20); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := disk.OpenRecord(d, "r"); err == nil {
			if _, err := r.Load(); err != nil {
				t.Errorf("opened, but: %v", err)
			}
		} else if !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("not ErrDamaged: %v", err)
		}
	})
}

func FuzzParseCell(f *testing.F) {
	f.Add(disk.AppendCell(nil, 7, 8, 9, []byte("payload")))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		sequence, payload, err := disk.ParseCell(b, 7, 8)
		switch {
		case err == nil:
			if again := disk.AppendCell(nil, 7, 8, sequence, payload); len(again) > len(b) {
				t.Errorf("%d bytes parsed from %d", len(again), len(b))
			}
		case !errors.Is(err, disk.ErrDamaged) && !errors.Is(err, disk.ErrBlank):
			t.Errorf("unexpected kind of error: %v", err)
		}
	})
}

func TestCellFindsEveryFlippedBit(t *testing.T) {
	cell := disk.AppendCell(nil, 7, 8, 9, []byte("some payload"))
	for bit := range len(cell) * 8 {
		c := bytes.Clone(cell)
		c[bit/8] ^= 1 << (bit % 8)
		if _, _, err := disk.ParseCell(c, 7, 8); err == nil {
			t.Errorf("bit %d flipped and not found", bit)
		}
	}
	if s, p, err := disk.ParseCell(append(cell, "more"...), 7, 8); err != nil || s != 9 || string(p) != "some payload" {
		t.Error(s, fmt.Sprintf("%q", p), err)
	}
}
