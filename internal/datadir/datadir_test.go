package datadir

import (
	"os"
	"strings"
	"testing"

	"github.com/sandbar-san/sandbar/san"
)

func TestSecondUserIsRefused(t *testing.T) {
	path := t.TempDir()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); san.KindOf(err) != san.KindConflict || !strings.Contains(err.Error(), path) {
		t.Fatalf("a second user got %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = Open(path)
	if err != nil {
		t.Fatalf("after the first user left: %v", err)
	}
	d.Close()
}

func TestFiles(t *testing.T) {
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var got map[string]int
	if ok, err := d.ReadJSON("x", &got); ok || err != nil {
		t.Fatalf("no file: %v, %v", ok, err)
	}
	for i := range 2 {
		if err := d.WriteJSON("x", map[string]int{"n": i}); err != nil {
			t.Fatal(err)
		}
		if ok, err := d.ReadJSON("x", &got); !ok || err != nil || got["n"] != i {
			t.Fatalf("read back %v, %v, %v", got, ok, err)
		}
	}
	left, err := os.ReadDir(d.Path("."))
	if err != nil || len(left) != 2 {
		t.Fatalf("the folder holds %v, %v; want lock and x", left, err)
	}
	if err := os.WriteFile(d.Path("x"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadJSON("x", &got); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("a damaged file: %v", err)
	}
	for range 2 {
		if err := d.Remove("x"); err != nil {
			t.Fatal(err)
		}
	}
}
