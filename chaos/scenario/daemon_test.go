package scenario

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

// ends waits until a daemon that must not run has ended, and returns its exit code and last line.
func (c *cluster) ends(p *lab.Process) (code int, said string) {
	c.t.Helper()
	return ends(c.t, p)
}

func ends(t *testing.T, p *lab.Process) (code int, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	code, err := p.ExitCode(ctx)
	if err != nil {
		t.Fatal(err)
	}
	log, err := p.Log()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return code, lines[len(lines)-1]
}

// spawn starts one more daemon that ends with the test.
func spawn(t *testing.T, id string, env []string, args ...string) *lab.Process {
	t.Helper()
	p, err := lab.Spawn(id, filepath.Join(t.TempDir(), id+".log"), env, append([]string{program}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.Alive() {
			return
		}
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// spoil overwrites part of a file.
func spoil(t *testing.T, name string, off int64, n int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + 13)
	}
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}
