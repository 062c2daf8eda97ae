package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandbar-san/sandbar/chaos/lab"
	"github.com/sandbar-san/sandbar/internal/freeport"
)

const (
	// initiator is the name with which qemu always logs in.
	initiator = "iqn.2008-11.org.linux-kvm"
	peerIQN   = "iqn.2026-01.bench.tgt:disk"
	volume    = "bench"
	host      = "client"
	// controlSocket and the control port make the path at which tgtd takes orders.
	controlSocket = "/var/run/tgtd/socket."
	maxControl    = 1<<15 - 1
	// startLimit bounds how long tgtd may take to answer its control port.
	startLimit = 20 * time.Second
)

// target is one of those that are measured.
type target struct {
	name string
	url  string // what clients open
	file string // where the data is
	pid  int
	stop func() error
}

// startOurs starts a station and a unit and gives the clients a volume.
func startOurs(ctx context.Context, o options) (_ *target, err error) {
	medium := fmt.Sprintf("%dMiB", o.sizeBytes>>20+64) // the rest is the medium's own
	l, err := lab.Start(ctx, o.bin, "--stations", "1", "--units", "1", "--spare-units", "0", "--hosts", "0", "--spare-hosts", "0", "--medium-size", medium)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	units := l.Of("unit")
	if len(units) != 1 || len(units[0].Media) != 1 {
		return nil, fmt.Errorf("the lab has %d units, want one with one medium", len(units))
	}
	// Space is given before the first write, as the peer's file has it.
	if err := preallocate(units[0].Media[0], 0); err != nil {
		return nil, err
	}
	if err := l.CLI(ctx, "host", "add", host, "--initiator", initiator).Err(); err != nil {
		return nil, err
	}
	if err := l.CLI(ctx, "volume", "create", volume, "--size", strconv.FormatInt(o.sizeBytes, 10), "--host", host, "--wait").Err(); err != nil {
		return nil, err
	}
	r := l.CLI(ctx, "volume", "url", volume, "--host", host)
	return &target{name: "sandbar", url: strings.TrimSpace(r.Stdout), file: units[0].Media[0], pid: units[0].PID, stop: l.Close}, r.Err()
}

// startPeer starts a tgtd of our own, with its defaults: write cache on, sixteen I/O threads.
func startPeer(ctx context.Context, dir string, sizeBytes int64) (_ *target, err error) {
	portals, err := freeport.Loopback(ctx, 1)
	if err != nil {
		return nil, err
	}
	portal := portals[0]
	file := filepath.Join(dir, "tgtd.img")
	if err := preallocate(file, sizeBytes); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "tgtd.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	// The control port is a number of its own space, of 15 bits.
	control := strconv.Itoa(os.Getpid()%maxControl + 1)
	cmd := exec.Command("tgtd", "-f", "-C", control, "--iscsi", "portal="+portal)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("tgtd (Debian: tgt): %w", err)
	}
	stop := func() error {
		killed := cmd.Process.Kill()
		_ = cmd.Wait()                                   // it was killed
		_ = os.Remove(controlSocket + control)           // may not be there yet
		_ = os.Remove(controlSocket + control + ".lock") // the same
		return killed
	}
	if err := configurePeer(ctx, control, file); err != nil {
		text, _ := os.ReadFile(log.Name()) // best effort: err says what is wrong
		return nil, errors.Join(err, stop(), fmt.Errorf("tgtd said: %s", text))
	}
	return &target{name: "tgtd", url: "iscsi://" + portal + "/" + peerIQN + "/1", file: file, pid: cmd.Process.Pid, stop: stop}, nil
}

func configurePeer(ctx context.Context, control, file string) error {
	adm := func(args ...string) error {
		return lab.Run(ctx, "tgtadm", nil, append([]string{"-C", control, "--lld", "iscsi"}, args...)...).Err()
	}
	for end := time.Now().Add(startLimit); ; {
		err := adm("--op", "show", "--mode", "system")
		if err == nil {
			break
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.Join(
		adm("--op", "new", "--mode", "target", "--tid", "1", "-T", peerIQN),
		adm("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", file),
		adm("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"))
}

// preallocate gives a file all its space; a size of 0 leaves it as long as it is.
func preallocate(path string, sizeBytes int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if sizeBytes == 0 {
		info, err := f.Stat()
		if err != nil {
			return errors.Join(err, f.Close())
		}
		sizeBytes = info.Size()
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, sizeBytes); err != nil {
		return errors.Join(fmt.Errorf("preallocate %s: %w", path, err), f.Close())
	}
	return f.Close()
}

// fill writes the whole volume through the target, so that every block is there and cached.
func (t *target) fill(ctx context.Context, sizeBytes int64) error {
	args := []string{"bench", "-f", "raw", "-w", "-d", "8", "-s", "1M", "-c", strconv.FormatInt(sizeBytes>>20, 10), t.url}
	if err := lab.Run(ctx, "qemu-img", nil, args...).Err(); err != nil {
		return fmt.Errorf("fill %s: %w", t.name, err)
	}
	return t.settle()
}

// settle makes what was written stable, so that no run pays for the one before.
func (t *target) settle() error {
	f, err := os.Open(t.file)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fdatasync(int(f.Fd())), f.Close())
}

// cpu is how long the target's process has run, with all its threads.
func (t *target) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.pid))
	if err != nil {
		return 0, err
	}
	return cpuTime(string(b))
}

// ticksPerSecond is USER_HZ, in which the kernel tells times to programs; it is 100 on every
// architecture that Go runs on.
const ticksPerSecond = 100

// cpuTime reads utime and stime of /proc/PID/stat. The second field is the command in
// parentheses; what follows the last one is fixed (proc(5)).
func cpuTime(stat string) (time.Duration, error) {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("no process statistics: %.100q", stat)
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticksPerSecond, errors.Join(err, err2)
}
