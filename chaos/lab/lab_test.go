package lab

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeProgram is a stand-in for the program: its demo has one process, which sleeps, and its CLI
// tells what it was given.
func fakeProgram(t *testing.T) string {
	t.Helper()
	const script = `#!/bin/sh
dir=
for a; do [ "$last" = --dir ] && dir=$a; last=$a; done
case "$*" in
"demo --keep"*)
  case "$*" in *broken*) echo "level=INFO fine" >"$dir/x.log"; echo "level=WARN sad" >>"$dir/x.log"; echo "no room" >&2; exit 4;; esac
  sleep 1000 >/dev/null 2>&1 &
  cat >"$dir/lab.json" <<END
{"cli": {"endpoints": ["127.0.0.1:1", "127.0.0.1:2"], "tokenFile": "t", "caFile": "c"}, "more": 7,
 "processes": [{"role": "unit", "id": "unit-1", "pid": $!, "argv": ["/bin/sh", "-c", "exec sleep 1000", "--data", "$dir/u"], "env": ["A=b"],
  "logFile": "$dir/u.log", "portal": "127.0.0.1:3", "media": ["m"], "started": "0", "dns": "d"}]}
END
  ;;
"demo --stop"*) echo stopped >"$dir.stopped";;
"env") echo "$SANDBAR_ENDPOINT $SANDBAR_TOKEN_FILE $SANDBAR_CA_FILE $SANDBAR_STRAY"; exit 3;;
*) echo '{"id": "v", "sizeBytes": "5"}';;
esac
`
	name := filepath.Join(t.TempDir(), "sandbar")
	if err := os.WriteFile(name, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestALabFromStartToEnd(t *testing.T) {
	t.Setenv("SANDBAR_STRAY", "stray")
	l, err := Start(t.Context(), fakeProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(l.Dir); !os.IsNotExist(err) {
			t.Errorf("the folder is left: %v", err)
		}
		if l.Process("unit-1").Alive() {
			t.Error("a process is left")
		}
	})
	u := l.Process("unit-1")
	if !u.Alive() || u.Portal != "127.0.0.1:3" || u.Flag("data") != l.Dir+"/u" || u.Flag("none") != "" {
		t.Fatalf("the process: %+v", u)
	}
	if l.Process("x") != nil || len(l.Of("unit")) != 1 || len(l.Of("host")) != 0 || len(l.Of("")) != 1 {
		t.Error("other processes than there are")
	}
	if r := l.CLI(t.Context(), "env"); r.Code != 3 || strings.TrimSpace(r.Stdout) != "127.0.0.1:1,127.0.0.1:2 t c" {
		t.Errorf("the command line has %q, code %d", r.Stdout, r.Code)
	}
	if v, err := l.Volume(t.Context(), "v"); err != nil || v.SizeBytes != 5 {
		t.Errorf("volume %+v, %v", v, err)
	}
	if err := l.Restart(u); err == nil {
		t.Error("a process that runs was started again")
	}
	if err := u.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := u.Kill(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("killed twice: %v", err)
	}
	if err := l.Restart(u); err != nil || !u.Alive() {
		t.Fatalf("restart: %v", err)
	}
	described(t, l, u)
	if err := u.Terminate(); err != nil {
		t.Fatal(err)
	}
	if code, err := u.ExitCode(t.Context()); code != -1 || err != nil { // by a signal
		t.Errorf("ended with %d, %v", code, err)
	}
	if err := l.Restart(u); err != nil {
		t.Fatal(err)
	}
}

// described checks that lab.json has a process as it is now, and all that it had besides.
func described(t *testing.T, l *Lab, u *Process) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.Dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		More      int `json:"more"`
		Processes []struct {
			PID     int    `json:"pid"`
			Started string `json:"started"`
			DNS     string `json:"dns"`
		} `json:"processes"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || len(doc.Processes) != 1 || doc.More != 7 {
		t.Fatalf("%s: %v", b, err)
	}
	if p := doc.Processes[0]; p.PID != u.PID || p.Started != u.started || p.DNS != "d" {
		t.Errorf("lab.json has %+v, the process is %d of %s", p, u.PID, u.started)
	}
}

func TestALabThatDoesNotStart(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	_, err := Start(t.Context(), fakeProgram(t), "--broken")
	if err == nil || !strings.Contains(err.Error(), "no room") || !strings.Contains(err.Error(), "sad") || strings.Contains(err.Error(), "fine") {
		t.Errorf("the error is %v", err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestWatchdog: whoever dies without closing the lab has closed its pipe to the watchdog.
func TestWatchdog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := startWatchdog(fakeProgram(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
	if _, err := os.Stat(dir + ".stopped"); err != nil {
		t.Errorf("the lab was not stopped: %v", err)
	}
}

func TestSpawnedProcesses(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Spawn("s", log, []string{"WORD=hello"}, "/bin/sh", "-c", `echo "$WORD"; exit 7`)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := p.ExitCode(t.Context()); code != 7 || err != nil {
		t.Errorf("ended with %d, %v", code, err)
	}
	if p.Alive() {
		t.Error("it is alive after its end")
	}
	if s, err := p.Log(); s != "hello\n" || err != nil {
		t.Errorf("its log is %q, %v", s, err)
	}
	p, err = Spawn("s", log, nil, "/bin/sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.ExitCode(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a process that runs: %v", err)
	}
	if err := p.WaitGone(10 * time.Millisecond); err == nil {
		t.Error("a process that runs is gone")
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ExitCode(t.Context()); err != nil { // its goroutine ends with it
		t.Error(err)
	}
	if _, err := Spawn("s", log, nil, "/nonexistent"); err == nil {
		t.Error("a program that is not there was started")
	}
}

func TestCommands(t *testing.T) {
	r := Run(t.Context(), "/bin/sh", nil, "-c", "echo out; echo err >&2; exit 5")
	if r.Code != 5 || r.Stdout != "out\n" || r.Stderr != "err\n" || r.Err() == nil || !strings.Contains(r.Err().Error(), "exit code 5") {
		t.Errorf("%+v: %v", r, r.Err())
	}
	if err := r.JSON(&struct{}{}); err == nil {
		t.Error("JSON of a command that failed")
	}
	if r := Run(t.Context(), "/nonexistent", nil); r.Code != -1 || !errors.Is(r.Err(), os.ErrNotExist) {
		t.Errorf("%+v: %v", r, r.Err())
	}
	if err := Run(t.Context(), "/bin/echo", nil, "x").JSON(&struct{}{}); err == nil || !strings.Contains(err.Error(), "no JSON") {
		t.Errorf("x as JSON: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if r := Run(ctx, "/bin/sleep", nil, "1000"); r.Code != -1 || r.Err() == nil {
		t.Errorf("a command without end: %+v", r)
	}
}

func TestUntil(t *testing.T) {
	n := 0
	if err := Until(t.Context(), time.Microsecond, func(context.Context) error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("%d tries: %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	want := errors.New("the reason")
	err := Until(ctx, time.Microsecond, func(ctx context.Context) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if n++; n > 5 {
			defer cancel()
		}
		return want
	})
	if !errors.Is(err, want) {
		t.Errorf("the error is %v, want the last one that tells something", err)
	}
}

func TestWorstLines(t *testing.T) {
	var log strings.Builder
	log.WriteString("level=WARN first\n")
	for i := range 12 {
		log.WriteString("level=INFO x\nlevel=ERROR " + strconv.Itoa(i) + "\n")
	}
	got := worst(log.String())
	if len(got) != 12 || got[11] != "level=ERROR 11" || slices.Contains(got, "level=INFO x") {
		t.Errorf("got %q", got)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "u.log"), []byte("level=INFO x\nWARNING: DATA RACE\nhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := (&Lab{Dir: dir}).Panics(); err != nil || len(p) != 1 || !strings.Contains(p[0], "here") {
		t.Errorf("got %q, %v", p, err)
	}
}

func TestStartTime(t *testing.T) {
	if startTime(os.Getpid()) == "" {
		t.Error("this process does not run")
	}
	if s := startTime(1 << 30); s != "" {
		t.Errorf("a process that is not there was started at %s", s)
	}
}
