package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Result is how a command ended.
type Result struct {
	Command string
	Stdout  string
	Stderr  string
	// Code is the exit code, -1 if the command could not be run or was killed.
	Code  int
	Spent time.Duration
	err   error
}

// Err is nil if the command ended with 0; else it has the command and what it said.
func (r Result) Err() error {
	if r.Code == 0 {
		return nil
	}
	err := fmt.Errorf("%s: exit code %d after %v: %s%s", r.Command, r.Code, r.Spent.Round(time.Millisecond), r.Stderr, r.Stdout)
	return errors.Join(err, r.err)
}

// Said is all that the command printed.
func (r Result) Said() string { return r.Stdout + r.Stderr }

// JSON parses what the command printed.
func (r Result) JSON(into any) error {
	if err := r.Err(); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(r.Stdout), into); err != nil {
		return fmt.Errorf("%s printed no JSON: %w: %.200s", r.Command, err, r.Stdout)
	}
	return nil
}

// Run runs a command with a clean environment and env until it ends or ctx does.
func Run(ctx context.Context, name string, env []string, args ...string) Result {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(baseEnv(), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // children that keep the output open don't hold us up
	began := time.Now()
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	code := 0
	if err != nil {
		code = -1
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
	}
	return Result{
		Command: strings.Join(append([]string{name}, args...), " "),
		Stdout:  stdout.String(), Stderr: stderr.String(), Code: code, Spent: time.Since(began), err: err,
	}
}

// Until asks until ready returns nil, or returns its last error once ctx has ended.
func Until(ctx context.Context, every time.Duration, ready func(context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last error
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		// A try that the end of ctx cut short tells less than the one before it.
		if ctx.Err() != nil && last != nil {
			err = last
		}
		last = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %w", err)
		case <-tick.C:
		}
	}
}
