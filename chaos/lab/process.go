package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// description is a process as lab.json has it.
type description struct {
	Role       string   `json:"role"`
	ID         string   `json:"id"`
	PID        int      `json:"pid"`
	Argv       []string `json:"argv"`
	Env        []string `json:"env"`
	LogFile    string   `json:"logFile"`
	APIAddress string   `json:"apiAddress"`
	Portal     string   `json:"portal"`
	Media      []string `json:"media"`
}

// Process is a daemon.
type Process struct {
	description
	row     map[string]json.RawMessage // its row of lab.json
	started string
	end     *ending // nil while the process is one that somebody else started
}

// ending is how one run of a process ended.
type ending struct {
	done chan struct{} // closed then
	code int           // to be read afterwards
}

// ErrNotRunning is a signal to a process that has ended.
var ErrNotRunning = errors.New("the process does not run")

// startTime is when a process was started, in the kernel's ticks; "" if it has ended.
func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the command in parentheses; what follows the last one is fixed (proc(5)).
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 || f[0] == "X" || f[0] == "Z" && !threadsLeft(pid) {
		return ""
	}
	return f[19]
}

// threadsLeft tells whether a process whose first thread has ended has others, which keep its files
// open until they have ended too.
func threadsLeft(pid int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && len(tasks) > 1
}

// Alive tells whether the process runs.
func (p *Process) Alive() bool {
	return p.PID > 0 && p.started != "" && startTime(p.PID) == p.started
}

// Flag returns the value of a flag of the process's command line.
func (p *Process) Flag(name string) string {
	for i, a := range p.Argv {
		if a == "--"+name && i+1 < len(p.Argv) {
			return p.Argv[i+1]
		}
	}
	return ""
}

// Signal sends a signal.
func (p *Process) Signal(sig syscall.Signal) error {
	if !p.Alive() {
		return fmt.Errorf("%s: %w", p.ID, ErrNotRunning)
	}
	return syscall.Kill(p.PID, sig)
}

// Kill ends the process at once, as kill -9 does.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	return p.WaitGone(stopLimit)
}

// Terminate has the process stop in good order.
func (p *Process) Terminate() error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.WaitGone(stopLimit)
}

// WaitGone waits until the process has ended.
func (p *Process) WaitGone(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return Until(ctx, 5*time.Millisecond, func(context.Context) error {
		if p.Alive() {
			return fmt.Errorf("%s (pid %d) still runs", p.ID, p.PID)
		}
		return nil
	})
}

// ExitCode is how a process ended that Spawn or Restart had started; it waits for that.
func (p *Process) ExitCode(ctx context.Context) (int, error) {
	if p.end == nil {
		return 0, fmt.Errorf("%s was started by somebody else", p.ID)
	}
	select {
	case <-p.end.done:
		return p.end.code, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s (pid %d) still runs: %w", p.ID, p.PID, ctx.Err())
	}
}

// Log returns what the process, and those before it with the same log, have written.
func (p *Process) Log() (string, error) {
	b, err := os.ReadFile(p.LogFile)
	return string(b), err
}

// Restart starts a process of the lab again, from its argv and env.
func (l *Lab) Restart(p *Process) error {
	if p.Alive() {
		return fmt.Errorf("%s still runs", p.ID)
	}
	if err := p.spawn(); err != nil {
		return err
	}
	l.mu.Lock()
	p.row["pid"] = json.RawMessage(strconv.Itoa(p.PID))
	if p.row["started"] != nil {
		p.row["started"] = json.RawMessage(strconv.Quote(p.started))
	}
	l.mu.Unlock()
	return l.save()
}

// Spawn starts one more daemon, which is in no lab.json: it ends with the caller's process at the
// latest. The caller must Kill it.
func Spawn(id, logFile string, env []string, argv ...string) (*Process, error) {
	p := &Process{description: description{ID: id, Argv: argv, Env: append(baseEnv(), env...), LogFile: logFile}}
	return p, p.spawn()
}

func (p *Process) spawn() error {
	log, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.Command(p.Argv[0], p.Argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.Env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.ID, err)
	}
	p.PID, p.started = cmd.Process.Pid, startTime(cmd.Process.Pid)
	end := &ending{done: make(chan struct{})}
	p.end = end
	go func() { // ends with the process, which the kernel ends with ours at the latest
		_ = cmd.Wait() // the code tells how it ended
		end.code = cmd.ProcessState.ExitCode()
		close(end.done)
	}()
	return nil
}

// baseEnv keeps what the caller's own environment says of Sandbar away.
func baseEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
}
