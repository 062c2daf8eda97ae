package iscsi

import (
	"context"
	"errors"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

const (
	// directBytes is the most data of a command that the reader executes by itself. Larger
	// ones gain less from the wake-up saved than from being copied beside others.
	directBytes = 64 << 10
	// directAnswers and directAnswerBytes are how much the reader lets gather before it sends. The initiator
	// shall have something to do while the rest of what it sent is executed.
	directAnswers, directAnswerBytes = 16, 128 << 10
	// avoidAfterTakeover is how many commands go to workers after the reader was held up.
	avoidAfterTakeover = 256
	// mindInterval is how long a reader may be held up, give or take the same, until another takes over.
	mindInterval = 5 * time.Millisecond
	// mindIdle is after how many of these without work the minder goes to sleep.
	mindIdle = 20
)

// errTakenOver ends a reader in whose place another reads.
var errTakenOver = errors.New("another goroutine reads")

// direct is about the commands that the reader executes by itself, to save the wake-up of a
// worker. As such a command, or the sending of answers, may take long nevertheless, the reader
// marks when it is at it, and the server's minder starts another one in its place where that
// takes too long. So no reading ever waits for a device or for an initiator that takes no answers.
type direct struct {
	// turn is odd while the reader is at it, and changes with each beginning, end and takeover.
	turn atomic.Uint64
	// looked is turn as the minder saw it last.
	looked atomic.Uint64
	// ended gets the error with which the last reader ended.
	ended chan error

	// The reader's own:
	command *command // to be executed next
	avoid   int      // how many more commands go to workers
}

// startReader starts a goroutine that reads.
func (s *session) startReader() {
	s.workerDone.Go(func() {
		if err := s.loop(); !errors.Is(err, errTakenOver) {
			s.direct.ended <- err
		}
	})
}

// start has a command executed that the reader has just completed: by the reader, when it is back in
// loop, if the command is of that kind, else by a worker. s.mu is held.
func (s *session) start(c *command) {
	switch {
	case s.quick == nil, c.expected == 0, c.expected > directBytes:
	case s.direct.avoid > 0:
		s.direct.avoid--
	default:
		c.phase = phaseRunning
		c.fetch()
		s.direct.command = c
		return
	}
	s.enqueue(c)
}

// fetch gives the task its data-out, which is complete.
func (c *command) fetch() {
	if c.buf != nil {
		c.task.DataOut = c.buf.b[:c.expected]
	}
}

// undirect leaves what the reader was to execute to a worker, as the reader ends.
func (s *session) undirect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.direct.command; c != nil {
		s.direct.command = nil
		s.enqueue(c)
	}
}

// leave marks that the reader is not reading; regain tells whether it still is the reader.
func (s *session) leave() (turn uint64) {
	turn = s.direct.turn.Add(1)
	s.srv.minder.wake()
	return turn
}

func (s *session) regain(turn uint64) bool { return s.direct.turn.CompareAndSwap(turn, turn+1) }

// performDirect executes the command that the reader has set aside for itself, and reports whether it
// still is the reader.
func (s *session) performDirect() bool {
	c := s.direct.command
	s.direct.command = nil
	turn := s.leave()
	s.performNow(c)
	if s.regain(turn) {
		return true
	}
	s.out.flush() // the other reader may wait for input by now, and so may the initiator for this answer
	return false
}

// sendDirect sends what the reader left unsent, and reports whether it still is the reader.
func (s *session) sendDirect() bool {
	if !s.out.unsent() {
		return true
	}
	turn := s.leave()
	s.out.flush()
	return s.regain(turn)
}

// performNow executes and answers a command, or leaves it to a worker if it would have to wait. The answer
// stays unsent unless many are.
func (s *session) performNow(c *command) {
	itt := c.itt
	defer func() {
		if defect := recover(); defect != nil {
			s.unanswerable(itt, defect)
		}
	}()
	r, ok := s.executeNow(c)
	if !ok {
		announce(s.handOver(c))
		return
	}
	announce(s.conclude(c, &r))
	if s.out.plenty() {
		s.out.flush()
	}
}

// executeNow is execute for a command that needs to wait for nothing.
func (s *session) executeNow(c *command) (r scsi.Result, ok bool) {
	defer func() {
		if defect := recover(); defect != nil {
			s.logger.Error("scsi command failed by a defect; please report it", "defect", defect, "stack", string(debug.Stack()))
			r, ok = defective(), true
		}
	}()
	return s.quick.ExecuteNow(&c.task)
}

// handOver gives a running command to a worker.
func (s *session) handOver(c *command) (gone []*barrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.aborted {
		return s.resolve(c)
	}
	s.enqueue(c)
	return nil
}

// buffered tells whether the next PDU is here as a whole, so that reading it waits for nothing.
func (s *session) buffered() bool {
	have := s.in.Buffered()
	if have < pdu.BHSLength {
		return false
	}
	head, _ := s.in.Peek(pdu.BHSLength) // there, as Buffered says
	return have >= s.reader.Length((*pdu.BHS)(head))
}

// minder looks after the readers of all sessions. It sleeps while none executes anything by itself.
type minder struct {
	awake atomic.Bool
	alarm chan struct{}
}

// wake has the minder look after readers from now on.
func (m *minder) wake() {
	if !m.awake.Load() && m.awake.CompareAndSwap(false, true) {
		m.ring()
	}
}

func (m *minder) ring() {
	select {
	case m.alarm <- struct{}{}:
	default: // rung already
	}
}

// mind runs until ctx ends. Each Serve has it running; one of them is awake at a time.
func (srv *Server) mind(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-srv.minder.alarm:
		}
		if !srv.mindBusy(ctx) {
			srv.minder.ring() // another Serve's shall go on
			return
		}
	}
}

// mindBusy looks after the readers until there was nothing to look after for a while, or ctx ends.
func (srv *Server) mindBusy(ctx context.Context) bool {
	tick := time.NewTicker(mindInterval)
	defer tick.Stop()
	for idle := 0; ; {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		idle++
		if srv.lookAfterReaders() {
			idle = 0
		}
		if idle < mindIdle {
			continue
		}
		srv.minder.awake.Store(false)
		// Who began before that took it for awake.
		if !srv.lookAfterReaders() {
			return true
		}
		srv.minder.awake.Store(true)
		idle = 0
	}
}

// lookAfterReaders has a look at each, and reports whether any has done something since the last one.
func (srv *Server) lookAfterReaders() (busy bool) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for _, s := range srv.sessions {
		turn := s.direct.turn.Load()
		switch was := s.direct.looked.Swap(turn); {
		case was != turn:
			busy = true
		case turn%2 == 1:
			busy = true
			s.takeOver(turn)
		}
	}
	return busy
}

// takeOver starts another reader in the place of the one that has been at it since turn.
func (s *session) takeOver(turn uint64) {
	if s.direct.turn.CompareAndSwap(turn, turn+1) {
		s.direct.avoid = avoidAfterTakeover // the reader's own: and there is none at this moment
		s.startReader()
	}
}
