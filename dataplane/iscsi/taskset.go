package iscsi

import (
	"slices"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// taskSet orders a session's commands by their task attributes (SAM-5 §8.6). Each I_T nexus has a
// task set of its own (TST 001b in the control mode page): no initiator's ORDERED command, nor one whose
// data never comes, holds up another initiator. session.mu guards it.
//
//   - SIMPLE commands are executed in any order, but after all ORDERED ones that came before them and
//     not while there is one at the HEAD OF QUEUE;
//   - an ORDERED command is executed after all that came before it;
//   - one for the HEAD OF QUEUE is executed next.
//
// A command that must not be executed yet is dormant. It holds no room but for data that comes unasked,
// so that those before it always find some. While there are SIMPLE commands only, all of this is empty.
type taskSet struct {
	// dormant are those that wait, in their order of arrival; all others of the session are enabled.
	dormant []*command
	// ordered is the ORDERED command that is enabled, nil if none is.
	ordered *command
	// heads counts the commands for the HEAD OF QUEUE.
	heads int
}

// empty reports whether a SIMPLE command may be executed at once.
func (t *taskSet) empty() bool { return t.heads == 0 && t.ordered == nil && len(t.dormant) == 0 }

// supported reports whether a task attribute is one. ACA is not: there is never an ACA condition.
func supported(attr uint8) bool { return attr <= pdu.AttrHeadOfQueue }

// invalidAttribute answers a command with another task attribute (SAM-5 §8.6.1).
func invalidAttribute() scsi.Result {
	return checkCondition(cdb.KeyIllegalRequest, cdb.ASCInvalidMessage)
}

// join puts a command that has just come into the task set. Untagged ones count as SIMPLE. s.mu is held.
func (s *session) join(c *command) {
	switch {
	case c.attr == pdu.AttrHeadOfQueue:
		s.set.heads++
	case c.attr == pdu.AttrOrdered || !s.set.empty():
		c.dormant = true
		s.set.dormant = append(s.set.dormant, c)
		s.wakeDormant()
	}
}

// part takes a command out that has ended. s.mu is held.
func (s *session) part(c *command) {
	if c.attr == pdu.AttrHeadOfQueue {
		s.set.heads--
	}
	if s.set.ordered == c {
		s.set.ordered = nil
	}
	if c.dormant {
		c.dormant = false
		if i := slices.Index(s.set.dormant, c); i >= 0 {
			s.set.dormant = slices.Delete(s.set.dormant, i, i+1)
		}
	}
	if len(s.set.dormant) > 0 {
		s.wakeDormant()
	}
}

// wakeDormant enables those whose time has come. s.mu is held.
func (s *session) wakeDormant() {
	asked := false
	for len(s.set.dormant) > 0 && s.set.heads == 0 && s.set.ordered == nil && !s.dying {
		c := s.set.dormant[0]
		if c.attr == pdu.AttrOrdered {
			if len(s.tasks) > len(s.set.dormant) {
				break // some that came before have not ended
			}
			s.set.ordered = c
		}
		s.set.dormant = slices.Delete(s.set.dormant, 0, 1)
		c.dormant = false
		asked = s.enable(c) || asked
	}
	if asked {
		s.workerDone.Go(s.out.flush) // who ends a command may not flush after it
	}
}

// enable takes a command on from where it is; it reports whether something was queued for sending.
// s.mu is held.
func (s *session) enable(c *command) (asked bool) {
	switch {
	case c.aborted:
	case c.phase == phaseDormant && !c.admitted:
		s.seekRoom(c)
	case c.phase == phaseDormant: // a write with all of its data
		s.enqueue(c)
	case c.admitted && !c.roomy && s.reserve(c, int(c.expected)):
		if c.roomy = true; c.phase == phaseSolicited {
			return s.proceed(c)
		}
	case c.admitted && !c.roomy:
		s.waiting = append(s.waiting, c)
		s.lineUp()
	}
	return false // or the reader has it and takes it on
}

// seekRoom queues a command without data-out once there is room for its data-in. s.mu is held.
func (s *session) seekRoom(c *command) {
	if n := c.task.DataInLimit; n == 0 || s.reserve(c, n) {
		s.enqueue(c)
		return
	}
	c.phase = phaseWaiting
	s.waiting = append(s.waiting, c)
	s.lineUp()
}
