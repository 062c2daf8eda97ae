package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

const (
	host      = "kernel"
	firstIQN  = "iqn.2025-01.lab.vm:init"
	secondIQN = "iqn.2025-01.lab.vm:second"
)

// volumes are what the guest's scripts expect.
var volumes = []struct{ name, size string }{
	{"login", "256MiB"}, {"ext4", "96MiB"}, {"xfs", "320MiB"}, {"reserved", "16MiB"}, {"parts", "384MiB"}, {"loop", "32MiB"}, {"steady", "128MiB"},
}

// script is one of the guest's.
type script struct {
	name  string
	limit time.Duration // generous: the guest's processor is emulated on a machine that does other things
}

var scripts = []script{
	{"login", 15 * time.Minute}, {"pages", 10 * time.Minute}, {"filesystems", 30 * time.Minute}, {"discard", 15 * time.Minute},
	{"reservations", 10 * time.Minute}, {"lvm", 15 * time.Minute}, {"loops", 30 * time.Minute}, {"kill", 30 * time.Minute},
}

type options struct {
	bin, dir string
	console  string
	loops    int
	only     []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kernel:", err)
		stop()
		os.Exit(1)
	}
}

func parse() (options, error) {
	var o options
	flag.StringVar(&o.bin, "bin", "bin/sandbar", "the program")
	flag.StringVar(&o.dir, "vm", "chaos/vm", "folder of the VM's scripts")
	flag.StringVar(&o.console, "console", "", "folder for the guests' consoles; none is kept without")
	flag.IntVar(&o.loops, "loops", 50, "how often a session is begun and ended under I/O")
	flag.Parse()
	o.only = flag.Args()
	for _, name := range o.only {
		if !known(name) {
			return o, fmt.Errorf("there is no script %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	var err error
	o.bin, err = filepath.Abs(o.bin)
	return o, err
}

func names() (out []string) {
	for _, s := range scripts {
		out = append(out, s.name)
	}
	return out
}

func known(name string) bool { return wanted(names(), name) }

func wanted(only []string, name string) bool {
	for _, o := range only {
		if o == name {
			return true
		}
	}
	return len(only) == 0
}

// run runs the scripts. Its error says that a check failed, or that nobody could tell.
func run(ctx context.Context, out io.Writer) (err error) {
	o, err := parse()
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, filepath.Join(o.dir, "build.sh"))
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the VM: %w", err)
	}
	l, err := lab.Start(ctx, o.bin, "--stations", "3", "--units", "1", "--hosts", "0", "--medium-size", "2GiB")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	share, err := os.MkdirTemp("", "sandbar-kernel-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(share)) }()
	if err := give(ctx, l, share); err != nil {
		return err
	}
	r := &report{out: out}
	if err := runAll(ctx, o, l, share, r); err != nil {
		return err
	}
	panics, err := l.Panics()
	if err != nil {
		return err
	}
	for _, p := range panics {
		r.line(failedPrefix + "a process crashed: " + p)
	}
	return r.close()
}

// runAll runs the scripts while the desk serves them.
func runAll(ctx context.Context, o options, l *lab.Lab, share string, r *report) error {
	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return newDesk(share, l).serve(ctx) })
	g.Go(func() error {
		defer stop()
		for _, s := range scripts {
			if !wanted(o.only, s.name) {
				continue
			}
			if err := one(ctx, o, s, share, r); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// one runs one script in a guest of its own.
func one(ctx context.Context, o options, s script, share string, r *report) error {
	args := []string{"-q", "-t", fmt.Sprint(int(s.limit.Seconds())), "-i", firstIQN, "-s", share, "-e", "SECOND=" + secondIQN, "-e", fmt.Sprintf("LOOPS=%d", o.loops),
		"-f", filepath.Join(o.dir, "kernel-login.sh")}
	if o.console != "" {
		args = append(args, "-l", filepath.Join(o.console, s.name+".log"))
	}
	cmd := exec.CommandContext(ctx, filepath.Join(o.dir, "run.sh"), append(args, filepath.Join(o.dir, "kernel", s.name+".sh"))...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it ends the guest
	cmd.WaitDelay = 10 * time.Second
	output, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	before, began := r.failed, time.Now()
	r.line("== " + s.name)
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := r.take(output); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	r.end(s.name, before, cmd.Wait())
	r.line(fmt.Sprintf("== %s took %v", s.name, time.Since(began).Round(time.Second)))
	return ctx.Err()
}

// give makes the volumes and writes down for the guest how to reach each.
func give(ctx context.Context, l *lab.Lab, share string) error {
	for _, args := range [][]string{
		{"host", "add", host, "--initiator", firstIQN, "--initiator", secondIQN},
		{"host", "add", "stranger", "--initiator", "iqn.2025-01.lab.vm:stranger"},
		{"volume", "create", "not-its-own", "--size", "16MiB", "--host", "stranger", "--wait"},
	} {
		if err := l.CLI(ctx, args...).Err(); err != nil {
			return err
		}
	}
	var list strings.Builder
	for _, v := range volumes {
		if err := l.CLI(ctx, "volume", "create", v.name, "--size", v.size, "--host", host, "--wait").Err(); err != nil {
			return err
		}
		line, err := describe(ctx, l, v.name)
		if err != nil {
			return err
		}
		list.WriteString(line)
	}
	return os.WriteFile(filepath.Join(share, "volumes"), []byte(list.String()), 0o600)
}

// describe is a volume's line for the guest: name, id, target, port, CHAP user and secret, size.
func describe(ctx context.Context, l *lab.Lab, name string) (string, error) {
	v, err := l.Volume(ctx, name)
	if err != nil {
		return "", err
	}
	cred, err := l.Credentials(ctx, name, host)
	if err != nil {
		return "", err
	}
	p := v.Assignments[0].Paths[0]
	addr, port, ok := strings.Cut(p.Portal, ":")
	if !ok || addr != "127.0.0.1" {
		return "", fmt.Errorf("the portal of volume %s is %s; the guest reaches 127.0.0.1 only", name, p.Portal)
	}
	return strings.Join([]string{name, v.ID, p.TargetIQN, port, cred.User, cred.Secret, fmt.Sprint(v.SizeBytes)}, " ") + "\n", nil
}
