package iscsi

import (
	"bufio"
	"context"
	"net"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/iscsi/meter"
	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// only returns the server's one session, whose initiator has been quiet since it logged in.
func (r *rig) only() *session {
	r.t.Helper()
	r.srv.mu.Lock()
	defer r.srv.mu.Unlock()
	for _, s := range r.srv.sessions {
		return s
	}
	r.t.Fatal("there is no session")
	return nil
}

func everything(*command) bool { return true }

// idle waits until the session is in full feature phase with its reader waiting for input.
func (c *client) idle() {
	c.t.Helper()
	c.send(&pdu.NOPOut{Immediate: true, ITT: 900, TTT: pdu.NoTag, CmdSN: c.cmdSN}, nil)
	expect[pdu.NOPIn](c)
}

// Another session's reset, or the end of this one, may come at any moment while the reader takes a
// command in. The command must neither execute nor be given to anybody else while the reader has it.
func TestAbortsWhileTheReaderTakesACommandIn(t *testing.T) {
	for _, x := range []struct {
		name string
		h    func(c *client) *pdu.SCSICommand
		take func(s *session, c *command, h *pdu.SCSICommand)
	}{
		{"read", func(c *client) *pdu.SCSICommand { return c.read(0, 1) },
			func(s *session, c *command, _ *pdu.SCSICommand) { s.beginRead(c) }},
		{"write", func(c *client) *pdu.SCSICommand { return c.write(0, 1) },
			func(s *session, c *command, h *pdu.SCSICommand) {
				var b pdu.BHS
				h.Encode(&b)
				if err := s.beginWrite(c, h, &b, 0, nil); err != nil {
					t.Error(err)
				}
			}},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, Limits{})
			r.lu.setHold(func(context.Context, *scsi.Task) { t.Error("an aborted command was executed") })
			cl := r.dial().login(wishes())
			cl.idle()
			s, h := r.only(), x.h(cl)
			c, err := s.newCommand(h, nil)
			if err != nil {
				t.Fatal(err)
			}
			ended := false
			b := &barrier{then: func() { ended = true }}
			announce(s.abort(everything, b))
			if ended || s.tasks[h.ITT] != c {
				t.Error("the command is gone while the reader has it")
			}
			x.take(s, c, h)
			if !ended || len(s.tasks) != 0 || s.runQueue.len() != 0 {
				t.Errorf("ended: %v, left: %d commands, %d of them queued", ended, len(s.tasks), s.runQueue.len())
			}
		})
	}
}

// A write that is aborted while it waits for room and the reader fills it must leave the list of
// those who wait: it will be another command, perhaps another session's, the next time it is seen.
func TestAWriteAbortedWhileItIsFilledWaitsNoMore(t *testing.T) {
	r := newRig(t, Limits{BufferBytes: scsi.MaxTransferBytes, FirstBurstLength: 4096})
	cl := r.dial().login(wishes())
	cl.idle()
	s, h := r.only(), cl.write(0, 16)
	h.Final = false
	c, err := s.newCommand(h, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.own = 0
	_, ok := s.take(scsi.MaxTransferBytes, false) // all that a session may have
	s.mu.Unlock()
	if !ok {
		t.Fatal("no room in an idle server")
	}
	if refused, _ := s.admitWrite(c, h); refused != nil || len(s.waiting) != 1 {
		t.Fatalf("refused %v, %d wait", refused, len(s.waiting))
	}
	announce(s.abort(everything, nil))
	s.filled(c, 0, false, false)
	if len(s.waiting) != 0 || len(s.tasks) != 0 {
		t.Errorf("%d commands wait for room, %d are in the task set", len(s.waiting), len(s.tasks))
	}
}

// What an initiator sent before its session was killed, and the reader has read ahead, is thrown away.
func TestAKilledSessionTakesNoCommand(t *testing.T) {
	r := newRig(t, Limits{})
	r.lu.setHold(func(context.Context, *scsi.Task) { t.Error("a command was executed after its session was killed") })
	cl := r.dial().login(wishes())
	cl.idle()
	s := r.only()
	announce(s.die())
	var b pdu.BHS
	cl.read(0, 1).Encode(&b)
	if err := s.scsiCommand(&b, nil, nil); err == nil || len(s.tasks) != 0 || s.runQueue.len() != 0 {
		t.Errorf("error %v, %d commands, %d of them queued", err, len(s.tasks), s.runQueue.len())
	}
}

// A connection that breaks within the data of a write that is refused must not leave the write behind: another
// session's reset may be waiting for its end.
func TestARefusedWriteEndsWithItsConnection(t *testing.T) {
	r := newRig(t, Limits{})
	here, there := net.Pipe()
	_ = there.Close()
	s := newSession(r.srv, here, bufio.NewReader(here), SessionInfo{})
	s.lu, s.reader = r.lu, pdu.NewReader(s.in, 8192, 0)
	s.meter = meter.NewTarget().Open(meter.Peer{})
	h := &pdu.SCSICommand{Immediate: true, Final: true, Write: true, ExpectedLength: scsi.MaxTransferBytes + 1}
	c, err := s.newCommand(h, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	announce(s.abort(everything, &barrier{then: func() { ended = true }}))
	var b pdu.BHS
	h.Encode(&b)
	if err := s.beginWrite(c, h, &b, 4096, nil); err == nil {
		t.Error("data was read from a connection that is closed")
	}
	s.finish()
	if !ended || len(s.tasks) != 0 {
		t.Errorf("the command's end was told: %v; %d commands are left", ended, len(s.tasks))
	}
}
