package scenario

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestIsolation: hosts see and reach what they are assigned, and nothing else.
func TestIsolation(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "1", "--units", "1", "--hosts", "0")
	const aIQN, bIQN, cIQN = "iqn.2026-11.example:a", "iqn.2026-11.example:b", "iqn.2026-11.example:c"
	c.ok("host", "add", "a", "--initiator", aIQN)
	c.ok("host", "add", "b", "--initiator", bIQN, "--initiator", bIQN+"2")
	c.ok("host", "add", "c", "--initiator", cIQN, "--allow-from", "10.0.0.0/8")
	va, vb := c.give("va", "16MiB", "a"), c.give("vb", "16MiB", "b")
	c.give("vc", "16MiB", "c")
	portal := va.Assignments[0].Paths[0].Portal

	for iqn, want := range map[string]string{aIQN: target(va), bIQN: target(vb), bIQN + "2": target(vb), "iqn.2026-11.example:nobody": ""} {
		got := targets(t, portal, iqn)
		if want == "" && len(got) != 0 || want != "" && (len(got) != 1 || !got[want]) {
			t.Errorf("SendTargets shows %s %v, want only %q", iqn, got, want)
		}
	}

	a, b := c.login("va", "a", aIQN), c.login("vb", "b", bIQN)
	b2 := b
	b2.InitiatorName = bIQN + "2"
	open(t, b2)
	wrongSecret, noCHAP, wrongName, othersTarget, noTarget := a, a, a, a, a
	wrongSecret.CHAP.Secret += "x"
	noCHAP.CHAP.User, noCHAP.CHAP.Secret = "", ""
	wrongName.InitiatorName = bIQN
	othersTarget.Target = b.Target
	noTarget.Target += "x"
	loginRefused(t, "wrong CHAP secret", wrongSecret)
	loginRefused(t, "no CHAP", noCHAP)
	loginRefused(t, "another host's initiator name with the right secret", wrongName)
	loginRefused(t, "another host's target", othersTarget)
	loginRefused(t, "a target that is not there", noTarget)
	loginRefused(t, "an address that --allow-from leaves out", c.login("vc", "c", cIQN))

	// All of that has not disturbed those who may.
	dev := open(t, a)
	data := bytes.Repeat([]byte("sandbar "), 1024)
	if err := dev.WriteAt(t.Context(), data, 4096); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if err := dev.ReadAt(t.Context(), got, 4096); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back: %v, equal: %v", err, bytes.Equal(got, data))
	}
	t.Run("garbage", func(t *testing.T) {
		garbage(t, c)
		if err := dev.ReadAt(t.Context(), got, 4096); err != nil || !bytes.Equal(got, data) {
			t.Errorf("after garbage: read back: %v, equal: %v", err, bytes.Equal(got, data))
		}
	})
}

// garbage sends nonsense to every port of every process; none may mind.
func garbage(t *testing.T, c *cluster) {
	t.Helper()
	// A login request whose TSIH is not zero, and one whose length is a lie, after 48 bytes of header.
	tsih := make([]byte, 48)
	tsih[0], tsih[1], tsih[15] = 0x43, 0x87, 0x2a
	long := append([]byte{0x43, 0x87, 0, 0, 0, 0xff, 0xff, 0xff}, make([]byte, 40)...)
	scsi := append([]byte{0x01, 0xc0}, make([]byte, 46)...) // a command before any login
	inputs := [][]byte{tsih, long, scsi, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), bytes.Repeat([]byte{0xff}, 4096), make([]byte, 4096), {0x16, 3, 1, 0xff, 0xff, 1}}
	for _, p := range c.Of("") {
		for _, name := range []string{"portal-listen", "api-listen", "raft-listen", "gossip-listen"} {
			addr := p.Flag(name)
			if addr == "" {
				continue
			}
			for i, in := range inputs {
				if err := poke(addr, in); err != nil {
					t.Fatalf("%s %s: input %d: %v", p.ID, name, i, err)
				}
			}
		}
		if !p.Alive() {
			t.Errorf("%s has died", p.ID)
		}
	}
	c.ok("pool", "show")
}

// poke sends in and half-closes; the other side must end the connection in its own good time.
func poke(addr string, in []byte) error {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write(in); err != nil {
		return nil // it was refused before its end
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(conn, 1<<20)); err != nil && strings.Contains(err.Error(), "i/o timeout") {
		return fmt.Errorf("the connection stays open: %w", err)
	}
	return nil
}

// TestUnassignUnderIO: what is taken away is gone at once, also for a session that is busy.
func TestUnassignUnderIO(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "1", "--units", "1", "--hosts", "0")
	const iqn = "iqn.2026-11.example:a"
	c.ok("host", "add", "a", "--initiator", iqn)
	c.ok("host", "add", "b", "--initiator", iqn+"b")
	c.give("v", "16MiB", "a")
	cfg := c.login("v", "a", iqn)
	dev := open(t, cfg)

	ended := make(chan error, 1)
	first := make(chan struct{})
	go func() { // ends when its session does
		buf := bytes.Repeat([]byte{0xa5}, 64<<10)
		for i := 0; ; i++ {
			if err := dev.WriteAt(t.Context(), buf, int64(i%128)*(64<<10)); err != nil {
				ended <- err
				return
			}
			if i == 10 {
				close(first)
			}
		}
	}()
	select {
	case <-first:
	case err := <-ended:
		t.Fatalf("the first writes: %v", err)
	}
	c.refused(4, []string{"v", "assigned", "unassign"}, "volume", "delete", "v")
	c.ok("volume", "unassign", "v", "--host", "a", "--wait")
	// It is said to be gone now: no write may succeed any more.
	probe := make(chan error, 1)
	go func() { probe <- dev.WriteAt(t.Context(), make([]byte, 512), 0) }()
	for name, ch := range map[string]chan error{"the writer": ended, "a write after the unassign": probe} {
		select {
		case err := <-ch:
			if err == nil {
				t.Errorf("%s goes on", name)
			}
		case <-time.After(patience):
			t.Fatalf("%s hangs", name)
		}
	}
	loginRefused(t, "after the unassign", cfg)
	if got := targets(t, cfg.Portal, iqn); len(got) != 0 {
		t.Errorf("SendTargets still shows %v", got)
	}
	c.refused(3, []string{"not assigned"}, "volume", "credentials", "v", "--host", "a")
	c.refused(3, []string{"not assigned"}, "volume", "url", "v", "--host", "a")

	// Another host takes over the same volume with its content; the former secret is worth nothing.
	c.ok("volume", "assign", "v", "--host", "b", "--wait")
	b := open(t, c.login("v", "b", iqn+"b"))
	got := make([]byte, 512)
	if err := b.ReadAt(t.Context(), got, 0); err != nil || got[0] != 0xa5 {
		t.Errorf("the volume's content for its new host: %v, %x", err, got[:4])
	}
	loginRefused(t, "the former host after another one has it", cfg)
}
