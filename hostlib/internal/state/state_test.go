package state

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/san"
)

func TestWriteRead(t *testing.T) {
	path := t.TempDir()
	if s, err := Read(path); err != nil || len(s.Assignments) != 0 {
		t.Fatalf("an empty folder: %+v, %v", s, err)
	}
	dir, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	a := Assignment{Stamp: san.Stamp{ClusterGeneration: 1, Index: 5}, Volume: "b", Name: "data", Generation: 2, SizeBytes: 1 << 20,
		BlockSizeBytes: 512, CHAPUser: "u", CHAPSecret: "s", Paths: []Path{{Unit: "unit-1", Portal: "192.0.2.1:3260", Target: "iqn.x:y", EndLBA: 2047}}}
	want := State{Version: 1, Host: "host-1", Floor: san.Stamp{Index: 9}, Assignments: []Assignment{a, {Volume: "a", Name: "other"}}}
	if err := Write(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read %+v, %v; wrote %+v", got, err, want)
	}
	if got.Assignments[0].Volume != "a" || got.Find("data").Volume != "b" || got.Find("b").Name != "data" || got.Find("c") != nil {
		t.Errorf("order or Find is wrong: %+v", got.Assignments)
	}
	if !got.Assignments[1].Equal(a) || got.Assignments[0].Equal(a) {
		t.Error("Equal is wrong")
	}
	info, err := os.Stat(filepath.Join(path, FileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; secrets are in it", info.Mode(), err)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, text := range map[string]string{"damaged": "{", "newer": `{"version": 2}`} {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, FileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
