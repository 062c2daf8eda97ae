package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/internal/freeport"
)

// asSandbar makes the test binary be sandbar.
const asSandbar = "SANDBAR_TEST_AS_SANDBAR"

func TestMain(m *testing.M) {
	if os.Getenv(asSandbar) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// sandbar prepares a run of the binary, with a clean environment and no more than env.
func sandbar(ctx context.Context, t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append([]string{asSandbar + "=1", "HOME=" + t.TempDir()}, env...)
	return cmd
}

// run runs it to its end.
func run(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := sandbar(ctx, t, env, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestProcessExitCodes(t *testing.T) {
	typo := filepath.Join(t.TempDir(), "station.yaml")
	if err := os.WriteFile(typo, []byte("id: s1\napi-litsen: 127.0.0.1:0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string // on stderr, or on stdout after success
	}{
		{[]string{"version"}, 0, "sandbar "},
		{[]string{"--help"}, 0, "volume"},
		{[]string{"completion", "bash"}, 0, "sandbar"},
		{[]string{"frob"}, 2, `unknown command "frob"`},
		{[]string{"volume", "list"}, 2, "SANDBAR_ENDPOINT"},
		{[]string{"station", "run", "--config", typo}, 2, `unknown key "api-litsen" in ` + typo + `; did you mean "api-listen"`},
		{[]string{"station", "run", "--config", ""}, 2, "id is not set"},
		{[]string{"unit", "run", "--config", "", "--id", "u1", "--data", t.TempDir()}, 2, "join-token-file"},
		{[]string{"host", "run", "--config", "", "--id", "h1", "--data", t.TempDir()}, 2, "join-token-file"},
		{[]string{"station", "run", "--config", "", "--id", "s1", "--endpoint", "a:1"}, 2, "--endpoint"},
	} {
		out, errs, code := run(t, nil, c.args...)
		said := errs
		if c.code == 0 {
			said = out
		} else if out != "" || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "sandbar: ") {
			t.Errorf("%q printed %q and %q, want one line on stderr", c.args, out, errs)
		}
		if code != c.code || !strings.Contains(said, c.says) {
			t.Errorf("%q gives %d and %q, want %d and %q", c.args, code, said, c.code, c.says)
		}
	}
}

// freeAddress finds an address that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	addrs, err := freeport.Loopback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0]
}

// TestAStationRunsAndStops starts a cluster of one station as a process, talks to it with the
// operator's commands, and ends it by signals.
func TestAStationRunsAndStops(t *testing.T) {
	dir := t.TempDir()
	api := freeAddress(t)
	args := []string{"station", "run", "--config", "", "--id", "s1", "--data", filepath.Join(dir, "s1"), "--api-listen", api,
		"--raft-listen", freeAddress(t), "--gossip-listen", freeAddress(t), "--bootstrap-expect", "1", "--raft-timing", "lan"}
	env := []string{"SANDBAR_ENDPOINT=" + api, "SANDBAR_TOKEN_FILE=" + filepath.Join(dir, "s1", "admin.token"), "SANDBAR_CA_FILE=" + filepath.Join(dir, "s1", "ca.pem")}
	start := func() *exec.Cmd {
		t.Helper()
		cmd := sandbar(t.Context(), t, nil, args...)
		var log bytes.Buffer
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("log of the station:\n%s", log.String())
			}
			if cmd.ProcessState == nil {
				cmd.Process.Kill()
				cmd.Wait()
			}
		})
		return cmd
	}
	stop := func(cmd *exec.Cmd, sig syscall.Signal) {
		t.Helper()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %v: %v", sig, err)
		}
	}

	station := start()
	awaitReady(t, env)
	out, errs, code := run(t, env, "host", "add", "h1", "--initiator", "iqn.2004-10.com.example:h1", "-o", "json")
	if code != 0 || !strings.Contains(out, `"id": "h1"`) {
		t.Fatalf("host add gives %d: %s%s", code, out, errs)
	}
	if _, errs, code := run(t, nil, args...); code != 4 || !strings.Contains(errs, "in use") {
		t.Errorf("the same station once more gives %d: %s", code, errs)
	}
	if _, errs, code := run(t, env, "host", "show", "h2"); code != 3 {
		t.Errorf("a host that is not there gives %d: %s", code, errs)
	}
	stop(station, syscall.SIGTERM)
	if _, errs, code := run(t, env, "host", "list", "--timeout", "200ms"); code != 5 {
		t.Errorf("a station that is down gives %d: %s", code, errs)
	}

	station = start()
	awaitReady(t, env)
	if out, errs, code := run(t, env, "host", "list"); code != 0 || !strings.Contains(out, "h1") {
		t.Errorf("after a restart, host list gives %d: %s%s", code, out, errs)
	}
	stop(station, syscall.SIGINT)
}

// awaitReady waits until a station has its tables and leads.
func awaitReady(t *testing.T, env []string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(30 * time.Second)
	for {
		_, errs, code := run(t, env, "station", "list", "--timeout", "5s")
		if code == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("the station is never ready: %s", errs)
		}
	}
}
