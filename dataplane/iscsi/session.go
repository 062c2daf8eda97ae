package iscsi

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/iscsi/meter"
	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// readBuffer is how much of the stream is read ahead: some fifteen 4 KiB writes at a time.
const readBuffer = 64 << 10

// maxEarlyBytes bounds the data of PDUs that came before their turn. On a single connection no initiator
// has a reason to send any.
const maxEarlyBytes = 64 << 10

// Reasons for which a session's loop ends by itself.
var (
	errLogout   = errors.New("logged out")
	errShutdown = errors.New("server is stopping")
	errKilled   = errors.New("closed or reinstated")
)

// protocolError is a breach after which the session can't go on.
type protocolError struct{ what string }

func (e *protocolError) Error() string { return "protocol error: " + e.what }

// session is one session and its one connection (MaxConnections is 1) in full feature phase.
//
// One goroutine at a time reads (loop), and executes what needs to wait for nothing; other commands
// execute on up to ParallelCommands workers that exist while there is work; answers leave through out. mu guards the task set and
// all that says where a command stands. The order of locks is mu, then out.mu; neither is held
// while a command executes, nor during I/O.
type session struct {
	info   SessionInfo
	srv    *Server
	conn   net.Conn
	logger *slog.Logger
	limits Limits
	params pdu.Params
	lu     LogicalUnit
	quick  QuickUnit // lu, nil if it is none
	nexus  *scsi.Nexus
	meter  *meter.Session // nil in a discovery session, which has no commands
	out    *outQueue
	in     *bufio.Reader
	reader *pdu.Reader

	// expCmdSN is written by the reader only. maxCmdSN grows as commands end, so that
	// the window always has room for QueueDepth open ones.
	expCmdSN, maxCmdSN atomic.Uint32
	// received counts PDUs; the watchdog reads it.
	received atomic.Uint64
	watch    watched
	stopping atomic.Bool
	paused   atomic.Bool // the reader waits for room
	dataPDUs atomic.Uint64
	begun    atomic.Bool // the login is over
	cid      uint16
	text     textExchange
	early    map[uint32]*pdu.PDU // within the window but not next
	earlyLen int
	direct   direct

	mu         sync.Mutex
	tasks      map[uint32]*command
	immediates int
	functions  int
	runQueue   fifo
	set        taskSet
	waiting    []*command // for room in the buffer budget
	own        int        // what is left of its own share of the budget
	held       room       // what it has of what all share
	account    *account   // its host's part of the budget
	inLine     bool       // for shared room
	roomy      sync.Cond  // the paused reader waits on it
	work       sync.Cond
	idle       int
	workers    int
	workerDone sync.WaitGroup
	dying      bool
	nextTTT    uint32
	settled    sync.Cond // broadcast when tasks becomes empty
	killed     chan struct{}

	// done is closed when nothing of the session is left.
	done chan struct{}
}

func newSession(srv *Server, conn net.Conn, in *bufio.Reader, info SessionInfo) *session {
	s := &session{
		info: info, srv: srv, conn: conn, limits: srv.limits, in: in, text: noExchange(),
		tasks: map[uint32]*command{}, own: srv.limits.OwnBufferBytes,
		early: map[uint32]*pdu.PDU{}, done: make(chan struct{}), killed: make(chan struct{}), out: newOutQueue(conn),
		logger: srv.logger.With("initiator", info.Initiator, "target", info.Target, "from", info.RemoteAddr),
	}
	s.work.L, s.settled.L, s.roomy.L = &s.mu, &s.mu, &s.mu
	s.direct.ended = make(chan error, 1)
	s.out.freed = s.freed
	return s
}

// begin sets what the login has found out.
func (s *session) begin(l *login, statSN uint32) {
	s.params = l.neg.Params()
	s.out.digests = pdu.Digests{Header: s.params.HeaderDigest, Data: s.params.DataDigest}
	s.out.statSN = statSN
	s.cid = l.first.CID
	s.expCmdSN.Store(l.first.CmdSN)
	s.maxCmdSN.Store(l.first.CmdSN + uint32(s.limits.QueueDepth) - 1)
	s.reader = pdu.NewReader(s.in, int(s.params.MaxRecvDataSegmentLength), pdu.MaxAHSLength)
	s.reader.Digests = s.out.digests
	s.begun.Store(true)
}

// run serves the session until it ends, and returns when nothing of it is left.
func (s *session) run() {
	s.startReader()
	err := <-s.direct.ended
	switch {
	case errors.Is(err, errLogout):
		s.logger.Info("iscsi session ended by logout")
	case errors.Is(err, errShutdown):
		s.settle()
		s.logger.Info("iscsi session ended: the unit stops")
	default:
		s.logger.Info("iscsi session lost", "reason", err)
	}
	s.lastWords()
	s.finish()
}

// lastWords waits until what is queued has been sent, for a while.
func (s *session) lastWords() {
	_ = s.conn.SetWriteDeadline(time.Now().Add(s.limits.ShutdownGrace))
	s.out.drain()
}

// shutdown tells the initiator that the session ends and stops reading, upon which run ends it.
func (s *session) shutdown() {
	s.stopping.Store(true)
	_ = s.conn.SetWriteDeadline(time.Now().Add(s.limits.ShutdownGrace))
	s.out.mu.Lock()
	var b pdu.BHS
	(&pdu.Async{Event: pdu.AsyncDropSession, StatSN: s.out.nextStatSN(), ExpCmdSN: s.expCmdSN.Load(), MaxCmdSN: s.maxCmdSN.Load(),
		Parameter2: uint16(s.params.DefaultTime2Wait)}).Encode(&b)
	s.out.add(&b, nil)
	s.out.mu.Unlock()
	s.out.flush()
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roomy.Broadcast()
}

// settle lets commands that have all their data end and be answered, within the grace of a shutdown.
func (s *session) settle() {
	late := time.AfterFunc(s.limits.ShutdownGrace, s.kill)
	defer late.Stop()
	gone := s.abort(func(c *command) bool { return c.phase < phaseWaiting }, nil)
	s.out.flush()
	announce(gone)
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.tasks) > 0 && !s.dying {
		s.settled.Wait()
	}
}

// finish ends what is left: commands not begun are thrown away, those executing are waited for.
func (s *session) finish() {
	s.kill()
	s.workerDone.Wait()
	s.out.drop()
	if s.meter != nil {
		s.meter.Close()
	}
	if s.nexus != nil {
		s.lu.CloseNexus(s.nexus)
	}
}

// kill closes the connection and throws away all commands that are not executing. It
// returns at once; done says when the rest has ended.
func (s *session) kill() {
	_ = s.conn.Close()
	announce(s.die())
}

func (s *session) die() []*barrier {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dying {
		s.dying = true
		close(s.killed)
	}
	s.work.Broadcast()
	s.settled.Broadcast()
	s.lineUp()
	return s.abortTasks(func(*command) bool { return true }, nil)
}

// loop reads PDUs until the connection ends, or somebody else has taken the reading over.
func (s *session) loop() (err error) {
	defer func() {
		if defect := recover(); defect != nil {
			s.defect(defect)
			err = fmt.Errorf("defect: %v", defect)
		}
		if !errors.Is(err, errTakenOver) {
			s.undirect()
		}
	}()
	var b pdu.BHS
	for {
		if !s.buffered() && !s.sendDirect() {
			return errTakenOver
		}
		ahs, err := s.reader.ReadHeader(&b)
		if err != nil {
			return s.readFailed(err)
		}
		s.received.Add(1)
		err = s.receive(&b, ahs)
		for more := true; more; more, err = s.handleEarly() {
			if err != nil {
				return s.readFailed(err)
			}
			// Before the next one, which may have to wait for its end.
			if s.direct.command != nil && !s.performDirect() {
				return errTakenOver
			}
		}
	}
}

// readFailed finds out why reading ended: shutdown sets a deadline in the past.
func (s *session) readFailed(err error) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() && s.stopping.Load() {
		return errShutdown
	}
	return err
}

// receive puts one PDU in its place in the order of CmdSN (RFC 7143 §4.2.2.1) and
// handles it if its turn has come.
func (s *session) receive(b *pdu.BHS, ahs []byte) error {
	op := b.Opcode()
	switch op {
	case pdu.OpDataOut:
		return s.dataOut(b)
	case pdu.OpSCSICommand, pdu.OpNOPOut, pdu.OpTextReq, pdu.OpTaskRequest, pdu.OpLogoutReq:
	default:
		return s.unexpected(b)
	}
	if b.Immediate() {
		return s.handle(b, ahs, nil)
	}
	sn, exp := b.CmdSN(), s.expCmdSN.Load()
	switch {
	case pdu.SerialLess(sn, exp) || pdu.SerialLess(s.maxCmdSN.Load(), sn):
		// Outside of the window, which may be closed: ignored without a word, as the RFC has it.
		return s.ignoreDigest(b, s.reader.Discard(b.DataLength()))
	case sn != exp:
		return s.keepEarly(b, ahs)
	}
	s.expCmdSN.Store(exp + 1)
	return s.handle(b, ahs, nil)
}

// keepEarly sets a PDU aside whose predecessors have not come.
func (s *session) keepEarly(b *pdu.BHS, ahs []byte) error {
	if s.earlyLen+b.DataLength() > maxEarlyBytes {
		return &protocolError{"commands far out of order"}
	}
	p := &pdu.PDU{BHS: *b, AHS: append([]byte(nil), ahs...), Data: make([]byte, b.DataLength())}
	if err := s.reader.ReadData(p.Data); err != nil {
		return s.ignoreDigest(b, err)
	}
	s.earlyLen += len(p.Data)
	if _, twice := s.early[b.CmdSN()]; twice {
		return &protocolError{"commands far out of order"}
	}
	s.early[b.CmdSN()] = p
	return nil
}

// handleEarly handles the PDU that was set aside and is next now, if there is one.
func (s *session) handleEarly() (found bool, err error) {
	if len(s.early) == 0 {
		return false, nil
	}
	exp := s.expCmdSN.Load()
	p, found := s.early[exp]
	if !found {
		return false, nil
	}
	delete(s.early, exp)
	s.earlyLen -= len(p.Data)
	s.expCmdSN.Store(exp + 1)
	return true, s.handle(&p.BHS, p.AHS, p)
}

// handle acts on a PDU whose turn has come. whole is set when its data has been read before.
func (s *session) handle(b *pdu.BHS, ahs []byte, whole *pdu.PDU) error {
	if b.Opcode() == pdu.OpSCSICommand {
		return s.scsiCommand(b, ahs, whole)
	}
	if !b.Immediate() {
		s.maxCmdSN.Add(1) // done with when handled
	}
	var data []byte
	if whole != nil {
		data = whole.Data
	} else if n := b.DataLength(); n > 0 {
		data = make([]byte, n)
		if err := s.reader.ReadData(data); err != nil {
			return s.ignoreDigest(b, err)
		}
	}
	switch b.Opcode() {
	case pdu.OpNOPOut:
		return s.nopOut(b, data)
	case pdu.OpTextReq:
		return s.textRequest(b, data)
	case pdu.OpTaskRequest:
		return s.taskRequest(b)
	}
	return s.logout(b)
}

// unexpected rejects a PDU that an initiator has no business to send now.
func (s *session) unexpected(b *pdu.BHS) error {
	if err := s.reader.Discard(b.DataLength()); err != nil {
		return err
	}
	switch b.Opcode() {
	case pdu.OpLoginReq:
		s.reject(b, pdu.RejectProtocolError)
		return &protocolError{"login request in full feature phase"}
	case pdu.OpSNACK:
		// There is no error recovery within a connection at level 0.
		s.reject(b, pdu.RejectSNACK)
	default:
		s.reject(b, pdu.RejectNotSupported)
	}
	return nil
}

// ignoreDigest rejects a PDU whose data digest is wrong, and ends the session: at
// ErrorRecoveryLevel 0 that is the recovery (RFC 7143 §7.8).
func (s *session) ignoreDigest(b *pdu.BHS, err error) error {
	if errors.Is(err, pdu.ErrDataDigest) {
		s.reject(b, pdu.RejectDataDigest)
	}
	return err
}

// reject refuses a PDU by sending its header back (RFC 7143 §11.17).
func (s *session) reject(b *pdu.BHS, reason uint8) {
	header := *b // add changes lengths of what it is given, and b is read into again
	s.answer(func(h *pdu.BHS) []byte {
		(&pdu.Reject{Reason: reason, StatSN: s.out.nextStatSN(), ExpCmdSN: s.expCmdSN.Load(), MaxCmdSN: s.maxCmdSN.Load()}).Encode(h)
		return header[:]
	})
}

// answer queues one PDU that no command window bounds, waiting for room in the queue.
// make fills the header, with out.mu held, and returns the data.
func (s *session) answer(make func(h *pdu.BHS) []byte) {
	s.out.mu.Lock()
	s.out.waitSpace()
	var h pdu.BHS
	data := make(&h)
	s.out.add(&h, data)
	s.out.mu.Unlock()
	s.out.flush()
}

func (s *session) nopOut(b *pdu.BHS, data []byte) error {
	var h pdu.NOPOut
	h.Decode(b)
	if h.ITT == pdu.NoTag {
		return nil // the answer to a ping of ours; that it came is all that counts
	}
	data = data[:min(len(data), int(s.params.MaxSendDataSegmentLength))]
	held, ok := s.pingRoom(len(data))
	if !ok {
		return &protocolError{"a ping with more data than there is room for"}
	}
	s.answer(func(b *pdu.BHS) []byte {
		(&pdu.NOPIn{LUN: h.LUN, ITT: h.ITT, TTT: pdu.NoTag, StatSN: s.out.nextStatSN(),
			ExpCmdSN: s.expCmdSN.Load(), MaxCmdSN: s.maxCmdSN.Load()}).Encode(b)
		if held != (room{}) {
			s.out.lend(lent{room: held})
		}
		return data
	})
	return nil
}

// smallPing is up to what size the data of pings needs no room: the bound on queued bytes is enough.
const smallPing = 4 << 10

// pingRoom takes room for the data of a ping until that has been sent back.
func (s *session) pingRoom(n int) (room, bool) {
	if n <= smallPing {
		return room{}, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeFirst(nil, n)
}

// ping asks the initiator whether it is there.
func (s *session) ping() {
	s.out.mu.Lock()
	var b pdu.BHS
	(&pdu.NOPIn{ITT: pdu.NoTag, TTT: pingTag, StatSN: s.out.statSN,
		ExpCmdSN: s.expCmdSN.Load(), MaxCmdSN: s.maxCmdSN.Load()}).Encode(&b)
	s.out.add(&b, nil)
	s.out.mu.Unlock()
	s.out.flush()
}

// pingTag is the target task tag of our pings; R2Ts count from 0 and never get there.
const pingTag = 0xfffffffe

// logout ends the session once its commands are gone (RFC 7143 §11.14).
func (s *session) logout(b *pdu.BHS) error {
	var h pdu.LogoutRequest
	h.Decode(b)
	response := pdu.LogoutSuccess
	switch {
	case h.Reason == pdu.LogoutForRecovery:
		response = pdu.LogoutNoRecovery
	case h.Reason > pdu.LogoutForRecovery:
		s.reject(b, pdu.RejectProtocolError)
		return nil
	case h.Reason == pdu.LogoutCloseConnection && h.CID != s.cid:
		response = pdu.LogoutCIDNotFound
	default:
		s.abortAll()
	}
	s.answer(func(b *pdu.BHS) []byte {
		(&pdu.LogoutResponse{Response: response, ITT: h.ITT, StatSN: s.out.nextStatSN(),
			ExpCmdSN: s.expCmdSN.Load(), MaxCmdSN: s.maxCmdSN.Load()}).Encode(b)
		return nil
	})
	if response == pdu.LogoutSuccess {
		return errLogout
	}
	return nil
}

// look is the watchdog's look at the session: it pings an initiator that has been silent, and
// closes the session when neither answer nor progress came in time. Only watchdogs call it.
func (s *session) look(now time.Time) {
	if !s.begun.Load() {
		return // the login has its own time limit
	}
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := s.received.Load(); n != w.received || w.heard.IsZero() || s.paused.Load() {
		w.received, w.heard, w.pinged = n, now, false
	}
	if n := s.out.writes.Load(); n != w.writes || n%2 == 0 {
		w.writes, w.progress = n, now
	}
	silent, limit := now.Sub(w.heard), s.limits.PingInterval
	switch {
	case s.stalls(now):
		s.logger.Warn("iscsi initiator does not send the data of its commands while others wait for their memory; closing its session")
		_ = s.conn.Close()
	case silent > limit+s.limits.PingTimeout, now.Sub(w.progress) > s.limits.PingTimeout:
		s.logger.Warn("iscsi initiator does not answer; closing its session", "silent", silent)
		_ = s.conn.Close()
	case silent > limit && !w.pinged && w.progress.Equal(now):
		w.pinged = true
		s.post(s.ping) // sending may block
	}
}
