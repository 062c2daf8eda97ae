package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

// running lists the processes whose command line names a folder.
func running(dir string) ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // no process, or one that has ended meanwhile
		}
		if line := strings.ReplaceAll(string(b), "\x00", " "); strings.Contains(line, dir) && !strings.Contains(line, "watchdog") {
			out = append(out, e.Name()+" "+line)
		}
	}
	return out, nil
}

// nothingLeft checks that no process of a demo runs any more and its folder is empty.
func nothingLeft(t *testing.T, what, tmp string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := lab.Until(ctx, 50*time.Millisecond, func(context.Context) error {
		left, err := running(tmp)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d processes are left: %s", len(left), strings.Join(left, "\n"))
		}
		return err
	}); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	entries, err := os.ReadDir(tmp)
	if err != nil || len(entries) != 0 {
		t.Errorf("%s: %v is left in the folder (%v)", what, entries, err)
	}
}

// TestDemoKeepsAndStops: a lab that is kept runs until it is stopped, and no second one goes into its folder.
func TestDemoKeepsAndStops(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "1", "--units", "1", "--hosts", "1", "--medium-size", "64MiB")
	if left, err := running(c.Dir); err != nil || len(left) != 3 {
		t.Errorf("3 processes should run: %v, %v", left, err)
	}
	second := try(t, program, "demo", "--keep", "--story=none", "--dir", c.Dir)
	if second.Code != 4 {
		t.Errorf("a second lab in the same folder: exit code %d: %s", second.Code, second.Said())
	}
	checkWords(t, "a second lab in the same folder", second.Stderr, c.Dir, "demo --stop")
	for _, args := range [][]string{
		{"--keep"}, {"--stop"}, {"--stations", "2"}, {"--units", "-1"}, {"--units", "2", "--spare-units", "2"}, {"--medium-size", "1KiB"},
		{"--medium-size", "big"}, {"--story", "fairy"}, {"--raft-timing", "now", "--story=none"},
	} {
		r := try(t, program, append([]string{"demo", "--dir", ""}, args...)...)
		if r.Code != 2 || !strings.HasPrefix(r.Stderr, "sandbar: ") {
			t.Errorf("demo %v: exit code %d: %s", args, r.Code, r.Said())
		}
	}
	for _, p := range c.Of("") {
		if !p.Alive() {
			t.Errorf("%s has ended meanwhile", p.ID)
		}
	}
	do(t, program, "demo", "--stop", "--dir", c.Dir)
	if left, err := running(c.Dir); err != nil || len(left) != 0 {
		t.Errorf("after --stop: %v, %v", left, err)
	}
	checkRefusal(t, try(t, program, "demo", "--stop", "--dir", c.Dir), 3, c.Dir)
	if _, err := os.Stat(filepath.Join(c.Dir, "station-1", "admin.token")); err != nil {
		t.Errorf("--stop must leave the data: %v", err)
	}
}

// TestDemoEndsClean: however a demo is ended, nothing of it is left.
func TestDemoEndsClean(t *testing.T) {
	t.Parallel()
	t.Run("by itself", func(t *testing.T) {
		tmp := t.TempDir()
		r := lab.Run(t.Context(), program, []string{"TMPDIR=" + tmp}, "demo", "--story=none", "--stations", "1", "--units", "1", "--hosts", "0")
		if r.Code != 0 {
			t.Error(r.Err())
		}
		nothingLeft(t, "at its end", tmp)
	})
	for name, sig := range map[string]syscall.Signal{"Ctrl-C": syscall.SIGINT, "SIGTERM": syscall.SIGTERM} {
		for _, when := range []string{"station-1.log", "lab.json"} {
			t.Run(name+" after "+when, func(t *testing.T) { interrupted(t, sig, when) })
		}
	}
}

// interrupted sends a signal to a demo as soon as a file of its lab is there.
func interrupted(t *testing.T, sig syscall.Signal, when string) {
	t.Helper()
	tmp := t.TempDir()
	p := spawn(t, "demo", []string{"TMPDIR=" + tmp}, "demo")
	t.Cleanup(func() { killLeft(t, tmp) })
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := lab.Until(ctx, 2*time.Millisecond, func(context.Context) error {
		found, err := filepath.Glob(filepath.Join(tmp, "*", when))
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("no %s yet", when)
		}
		return err
	}); err != nil {
		log, _ := p.Log()
		t.Fatalf("%v: %s", err, log)
	}
	if err := p.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if code, said := ends(t, p); code == 0 || strings.Contains(said, "PASS") {
		t.Errorf("it ends with %d and says %q, as if it had been to its end", code, said)
	}
	nothingLeft(t, when, tmp)
}

// killLeft ends what a demo that did not clean up has left, so that only the test fails.
func killLeft(t *testing.T, tmp string) {
	t.Helper()
	left, err := running(tmp)
	if err != nil {
		t.Error(err)
	}
	for _, line := range left {
		var pid int
		if _, err := fmt.Sscan(line, &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended just now
		}
	}
}
