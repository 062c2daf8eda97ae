package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// fileName is where `sandbar demo --keep` describes its lab.
	fileName = "lab.json"
	// startLimit bounds how long a lab may take until it is ready, on a machine that is busy.
	startLimit = 2 * time.Minute
	// stopLimit bounds how long a process may take to stop in good order.
	stopLimit = 20 * time.Second
)

// Build builds the program into dir and returns its path. The tree is found from the working
// folder, as `go test` sets it.
func Build(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "sandbar")
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "hashicorpmetrics", "-buildvcs=false", "-o", out, "github.com/sandbar-san/sandbar/cmd/sandbar")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, text)
	}
	return out, nil
}

// Access is how to talk to a lab's stations.
type Access struct {
	Endpoints []string `json:"endpoints"` // host:port
	TokenFile string   `json:"tokenFile"`
	CAFile    string   `json:"caFile"`
}

// Lab is a running lab. Its methods may be called by several goroutines; two that act on the
// same process must not run at once.
type Lab struct {
	Dir     string
	Binary  string
	Access  Access
	members []*Process

	mu       sync.Mutex
	doc      map[string]json.RawMessage // lab.json, with what is not known here
	watchdog *watchdog
}

// Start starts a lab with `sandbar demo --keep --story=none` and more arguments, in a temporary
// folder. The caller must Close it.
func Start(ctx context.Context, binary string, args ...string) (_ *Lab, err error) {
	dir, err := os.MkdirTemp("", "sandbar-lab-")
	if err != nil {
		return nil, err
	}
	l := &Lab{Dir: dir, Binary: binary}
	if l.watchdog, err = startWatchdog(binary, dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	r := Run(ctx, binary, nil, append([]string{"demo", "--keep", "--story=none", "--dir", dir}, args...)...)
	if r.Code != 0 {
		return nil, fmt.Errorf("start a lab: %w\n%s", r.Err(), l.Trouble())
	}
	return l, l.load()
}

// load reads lab.json.
func (l *Lab) load() error {
	b, err := os.ReadFile(filepath.Join(l.Dir, fileName))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &l.doc); err != nil {
		return fmt.Errorf("%s: %w", fileName, err)
	}
	if err := json.Unmarshal(l.doc["cli"], &l.Access); err != nil {
		return fmt.Errorf("%s: cli: %w", fileName, err)
	}
	var rows []json.RawMessage
	if err := json.Unmarshal(l.doc["processes"], &rows); err != nil {
		return fmt.Errorf("%s: processes: %w", fileName, err)
	}
	for _, row := range rows {
		p := &Process{}
		if err := errors.Join(json.Unmarshal(row, &p.description), json.Unmarshal(row, &p.row)); err != nil {
			return fmt.Errorf("%s: processes: %w", fileName, err)
		}
		p.started = startTime(p.PID)
		l.members = append(l.members, p)
	}
	return nil
}

// save writes lab.json again after a process was started, so that whoever reads it, the watchdog
// first of all, finds the processes that run now.
func (l *Lab) save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	rows := make([]map[string]json.RawMessage, 0, len(l.members))
	for _, p := range l.members {
		rows = append(rows, p.row)
	}
	b, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	l.doc["processes"] = b
	if b, err = json.MarshalIndent(l.doc, "", "  "); err != nil {
		return err
	}
	tmp := filepath.Join(l.Dir, fileName+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(l.Dir, fileName))
}

// Process returns the process with an id, nil if there is none.
func (l *Lab) Process(id string) *Process {
	for _, p := range l.members {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// Of returns the processes of a role: station, unit or host; of all roles if it is empty.
func (l *Lab) Of(role string) []*Process {
	var out []*Process
	for _, p := range l.members {
		if role == "" || p.Role == role {
			out = append(out, p)
		}
	}
	return out
}

// CLI runs the operator's command line against the lab's stations.
func (l *Lab) CLI(ctx context.Context, args ...string) Result {
	return Run(ctx, l.Binary, l.Env(), args...)
}

// Env is what the command line needs to find the lab's stations.
func (l *Lab) Env() []string {
	return []string{"SANDBAR_ENDPOINT=" + strings.Join(l.Access.Endpoints, ","), "SANDBAR_TOKEN_FILE=" + l.Access.TokenFile, "SANDBAR_CA_FILE=" + l.Access.CAFile}
}

// Close ends all processes of the lab and removes its folder.
func (l *Lab) Close() error {
	var errs []error
	for _, p := range l.members {
		// Stopping in good order is tested elsewhere; here it must be quick and sure.
		if err := p.Kill(); !errors.Is(err, ErrNotRunning) {
			errs = append(errs, err)
		}
	}
	if len(l.members) == 0 {
		if _, err := os.Stat(filepath.Join(l.Dir, fileName)); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
			defer cancel()
			errs = append(errs, Run(ctx, l.Binary, nil, "demo", "--stop", "--dir", l.Dir).Err())
		}
	}
	errs = append(errs, os.RemoveAll(l.Dir), l.watchdog.stop())
	return errors.Join(errs...)
}

// Trouble returns the lines of the logs that tell of warnings, errors and panics, some per process.
func (l *Lab) Trouble() string {
	logs, err := filepath.Glob(filepath.Join(l.Dir, "*.log"))
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for _, name := range logs {
		b, err := os.ReadFile(name)
		if err != nil {
			fmt.Fprintln(&out, err)
			continue
		}
		for _, line := range worst(string(b)) {
			fmt.Fprintf(&out, "%s: %s\n", filepath.Base(name), line)
		}
	}
	return out.String()
}

// worst keeps the last lines of a log that are no plain information.
func worst(log string) []string {
	const most = 12
	var keep []string
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "level=INFO") && !strings.Contains(line, "level=DEBUG") {
			keep = append(keep, strings.TrimRight(line, "\n"))
		}
	}
	return keep[max(0, len(keep)-most):]
}

// Panics returns what the logs hold of Go's own reports of a crash or a data race.
func (l *Lab) Panics() ([]string, error) {
	logs, err := filepath.Glob(filepath.Join(l.Dir, "*.log"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range logs {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for _, mark := range []string{"\npanic: ", "\nfatal error: ", "WARNING: DATA RACE", "panicked"} {
			if i := bytes.Index(b, []byte(mark)); i >= 0 {
				out = append(out, fmt.Sprintf("%s: %s", filepath.Base(name), b[i:min(len(b), i+4000)]))
			}
		}
	}
	return out, nil
}

// watchdog is a small process that ends the lab if the one that started it dies without having
// done so: it waits for the end of its standard input.
type watchdog struct {
	cmd *exec.Cmd
	in  interface{ Close() error }
}

func startWatchdog(binary, dir string) (*watchdog, error) {
	const script = `cat >/dev/null; [ -d "$2" ] || exit 0; "$1" demo --stop --dir "$2"; rm -rf "$2"`
	cmd := exec.Command("/bin/sh", "-c", script, "watchdog", binary, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is not for it
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return &watchdog{cmd: cmd, in: in}, nil
}

// stop lets the watchdog go. The lab's folder is gone by then, so that it does nothing.
func (w *watchdog) stop() error {
	if w == nil {
		return nil
	}
	return errors.Join(w.in.Close(), w.cmd.Wait())
}
