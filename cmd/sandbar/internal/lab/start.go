package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sandbar-san/sandbar/internal/freeport"
	"github.com/sandbar-san/sandbar/san"
)

// Running is a lab whose processes are this one's children.
type Running struct {
	Lab
	cfg Config
}

// Start starts the processes of a lab and returns once the stations have a leader, all units are in
// the pool and all hosts are known. Whatever fails, it leaves nothing running.
func Start(ctx context.Context, cfg Config) (*Running, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	r := &Running{cfg: cfg}
	ports, err := freeport.Loopback(ctx, 3*cfg.Stations+3*cfg.Units)
	if err != nil {
		return nil, err
	}
	r.plan(ports)
	if err := r.start(ctx); err != nil {
		return nil, fmt.Errorf("%w (logs are in %s)", err, cfg.Dir)
	}
	return r, nil
}

// plan lays down every process's command line. Nothing of it changes later, so that a
// process can be killed and started again.
func (r *Running) plan(ports []string) {
	next := func() string { p := ports[0]; ports = ports[1:]; return p }
	first := r.dir("station", 0)
	r.CLI = CLI{TokenFile: filepath.Join(first, "admin.token"), CAFile: filepath.Join(first, "ca.pem")}
	for i := range r.cfg.Stations {
		api, raft, gossip := next(), next(), next()
		args := []string{"station", "run", "--data", r.dir("station", i), "--id", name("station", i),
			"--api-listen", api, "--raft-listen", raft, "--gossip-listen", gossip,
			"--bootstrap-expect", strconv.Itoa(r.cfg.Stations), "--raft-timing", r.cfg.RaftTiming}
		if i > 0 {
			args = append(args, "--join", r.CLI.Endpoints[0], "--join-token-file", filepath.Join(first, "station.join-token"))
		}
		r.add("station", i, args, func(p *Process) { p.APIAddress = api })
		r.CLI.Endpoints = append(r.CLI.Endpoints, api)
	}
	join := strings.Join(r.CLI.Endpoints, ",")
	for i := range r.cfg.Units {
		portal, api, gossip := next(), next(), next()
		medium := filepath.Join(r.dir("unit", i), "medium-1.img")
		args := []string{"unit", "run", "--data", r.dir("unit", i), "--id", name("unit", i),
			"--media", medium, "--medium-size", strconv.FormatInt(r.cfg.MediumSizeBytes, 10),
			"--portal-listen", portal, "--api-listen", api, "--gossip-listen", gossip,
			"--join", join, "--join-token-file", filepath.Join(first, "unit.join-token")}
		r.add("unit", i, args, func(p *Process) { p.APIAddress, p.Portal, p.Media = api, portal, []string{medium} })
	}
	for i := range r.cfg.Hosts {
		args := []string{"host", "run", "--data", r.dir("host", i), "--id", name("host", i),
			"--join", join, "--join-token-file", filepath.Join(first, "host.join-token")}
		r.add("host", i, args, nil)
	}
}

func (r *Running) dir(role string, i int) string { return filepath.Join(r.cfg.Dir, name(role, i)) }

// add plans one process. No file of this machine's own configuration is to have a say in it.
func (r *Running) add(role string, i int, args []string, more func(*Process)) {
	p := &Process{
		Role: role, ID: name(role, i), Argv: slices.Concat([]string{r.cfg.Exe}, args, []string{"--config", ""}), Media: []string{},
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, LogFile: filepath.Join(r.cfg.Dir, name(role, i)+".log"),
	}
	if more != nil {
		more(p)
	}
	r.Processes = append(r.Processes, p)
}

func (r *Running) start(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			_ = r.Stop() // the first error is what matters
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.ReadyWithin)
	defer cancel()
	founder := r.Of("station")[0]
	if err := founder.start(r.cfg.DieWithParent); err != nil {
		return err
	}
	// The others need the tokens that the founder makes.
	if err := r.await(ctx, "the founder's tokens", func(context.Context) error {
		_, err := os.Stat(r.CLI.CAFile)
		return err
	}); err != nil {
		return err
	}
	for _, p := range r.Processes {
		if p == founder {
			continue
		}
		if err := p.start(r.cfg.DieWithParent); err != nil {
			return err
		}
	}
	if err := r.awaitReady(ctx); err != nil {
		return err
	}
	return r.write(r.cfg.Dir)
}

// await asks until what it waits for is there, ctx ends, or a process died.
func (r *Running) await(ctx context.Context, what string, ready func(context.Context) error) error {
	for {
		actx, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := ready(actx)
		cancel()
		if err == nil {
			return nil
		}
		for _, p := range r.Processes {
			if p.PID != 0 && !p.Alive() {
				return san.Errorf(san.KindInternal, "%s %s ended while the lab waited for %s: %s", p.Role, p.ID, what, lastLine(p.LogFile))
			}
		}
		select {
		case <-ctx.Done():
			return san.Errorf(san.KindUnavailable, "the lab waited too long for %s: %w", what, err)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func lastLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// Kill ends p's process at once, as a power cut would.
func (r *Running) Kill(p *Process) error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	return p.waitGone(stopLimit)
}

// Terminate asks p's process to stop and waits until it has.
func (r *Running) Terminate(p *Process) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.waitGone(stopLimit)
}

// Restart starts p again from its Argv and Env.
func (r *Running) Restart(p *Process) error {
	if p.Alive() {
		return san.Errorf(san.KindConflict, "%s %s still runs", p.Role, p.ID)
	}
	if err := p.start(r.cfg.DieWithParent); err != nil {
		return err
	}
	return r.write(r.cfg.Dir)
}

// Stop ends all processes.
func (r *Running) Stop() error {
	err := stopAll(r.Processes)
	if rerr := os.Remove(filepath.Join(r.cfg.Dir, fileName)); err == nil && !os.IsNotExist(rerr) {
		err = rerr
	}
	return err
}
