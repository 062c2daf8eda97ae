package iscsi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// gate blocks the writes of a memoryLU until it is opened or their context ends, if obey is set.
type gate struct {
	entered chan uint32
	open    chan struct{}
	obey    bool
}

func (r *rig) gate(obey bool) *gate {
	g := &gate{entered: make(chan uint32, 1000), open: make(chan struct{}), obey: obey}
	r.lu.setHold(func(ctx context.Context, t *scsi.Task) {
		if t.CDB[0] != 0x8a {
			return
		}
		g.entered <- t.Tag
		if g.obey {
			select {
			case <-g.open:
			case <-ctx.Done():
			}
			return
		}
		<-g.open
	})
	return g
}

func TestCommandsRunInParallel(t *testing.T) {
	r := newRig(t, Limits{ParallelCommands: 5, QueueDepth: 20})
	g := r.gate(false)
	c := r.dial().login(wishes())
	for range 12 {
		c.send(c.write(0, 1), pattern(512, 0))
	}
	for range 5 {
		<-g.entered
	}
	// A ping gets through meanwhile; the window has shrunk by what is open.
	c.send(&pdu.NOPOut{Immediate: true, ITT: 500, TTT: pdu.NoTag, CmdSN: c.cmdSN}, nil)
	if nop, _ := expect[pdu.NOPIn](c); nop.ExpCmdSN != c.cmdSN || nop.MaxCmdSN != c.cmdSN+20-12-1 {
		t.Errorf("%+v at CmdSN %d", nop, c.cmdSN)
	}
	// When the window is closed, more is ignored.
	for range 8 + 10 {
		c.send(c.write(0, 1), pattern(512, 0))
	}
	c.send(&pdu.NOPOut{Immediate: true, ITT: 501, TTT: pdu.NoTag, CmdSN: c.cmdSN}, nil)
	if nop, _ := expect[pdu.NOPIn](c); nop.ExpCmdSN != c.cmdSN-10 || nop.MaxCmdSN != nop.ExpCmdSN-1 {
		t.Errorf("%+v at CmdSN %d", nop, c.cmdSN)
	}
	close(g.open)
	seen := map[uint32]bool{}
	for range 20 {
		resp, _ := expect[pdu.SCSIResponse](c)
		seen[resp.ITT] = true
	}
	if _, most := r.lu.seen(); len(seen) != 20 || most != 5 {
		t.Errorf("%d answers, %d at a time", len(seen), most)
	}
}

// Whatever is open beyond the budget waits its turn, and all ends well.
func TestBufferBudget(t *testing.T) {
	r := newRig(t, Limits{BufferBytes: scsi.MaxTransferBytes, FirstBurstLength: 64 << 10})
	c := r.dial().login(wishes())
	const blocks = 16 << 10 // 8 MiB; four fit
	data := pattern(blocks*blockSize, 3)
	go func() {
		for range 10 {
			c.send(c.read(0, blocks), nil)
		}
		for range 6 {
			h := c.write(0, blocks)
			h.Final = false
			c.send(h, data[:4096])
		}
	}()
	// Unsolicited bursts stay open until the reads have been answered.
	reads := 0
	for reads < 10 {
		d, _ := expect[pdu.DataIn](c)
		if d.HasStatus {
			reads++
		}
	}
	for itt := uint32(11); itt <= 16; itt++ {
		c.burst(itt, pdu.NoTag, data, 4096, 64<<10)
	}
	for writes := 0; writes < 6; {
		switch h, _ := c.next(); d := h.(type) {
		case *pdu.R2T:
			c.burst(d.ITT, d.TTT, data, int(d.BufferOffset), int(d.BufferOffset+d.DesiredLength))
		case *pdu.SCSIResponse:
			if d.Status != 0 {
				t.Fatalf("%+v", d)
			}
			writes++
		}
	}
	r.lu.dataMu.RLock()
	defer r.lu.dataMu.RUnlock()
	if !bytes.Equal(r.lu.data, data) {
		t.Error("wrong data")
	}
}

func TestDataOutOutOfPlace(t *testing.T) {
	for name, spoil := range map[string]func(d *pdu.DataOut){
		"offset":  func(d *pdu.DataOut) { d.BufferOffset++ },
		"DataSN":  func(d *pdu.DataOut) { d.DataSN = 1 },
		"tag":     func(d *pdu.DataOut) { d.TTT++ },
		"no F":    func(d *pdu.DataOut) { d.Final = false },
		"not R2T": func(d *pdu.DataOut) { d.TTT = pdu.NoTag },
	} {
		r := newRig(t, Limits{})
		c := r.dial().login(wishes())
		h := c.write(0, 8)
		c.send(h, nil)
		ask, _ := expect[pdu.R2T](c)
		d := &pdu.DataOut{Final: true, ITT: h.ITT, TTT: ask.TTT}
		spoil(d)
		c.send(d, pattern(4096, 1))
		resp, data := expect[pdu.SCSIResponse](c)
		sense, _ := pdu.ParseSense(data)
		if got, err := cdb.ParseSense(sense); err != nil || resp.Status != cdb.StatusCheckCondition || got.ASC != cdb.ASCDataPhaseError {
			t.Errorf("%s: %+v %v", name, resp, got)
		}
		// Data that comes too late is forgotten, and life goes on.
		c.send(&pdu.DataOut{Final: true, ITT: h.ITT, TTT: ask.TTT, BufferOffset: 1 << 31}, pattern(512, 1))
		if resp, _ := c.writeAll(c.write(0, 8), pattern(4096, 2), 0, 0); resp.Status != 0 {
			t.Errorf("%s: %+v", name, resp)
		}
		r.stop()
	}
}

func TestAbortTask(t *testing.T) {
	r := newRig(t, Limits{ParallelCommands: 1})
	g := r.gate(true)
	c := r.dial().login(wishes())
	running, queued, gathering := c.write(0, 1), c.write(0, 1), c.write(0, 8)
	c.send(running, pattern(512, 0))
	<-g.entered
	c.send(queued, pattern(512, 0))
	c.send(gathering, nil)
	expect[pdu.R2T](c)
	abort := func(ref uint32, refSN uint32, want uint8) {
		t.Helper()
		c.itt++
		c.send(&pdu.TaskRequest{Immediate: true, Function: pdu.TaskAbort, ITT: c.itt, RefTag: ref, CmdSN: c.cmdSN, RefCmdSN: refSN}, nil)
		if resp, _ := expect[pdu.TaskResponse](c); resp.Response != want || resp.ITT != c.itt {
			t.Errorf("abort of %d: %+v, want %d", ref, resp, want)
		}
	}
	for _, h := range []*pdu.SCSICommand{gathering, queued, running} {
		abort(h.ITT, h.CmdSN, pdu.TaskComplete)
	}
	abort(running.ITT, running.CmdSN, pdu.TaskNotFound)
	abort(4711, c.cmdSN+1, pdu.TaskNotFound)
	// None of them is answered; the window is whole again.
	c.send(&pdu.NOPOut{Immediate: true, ITT: 500, TTT: pdu.NoTag, CmdSN: c.cmdSN}, nil)
	if nop, _ := expect[pdu.NOPIn](c); nop.MaxCmdSN != c.cmdSN+127 {
		t.Errorf("%+v at CmdSN %d", nop, c.cmdSN)
	}
}

// An abort is answered only when the command has ended, even if the device takes its time.
func TestAbortWaitsForTheDevice(t *testing.T) {
	r := newRig(t, Limits{})
	g := r.gate(false)
	c := r.dial().login(wishes())
	h := c.write(0, 1)
	c.send(h, pattern(512, 9))
	<-g.entered
	c.send(&pdu.TaskRequest{Immediate: true, Function: pdu.TaskAbort, ITT: 900, RefTag: h.ITT, CmdSN: c.cmdSN, RefCmdSN: h.CmdSN}, nil)
	c.send(&pdu.NOPOut{Immediate: true, ITT: 901, TTT: pdu.NoTag, CmdSN: c.cmdSN}, nil)
	expect[pdu.NOPIn](c) // comes before the abort's answer
	close(g.open)
	if resp, _ := expect[pdu.TaskResponse](c); resp.ITT != 900 || resp.Response != pdu.TaskComplete {
		t.Errorf("%+v", resp)
	}
}

func TestResetsReachAllSessions(t *testing.T) {
	for _, f := range []uint8{pdu.TaskAbortSet, pdu.TaskClearSet, pdu.TaskLUReset, pdu.TaskTargetWarmReset} {
		r := newRig(t, Limits{})
		g := r.gate(true)
		a, b := r.dial().login(wishes()), r.dial()
		b.isid[0] = 0x40
		b.login(wishes())
		a.send(a.write(0, 1), pattern(512, 0))
		b.send(b.write(0, 1), pattern(512, 0))
		<-g.entered
		<-g.entered
		a.send(&pdu.TaskRequest{Immediate: true, Function: f, ITT: 900, RefTag: pdu.NoTag, CmdSN: a.cmdSN}, nil)
		if resp, _ := expect[pdu.TaskResponse](a); resp.Response != pdu.TaskComplete {
			t.Errorf("function %d: %+v", f, resp)
		}
		r.lu.mu.Lock()
		resets, reset := len(r.lu.resets), f == pdu.TaskLUReset || f == pdu.TaskTargetWarmReset
		r.lu.mu.Unlock()
		if (resets == 1) != reset {
			t.Errorf("function %d: %d resets", f, resets)
		}
		close(g.open)
		if !reset { // the other session has a task set of its own
			expect[pdu.SCSIResponse](b)
		}
		b.send(b.read(0, 1), nil)
		if d, _ := expect[pdu.DataIn](b); d.ITT != b.itt {
			t.Errorf("function %d: %+v", f, d)
		}
		r.stop()
	}
}

func TestUnsupportedFunctions(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.dial().login(wishes())
	for _, x := range []struct {
		f    uint8
		lun  uint64
		want uint8
	}{{pdu.TaskClearACA, 0, pdu.TaskUnsupported}, {pdu.TaskTargetColdReset, 0, pdu.TaskUnsupported}, {pdu.TaskReassign, 0, pdu.TaskNoReassign},
		{99, 0, pdu.TaskUnsupported}, {pdu.TaskLUReset, pdu.EncodeLUN(3), pdu.TaskNoLUN}} {
		c.send(&pdu.TaskRequest{Immediate: true, Function: x.f, LUN: x.lun, ITT: 900, CmdSN: c.cmdSN}, nil)
		if resp, _ := expect[pdu.TaskResponse](c); resp.Response != x.want {
			t.Errorf("%+v: %+v", x, resp)
		}
	}
}

// What unassign relies on: after CloseSessions no command takes effect, and none comes back.
func TestCloseSessions(t *testing.T) {
	r := newRig(t, Limits{ParallelCommands: 2})
	g := r.gate(false)
	c := r.dial().login(wishes())
	for range 6 {
		c.send(c.write(0, 1), pattern(512, 1))
	}
	<-g.entered
	<-g.entered
	r.dir.set(func(d *directory) { d.refuse = san.Errorf(san.KindDenied, "withdrawn") })
	all := func(i SessionInfo) bool { return i.Host == "host" && i.Generation <= 1 }
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.srv.CloseSessions(ctx, all); !errors.Is(err, context.Canceled) || san.KindOf(err) != san.KindUnknown {
		t.Errorf("with commands in flight and no time: %v", err)
	}
	ended := make(chan error)
	go func() { ended <- r.srv.CloseSessions(context.Background(), all) }()
	c.closed()
	close(g.open)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(g.entered) != 0 {
		t.Errorf("%d commands more were executed", len(g.entered))
	}
	if running, _ := r.lu.seen(); running != 0 || len(r.srv.Sessions()) != 0 {
		t.Errorf("%d commands running, %d sessions", running, len(r.srv.Sessions()))
	}
	if resp, _ := r.dial().loginStep(true, 1, 3, names()...); resp.Status != pdu.LoginForbidden {
		t.Errorf("%+v", resp)
	}
	if err := r.srv.CloseSessions(context.Background(), func(SessionInfo) bool { return true }); err != nil {
		t.Error(err)
	}
}

// A login that was admitted before the assignment went away does not get in after.
func TestAdmitIsAskedAgain(t *testing.T) {
	for name, change := range map[string]func(*directory, Admission) Admission{
		"generation": func(d *directory, a Admission) Admission { a.Generation = san.Generation(d.asked); return a },
		"host":       func(d *directory, a Admission) Admission { a.Host = san.HostID(rune('a' + d.asked)); return a },
		"secret": func(d *directory, a Admission) Admission {
			if d.asked > 1 {
				a.CHAP = &CHAP{User: "u", Secret: "twelve bytes"}
			}
			return a
		},
		"logical unit": func(d *directory, a Admission) Admission {
			if d.asked > 1 {
				a.LU = &memoryLU{}
			}
			return a
		},
	} {
		r := newRig(t, Limits{})
		r.dir.set(func(d *directory) { d.admit = func(a Admission) Admission { return change(d, a) } })
		if resp, _ := r.dial().loginStep(true, 1, 3, names()...); resp.Status != pdu.LoginUnavailable {
			t.Errorf("%s: %+v", name, resp)
		}
		r.stop()
	}
}

func TestShutdownLetsCommandsEnd(t *testing.T) {
	r := newRig(t, Limits{})
	g := r.gate(false)
	c := r.dial().login(wishes())
	h := c.write(0, 1)
	c.send(h, pattern(512, 1))
	<-g.entered
	var stopped sync.WaitGroup
	stopped.Go(r.stop)
	if a, _ := expect[pdu.Async](c); a.Event != pdu.AsyncDropSession {
		t.Errorf("%+v", a)
	}
	close(g.open)
	if resp, _ := expect[pdu.SCSIResponse](c); resp.ITT != h.ITT || resp.Status != 0 {
		t.Errorf("%+v", resp)
	}
	c.closed()
	stopped.Wait()
}

func TestSilentInitiatorIsPingedThenClosed(t *testing.T) {
	r := newRig(t, Limits{PingInterval: 50 * time.Millisecond, PingTimeout: 500 * time.Millisecond})
	c := r.dial().login(wishes())
	nop, _ := expect[pdu.NOPIn](c)
	if nop.ITT != pdu.NoTag || nop.TTT == pdu.NoTag {
		t.Errorf("%+v", nop)
	}
	c.send(&pdu.NOPOut{Immediate: true, ITT: pdu.NoTag, TTT: nop.TTT, CmdSN: c.cmdSN}, nil)
	expect[pdu.NOPIn](c) // the next ping; this one stays without an answer
	c.closed()
}

// An initiator that asks and never reads is closed, and nobody else notices.
func TestStuckInitiatorIsClosed(t *testing.T) {
	r := newRig(t, Limits{PingInterval: time.Hour, PingTimeout: time.Second})
	stuck := r.dial()
	_ = stuck.conn.(*net.TCPConn).SetReadBuffer(4096)
	stuck.login(wishes())
	go func() {
		h := stuck.read(0, 8<<10)
		for stuck.d.WritePDU(stuck.conn, h, nil) == nil {
			h.ITT++
			h.CmdSN++
		}
	}()
	other := r.dial()
	other.isid[0] = 0x40
	other.login(wishes())
	for {
		if _, status := other.readAll(other.read(0, 8)); status != 0 {
			t.Fatal(status)
		}
		if len(r.srv.Sessions()) == 1 {
			break
		}
	}
	_ = stuck.conn.Close()
}

func TestDigestErrorEndsTheSession(t *testing.T) {
	r := newRig(t, Limits{})
	w := wishes()
	w.HeaderDigest, w.DataDigest = pdu.DigestRequire, pdu.DigestRequire
	for _, at := range []int{5, pdu.BHSLength + pdu.DigestLength} {
		c := r.dial().login(w)
		whole, err := c.d.Append(nil, c.write(0, 1), nil, pattern(512, 1))
		if err != nil {
			t.Fatal(err)
		}
		whole[at] ^= 1
		if _, err := c.conn.Write(whole); err != nil {
			t.Fatal(err)
		}
		if at > pdu.BHSLength {
			if rej, _ := expect[pdu.Reject](c); rej.Reason != pdu.RejectDataDigest {
				t.Errorf("%+v", rej)
			}
		}
		c.closed()
	}
	if r.lu.data[1] != 0 {
		t.Error("damaged data was written")
	}
}

// Bytes of any kind, before and after a login, end in answers or the end of the
// connection; the next initiator is served as ever.
func FuzzServer(f *testing.F) {
	var b []byte
	for _, h := range []pdu.Header{&pdu.SCSICommand{Final: true, Read: true, ITT: 1, ExpectedLength: 512, CmdSN: 100, CDB: rw16(0x88, 0, 1)},
		&pdu.SCSICommand{Write: true, ITT: 2, ExpectedLength: 1 << 20, CmdSN: 101, CDB: rw16(0x8a, 0, 2048)},
		&pdu.DataOut{ITT: 2, TTT: pdu.NoTag}, &pdu.TextRequest{Final: true, ITT: 4, TTT: pdu.NoTag, CmdSN: 102},
		&pdu.TaskRequest{Immediate: true, Function: pdu.TaskLUReset, ITT: 5, CmdSN: 103},
		&pdu.LogoutRequest{Immediate: true, ITT: 3, CmdSN: 103}, &pdu.NOPOut{Immediate: true, CmdSN: 103}} {
		one, _ := pdu.Digests{}.Append(nil, h, nil, []byte("SendTargets=\x00"))
		f.Add(one, true)
		b = append(b, one...)
	}
	f.Add(b, true)
	login, _ := pdu.Digests{}.Append(nil, &pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3}, nil, pdu.AppendText(nil, names()...))
	f.Add(login, false)
	f.Add(append(login, b...), false)
	r := newRig(f, Limits{})
	f.Fuzz(func(t *testing.T, in []byte, loggedIn bool) {
		r.t = t
		c := r.dial()
		if loggedIn {
			c.login(wishes())
		}
		_, _ = c.conn.Write(in)
		_ = c.conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c.conn)
		_ = c.conn.Close()
		c = r.dial()
		c.isid[0] = 0x40
		c.login(wishes())
		if _, status := c.readAll(c.read(0, 1)); status != 0 {
			t.Fatalf("status %d", status)
		}
		_ = c.conn.Close()
	})
}
