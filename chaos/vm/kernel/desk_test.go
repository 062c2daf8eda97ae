package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDesk(t *testing.T) {
	d := &desk{dir: t.TempDir(), acts: map[string]func(context.Context, []string) (string, error){
		"join":  func(_ context.Context, args []string) (string, error) { return strings.Join(args, "+"), nil },
		"break": func(context.Context, []string) (string, error) { return "", errors.New("broken on purpose") },
	}}
	asks := []struct{ id, ask, answer, code string }{
		{"1", "join a b  c\n", "a+b+c\n", "0\n"},
		{"2", "join", "\n", "0\n"},
		{"3", "break", "broken on purpose\n", "1\n"},
		{"4", "rm -rf /", "\"rm\" is nothing that a guest may ask for\n", "1\n"},
		{"5", "\n", "a request without words\n", "1\n"},
		{"6", strings.Repeat("x", maxAskBytes+1), "a request of 4097 bytes, 4096 are allowed\n", "1\n"},
	}
	for _, a := range asks {
		if err := os.WriteFile(filepath.Join(d.dir, askPrefix+a.id), []byte(a.ask), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Not a request yet: it is still being written.
	if err := os.WriteFile(filepath.Join(d.dir, "new.7"), []byte("join"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*deskEvery+time.Millisecond)
		defer cancel()
		if err := d.serve(ctx); err != nil {
			t.Error(err)
		}
	})
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(d.dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	for _, a := range asks {
		if answer, code := read("answer."+a.id), read("done."+a.id); answer != a.answer || code != a.code {
			t.Errorf("%q is answered %q, %q; want %q, %q", a.ask, answer, code, a.answer, a.code)
		}
	}
	left, err := filepath.Glob(filepath.Join(d.dir, "*"))
	if err != nil || len(left) != 2*len(asks)+1 {
		t.Errorf("in the folder are %v, %v", left, err)
	}
}

func TestAllocated(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	empty, err := allocated([]string{name})
	if err != nil || empty > 1<<20 {
		t.Errorf("a hole of 64 MiB takes up %d bytes, %v", empty, err)
	}
	if _, err := f.WriteAt(make([]byte, 4<<20), 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if n, err := allocated([]string{name, name}); err != nil || n < 2*(4<<20) || n > 2*(5<<20)+2*empty {
		t.Errorf("4 MiB counted twice take up %d bytes, %v", n, err)
	}
	if _, err := allocated([]string{name + "-not-there"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestScripts(t *testing.T) {
	for _, s := range scripts {
		if info, err := os.Stat(s.name + ".sh"); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("script %s: %v", s.name, err)
		}
		if !wanted(nil, s.name) || !wanted([]string{"x", s.name}, s.name) || wanted([]string{"x"}, s.name) {
			t.Errorf("script %s is run when it should not be, or not when it should", s.name)
		}
	}
	if known("nothing") {
		t.Error("a script that is not there is known")
	}
	if files, err := filepath.Glob("*.sh"); err != nil || len(files) != len(scripts) {
		t.Errorf("there are scripts %v (%v), %d are run", files, err, len(scripts))
	}
}
