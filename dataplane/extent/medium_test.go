package extent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openFile(t testing.TB, d *disktest.Disk) disk.File {
	t.Helper()
	f, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// formatted returns a formatted medium's file.
func formatted(t testing.TB) disk.File {
	t.Helper()
	f := openFile(t, disktest.NewPower().NewDisk("m", testDiskBytes))
	if err := extent.Format(f, params()); err != nil {
		t.Fatal(err)
	}
	return f
}

func spoil(t testing.TB, f disk.File, off int64) {
	t.Helper()
	if _, err := f.WriteAt([]byte("spoilt"), off); err != nil {
		t.Fatal(err)
	}
}

const secondSuperblock, tableAt = 512 << 10, 1 << 20

func TestFormatRefuses(t *testing.T) {
	foreign := openFile(t, disktest.NewPower().NewDisk("foreign", testDiskBytes))
	spoil(t, foreign, 70_000)
	small := openFile(t, disktest.NewPower().NewDisk("small", 2<<20))
	for what, c := range map[string]struct {
		f      disk.File
		change func(*extent.Params)
		is     error
		kind   san.Kind
	}{
		"formatted already": {formatted(t), nil, extent.ErrFormatted, san.KindExists},
		"foreign data":      {foreign, nil, extent.ErrForeign, san.KindConflict},
		"too small":         {small, nil, nil, san.KindInvalid},
		"no UUID":           {small, func(p *extent.Params) { p.Medium = "m" }, nil, san.KindInvalid},
		"no cluster":        {openFile(t, disktest.NewPower().NewDisk("m", testDiskBytes)), func(p *extent.Params) { p.Cluster = "" }, nil, san.KindInvalid},
		"odd extent size":   {openFile(t, disktest.NewPower().NewDisk("m", testDiskBytes)), func(p *extent.Params) { p.ExtentSizeBytes = 5000 }, nil, san.KindInvalid},
	} {
		p := params()
		if c.change != nil {
			c.change(&p)
		}
		if err := extent.Format(c.f, p); err == nil || san.KindOf(err) != c.kind || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v (kind %v)", what, err, san.KindOf(err))
		}
	}
	p := params()
	p.Force = true
	if err := extent.Format(foreign, p); err != nil {
		t.Errorf("foreign data, by force: %v", err)
	}
	if sb, err := extent.Inspect(foreign); err != nil || sb.Medium != mediumID || sb.Unit != "unit-1" || sb.Incarnation != 1 || !sb.Created.Equal(p.Created) || sb.Extents != testExtents {
		t.Errorf("superblock %+v, %v", sb, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	blank := openFile(t, disktest.NewPower().NewDisk("blank", testDiskBytes))
	bothSupers, bothPages, short := formatted(t), formatted(t), formatted(t)
	spoil(t, bothSupers, 40)
	spoil(t, bothSupers, secondSuperblock+40)
	spoil(t, bothPages, tableAt+4096+100)
	spoil(t, bothPages, tableAt+3*4096+4096+100)
	if err := short.Truncate(testDiskBytes - 1); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		f    disk.File
		want extent.Expect
		is   error
		says string
	}{
		"blank":            {blank, owner, extent.ErrNotFormatted, "format it"},
		"other cluster":    {formatted(t), extent.Expect{Cluster: "other", Unit: "unit-1"}, extent.ErrForeign, string(clusterID)},
		"other unit":       {formatted(t), extent.Expect{Cluster: clusterID, Unit: "unit-2"}, extent.ErrForeign, "unit-1"},
		"swapped":          {formatted(t), extent.Expect{Medium: "33333333-1111-4111-8111-111111111111"}, extent.ErrForeign, "swapped"},
		"no superblock":    {bothSupers, owner, disk.ErrDamaged, "by force"},
		"no page 1":        {bothPages, owner, disk.ErrDamaged, "extents 169 to 337"},
		"cut short":        {short, owner, disk.ErrDamaged, "cut short"},
		"a few bytes":      {openFile(t, disktest.NewPower().NewDisk("tiny", 100)), owner, extent.ErrNotFormatted, "100 bytes"},
		"nothing at all":   {openFile(t, disktest.NewPower().NewDisk("empty", 0)), owner, extent.ErrNotFormatted, "0 bytes"},
		"wrong and spoilt": {bothSupers, extent.Expect{Cluster: "other"}, disk.ErrDamaged, "superblock"},
	} {
		if _, err := extent.Open(c.f, c.want); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v and %q", what, err, c.is, c.says)
		}
	}
}

// Check tells of a medium what Open or Format would, and changes nothing on it, not even what Open would repair.
func TestCheckChangesNothing(t *testing.T) {
	mixed, damaged, lost := formatted(t), formatted(t), formatted(t)
	spoil(t, mixed, secondSuperblock)
	spoil(t, damaged, 0)
	spoil(t, damaged, secondSuperblock)
	for _, slot := range []int64{tableAt, tableAt + 3*4096} {
		spoil(t, lost, slot+100)
	}
	foreign := openFile(t, disktest.NewPower().NewDisk("foreign", 8<<20))
	spoil(t, foreign, 70_000)
	for what, c := range map[string]struct {
		f         disk.File
		want      extent.Expect
		formatted bool
		well      bool
		kind      san.Kind
		is        error
	}{
		"blank":               {f: openFile(t, disktest.NewPower().NewDisk("blank", 8<<20)), well: true},
		"formatted":           {f: formatted(t), formatted: true, well: true},
		"one copy is damaged": {f: mixed, formatted: true, well: true},
		"both are":            {f: damaged, kind: san.KindInternal, is: disk.ErrDamaged},
		"the table is":        {f: lost, kind: san.KindInternal, is: disk.ErrDamaged},
		"another unit's":      {f: formatted(t), want: extent.Expect{Unit: "other"}, kind: san.KindConflict, is: extent.ErrForeign},
		"foreign data":        {f: foreign, kind: san.KindConflict, is: extent.ErrForeign},
		"too small":           {f: openFile(t, disktest.NewPower().NewDisk("small", 2<<20)), kind: san.KindInvalid},
	} {
		before := make([]byte, 2<<20)
		if _, err := c.f.ReadAt(before, 0); err != nil {
			t.Fatal(err)
		}
		formatted, err := extent.Check(c.f, c.want)
		if formatted != c.formatted || (err == nil) != c.well || err != nil && san.KindOf(err) != c.kind || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: formatted %v, %v (%v)", what, formatted, err, san.KindOf(err))
		}
		after := make([]byte, len(before))
		if _, err := c.f.ReadAt(after, 0); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: looking at it changed it (%v)", what, err)
		}
	}
}

// TestRepair spoils one copy of everything, and then, after a start, the other.
func TestRepair(t *testing.T) {
	for _, first := range []int64{0, 1} {
		f := formatted(t)
		m, err := extent.Open(f, owner)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Allocate(context.Background(), volumeID(1), 0, 200); err != nil {
			t.Fatal(err)
		}
		if err := m.SetIncarnation(7); err != nil {
			t.Fatal(err)
		}
		for _, which := range []int64{first, 1 - first} {
			spoil(t, f, which*secondSuperblock+60)
			for page := range int64(3) {
				spoil(t, f, tableAt+which*3*4096+page*4096+500)
			}
			m, err := extent.Open(f, owner)
			if err != nil {
				t.Fatalf("copy %d spoilt: %v", which, err)
			}
			if got := len(m.Extents(volumeID(1))); got != 200 || m.Superblock().Incarnation != 7 || len(m.Notes()) != 2 {
				t.Errorf("copy %d spoilt: %d extents, incarnation %d, notes %q", which, got, m.Superblock().Incarnation, m.Notes())
			}
		}
	}
}

func TestIncarnationNeverGoesBack(t *testing.T) {
	m, err := extent.Open(formatted(t), owner)
	if err != nil {
		t.Fatal(err)
	}
	for _, inc := range []san.Incarnation{2, 2, 5} {
		if err := m.SetIncarnation(inc); err != nil {
			t.Error(err)
		}
	}
	if err := m.SetIncarnation(4); san.KindOf(err) != san.KindConflict {
		t.Errorf("an older incarnation: %v", err)
	}
}

func TestAllocateAndFree(t *testing.T) {
	m, err := extent.Open(formatted(t), owner)
	if err != nil {
		t.Fatal(err)
	}
	alloc := func(n byte, first, count uint32) []extent.Extent {
		t.Helper()
		got, err := m.Allocate(context.Background(), volumeID(n), first, count)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	a := alloc(1, 0, 10)
	if again := alloc(1, 5, 10); len(again) != 10 || again[0] != a[5] || again[9].Logical != 14 {
		t.Errorf("extents that it has are not kept: %v then %v", a, again)
	}
	alloc(2, 0, 3)
	if err := m.FreeFrom(volumeID(1), 12); err != nil || len(m.Extents(volumeID(1))) != 12 {
		t.Errorf("free from 12: %v, %d left", err, len(m.Extents(volumeID(1))))
	}
	if got := alloc(3, 0, 3); got[0].Index != 12 || got[2].Index != 14 {
		t.Errorf("the hole was not used: %v", got)
	}
	for range 2 {
		if err := m.Free(volumeID(2)); err != nil {
			t.Error(err)
		}
	}
	if u := m.Usage(); u.Used != 15 || u.CapacityBytes() != testExtents*testExtentBytes || u.UsedBytes() != 15*testExtentBytes {
		t.Errorf("usage %+v", u)
	}
	if vols := m.Volumes(); len(vols) != 2 || len(vols[volumeID(3)]) != 3 {
		t.Errorf("volumes %v", vols)
	}
	for _, c := range [][2]uint32{{0, 0}, {1<<32 - 1, 2}, {1 << 28, 1}} {
		if _, err := m.Allocate(context.Background(), volumeID(1), c[0], c[1]); san.KindOf(err) != san.KindInvalid {
			t.Errorf("allocate %v: %v", c, err)
		}
	}
}

// A volume of the largest size that does not fit is refused by arithmetic: while its extents are counted one
// by one, nobody else could read where theirs are.
func TestTooMuchIsRefusedAtOnce(t *testing.T) {
	m, err := extent.Open(formatted(t), extent.Expect{})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = m.Allocate(context.Background(), volumeID(1), 0, san.MaxVolumeSizeBytes/san.ExtentSizeBytes)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, disk.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were needed to refuse it", n)
	}
}

func TestAllocateAtOnce(t *testing.T) {
	m, err := extent.Open(formatted(t), owner)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range byte(8) {
		wg.Go(func() {
			for range 6 {
				_, err := m.Allocate(context.Background(), volumeID(i+1), 0, 45)
				if err == nil && i%2 == 0 {
					err = m.Free(volumeID(i + 1))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if u := m.Usage(); u.Used != 4*45 {
		t.Errorf("%d extents are used, want %d", u.Used, 4*45)
	}
	seen := map[uint32]bool{}
	for _, extents := range m.Volumes() {
		for _, e := range extents {
			if seen[e.Index] {
				t.Errorf("extent %d is owned twice", e.Index)
			}
			seen[e.Index] = true
		}
	}
}

// TestFailedWriteIsPutRight fails each write of an allocation in turn: the medium must
// agree with the memory after the volume is freed, also over a restart.
func TestFailedWriteIsPutRight(t *testing.T) {
	for nth := 1; ; nth++ {
		plain := formatted(t)
		count, hit := 0, false
		f := disktest.WithFaults(plain, func(op disktest.Op) error {
			if op.Kind == disktest.OpWrite && nth > 0 {
				if count++; count == nth {
					hit = true
					return syscall.EIO
				}
			}
			return nil
		})
		m, err := extent.Open(f, owner)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Allocate(context.Background(), volumeID(1), 0, 300)
		if !hit {
			return
		}
		if err != nil && (!errors.Is(err, disk.ErrIO) || m.Usage().Used != 0) {
			t.Errorf("write %d: %v, %d extents used", nth, err, m.Usage().Used)
		}
		if err := m.Free(volumeID(1)); err != nil {
			t.Fatal(err)
		}
		again, err := extent.Open(plain, owner)
		if err != nil || len(again.Volumes()) != 0 || again.Usage().Used != 0 {
			t.Errorf("write %d failed; after a restart: %v, %+v", nth, err, again.Usage())
		}
	}
}

func TestNoSpaceWhileZeroing(t *testing.T) {
	fail := true
	f := disktest.WithFaults(formatted(t), func(op disktest.Op) error {
		if op.Kind == disktest.OpZero && fail {
			return syscall.ENOSPC
		}
		return nil
	})
	m, err := extent.Open(f, owner)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Allocate(context.Background(), volumeID(1), 0, 3); !errors.Is(err, disk.ErrNoSpace) || m.Usage().Used != 0 {
		t.Errorf("a full file system: %v, %d extents used", err, m.Usage().Used)
	}
	fail = false
	if _, err := m.Allocate(context.Background(), volumeID(1), 0, 3); err != nil {
		t.Error(err)
	}
}

// FuzzOpen overwrites metadata of a medium that holds a volume: it opens or says that it
// is damaged, and never claims more than it has.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("x"), uint32(0), uint32(secondSuperblock))
	f.Add([]byte{}, uint32(tableAt+40), uint32(tableAt+3*4096+40))
	f.Fuzz(func(t *testing.T, b []byte, first, second uint32) {
		file := formatted(t)
		m, err := extent.Open(file, owner)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Allocate(context.Background(), volumeID(1), 0, 5); err != nil {
			t.Fatal(err)
		}
		b = b[:min(len(b), 8192)]
		for _, at := range []uint32{first, second} {
			if _, err := file.WriteAt(b, int64(at%(2<<20-8192))); err != nil {
				t.Fatal(err)
			}
		}
		m, err = extent.Open(file, owner)
		if err != nil {
			return
		}
		if u := m.Usage(); u.Used > u.Extents || u.Extents != testExtents {
			t.Errorf("usage %+v", u)
		}
	})
}

func TestLayoutUsesTheWholeMedium(t *testing.T) {
	for _, size := range []int64{8 << 20, 80 << 20, 2 << 30, 1<<30 + 12345, 1 << 40} {
		f := openFile(t, disktest.NewPower().NewDisk(fmt.Sprint(size), size))
		p := params()
		p.ExtentSizeBytes = 0
		if size > 4<<30 {
			p.ExtentSizeBytes = 1 << 30 // fewer table pages to write in memory
		}
		if err := extent.Format(f, p); err != nil {
			t.Fatal(err)
		}
		sb, err := extent.Inspect(f)
		if err != nil {
			t.Fatal(err)
		}
		end := sb.OffsetBytes(sb.Extents)
		if end > size || size-end >= sb.ExtentSizeBytes+1<<20 || sb.OffsetBytes(0)%(1<<20) != 0 {
			t.Errorf("a medium of %d: %d extents from %d to %d", size, sb.Extents, sb.OffsetBytes(0), end)
		}
	}
}
