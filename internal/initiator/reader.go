package initiator

import "github.com/sandbar-san/sandbar/internal/pdu"

const (
	// smallSegmentBytes bounds the data of PDUs whose data is not a command's own: sense,
	// rejected headers, event data.
	smallSegmentBytes = 4096
	// maxReplies bounds the answers to a target's pings that wait to be written.
	maxReplies = 64
)

// readLoop is the reader goroutine: it decodes what the target sends, puts data where it
// belongs and wakes those who wait. It returns why it ended.
func (s *Session) readLoop() error {
	var b pdu.BHS
	var small [smallSegmentBytes]byte
	for {
		if _, err := s.rd.ReadHeader(&b); err != nil {
			return readError(err)
		}
		if err := s.dispatch(&b, small[:]); err != nil {
			return err
		}
	}
}

func (s *Session) dispatch(b *pdu.BHS, small []byte) error {
	switch b.Opcode() {
	case pdu.OpDataIn:
		return s.onDataIn(b)
	case pdu.OpSCSIResponse:
		return s.onResponse(b, small)
	case pdu.OpR2T:
		return s.onR2T(b)
	}
	data, err := s.readSmall(b, small)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch b.Opcode() {
	case pdu.OpNOPIn:
		return s.onNOPIn(b)
	case pdu.OpTaskResponse:
		return s.onTaskResponse(b)
	case pdu.OpLogoutResp:
		return s.onLogoutResponse(b)
	case pdu.OpAsync:
		return s.onAsync(b)
	case pdu.OpReject:
		return s.onReject(b, data)
	}
	return protocolErrorf("%v, which a target may not send here", b.Opcode())
}

// readSmall reads a bounded data segment into buf.
func (s *Session) readSmall(b *pdu.BHS, buf []byte) ([]byte, error) {
	n := b.DataLength()
	if n > len(buf) {
		return nil, protocolErrorf("%v with %d bytes of data, more than %d", b.Opcode(), n, len(buf))
	}
	if err := s.rd.ReadData(buf[:n]); err != nil {
		return nil, readError(err)
	}
	return buf[:n], nil
}

// advance takes the target's command window (RFC 7143 §4.2.2.1). Needs mu.
func (s *Session) advance(expCmdSN, maxCmdSN uint32) {
	if pdu.SerialLess(maxCmdSN, expCmdSN-1) || !pdu.SerialLess(s.maxCmdSN, maxCmdSN) {
		return
	}
	s.maxCmdSN = maxCmdSN
	if len(s.queue) > 0 && !s.writing {
		s.wakeWriter()
	}
}

// find returns the call that tag names; nil without an error for one that is over, whose late
// answers are ignored. Needs mu.
func (s *Session) find(tag uint32) (*call, error) {
	index := tag & (1<<slotBits - 1)
	if tag&controlTag != 0 || int(index) >= len(s.slots) {
		return nil, protocolErrorf("an answer to task %#x, which never was", tag)
	}
	c := s.slots[index].call
	if c == nil || c.itt != tag {
		return nil, nil
	}
	if c.state == callQueued {
		return nil, protocolErrorf("an answer to task %#x before it was sent", tag)
	}
	return c, nil
}

func (s *Session) onDataIn(b *pdu.BHS) error {
	var h pdu.DataIn
	h.Decode(b)
	n := b.DataLength()
	s.mu.Lock()
	s.advance(h.ExpCmdSN, h.MaxCmdSN)
	if h.HasStatus {
		s.expStatSN = h.StatSN + 1
	}
	c, err := s.find(h.ITT)
	var into []byte
	discard := c == nil || c.abandoned // then cmd and its buffers are the caller's again
	if err == nil && !discard {
		into, err = c.placeData(&h, n)
		c.reading = err == nil && n > 0
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case discard:
		err = s.rd.Discard(n)
	default:
		err = s.rd.ReadData(into)
	}
	if err != nil {
		return readError(err)
	}
	if c == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.reading = false
	if !h.HasStatus {
		s.signal(c) // in case it was abandoned in the meantime
		return nil
	}
	c.resp.Status, c.resp.Overflow, c.resp.Underflow, c.resp.Residual = h.Status, h.Overflow, h.Underflow, h.Residual
	s.finish(c)
	return nil
}

// placeData checks a Data-In PDU of n bytes against what the command expects and returns
// where its data goes. Data comes in order, as negotiated.
func (c *call) placeData(h *pdu.DataIn, n int) ([]byte, error) {
	at := c.resp.InBytes
	switch {
	case len(c.cmd.In) == 0 && n > 0:
		return nil, protocolErrorf("%d bytes of data for %s, which reads none", n, opName(&c.cmd.CDB))
	case h.DataSN != c.dataSN:
		return nil, protocolErrorf("Data-In number %d where %d is due", h.DataSN, c.dataSN)
	case int64(h.BufferOffset) != int64(at):
		return nil, protocolErrorf("Data-In for offset %d where %d is due", h.BufferOffset, at)
	case n > len(c.cmd.In)-at:
		return nil, protocolErrorf("Data-In of %d bytes at offset %d of a buffer of %d", n, at, len(c.cmd.In))
	}
	c.dataSN++
	c.resp.InBytes += n
	return c.cmd.In[at : at+n], nil
}

func (s *Session) onResponse(b *pdu.BHS, small []byte) error {
	var h pdu.SCSIResponse
	h.Decode(b)
	data, err := s.readSmall(b, small)
	if err != nil {
		return err
	}
	sense, err := pdu.ParseSense(data)
	if err != nil {
		return &ProtocolError{What: "sense data", Err: err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(h.ExpCmdSN, h.MaxCmdSN)
	s.expStatSN = h.StatSN + 1
	c, err := s.find(h.ITT)
	if err != nil || c == nil {
		return err
	}
	r := &c.resp
	r.Response, r.Status, r.Overflow, r.Underflow, r.Residual = h.Response, h.Status, h.Overflow, h.Underflow, h.Residual
	if len(sense) > 0 {
		r.Sense = c.sense[:copy(c.sense[:], sense)]
	}
	s.finish(c)
	return nil
}

func (s *Session) onR2T(b *pdu.BHS) error {
	var h pdu.R2T
	h.Decode(b)
	if b.DataLength() != 0 {
		return protocolErrorf("an R2T with data")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(h.ExpCmdSN, h.MaxCmdSN)
	c, err := s.find(h.ITT)
	if err != nil || c == nil || c.abandoned {
		return err // an abandoned write's data is not ours to send any more; its abort is under way
	}
	rest := len(c.cmd.Out) - c.outOffset
	switch {
	case c.bursting:
		return protocolErrorf("an R2T while the one before is not served")
	case h.TTT == pdu.NoTag:
		return protocolErrorf("an R2T without a tag")
	case h.R2TSN != c.r2tSN:
		return protocolErrorf("R2T number %d where %d is due", h.R2TSN, c.r2tSN)
	case int64(h.BufferOffset) != int64(c.outOffset):
		return protocolErrorf("an R2T for offset %d where %d is due", h.BufferOffset, c.outOffset)
	case h.DesiredLength == 0 || int64(h.DesiredLength) > int64(min(rest, s.params.maxBurstBytes)):
		return protocolErrorf("an R2T for %d bytes where %d remain and a burst has at most %d", h.DesiredLength, rest, s.params.maxBurstBytes)
	}
	c.r2tSN++
	end := c.outOffset + int(h.DesiredLength)
	s.bursts = append(s.bursts, burst{c: c, ttt: h.TTT, next: c.outOffset, end: end})
	c.outOffset, c.bursting = end, true
	if !s.writing {
		s.wakeWriter()
	}
	return nil
}

// onNOPIn takes the answer to our ping, or answers the target's (RFC 7143 §11.19). Needs mu.
func (s *Session) onNOPIn(b *pdu.BHS) error {
	var h pdu.NOPIn
	h.Decode(b)
	s.advance(h.ExpCmdSN, h.MaxCmdSN)
	if h.ITT != pdu.NoTag {
		s.expStatSN = h.StatSN + 1
		if h.ITT == s.pingTag {
			s.pingTag = pdu.NoTag
		}
		return nil
	}
	if h.TTT == pdu.NoTag {
		return nil // it only tells its command window
	}
	if s.replies >= maxReplies {
		return protocolErrorf("more than %d pings without waiting for an answer", maxReplies)
	}
	s.replies++
	s.sendControl(&pdu.NOPOut{Immediate: true, LUN: h.LUN, ITT: pdu.NoTag, TTT: h.TTT}, nil)
	s.controls[len(s.controls)-1].reply = true
	return nil
}

// onTaskResponse ends an abort. Needs mu.
func (s *Session) onTaskResponse(b *pdu.BHS) error {
	var h pdu.TaskResponse
	h.Decode(b)
	s.advance(h.ExpCmdSN, h.MaxCmdSN)
	s.expStatSN = h.StatSN + 1
	c, ok := s.aborts[h.ITT]
	if !ok {
		return protocolErrorf("an answer to task management request %#x, which never was", h.ITT)
	}
	delete(s.aborts, h.ITT)
	if h.Response != pdu.TaskComplete && h.Response != pdu.TaskNotFound {
		// The command's own answer may still come. If not, the watchdog ends the session.
		s.log.Warn("the target did not abort a request", "response", h.Response)
		return nil
	}
	s.finish(c) // does nothing if it was answered meanwhile
	return nil
}

// onLogoutResponse ends our logout. Needs mu.
func (s *Session) onLogoutResponse(b *pdu.BHS) error {
	var h pdu.LogoutResponse
	h.Decode(b)
	if h.ITT != s.logoutTag || s.logoutTag == pdu.NoTag {
		return protocolErrorf("a logout response that nobody asked for")
	}
	s.logoutTag = pdu.NoTag // a second one is one too many
	close(s.loggedOut)
	s.failLocked(s.refusing)
	return nil
}

// onAsync does what the target asks (RFC 7143 §11.9). Needs mu.
func (s *Session) onAsync(b *pdu.BHS) error {
	var h pdu.Async
	h.Decode(b)
	s.advance(h.ExpCmdSN, h.MaxCmdSN)
	s.expStatSN = h.StatSN + 1
	switch h.Event {
	case pdu.AsyncLogoutRequest, pdu.AsyncNegotiate:
		if s.refusing != nil {
			return nil
		}
		s.log.Info("the target asks for a logout", "event", h.Event)
		s.refuse(ErrTargetAsked)
		close(s.asked)
	case pdu.AsyncDropConnection, pdu.AsyncDropSession:
		return ErrTargetAsked
	default:
		s.log.Debug("asynchronous message", "event", h.Event)
	}
	return nil
}

// onReject ends the session: what the target refused was well-formed, and at
// ErrorRecoveryLevel 0 there is no way to mend it. Needs mu.
func (s *Session) onReject(b *pdu.BHS, data []byte) error {
	var h pdu.Reject
	h.Decode(b)
	s.advance(h.ExpCmdSN, h.MaxCmdSN)
	s.expStatSN = h.StatSN + 1
	var refused pdu.BHS
	copy(refused[:], data)
	if h.Reason == pdu.RejectImmediateCommands && refused.Opcode() == pdu.OpNOPOut {
		s.pingTag = pdu.NoTag // too busy for a ping, but alive
		return nil
	}
	return protocolErrorf("it rejected our %v for reason %#02x", refused.Opcode(), h.Reason)
}
