package iscsi

import (
	"sync/atomic"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// maxFunctions bounds the task management functions of a session that wait for commands.
const maxFunctions = 32

// barrier acts once a set of commands, perhaps of several sessions, has been resolved.
type barrier struct {
	pending atomic.Int32
	then    func()
}

func (b *barrier) arrive() {
	if b.pending.Add(-1) == 0 {
		b.then()
	}
}

// announce tells barriers of a command's end. No lock is held.
func announce(list []*barrier) {
	for _, b := range list {
		b.arrive()
	}
}

// abortTasks aborts the commands that match: those not executing end now, the others when
// they have executed; none is answered any more. b, if not nil, waits for each. It returns
// barriers to announce. s.mu is held.
func (s *session) abortTasks(match func(*command) bool, b *barrier) (gone []*barrier) {
	for _, c := range s.tasks {
		if !match(c) {
			continue
		}
		if b != nil {
			b.pending.Add(1)
			c.waits = append(c.waits, b)
		}
		if !c.aborted {
			c.aborted = true
			c.ctx.cancel()
		}
		if c.phase == phaseRunning || c.filling {
			continue
		}
		if c.phase == phaseQueued {
			s.runQueue.remove(c)
		}
		gone = append(gone, s.resolve(c)...)
	}
	s.roomy.Broadcast() // the reader may be waiting for room for one of them
	return gone
}

// unwait takes c off the list of those who wait for room. s.mu is held.
func (s *session) unwait(c *command) {
	for i, w := range s.waiting {
		if w == c {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			s.lineUp()
			return
		}
	}
}

// abortAll aborts all commands of the session and waits until they are gone.
func (s *session) abortAll() {
	gone := s.abort(func(*command) bool { return true }, nil)
	s.out.flush()
	announce(gone)
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.tasks) > 0 {
		s.settled.Wait()
	}
}

// preempted aborts all commands of the session, for a PREEMPT AND ABORT of another, and returns when
// they are gone.
func (s *session) preempted() {
	settled := make(chan struct{})
	b := &barrier{then: func() { close(settled) }}
	b.pending.Store(1)
	gone := s.abort(func(*command) bool { return true }, b)
	s.post(s.out.flush)
	announce(gone)
	b.arrive()
	<-settled
}

// abort is abortTasks for callers that do not hold s.mu.
func (s *session) abort(match func(*command) bool, b *barrier) (gone []*barrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.abortTasks(match, b)
}

// taskRequest takes a task management function (RFC 7143 §11.5). It is answered once
// the commands that it affects have been resolved.
func (s *session) taskRequest(b *pdu.BHS) error {
	var h pdu.TaskRequest
	h.Decode(b)
	if s.info.Discovery {
		s.reject(b, pdu.RejectNotSupported)
		return nil
	}
	if !s.beginFunction() {
		s.reject(b, pdu.RejectImmediateCommands)
		return nil
	}
	response, hasLUN := pdu.TaskComplete, true
	switch h.Function {
	case pdu.TaskAbort:
		return s.abortTask(&h)
	case pdu.TaskAbortSet, pdu.TaskClearSet, pdu.TaskLUReset:
		n, ok := pdu.DecodeLUN(h.LUN)
		hasLUN = ok && n == 0
	case pdu.TaskTargetWarmReset:
	case pdu.TaskReassign:
		response = pdu.TaskNoReassign
	default:
		response = pdu.TaskUnsupported
	}
	if !hasLUN {
		response = pdu.TaskNoLUN
	}
	if response != pdu.TaskComplete {
		s.functionEnds(&h, response)
		return nil
	}
	s.abortSets(&h)
	return nil
}

// beginFunction counts a function that waits for commands to end; there may be so many.
func (s *session) beginFunction() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.functions >= maxFunctions {
		return false
	}
	s.functions++
	return true
}

// functionEnds answers a function whose commands have ended, or that can't be done.
func (s *session) functionEnds(h *pdu.TaskRequest, response uint8) {
	s.mu.Lock()
	s.functions--
	s.mu.Unlock()
	s.answer(func(b *pdu.BHS) []byte {
		(&pdu.TaskResponse{Response: response, ITT: h.ITT, StatSN: s.out.nextStatSN(),
			ExpCmdSN: s.expCmdSN.Load(), MaxCmdSN: s.maxCmdSN.Load()}).Encode(b)
		return nil
	})
}

// abortTask aborts one command. One that is not there has been answered before, or
// never came: then its CmdSN tells which (RFC 7143 §11.6.1).
func (s *session) abortTask(h *pdu.TaskRequest) error {
	b := &barrier{then: func() { s.post(func() { s.functionEnds(h, pdu.TaskComplete) }) }}
	b.pending.Store(1)
	found := false
	gone := s.abort(func(c *command) bool {
		found = found || c.itt == h.RefTag
		return c.itt == h.RefTag
	}, b)
	if !found {
		response := pdu.TaskNotFound
		if !pdu.SerialLess(h.RefCmdSN, s.expCmdSN.Load()) && pdu.SerialLess(h.RefCmdSN, h.CmdSN) {
			response = pdu.TaskComplete
		}
		s.functionEnds(h, response)
		return nil
	}
	s.out.flush()
	announce(gone)
	b.arrive()
	return nil
}

// abortSets carries out the functions that affect many commands. ABORT TASK SET and CLEAR TASK SET are
// about this session's, since each session has a task set of its own; resets about those of all
// sessions with the logical unit.
func (s *session) abortSets(h *pdu.TaskRequest) {
	affected := []*session{s}
	reset := h.Function == pdu.TaskLUReset || h.Function == pdu.TaskTargetWarmReset
	if reset {
		affected = s.srv.sharing(s.lu)
	}
	b := &barrier{then: func() {
		// What the function does to the logical unit must happen even if this session ends. A reset
		// is told to every nexus, the one that asked for it too (SAM-5 §6.3.3).
		switch h.Function {
		case pdu.TaskLUReset:
			s.lu.Reset(scsi.ResetLogicalUnit, nil)
		case pdu.TaskTargetWarmReset:
			s.lu.Reset(scsi.ResetTarget, nil)
		}
		s.post(func() { s.functionEnds(h, pdu.TaskComplete) })
	}}
	b.pending.Store(1)
	for _, other := range affected {
		gone := other.abort(func(c *command) bool {
			return reset || c.task.LUN == h.LUN
		}, b)
		// What another session may have to send now is for a goroutine of its own.
		if other == s {
			s.out.flush()
		} else {
			other.post(other.out.flush)
		}
		announce(gone)
	}
	b.arrive()
}
