package dataplane

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/disk"
)

// TestReservationStore: what is saved is there when it is opened again, and is nothing at first and
// once removed; a damaged record is an error, never an empty one.
func TestReservationStore(t *testing.T) {
	path := t.TempDir()
	dir, err := disk.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	load := func(want string) {
		t.Helper()
		s, err := openReservations(dir, "v1")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := s.Load(); err != nil || string(b) != want || (b == nil) != (want == "") {
			t.Fatalf("loaded %q, %v; want %q", b, err, want)
		}
	}
	load("")
	s, err := openReservations(dir, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save([]byte("held")); err != nil {
		t.Fatal(err)
	}
	load("held")
	if err := disk.RemoveRecord(dir, "v1"); err != nil {
		t.Fatal(err)
	}
	load("")
	if err := os.WriteFile(filepath.Join(path, "v1.rec"), []byte("this is no record"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openReservations(dir, "v1"); err == nil {
		t.Error("a damaged record is opened")
	}
}
