package initiator

import (
	"encoding/binary"
	"net"

	"github.com/sandbar-san/sandbar/internal/pdu"
)

// Bounds of one write: enough to fill a socket buffer, little enough that commands
// don't wait long behind bulk data.
const (
	batchPDUs  = 64
	batchBytes = 512 << 10
)

// control is one of the session's own requests: ping, abort, logout. The writer fills in
// ExpStatSN and CmdSN.
type control struct {
	header pdu.BHS
	data   []byte
	// takesCmdSN: not immediate, so it uses a command number up.
	takesCmdSN bool
	// reply: it answers a ping of the target's and counts in Session.replies.
	reply bool
}

// burst is data that an R2T asked for.
type burst struct {
	c      *call
	ttt    uint32
	next   int // offset in c.cmd.Out
	end    int
	dataSN uint32
}

// outgoing is one PDU of the batch being written.
type outgoing struct {
	header pdu.BHS
	data   []byte
	c      *call // whose buffer data is; nil for the session's own
	// head and tail are the bytes before and after data, in wire form.
	head [pdu.BHSLength + pdu.DigestLength]byte
	tail [3 + pdu.DigestLength]byte
}

// batch is the PDUs of one write; Session.writing guards it.
type batch struct {
	pdus  [batchPDUs]outgoing
	n     int
	bytes int
	iov   [3 * batchPDUs][]byte
	vec   net.Buffers
}

func (b *batch) full() bool { return b.n == batchPDUs || b.bytes >= batchBytes }

func (b *batch) add(data []byte, c *call) *outgoing {
	o := &b.pdus[b.n]
	b.n++
	b.bytes += pdu.BHSLength + len(data)
	o.data, o.c = data, c
	if c != nil && len(data) > 0 {
		c.writes++
	}
	return o
}

// writeNow writes what is queued, unless somebody is writing already, who will then see to it. It
// lets go of mu while it writes. What it leaves goes to the writer goroutine. Needs mu.
func (s *Session) writeNow() {
	if s.writing || s.cause != nil {
		return
	}
	if !s.writeBatch() {
		return
	}
	if s.pending() {
		s.wakeWriter()
	}
}

// wakeWriter has the writer goroutine write what is queued.
func (s *Session) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake, or will be
	}
}

// writeLoop is the writer goroutine: it writes what others leave.
func (s *Session) writeLoop() {
	for {
		select {
		case <-s.wake:
		case <-s.ending:
			return
		}
		s.mu.Lock()
		for !s.writing && s.cause == nil && s.writeBatch() {
		}
		s.mu.Unlock()
	}
}

// pending reports whether something could be written now. Needs mu.
func (s *Session) pending() bool {
	return len(s.controls) > 0 || len(s.bursts) > 0 || len(s.queue) > 0 && s.windowOpen()
}

func (s *Session) windowOpen() bool { return pdu.SerialLessEq(s.cmdSN, s.maxCmdSN) }

// writeBatch collects and writes one batch and reports whether it had anything to write. Needs mu and
// !writing; lets go of mu while it writes.
func (s *Session) writeBatch() bool {
	b := &s.batch
	b.n, b.bytes = 0, 0
	s.collectControls(b)
	s.collectCommands(b)
	s.collectBursts(b)
	if b.n == 0 {
		return false
	}
	s.writing = true
	s.writers.Add(1)
	s.mu.Unlock()
	err := s.send(b)
	s.mu.Lock()
	s.writing = false
	for i := range b.n {
		o := &b.pdus[i]
		if o.c != nil && len(o.data) > 0 {
			o.c.writes--
			s.signal(o.c)
		}
		o.c, o.data = nil, nil
	}
	if err != nil {
		s.failLocked(lostError(err))
	}
	s.writers.Done()
	return true
}

func (s *Session) collectControls(b *batch) {
	n := 0
	for ; n < len(s.controls) && !b.full(); n++ {
		ctl := &s.controls[n]
		if ctl.takesCmdSN && !s.windowOpen() {
			break
		}
		o := b.add(ctl.data, nil)
		o.header = ctl.header
		binary.BigEndian.PutUint32(o.header[24:], s.cmdSN)
		binary.BigEndian.PutUint32(o.header[28:], s.expStatSN)
		o.header.SetLengths(0, len(ctl.data))
		if ctl.takesCmdSN {
			s.cmdSN++
		}
		if ctl.reply {
			s.replies--
		}
	}
	s.controls = append(s.controls[:0], s.controls[n:]...)
}

// collectCommands takes commands in the order of their submission, as far as the
// target's command window goes, each with its immediate data.
func (s *Session) collectCommands(b *batch) {
	n := 0
	for ; n < len(s.queue) && !b.full() && s.windowOpen(); n++ {
		c := s.queue[n]
		c.state, c.cmdSN = callSent, s.cmdSN
		s.cmdSN++
		immediate := 0
		if s.params.immediateData {
			immediate = min(len(c.cmd.Out), s.params.firstBurstBytes, s.params.maxSendBytes)
		}
		c.outOffset = immediate
		o := b.add(c.cmd.Out[:immediate], c)
		h := pdu.SCSICommand{
			Final: true, Read: len(c.cmd.In) > 0, Write: len(c.cmd.Out) > 0, Attr: pdu.AttrSimple,
			LUN: c.lun, ITT: c.itt, ExpectedLength: uint32(len(c.cmd.In) + len(c.cmd.Out)),
			CmdSN: c.cmdSN, ExpStatSN: s.expStatSN, CDB: c.cmd.CDB,
		}
		h.Encode(&o.header)
		o.header.SetLengths(0, immediate)
	}
	s.queue = append(s.queue[:0], s.queue[n:]...)
}

// collectBursts takes solicited data in the order of its R2Ts (RFC 7143 §11.8).
func (s *Session) collectBursts(b *batch) {
	n := 0
	for n < len(s.bursts) && !b.full() {
		u := &s.bursts[n]
		size := min(u.end-u.next, s.params.maxSendBytes)
		o := b.add(u.c.cmd.Out[u.next:u.next+size], u.c)
		h := pdu.DataOut{
			Final: u.next+size == u.end, LUN: u.c.lun, ITT: u.c.itt, TTT: u.ttt,
			ExpStatSN: s.expStatSN, DataSN: u.dataSN, BufferOffset: uint32(u.next),
		}
		h.Encode(&o.header)
		o.header.SetLengths(0, size)
		u.next += size
		u.dataSN++
		if u.next == u.end {
			u.c.bursting = false
			n++
		}
	}
	s.bursts = append(s.bursts[:0], s.bursts[n:]...)
}

// send writes the batch. Only Session.writing's holder calls it; it does not need mu.
func (s *Session) send(b *batch) error {
	iov := b.iov[:0]
	for i := range b.n {
		o := &b.pdus[i]
		iov = append(iov, s.digests.AppendHeader(o.head[:0], &o.header, nil))
		if len(o.data) == 0 {
			continue
		}
		iov = append(iov, o.data)
		if tail := s.digests.AppendTrailer(o.tail[:0], o.data); len(tail) > 0 {
			iov = append(iov, tail)
		}
	}
	if len(iov) == 1 {
		_, err := s.conn.Write(iov[0])
		return err
	}
	b.vec = iov
	_, err := b.vec.WriteTo(s.conn)
	clear(b.iov[:]) // let go of the callers' buffers
	return err
}

// dropBurst takes c's waiting burst back. Needs mu.
func (s *Session) dropBurst(c *call) {
	if !c.bursting {
		return
	}
	c.bursting = false
	for i := range s.bursts {
		if s.bursts[i].c == c {
			s.bursts = append(s.bursts[:i], s.bursts[i+1:]...)
			return
		}
	}
}
