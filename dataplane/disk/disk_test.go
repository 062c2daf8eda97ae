package disk_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/san"
)

const mib = 1 << 20

// TestFileConformance holds every File to the same rules.
func TestFileConformance(t *testing.T) {
	makers := map[string]func(t *testing.T) disk.File{
		"regular file": func(t *testing.T) disk.File {
			f, err := disk.Open(filepath.Join(t.TempDir(), "medium"), disk.OpenOptions{Create: true, SizeBytes: 4 * mib})
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
		"in memory": func(t *testing.T) disk.File {
			f, err := disktest.NewPower().NewDisk("mem", 4*mib).Open()
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
	}
	for name, newFile := range makers {
		t.Run(name, func(t *testing.T) {
			f := newFile(t)
			checkZeroing(t, f)
			checkBounds(t, f)
			checkMapped(t, f)
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, disk.ErrClosed) {
				t.Errorf("read after Close: %v, want ErrClosed", err)
			}
			if err := f.Datasync(); !errors.Is(err, disk.ErrClosed) {
				t.Errorf("Datasync after Close: %v, want ErrClosed", err)
			}
		})
	}
}

// checkMapped: what was written is mapped, what was punched out and what lies before the end is not.
func checkMapped(t *testing.T, f disk.File) {
	t.Helper()
	const piece = 256 << 10 // what any file system may take for one block
	if err := f.PunchHole(0, 4*mib); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 2 * piece, 3 * piece, 4 * piece} {
		if _, err := f.WriteAt(bytes.Repeat([]byte{7}, piece), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.PunchHole(3*piece, piece); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off, length, run int64
		mapped           bool
	}{
		{0, 4 * mib, piece, true}, {piece - 512, 4 * mib, 512, true}, {0, 512, 512, true},
		{piece, mib, piece, false}, {piece, 512, 512, false},
		{2 * piece, 2 * mib, piece, true}, {3 * piece, 2 * mib, piece, false},
		{4 * piece, 2 * mib, piece, true}, {5 * piece, 2 * mib, 2 * mib, false}, {4*mib - 512, 512, 512, false},
	} {
		run, mapped, err := f.Mapped(c.off, c.length)
		if err != nil || run != c.run || mapped != c.mapped {
			t.Errorf("%d bytes from %d: %d of them mapped=%v (%v), want %d, %v", c.length, c.off, run, mapped, err, c.run, c.mapped)
		}
	}
}

func checkZeroing(t *testing.T, f disk.File) {
	t.Helper()
	for what, zero := range map[string]func(off, n int64) error{"Zero": f.Zero, "PunchHole": f.PunchHole} {
		want := bytes.Repeat([]byte{0xa5}, mib)
		if _, err := f.WriteAt(want, mib); err != nil {
			t.Fatal(err)
		}
		off, n := int64(1000), int64(500_001) // deliberately unaligned
		if err := zero(mib+off, n); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		clear(want[off : off+n])
		got := make([]byte, mib)
		if _, err := f.ReadAt(got, mib); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s changed other bytes than its range, or not all of it", what)
		}
	}
	if err := f.Datasync(); err != nil {
		t.Fatal(err)
	}
}

func checkBounds(t *testing.T, f disk.File) {
	t.Helper()
	if got := f.SizeBytes(); got != 4*mib {
		t.Errorf("size %d, want %d: zeroing must not change it", got, 4*mib)
	}
	if n, err := f.ReadAt(make([]byte, 20), 4*mib-10); n != 10 || err != io.EOF {
		t.Errorf("read across the end gave %d, %v; want 10, io.EOF", n, err)
	}
	if _, err := f.WriteAt([]byte("x"), 5*mib); err != nil || f.SizeBytes() != 5*mib+1 {
		t.Errorf("write beyond the end: %v, size %d", err, f.SizeBytes())
	}
	if err := f.Truncate(mib); err != nil || f.SizeBytes() != mib {
		t.Errorf("truncate: %v, size %d", err, f.SizeBytes())
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "medium")
	if _, err := disk.Open(path, disk.OpenOptions{}); !errors.Is(err, fs.ErrNotExist) || san.KindOf(err) != san.KindNotFound {
		t.Errorf("absent: %v", err)
	}
	if _, err := disk.Open(dir, disk.OpenOptions{Create: true}); san.KindOf(err) != san.KindInvalid {
		t.Errorf("a directory: %v", err)
	}
	f, err := disk.Open(path, disk.OpenOptions{Create: true, SizeBytes: mib})
	if err != nil {
		t.Fatal(err)
	}
	_, err = disk.Open(path, disk.OpenOptions{Create: true, SizeBytes: mib})
	if !errors.Is(err, disk.ErrLocked) || san.KindOf(err) != san.KindConflict || !strings.Contains(err.Error(), path) {
		t.Errorf("open twice: %v, want a conflict that names %s", err, path)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f, err = disk.Open(path, disk.OpenOptions{SizeBytes: 2 * mib})
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	if f.SizeBytes() != mib {
		t.Errorf("an existing medium was given another size: %d", f.SizeBytes())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "medium")
	f, err := disk.Open(path, disk.OpenOptions{Create: true, SizeBytes: 64 * mib})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blocks := func() int64 {
		if err := f.Datasync(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	if got := blocks(); got > mib {
		t.Errorf("a new medium takes %d bytes", got)
	}
	if err := f.Zero(8*mib, 8*mib); err != nil {
		t.Fatal(err)
	}
	if got := blocks(); got < 8*mib {
		t.Errorf("zeroing 8 MiB reserved only %d bytes", got)
	}
	if err := f.PunchHole(8*mib, 8*mib); err != nil {
		t.Fatal(err)
	}
	if got := blocks(); got > mib {
		t.Errorf("after the hole the medium still takes %d bytes", got)
	}
}

func TestErrorMapping(t *testing.T) {
	for _, c := range []struct {
		errno    error
		sentinel error
		kind     san.Kind
	}{
		{syscall.ENOSPC, disk.ErrNoSpace, san.KindNoSpace},
		{syscall.EDQUOT, disk.ErrNoSpace, san.KindNoSpace},
		{syscall.EIO, disk.ErrIO, san.KindUnavailable},
		{syscall.EROFS, disk.ErrReadOnly, san.KindConflict},
		{syscall.EBUSY, disk.ErrLocked, san.KindConflict},
		{fs.ErrClosed, disk.ErrClosed, san.KindUnavailable},
		{syscall.EACCES, fs.ErrPermission, san.KindDenied},
	} {
		err := disk.Error("write", "/m", c.errno)
		if !errors.Is(err, c.sentinel) || !errors.Is(err, c.errno) || san.KindOf(err) != c.kind {
			t.Errorf("%v became %v (kind %v)", c.errno, err, san.KindOf(err))
		}
	}
	if disk.Error("read", "/m", io.EOF) != io.EOF || disk.Error("read", "/m", nil) != nil {
		t.Error("io.EOF and nil must pass as they are")
	}
}

func TestDir(t *testing.T) {
	makers := map[string]func(t *testing.T) (open func() (disk.Dir, error)){
		"real": func(t *testing.T) func() (disk.Dir, error) {
			path := filepath.Join(t.TempDir(), "a", "b")
			return func() (disk.Dir, error) { return wrapDir(disk.OpenDir(path)) }
		},
		"in memory": func(*testing.T) func() (disk.Dir, error) { return disktest.NewPower().NewDir("d").Open },
	}
	for name, maker := range makers {
		t.Run(name, func(t *testing.T) {
			open := maker(t)
			d, err := open()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := open(); !errors.Is(err, disk.ErrLocked) {
				t.Errorf("opened twice: %v", err)
			}
			checkNames(t, d)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if d, err = open(); err != nil {
				t.Fatalf("after Close: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func wrapDir(d *disk.OSDir, err error) (disk.Dir, error) {
	if err != nil {
		return nil, err
	}
	return d, nil
}

func checkNames(t *testing.T, d disk.Dir) {
	t.Helper()
	if _, err := d.Open("absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open absent: %v", err)
	}
	if err := d.Remove("absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("remove absent: %v", err)
	}
	for _, n := range []string{"b", "a", "c"} {
		f, err := d.Create(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Rename("c", "a"); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if got, err := d.List(); err != nil || strings.Join(got, " ") != "a b" {
		t.Errorf("list: %v, %v", got, err)
	}
}

func TestDirRefusesPaths(t *testing.T) {
	d, err := disk.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, name := range []string{"", "../x", ".hidden", "a/b", strings.Repeat("x", 256)} {
		if _, err := d.Create(name); san.KindOf(err) != san.KindInvalid {
			t.Errorf("create %q: %v, want it refused", name, err)
		}
	}
}
