package disk_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandbar-san/sandbar/dataplane/disk"
)

func TestReadCached(t *testing.T) {
	path := filepath.Join(t.TempDir(), "medium")
	f, err := disk.Open(path, disk.OpenOptions{Create: true, SizeBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("abcdefgh"), 1024)
	if _, err := f.WriteAt(want, 4096); err != nil {
		t.Fatal(err)
	}
	if !knowsNoWait(t, path) {
		t.Skip("this file system has no reads without waiting")
	}
	got := make([]byte, len(want))
	if !f.ReadCached(got, 4096) || !bytes.Equal(got, want) {
		t.Error("what was just written is not to be had, or differs")
	}
	if f.ReadCached(got, 1<<20-4096) {
		t.Error("half a read counts as done")
	}
	if n := testing.AllocsPerRun(100, func() { f.ReadCached(got, 4096) }); n > 0 {
		t.Errorf("%v allocations a read", n)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f.ReadCached(got, 4096) {
		t.Error("read from a closed file")
	}
}

// knowsNoWait asks the kernel about the file system.
func knowsNoWait(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	_, err = unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 1)}, 4096, unix.RWF_NOWAIT)
	return !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS)
}
