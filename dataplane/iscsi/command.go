package iscsi

import (
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// command is one SCSI command from its arrival to its answer. It is in its session's task
// set for that time; session.mu guards it but for what the reader or the executing worker alone
// looks at.
type command struct {
	task     scsi.Task
	ctx      *taskContext
	cdb      [16]byte
	itt      uint32
	began    time.Duration // on the meter's clock
	expected uint32        // expected data transfer length of the write, or else of the read
	readLen  uint32        // that of the read
	write    bool
	numbered bool // not immediate: it holds a place in the command window
	attr     uint8
	dormant  bool // not to be executed yet, see taskSet

	buf    *buffer // data-out
	got    uint32  // how much of it is there, in order
	room   room    // what it holds of the buffer budget
	dataSN uint32  // next in the unsolicited burst

	phase    phase
	filling  bool // the reader has it just now: only the reader may end it
	admitted bool // a write that has room for what comes unasked
	roomy    bool // there is room for all of its data
	aborted  bool
	waits    []*barrier

	// Solicited data: r2ts are those open, in the order in which they must be answered.
	solicited uint32 // data up to here has been asked for
	r2tSN     uint32
	r2ts      []r2t
}

type r2t struct {
	ttt, offset, length, got, dataSN uint32
}

// phase is where a command stands.
type phase uint8

const (
	phaseUnsolicited phase = iota // unsolicited data is still to come
	phaseSolicited                // waiting for room, or for solicited data
	phaseWaiting                  // a read that waits for room
	phaseDormant                  // all data is there, but its turn has not come; see taskSet
	phaseQueued
	phaseRunning
)

// scsiCommand takes a SCSI command whose turn has come.
func (s *session) scsiCommand(b *pdu.BHS, ahs []byte, whole *pdu.PDU) error {
	var h pdu.SCSICommand
	h.Decode(b)
	if reason := s.judge(&h, b.DataLength()); reason != 0 {
		if whole == nil {
			if err := s.reader.Discard(b.DataLength()); err != nil {
				return err
			}
		}
		if !h.Immediate {
			s.maxCmdSN.Add(1)
		}
		s.reject(b, reason)
		return nil
	}
	c, err := s.newCommand(&h, ahs)
	if err != nil {
		return err
	}
	n := b.DataLength()
	if !supported(h.Attr) {
		s.complete(c, invalidAttribute())
		if whole == nil {
			return s.reader.Discard(n)
		}
		return nil
	}
	if h.Write && h.ExpectedLength > 0 {
		return s.beginWrite(c, &h, b, n, whole)
	}
	s.beginRead(c)
	return nil
}

// judge returns the reason to reject a command, 0 for none.
func (s *session) judge(h *pdu.SCSICommand, n int) uint8 {
	if s.info.Discovery {
		return pdu.RejectNotSupported
	}
	switch {
	case h.ITT == pdu.NoTag,
		n > 0 && (!h.Write || !s.params.ImmediateData),
		n > int(min(h.ExpectedLength, s.params.FirstBurstLength)),
		!h.Final && !h.Write:
		return pdu.RejectProtocolError
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tasks[h.ITT] != nil {
		return pdu.RejectTaskInProgress
	}
	if h.Immediate && s.immediates >= max(1, s.limits.QueueDepth/8) {
		return pdu.RejectImmediateCommands
	}
	return 0
}

// newCommand puts a command into the task set. It comes marked as filling, because an abort from
// elsewhere must not recycle it under the reader's hands; beginRead or filled lets go of it. A
// session that is ending takes none: what the reader has read ahead is thrown away.
func (s *session) newCommand(h *pdu.SCSICommand, ahs []byte) (*command, error) {
	c := s.srv.commands.get()
	*c = command{ctx: &taskContext{}, cdb: h.CDB, itt: h.ITT, expected: h.ExpectedLength, write: h.Write, filling: true,
		attr: h.Attr, numbered: !h.Immediate, r2ts: c.r2ts[:0], waits: c.waits[:0]}
	c.task = scsi.Task{Nexus: s.nexus, LUN: h.LUN, CDB: c.cdb[:], Tag: h.ITT}
	if h.Read && !h.Write {
		c.readLen = h.ExpectedLength
	}
	if len(ahs) > 0 {
		if err := c.extend(h, ahs); err != nil {
			return nil, err
		}
	}
	c.task.DataInLimit = int(min(c.readLen, scsi.MaxTransferBytes))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dying {
		return nil, errKilled
	}
	s.tasks[c.itt] = c
	if c.attr > pdu.AttrSimple || !s.set.empty() {
		s.join(c)
	}
	c.began = s.meter.Begin()
	if !c.numbered {
		s.immediates++
	}
	return c, nil
}

// extend adds what the additional headers say: the rest of a long CDB, and the read
// length of a bidirectional command (RFC 7143 §11.2.2).
func (c *command) extend(h *pdu.SCSICommand, ahs []byte) error {
	list, err := pdu.ParseAHS(ahs)
	if err != nil {
		return &protocolError{err.Error()}
	}
	for _, a := range list {
		switch {
		case a.Type == pdu.AHSExtendedCDB:
			c.task.CDB = append(append([]byte(nil), h.CDB[:]...), a.Data...)
		case a.Type == pdu.AHSBidiReadLength && len(a.Data) == 4 && h.Read && h.Write:
			c.readLen = uint32(a.Data[0])<<24 | uint32(a.Data[1])<<16 | uint32(a.Data[2])<<8 | uint32(a.Data[3])
		}
	}
	return nil
}

// beginWrite takes a write's immediate data and finds out what comes next.
func (s *session) beginWrite(c *command, h *pdu.SCSICommand, b *pdu.BHS, n int, whole *pdu.PDU) error {
	refused, room := s.admitWrite(c, h)
	if refused != nil {
		s.complete(c, *refused) // first: others may wait for its end, and its data may never come
		if whole == nil {
			return s.reader.Discard(n)
		}
		return nil
	}
	c.buf = s.srv.buffers.get(room)
	if n > 0 {
		if whole != nil {
			copy(c.buf.b, whole.Data)
		} else if err := s.reader.ReadData(c.buf.b[:n]); err != nil {
			s.fillFailed(c)
			return s.ignoreDigest(b, err)
		}
	}
	s.filled(c, uint32(n), h.Final, false)
	return nil
}

// admitWrite reserves room for a write's data and returns how large its first buffer
// is to be, or the result with which the command ends at once.
func (s *session) admitWrite(c *command, h *pdu.SCSICommand) (refused *scsi.Result, room int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case h.ExpectedLength > scsi.MaxTransferBytes:
		r := checkCondition(cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
		return &r, 0
	case !h.Final && s.params.InitialR2T:
		r := checkCondition(cdb.KeyAbortedCommand, cdb.ASCUnexpectedUnsolicitedData)
		return &r, 0
	}
	whole := int(h.ExpectedLength)
	if h.ExpectedLength > s.params.FirstBurstLength && !c.dormant && s.reserve(c, whole) {
		c.roomy, c.admitted = true, true
		return nil, whole
	}
	// Until there is room for all of a long one, its first burst is all that can come.
	r, ok := s.takeFirst(c, min(whole, int(s.params.FirstBurstLength)))
	if !ok {
		return &scsi.Result{Status: cdb.StatusTaskSetFull}, 0
	}
	c.room, c.admitted = r, true
	if c.roomy = h.ExpectedLength <= s.params.FirstBurstLength; !c.roomy && !c.dormant {
		s.waiting = append(s.waiting, c)
		s.lineUp()
	}
	return nil, min(whole, int(s.params.FirstBurstLength))
}

// filled notes that the reader has put n more bytes of data into c's buffer, and lets go of
// it; final ends a burst, which R2T asked for if solicited. It takes the command on.
func (s *session) filled(c *command, n uint32, final, solicited bool) {
	asked, gone := s.afterFill(c, n, final, solicited)
	if asked {
		s.out.flush()
	}
	announce(gone)
}

func (s *session) afterFill(c *command, n uint32, final, solicited bool) (asked bool, gone []*barrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.filling = false
	if c.aborted {
		return true, s.resolve(c)
	}
	c.got += n
	switch {
	case solicited:
		c.r2ts[0].got += n
		c.r2ts[0].dataSN++
		if final {
			c.r2ts = append(c.r2ts[:0], c.r2ts[1:]...)
		}
	case final:
		c.phase, c.solicited = phaseSolicited, c.got
	}
	if final && c.dormant && c.got == c.expected {
		c.phase = phaseDormant
		return false, nil
	}
	if final && c.got == c.expected {
		s.start(c)
		return false, nil
	}
	return final && s.proceed(c), nil
}

// fillFailed notes that the reader has let go of c's buffer because the connection is at its end.
func (s *session) fillFailed(c *command) {
	s.mu.Lock()
	c.filling = false
	s.mu.Unlock()
}

// proceed takes a write on that waits for nothing from the reader and lacks data: it asks for more if
// there is room. It reports whether something was queued for sending. s.mu is held.
func (s *session) proceed(c *command) (asked bool) {
	if !c.roomy {
		return false
	}
	if len(c.buf.b) < int(c.expected) {
		whole := s.srv.buffers.get(int(c.expected))
		copy(whole.b, c.buf.b[:c.got])
		s.srv.buffers.put(c.buf)
		c.buf = whole
	}
	if c.room.first > 0 { // its data has moved to what it got for the whole command
		s.giveBack(room{first: c.room.first})
		c.room.first = 0
	}
	return s.solicit(c)
}

// solicit asks for as much data as may be asked for at a time. s.mu is held.
func (s *session) solicit(c *command) (asked bool) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	for len(c.r2ts) < int(s.params.MaxOutstandingR2T) && c.solicited < c.expected {
		r := r2t{ttt: s.nextTTT, offset: c.solicited, length: min(c.expected-c.solicited, s.params.MaxBurstLength)}
		if s.nextTTT++; s.nextTTT >= pingTag {
			s.nextTTT = 0
		}
		var b pdu.BHS
		(&pdu.R2T{LUN: c.task.LUN, ITT: c.itt, TTT: r.ttt, StatSN: s.out.statSN, ExpCmdSN: s.expCmdSN.Load(), MaxCmdSN: s.maxCmdSN.Load(),
			R2TSN: c.r2tSN, BufferOffset: r.offset, DesiredLength: r.length}).Encode(&b)
		s.out.add(&b, nil)
		c.r2tSN++
		c.solicited += r.length
		c.r2ts = append(c.r2ts, r)
		asked = true
	}
	return asked
}

// dataOut takes a Data-Out PDU (RFC 7143 §11.7). Data of a command that is not there
// (any more) is read and forgotten: it may have been aborted while data was on its way.
// Data out of place ends its command, or the session where that executes already.
func (s *session) dataOut(b *pdu.BHS) error {
	var h pdu.DataOut
	h.Decode(b)
	n := uint32(b.DataLength())
	c, what := s.place(&h, n)
	switch {
	case c == nil && what == "":
		return s.reader.Discard(int(n))
	case c == nil:
		s.reject(b, pdu.RejectProtocolError)
		return &protocolError{what}
	case what != "":
		s.complete(c, checkCondition(cdb.KeyAbortedCommand, cdb.ASCDataPhaseError))
		return s.reader.Discard(int(n))
	}
	if err := s.reader.ReadData(c.buf.b[h.BufferOffset : h.BufferOffset+n]); err != nil {
		s.fillFailed(c)
		return s.ignoreDigest(b, err)
	}
	s.dataPDUs.Add(1)
	c.dataSN++ // of the unsolicited burst; solicited ones have their own
	s.filled(c, n, h.Final, h.TTT != pdu.NoTag)
	return nil
}

// place finds the command that a Data-Out PDU of n bytes belongs to, marked as being filled, so that
// nobody else ends it. what is wrong with the PDU, if anything, ends the command; without
// a command it ends the session; with neither the data is to be forgotten.
func (s *session) place(h *pdu.DataOut, n uint32) (c *command, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c = s.tasks[h.ITT]
	if c == nil || c.aborted {
		return nil, ""
	}
	what = c.misplaced(h, n, s.params.FirstBurstLength)
	if what != "" && c.phase >= phaseWaiting {
		return nil, what
	}
	if what != "" {
		s.unwait(c)
	}
	c.filling = true
	return c, what
}

// misplaced says what is wrong with a Data-Out PDU of n bytes, "" for nothing. Order of PDUs
// and of sequences is always negotiated to Yes, so there is one right place for each.
func (c *command) misplaced(h *pdu.DataOut, n, firstBurst uint32) string {
	if h.TTT == pdu.NoTag {
		switch limit := min(c.expected, firstBurst); {
		case c.phase != phaseUnsolicited || !c.write:
			return "unsolicited data after the end of its burst"
		case h.BufferOffset != c.got || n > limit-c.got:
			return "unsolicited data out of order or beyond the first burst"
		case h.DataSN != c.dataSN:
			return "unsolicited data with a wrong DataSN"
		}
		return ""
	}
	if c.phase != phaseSolicited || len(c.r2ts) == 0 || c.r2ts[0].ttt != h.TTT {
		return "data that was not asked for"
	}
	r := &c.r2ts[0]
	switch {
	case h.BufferOffset != r.offset+r.got || n > r.length-r.got:
		return "solicited data out of order or beyond its burst"
	case h.DataSN != r.dataSN:
		return "solicited data with a wrong DataSN"
	case h.Final != (r.got+n == r.length):
		return "solicited burst that ends too early or too late"
	}
	return ""
}

// checkCondition is the result of a command that the transport itself ends.
func checkCondition(key cdb.SenseKey, asc cdb.ASC) scsi.Result {
	return scsi.Result{Status: cdb.StatusCheckCondition, Sense: cdb.Sense{Key: key, ASC: asc}.Fixed()}
}
