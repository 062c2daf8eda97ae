package initiator

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// Session is one normal iSCSI session over one connection. It is safe for concurrent
// use. It ends when Close or Logout is called, when the connection is lost, when the
// target breaks the protocol or asks to end, or when it stops answering; it never comes back.
type Session struct {
	target, portal string
	log            *slog.Logger
	limits         Limits
	params         sendParams
	digests        pdu.Digests
	negotiated     pdu.Params
	conn           net.Conn
	rd             *pdu.Reader
	received       *countingReader

	calls     sync.Pool     // of *call
	free      chan uint16   // slots not in use
	wake      chan struct{} // tells the writer goroutine that there is work
	shut      chan struct{} // closed when refusing is set
	ending    chan struct{} // closed when cause is set
	done      chan struct{} // closed when everything has come to rest
	asked     chan struct{} // closed when the target asks for a logout
	loggedOut chan struct{} // closed by the logout response
	writers   sync.WaitGroup

	mu    sync.Mutex
	cause error // why the session ended; nil while it lives
	// closed to new commands, though those in flight go on; nil while open.
	refusing error
	slots    []slot
	// What is to be written, in three queues: the session's own requests, commands that have
	// no CmdSN yet, and solicited data.
	controls []control
	queue    []*call
	bursts   []burst
	writing  bool // somebody writes batch
	batch    batch
	replies  int // answers to the target's pings in controls
	// Serial numbers (RFC 7143 §4.2.2): the next command's, the next status expected, the
	// highest command that the target takes.
	cmdSN, expStatSN, maxCmdSN uint32
	nextControl                uint32
	pingTag                    uint32 // of the ping not answered, pdu.NoTag when none is
	pingAt                     time.Time
	logoutTag                  uint32           // of the logout not answered, pdu.NoTag when none is
	leaving                    bool             // somebody conducts the logout
	aborts                     map[uint32]*call // by the tag of the abort request
}

// sendParams is what limits the data that we send, in bytes.
type sendParams struct {
	immediateData   bool
	firstBurstBytes int
	maxBurstBytes   int
	maxSendBytes    int // of one PDU
}

// Dial connects to cfg's portal and logs in to its target. Errors have a san kind: a
// *LoginError or *ProtocolError may be in the chain. The session outlives ctx, which bounds
// the login alone.
func Dial(ctx context.Context, cfg Config) (*Session, error) {
	cfg, err := cfg.prepare(false)
	if err != nil {
		return nil, err
	}
	c, err := connect(ctx, cfg, false)
	if err != nil {
		return nil, err
	}
	s := newSession(c, cfg)
	go s.run()
	s.log.Info("iSCSI session open", "headerDigest", c.params.HeaderDigest, "dataDigest", c.params.DataDigest,
		"maxBurstBytes", c.params.MaxBurstLength, "maxSendBytes", c.params.MaxSendDataSegmentLength)
	return s, nil
}

// newSession takes over a logged-in connection.
func newSession(c *connection, cfg Config) *Session {
	p := c.params
	s := &Session{
		target: cfg.Target, portal: cfg.Portal, limits: cfg.Limits, negotiated: p,
		log: cfg.Logger.With("target", cfg.Target, "portal", cfg.Portal),
		params: sendParams{
			immediateData: p.ImmediateData, firstBurstBytes: int(p.FirstBurstLength),
			maxBurstBytes: int(p.MaxBurstLength), maxSendBytes: int(p.MaxSendDataSegmentLength),
		},
		digests: pdu.Digests{Header: p.HeaderDigest, Data: p.DataDigest},
		conn:    c.conn, rd: c.rd, received: c.count,
		free: make(chan uint16, cfg.Limits.QueueDepth), slots: make([]slot, cfg.Limits.QueueDepth),
		wake: make(chan struct{}, 1), shut: make(chan struct{}), ending: make(chan struct{}), done: make(chan struct{}),
		asked: make(chan struct{}), loggedOut: make(chan struct{}),
		cmdSN: c.cmdSN, expStatSN: c.expStatSN, maxCmdSN: c.maxCmdSN,
		calls:   sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }},
		pingTag: pdu.NoTag, logoutTag: pdu.NoTag, aborts: map[uint32]*call{},
	}
	for i := range s.slots {
		s.free <- uint16(i)
	}
	return s
}

// run owns the session's goroutines and its end.
func (s *Session) run() {
	var children sync.WaitGroup
	children.Go(func() { s.fail(s.readLoop()) })
	children.Go(s.writeLoop)
	children.Go(s.watch)
	children.Go(s.leaveWhenAsked)
	children.Wait()
	s.writers.Wait() // submitters that write for themselves

	s.mu.Lock()
	cause := s.cause
	s.controls, s.queue, s.bursts = nil, s.queue[:0], s.bursts[:0]
	for i := range s.slots {
		c := s.slots[i].call
		if c == nil {
			continue
		}
		if c.err == nil {
			c.err = requestError(opName(&c.cmd.CDB), c.state != callQueued && !harmless(&c.cmd.CDB), cause)
		}
		c.reading = false
		s.finish(c)
	}
	s.mu.Unlock()
	if errors.Is(cause, ErrClosed) {
		s.log.Info("iSCSI session closed")
	} else {
		s.log.Warn("iSCSI session lost", "cause", cause)
	}
	close(s.done)
}

// fail ends the session for cause, unless it has ended already.
func (s *Session) fail(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(cause)
}

func (s *Session) failLocked(cause error) {
	if s.cause != nil {
		return
	}
	s.cause = cause
	close(s.ending)
	s.conn.Close()
}

// refusal says why no new command is taken, nil if one is. Needs mu.
func (s *Session) refusal() error { return firstOf(s.cause, s.refusing) }

func (s *Session) endCause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// Close drops the connection at once. Requests in flight fail with ErrClosed. It returns
// when every goroutine of the session has ended and no buffer is in use. It is safe to call again.
func (s *Session) Close() error {
	s.fail(ErrClosed)
	<-s.done
	return nil
}

// Logout refuses new requests, waits for those in flight, logs out and closes. It waits at
// most Limits.LogoutTimeout or until ctx ends, and closes in any case; the error says
// that the target did not confirm.
func (s *Session) Logout(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.limits.LogoutTimeout, ErrTimedOut)
	defer cancel()
	err := s.logout(ctx, ErrClosed)
	err = errors.Join(err, s.Close())
	if err != nil {
		return san.Errorf(san.KindUnavailable, "log out of %s at %s: %w; the connection is closed all the same", s.target, s.portal, err)
	}
	return nil
}

// logout ends the session in order; cause is what those get who come too late. If
// somebody else is at it, it waits for them.
func (s *Session) logout(ctx context.Context, cause error) error {
	s.mu.Lock()
	mine := !s.leaving
	s.leaving = true
	s.refuse(cause)
	s.mu.Unlock()
	if mine {
		if err := s.requestLogout(ctx); err != nil {
			return err
		}
	}
	select {
	case <-s.ending:
		select {
		case <-s.loggedOut:
			return nil
		default:
			return s.endCause()
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// refuse takes no new commands from now on. Needs mu.
func (s *Session) refuse(cause error) {
	if s.refusing == nil {
		s.refusing = cause
		close(s.shut)
	}
}

// requestLogout waits until nothing is in flight and sends the request.
func (s *Session) requestLogout(ctx context.Context) error {
	for range s.slots { // who holds every slot knows that nothing is in flight
		if _, err := s.takeSlot(ctx, nil); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logoutTag = s.controlTag()
	s.sendControl(&pdu.LogoutRequest{Immediate: true, Reason: pdu.LogoutCloseSession, ITT: s.logoutTag}, nil)
	return nil
}

// leaveWhenAsked is the goroutine that logs out when the target asks for it.
func (s *Session) leaveWhenAsked() {
	select {
	case <-s.asked:
	case <-s.ending:
		return
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.limits.LogoutTimeout, ErrTimedOut)
	defer cancel()
	if err := s.logout(ctx, ErrTargetAsked); err != nil {
		s.log.Info("the target asked for a logout but did not answer it", "error", err)
	}
	s.fail(ErrTargetAsked)
}

// controlTag makes a task tag for one of the session's own requests. Needs mu.
func (s *Session) controlTag() uint32 {
	s.nextControl = (s.nextControl + 1) % (1 << 20)
	return controlTag | s.nextControl
}

// sendControl queues one of the session's own requests and has it written by the writer
// goroutine: the reader calls this, and must not wait. Needs mu.
func (s *Session) sendControl(h pdu.Header, data []byte) {
	ctl := control{data: data}
	h.Encode(&ctl.header)
	s.controls = append(s.controls, ctl)
	s.wakeWriter()
}

// sendAbort asks the target to abort c (RFC 7143 §11.5.1). Needs mu.
func (s *Session) sendAbort(c *call) {
	tag := s.controlTag()
	s.aborts[tag] = c
	s.sendControl(&pdu.TaskRequest{Immediate: true, Function: pdu.TaskAbort, LUN: c.lun, ITT: tag, RefTag: c.itt, RefCmdSN: c.cmdSN}, nil)
}

// Done is closed when the session has ended and holds nothing any more.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session ended: ErrClosed, ErrTargetAsked, ErrKeepalive, ErrTimedOut, a *ProtocolError
// or a connection's error, perhaps wrapped. It is nil while the session lives.
func (s *Session) Err() error { return s.endCause() }

// Target is the target's iSCSI name.
func (s *Session) Target() string { return s.target }

// Portal is the address that was dialled, before redirects.
func (s *Session) Portal() string { return s.portal }

// Negotiated tells the parameters of the session.
func (s *Session) Negotiated() pdu.Params { return s.negotiated }

// watch is the watchdog goroutine: it pings a silent line, aborts requests that take too
// long, and ends a session whose target stays mute.
func (s *Session) watch() {
	l := s.limits
	tick := time.NewTicker(max(min(l.PingInterval, l.PingTimeout, l.RequestTimeout, l.AbortTimeout)/4, time.Millisecond))
	defer tick.Stop()
	heard, heardAt := s.received.n.Load(), time.Now()
	for {
		select {
		case <-tick.C:
		case <-s.ending:
			return
		}
		now := time.Now()
		if n := s.received.n.Load(); n != heard {
			heard, heardAt = n, now
		}
		s.checkLine(now, now.Sub(heardAt))
		s.checkCalls(now)
	}
}

// checkLine pings a line that has been silent, and gives up one that stays silent.
func (s *Session) checkLine(now time.Time, silence time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.cause != nil || silence < s.limits.PingInterval:
	case s.pingTag == pdu.NoTag:
		s.pingTag = s.controlTag()
		s.pingAt = now
		s.sendControl(&pdu.NOPOut{Immediate: true, ITT: s.pingTag, TTT: pdu.NoTag}, nil)
	case min(silence, now.Sub(s.pingAt)) >= s.limits.PingTimeout: // not by silence alone: this process may have slept
		s.failLocked(ErrKeepalive)
	}
}

// checkCalls abandons what takes too long, and the session when an abort does.
func (s *Session) checkCalls(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.aborts {
		if now.Sub(c.abortedAt) >= s.limits.AbortTimeout {
			s.failLocked(errAbortTimedOut)
		}
	}
	for i := range s.slots {
		c := s.slots[i].call
		switch {
		case c == nil || s.cause != nil:
		case c.abandoned && now.Sub(c.abortedAt) >= s.limits.AbortTimeout:
			s.failLocked(errAbortTimedOut)
		case !c.abandoned && now.Sub(c.startedAt) >= s.limits.RequestTimeout:
			s.log.Warn("a request took too long and is aborted", "request", opName(&c.cmd.CDB), "limit", s.limits.RequestTimeout)
			s.abandon(c, ErrTimedOut)
		}
	}
}
