package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// start runs p from its Argv and Env, its output appended to its log, in a process group
// of its own, so that a Ctrl-C at the terminal reaches only the one who ends the lab in order.
func (p *Process) start(dieWithParent bool) error {
	log, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.Command(p.Argv[0], p.Argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.Env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if dieWithParent {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.PID = cmd.Process.Pid
	p.Started = startTime(p.PID)
	go func() { // ends with the process
		_ = cmd.Wait() // how it ended is in its log; here it only must be reaped
	}()
	return nil
}

// startTime is field 22 of /proc/PID/stat, "" if there is no such process.
func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the command in parentheses and may hold anything.
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 20 || f[0] == "Z" && !threadsLeft(pid) {
		return ""
	}
	return f[19]
}

// threadsLeft tells whether a process whose first thread has ended has others. Until they have ended
// too it keeps its files open, and its data folder locked.
func threadsLeft(pid int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && len(tasks) > 1
}

// Alive tells whether p's process runs.
func (p *Process) Alive() bool {
	return p.PID > 0 && p.Started != "" && startTime(p.PID) == p.Started
}

// Signal sends sig to p's process, if it is still the one that was started.
func (p *Process) Signal(sig syscall.Signal) error {
	if !p.Alive() {
		return san.Errorf(san.KindNotFound, "%s %s does not run", p.Role, p.ID)
	}
	return syscall.Kill(p.PID, sig)
}

// waitGone waits until p's process has ended.
func (p *Process) waitGone(limit time.Duration) error {
	for end := time.Now().Add(limit); p.Alive(); {
		if time.Now().After(end) {
			return san.Errorf(san.KindUnavailable, "%s %s (pid %d) still runs after %v", p.Role, p.ID, p.PID, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// stopLimit is how long a process may take to stop in order before it is killed.
const stopLimit = 8 * time.Second

// stopAll ends processes in order: hosts, units, stations; those that don't end are killed.
func stopAll(ps []*Process) error {
	var errs []error
	for _, role := range []string{"host", "unit", "station"} {
		var wg sync.WaitGroup
		for _, p := range ps {
			if p.Role != role || !p.Alive() {
				continue
			}
			wg.Go(func() {
				if p.Signal(syscall.SIGTERM) != nil || p.waitGone(stopLimit) == nil {
					return
				}
				_ = p.Signal(syscall.SIGKILL) // it may have ended just now
			})
		}
		wg.Wait()
	}
	for _, p := range ps {
		if err := p.waitGone(2 * time.Second); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Stop ends the lab in dir that another process started, and removes its lab.json.
func Stop(dir string) error {
	l, err := Load(dir)
	if err != nil {
		return err
	}
	if err := stopAll(l.Processes); err != nil {
		return err
	}
	return os.Remove(dir + "/" + fileName)
}
