package volume_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

// TestZeroFreesSpace: on a real file, what is zeroed takes no space any more, is told as not mapped,
// and reads as zeros; the rest is as it was.
func TestZeroFreesSpace(t *testing.T) {
	const size = 16 << 20
	path := filepath.Join(t.TempDir(), "medium")
	f, err := disk.Open(path, disk.OpenOptions{Create: true, SizeBytes: size + 8<<20})
	if err != nil {
		t.Fatal(err)
	}
	id := san.MediumID(uuid.NewString())
	if err := extent.Format(f, extent.Params{Medium: id, Cluster: "c", Unit: "u", Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	m, err := extent.Open(f, extent.Expect{})
	if err != nil {
		t.Fatal(err)
	}
	records, err := disk.OpenDir(filepath.Join(filepath.Dir(path), "records"))
	if err != nil {
		t.Fatal(err)
	}
	mgr, err := volume.Open(volume.Config{Media: []*extent.Medium{m}, Records: records, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range []func() error{mgr.Close, m.Close, records.Close} {
			if err := c(); err != nil {
				t.Error(err)
			}
		}
	})
	r := mustCreate(t, &unit{manager: mgr}, volume.Spec{ID: volumeID(1), SizeBytes: size, BlockSizeBytes: 512,
		Slices: []volume.Slice{{Medium: id, Extents: san.ExtentsFor(size)}}})
	used := func() int64 {
		t.Helper()
		if err := r.Flush(t.Context()); err != nil { // a file system may take space only then
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	if err := r.WriteAt(t.Context(), filled(7, size), 0, false); err != nil {
		t.Fatal(err)
	}
	full := used()
	// 8 MiB in the middle, not aligned to what a file system frees.
	const off, length = 4<<20 + 512, 8<<20 - 1024
	if err := r.Zero(t.Context(), off, length); err != nil {
		t.Fatal(err)
	}
	if freed := full - used(); freed < length-2<<20 || freed > length {
		t.Errorf("zeroing %d bytes freed %d", length, freed)
	}
	got, err := readAll(r)
	if err != nil {
		t.Fatal(err)
	}
	want := filled(7, size)
	clear(want[off : off+length])
	if !bytes.Equal(got, want) {
		t.Error("other bytes are there than should be")
	}
	mapped := int64(0)
	for at := int64(0); at < size; {
		run, is, err := r.Mapped(t.Context(), at, size-at)
		if err != nil {
			t.Fatal(err)
		}
		if is {
			mapped += run
		} else if at < off || at+run > off+length {
			t.Errorf("%d bytes from %d are told as not mapped", run, at)
		}
		at += run
	}
	if mapped > size-length+2<<20 {
		t.Errorf("%d bytes are told as mapped after %d of %d were zeroed", mapped, length, size)
	}
}
