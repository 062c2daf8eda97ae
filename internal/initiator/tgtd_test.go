package initiator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/freeport"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testInitiator = "iqn.2026-11.io.sandbar.test:initiator"

// tgtd is Debian's target daemon, run for one test.
type tgtd struct {
	t       testing.TB
	portal  string
	control string
	next    int
}

// startTgtd runs tgtd on free ports. It skips the test only where tgtd is missing and no CI asks for it.
func startTgtd(t testing.TB) *tgtd {
	t.Helper()
	bin, err := exec.LookPath("tgtd")
	if err != nil {
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
	d := &tgtd{t: t, portal: free[0], control: strconv.Itoa(port)}
	var log bytes.Buffer
	cmd := exec.Command(bin, "-f", "-C", d.control, "--iscsi", "portal="+d.portal)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.Remove("/var/run/tgtd/socket." + d.control)
		os.Remove("/var/run/tgtd/socket." + d.control + ".lock")
		if t.Failed() {
			t.Logf("tgtd: %s", log.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		if err := d.try("--op", "show", "--mode", "sys"); err == nil {
			return d
		} else if perr := pause(ctx, 10*time.Millisecond); perr != nil {
			t.Fatalf("tgtd did not start: %v", err)
		}
	}
}

func (d *tgtd) try(args ...string) error {
	out, err := exec.Command("tgtadm", append([]string{"-C", d.control, "--lld", "iscsi"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tgtadm %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (d *tgtd) admin(args ...string) {
	d.t.Helper()
	if err := d.try(args...); err != nil {
		d.t.Fatal(err)
	}
}

// target adds a target with a LUN 1 of sizeBytes and returns its name and number.
func (d *tgtd) target(sizeBytes int64) (name, tid string) {
	d.t.Helper()
	d.next++
	tid, name = fmt.Sprint(d.next), fmt.Sprintf("iqn.2026-11.io.sandbar.test:disk%d", d.next)
	file := filepath.Join(d.t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Truncate(file, sizeBytes); err != nil {
		d.t.Fatal(err)
	}
	d.admin("--op", "new", "--mode", "target", "--tid", tid, "-T", name)
	d.admin("--op", "new", "--mode", "logicalunit", "--tid", tid, "--lun", "1", "-b", file)
	d.admin("--op", "bind", "--mode", "target", "--tid", tid, "-I", "ALL")
	return name, tid
}

func (d *tgtd) config(target string) Config {
	return Config{Portal: d.portal, Target: target, InitiatorName: testInitiator}
}

func openTest(t testing.TB, cfg Config, lun uint64) *Device {
	t.Helper()
	s, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	d, err := OpenDevice(t.Context(), s, lun)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTgtdReadWrite(t *testing.T) {
	daemon := startTgtd(t)
	name, tid := daemon.target(64 << 20)
	for _, key := range []string{"HeaderDigest", "DataDigest"} {
		daemon.admin("--op", "update", "--mode", "target", "--tid", tid, "--name", key, "--value", "CRC32C")
	}
	for _, c := range []struct {
		name string
		edit func(*Config)
	}{
		{"plain", func(*Config) {}},
		{"digests", func(c *Config) { c.HeaderDigest, c.DataDigest = DigestRequired, DigestRequired }},
		{"small segments", func(c *Config) { c.Limits.MaxRecvDataSegmentBytes, c.Limits.MaxBurstBytes = 512, 4096 }},
		{"depth 1", func(c *Config) { c.Limits.QueueDepth = 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := daemon.config(name)
			c.edit(&cfg)
			d := openTest(t, cfg, 1)
			if d.SizeBytes() != 64<<20 || d.BlockSizeBytes() != 512 || d.WWID() == "" || d.Inquiry().Vendor != "IET" {
				t.Fatalf("%d bytes in blocks of %d, %q, %+v", d.SizeBytes(), d.BlockSizeBytes(), d.WWID(), d.Inquiry())
			}
			checkReadWrite(t, d, 3<<20)
			if err := d.Session().Logout(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// checkReadWrite writes with many requests in flight, in all sizes, and reads it back by
// one long request and by many.
func checkReadWrite(t *testing.T, d *Device, sizeBytes int) {
	t.Helper()
	rng := rand.NewChaCha8(sha256.Sum256([]byte(t.Name())))
	want := make([]byte, sizeBytes)
	rng.Read(want)
	each := func(op func(p []byte, off int64) error, p []byte) {
		var wg sync.WaitGroup
		gate := make(chan struct{}, 64)
		for off, n := 0, 512; off < len(p); off, n = off+n, n%(128<<10)+512*7 {
			n = min(n, len(p)-off)
			gate <- struct{}{}
			wg.Go(func() {
				if err := op(p[off:off+n], int64(off)); err != nil {
					t.Error(err)
				}
				<-gate
			})
		}
		wg.Wait()
	}
	each(func(p []byte, off int64) error { return d.WriteAt(t.Context(), p, off) }, want)
	if err := d.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	got := make([]byte, sizeBytes)
	if err := d.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("one long read: %v, equal %v", err, bytes.Equal(got, want))
	}
	rng.Read(want)
	if err := d.WriteThroughAt(t.Context(), want, 0); err != nil {
		t.Error(err)
	}
	each(func(p []byte, off int64) error { return d.ReadAt(t.Context(), p, off) }, got)
	if !bytes.Equal(got, want) {
		t.Error("many reads differ from what one long write wrote")
	}
}

func TestTgtdDiscovery(t *testing.T) {
	daemon := startTgtd(t)
	var names []string
	for range 20 {
		name, _ := daemon.target(1 << 20)
		names = append(names, name)
	}
	targets, err := Discover(t.Context(), daemon.config(""))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, target := range targets {
		found[target.Name] = len(target.Portals) == 1 && target.Portals[0] == Portal{Address: daemon.portal, Group: 1}
	}
	for _, name := range names {
		if !found[name] {
			t.Errorf("%s is missing or has other portals: %+v", name, targets)
		}
	}
}

func TestTgtdCHAP(t *testing.T) {
	daemon := startTgtd(t)
	name, tid := daemon.target(1 << 20)
	daemon.admin("--op", "new", "--mode", "account", "--user", "host", "--password", "a secret of hosts")
	daemon.admin("--op", "new", "--mode", "account", "--user", "disk", "--password", "a secret of disks")
	daemon.admin("--op", "bind", "--mode", "account", "--tid", tid, "--user", "host")
	right, targetRight := CHAP{"host", "a secret of hosts"}, CHAP{"disk", "a secret of disks"}
	check := func(own, peer CHAP, kind san.Kind) {
		t.Helper()
		cfg := daemon.config(name)
		cfg.CHAP, cfg.MutualCHAP = own, peer
		s, err := Dial(t.Context(), cfg)
		if err == nil {
			s.Close()
		}
		if (kind == san.KindInternal) != (err == nil) || err != nil && san.KindOf(err) != kind {
			t.Errorf("CHAP as %q, mutual %q: %v", own.User, peer.User, err)
		}
		if err != nil && (strings.Contains(err.Error(), right.Secret) || strings.Contains(err.Error(), targetRight.Secret)) {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
	const fine = san.KindInternal
	check(right, CHAP{}, fine)
	check(CHAP{}, CHAP{}, san.KindUnauthenticated)
	check(CHAP{"host", "wrong"}, CHAP{}, san.KindUnauthenticated)
	check(CHAP{"guest", "a secret of hosts"}, CHAP{}, san.KindUnauthenticated)
	daemon.admin("--op", "bind", "--mode", "account", "--tid", tid, "--user", "disk", "--outgoing")
	check(right, targetRight, fine)
	check(right, CHAP{"", "a secret of disks"}, fine)
	check(right, CHAP{"disk", "wrong secret"}, san.KindUnauthenticated)
	check(right, CHAP{"other", "a secret of disks"}, san.KindUnauthenticated)
}

func TestTgtdRefusals(t *testing.T) {
	daemon := startTgtd(t)
	name, tid := daemon.target(1 << 20)
	if _, err := Dial(t.Context(), daemon.config(name+"x")); san.KindOf(err) != san.KindNotFound {
		t.Errorf("unknown target: %v", err)
	}
	d := openTest(t, daemon.config(name), 1)
	strict := daemon.config(name)
	strict.DataDigest = DigestRequired
	if _, err := Dial(t.Context(), strict); san.KindOf(err) != san.KindConflict {
		t.Errorf("digest that the target does not do: %v", err)
	}
	if _, err := OpenDevice(t.Context(), d.Session(), 9); san.KindOf(err) != san.KindNotFound {
		t.Errorf("unknown LUN: %v", err)
	}
	if err := d.ReadAt(t.Context(), make([]byte, 512), 1<<20); san.KindOf(err) != san.KindInvalid {
		t.Errorf("beyond the end: %v", err)
	}
	if err := d.WriteAt(t.Context(), make([]byte, 100), 0); san.KindOf(err) != san.KindInvalid {
		t.Errorf("not aligned: %v", err)
	}
	r, err := d.Session().Execute(t.Context(), &Command{LUN: 1, CDB: cdb.Read16(1<<20, 1, false), In: make([]byte, 512)})
	var sense *SenseError
	if err != nil || !errors.As(r.Err("read"), &sense) || sense.Sense.ASC != cdb.ASCLBAOutOfRange {
		t.Errorf("read beyond the end past our own check: %v, %v", err, r.Err("read"))
	}
	if err := d.Discard(t.Context(), 0, 512); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("discard: %v", err)
	}
	daemon.admin("--op", "delete", "--mode", "target", "--tid", tid, "--force")
	<-d.Session().Done()
	if err := d.ReadAt(t.Context(), make([]byte, 512), 0); err == nil || MayHaveTakenEffect(err) {
		t.Errorf("after the session's end: %v", err)
	}
}
