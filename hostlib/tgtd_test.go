package hostlib

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/hostlib/internal/stationtest"
	"github.com/sandbar-san/sandbar/internal/freeport"
)

const (
	diskBytes  = 16 << 20
	diskUser   = "host-1"
	diskSecret = "a secret of host-1"
)

// tgtd is Debian's target daemon with one disk: a unit that can be killed and started again. It is
// no process of ours, so that the initiator's rules are held by somebody else.
type tgtd struct {
	t       testing.TB
	portal  string
	control string
	disk    string
	tid     string // from which the disk's name is made
	cmd     *exec.Cmd
	log     bytes.Buffer
}

func startTgtd(t testing.TB) *tgtd {
	t.Helper()
	if _, err := exec.LookPath("tgtd"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("tgtd is missing; install Debian's tgt")
		}
		t.Skip("tgtd is missing; install Debian's tgt to run this test")
	}
	free, err := freeport.Loopback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	_, number, err := net.SplitHostPort(free[0])
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	// The control port names a socket in /var/run/tgtd and is at most 32767: there, each portal's has one of its own.
	if port > 1<<15-1 {
		port = 1<<16 - port
	}
	d := &tgtd{t: t, portal: free[0], control: strconv.Itoa(port), disk: filepath.Join(t.TempDir(), "disk"), tid: "1"}
	if err := os.WriteFile(d.disk, make([]byte, diskBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("tgtd: %s", d.log.String())
		}
	})
	d.start()
	return d
}

// path is how a host gets to the disk.
func (d *tgtd) path() *pb.Path {
	return &pb.Path{
		UnitId: "unit-1", Portal: d.portal, TargetIqn: "iqn.2026-11.io.sandbar.test:disk", Lun: 1, State: "Ready", EndLba: diskBytes/512 - 1,
	}
}

// volume is a volume on the disk.
func (d *tgtd) volume(name string) stationtest.Volume {
	return stationtest.Volume{ID: "id-" + name, Name: name, SizeBytes: diskBytes, Path: d.path(), CHAPUser: diskUser, CHAPSecret: diskSecret}
}

func (d *tgtd) start() {
	d.t.Helper()
	d.cmd = exec.Command("tgtd", "-f", "-C", d.control, "--iscsi", "portal="+d.portal)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for late := time.Now().Add(10 * time.Second); ; {
		err := d.admin("--op", "show", "--mode", "sys")
		if err == nil {
			break
		}
		if time.Now().After(late) {
			d.t.Fatalf("tgtd did not start: %v", err)
		}
		pause(d.t.Context(), 5*time.Millisecond)
	}
	for _, args := range []string{
		"--op new --mode target --tid " + d.tid + " -T " + d.path().TargetIqn,
		"--op new --mode logicalunit --tid " + d.tid + " --lun 1 -b " + d.disk,
	} {
		d.must(strings.Fields(args)...)
	}
	d.must("--op", "new", "--mode", "account", "--user", diskUser, "--password", diskSecret)
	d.must("--op", "bind", "--mode", "account", "--tid", d.tid, "--user", diskUser)
	d.must("--op", "bind", "--mode", "target", "--tid", d.tid, "-I", "ALL")
}

func (d *tgtd) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait() // it was killed
	os.Remove("/var/run/tgtd/socket." + d.control)
	os.Remove("/var/run/tgtd/socket." + d.control + ".lock")
}

func (d *tgtd) admin(args ...string) error {
	out, err := exec.Command("tgtadm", append([]string{"-C", d.control, "--lld", "iscsi"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tgtadm %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (d *tgtd) must(args ...string) {
	d.t.Helper()
	if err := d.admin(args...); err != nil {
		d.t.Fatal(err)
	}
}
