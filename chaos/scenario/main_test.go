package scenario

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

// The initiator names of two tools that can't be told another one or are told this.
const (
	qemuIQN  = "iqn.2008-11.org.linux-kvm"
	otherIQN = "iqn.2026-11.example:other"
)

// patience bounds what happens soon on an idle machine: this one is shared with other tests.
const patience = 30 * time.Second

// program is what is under test, built once for all tests.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sandbar-scenario-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// A program built otherwise, with the race detector for instance.
	if program = os.Getenv("SANDBAR_BINARY"); program == "" {
		if program, err = lab.Build(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// cluster is a lab with what tests say all the time.
type cluster struct {
	*lab.Lab
	t *testing.T
}

// start starts a lab that ends with the test.
func start(t *testing.T, args ...string) *cluster {
	t.Helper()
	l, err := lab.Start(t.Context(), program, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		panics, err := l.Panics()
		if err != nil {
			t.Error(err)
		}
		for _, p := range panics {
			t.Errorf("a process crashed: %s", p)
		}
		if t.Failed() {
			t.Logf("what the processes logged:\n%s", l.Trouble())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &cluster{Lab: l, t: t}
}

// ok runs a command that must succeed, and returns what it printed.
func (c *cluster) ok(args ...string) string {
	c.t.Helper()
	r := c.CLI(c.t.Context(), args...)
	if err := r.Err(); err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(r.Stdout)
}

// refused runs a command that must fail with an exit code and say all of words on stderr.
func (c *cluster) refused(code int, words []string, args ...string) {
	c.t.Helper()
	checkRefusal(c.t, c.CLI(c.t.Context(), args...), code, words...)
}

// checkRefusal holds a failed command to how commands fail: the right code, nothing on stdout, one
// line that says what is wrong and what to do.
func checkRefusal(t *testing.T, r lab.Result, code int, words ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("%s: exit code %d, want %d: %s", r.Command, r.Code, code, r.Said())
		return
	}
	if r.Stdout != "" {
		t.Errorf("%s: prints on stdout though it failed: %s", r.Command, r.Stdout)
	}
	checkWords(t, r.Command, r.Stderr, words...)
}

func checkWords(t *testing.T, who, said string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("%s: does not say %q: %s", who, w, said)
		}
	}
	for _, bad := range []string{"goroutine ", "panic:", "%!", "<nil>", "rpc error", "defect of the station"} {
		if strings.Contains(said, bad) {
			t.Errorf("%s: says %q, which is not for users: %s", who, bad, said)
		}
	}
}

// give makes a volume, assigns it to a host that is registered, and returns it once it can be used.
func (c *cluster) give(name, size, host string) lab.Volume {
	c.t.Helper()
	c.ok("volume", "create", name, "--size", size, "--host", host, "--wait")
	return c.volume(name)
}

func (c *cluster) volume(name string) lab.Volume {
	c.t.Helper()
	v, err := c.Volume(c.t.Context(), name)
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// take takes a volume away from a host and deletes it.
func (c *cluster) take(name, host string) {
	c.t.Helper()
	c.ok("volume", "unassign", name, "--host", host, "--wait")
	c.ok("volume", "delete", name, "--wait")
}

func (c *cluster) url(name, host string) string {
	c.t.Helper()
	u := c.ok("volume", "url", name, "--host", host)
	if !strings.HasPrefix(u, "iscsi://") || strings.Contains(u, "\n") {
		c.t.Fatalf("volume url printed %q, want one iscsi:// URL", u)
	}
	return u
}

// await fails the test unless ready becomes nil in time.
func (c *cluster) await(what string, limit time.Duration, ready func(context.Context) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	if err := lab.Until(ctx, 50*time.Millisecond, ready); err != nil {
		c.t.Fatalf("%s, within %v: %v", what, limit, err)
	}
}

func (c *cluster) whole() {
	c.t.Helper()
	if err := c.AwaitWhole(c.t.Context(), 2*patience); err != nil {
		c.t.Fatalf("the cluster is not whole again: %v", err)
	}
}

func (c *cluster) kill(p *lab.Process) {
	c.t.Helper()
	if err := p.Kill(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) terminate(p *lab.Process) {
	c.t.Helper()
	if err := p.Terminate(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) restart(p *lab.Process) {
	c.t.Helper()
	if err := c.Restart(p); err != nil {
		c.t.Fatal(err)
	}
}

// tool skips a test whose tool is missing; where all tools should be there it fails.
func tool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing; .ci/deps.sh test installs it", name)
		}
		t.Skipf("%s is missing; .ci/deps.sh test installs it", name)
	}
}

// do runs a tool that must succeed within a minute or two.
func do(t *testing.T, name string, args ...string) string {
	t.Helper()
	r := try(t, name, args...)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return r.Said()
}

func try(t *testing.T, name string, args ...string) lab.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return lab.Run(ctx, name, nil, args...)
}

// sameFiles compares two files byte by byte, up to the end of the first.
func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	fa, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; {
		n, err := io.ReadFull(fa, bufA)
		if m, _ := io.ReadFull(fb, bufB[:n]); m != n || !bytes.Equal(bufA[:n], bufB[:n]) {
			t.Fatalf("%s and %s differ within 1 MiB after byte %d", filepath.Base(a), filepath.Base(b), at)
		}
		if at += int64(n); err != nil {
			return
		}
	}
}

// linesWith returns the lines that contain a text.
func linesWith(s, text string) []string {
	return slices.DeleteFunc(strings.Split(s, "\n"), func(l string) bool { return !strings.Contains(l, text) })
}
