package initiator

import (
	"context"
	"time"

	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// callState is how far a call has come. Only Session.mu's holder moves it, and only forward.
type callState uint8

const (
	// callQueued: not yet given to the writer; it can still be taken back without a trace.
	callQueued callState = iota
	// callSent: the target may have it.
	callSent
	// callAnswered: the outcome is known, or the session is over.
	callAnswered
)

// call is one request from submission to its answer. Its fields are guarded by
// Session.mu, but for cmd, lun and op, which never change, and resp, which is the reader's until callAnswered.
//
// The caller's buffers may be touched while writes or reading say so; done is signalled once, when an
// outcome is known and the buffers are free.
type call struct {
	cmd  Command // the buffers in it are the caller's again once done was signalled
	lun  uint64  // as on the wire
	itt  uint32
	done chan struct{}

	state     callState
	abandoned bool // err is set, the caller has gone or is about to; the target may not know yet
	signalled bool
	reading   bool // the reader fills cmd.In
	bursting  bool // a solicited burst waits in Session.bursts
	writes    int  // writes under way that reference cmd.Out
	err       error
	resp      Response

	cmdSN     uint32
	startedAt time.Time
	abortedAt time.Time
	// Data sequence state (RFC 7143 §4.2.2.3, §4.2.2.4).
	dataSN    uint32 // next in Data-In
	r2tSN     uint32 // next in R2T
	outOffset int    // first byte of cmd.Out not yet sent or asked for
	sense     [maxSenseBytes]byte
}

const maxSenseBytes = 252 // SPC-4 §4.5.1

// tag layout: the low 16 bits are the slot, the next 15 count its uses, so that an
// answer to an earlier use is told from one to the present use. The top bit marks the session's
// own requests, whose low bits are a counter.
const (
	slotBits   = 16
	tagUses    = 1<<15 - 1
	controlTag = 1 << 31
)

type slot struct {
	call *call
	uses uint32
}

func (sl *slot) nextTag(index uint16) uint32 {
	sl.uses = (sl.uses + 1) & tagUses
	return sl.uses<<slotBits | uint32(index)
}

// Execute sends cmd and waits for its answer. Any number of goroutines may call it; what is
// beyond Limits.QueueDepth waits. A nil error means that the target answered:
// look at Response.Status. Otherwise the error is a *RequestError (in the kind that
// fits) that says whether the command may have taken effect, or says that cmd can't be sent at all.
func (s *Session) Execute(ctx context.Context, cmd *Command) (Response, error) {
	c, err := s.start(ctx, cmd)
	if err != nil {
		return Response{}, err
	}
	return s.wait(ctx, c)
}

// start submits cmd once there is a free slot. Each started call must be waited for.
func (s *Session) start(ctx context.Context, cmd *Command) (*call, error) {
	if cmd.LUN > maxLUN || len(cmd.In) > maxTransferBytes || len(cmd.Out) > maxTransferBytes || cmd.In != nil && cmd.Out != nil {
		return nil, san.Errorf(san.KindInvalid, "%s for LUN %d with %d bytes in and %d out can't be sent; use a LUN up to %d and one buffer of at most 2 GiB − 1",
			opName(&cmd.CDB), cmd.LUN, len(cmd.In), len(cmd.Out), maxLUN)
	}
	index, err := s.takeSlot(ctx, s.shut)
	if err != nil {
		return nil, requestError(opName(&cmd.CDB), false, err)
	}
	c := s.calls.Get().(*call)
	*c = call{cmd: *cmd, lun: pdu.EncodeLUN(uint16(cmd.LUN)), done: c.done, startedAt: time.Now()}

	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refusal(); err != nil {
		s.free <- index
		s.calls.Put(c)
		return nil, requestError(opName(&cmd.CDB), false, err)
	}
	sl := &s.slots[index]
	sl.call, c.itt = c, sl.nextTag(index)
	s.queue = append(s.queue, c)
	s.writeNow()
	return c, nil
}

const (
	maxLUN = 1<<14 - 1 // SAM-5 §4.7.7.3, single level
	// maxTransferBytes keeps every length inside RFC 7143 §11.3.4's 32 bits and a 32-bit int.
	maxTransferBytes = 1<<31 - 1
)

// takeSlot waits for a free slot, but not when stop is closed.
func (s *Session) takeSlot(ctx context.Context, stop <-chan struct{}) (uint16, error) {
	select {
	case index := <-s.free:
		return index, nil
	default:
	}
	select {
	case index := <-s.free:
		return index, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-stop:
	case <-s.ending:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return 0, s.refusal()
}

// wait returns c's outcome. When ctx ends first, c is abandoned and wait returns as soon as
// its buffers are free.
func (s *Session) wait(ctx context.Context, c *call) (Response, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		s.mu.Lock()
		s.abandon(c, context.Cause(ctx))
		s.mu.Unlock()
		<-c.done
	}
	// err and abandoned stand still now. An abandoned call is still the session's, so
	// nothing else of it may be read, and it can't be used again.
	if err := c.err; err != nil {
		if !c.abandoned {
			s.calls.Put(c)
		}
		return Response{}, err
	}
	resp := c.resp
	if resp.Sense != nil { // it lies in c
		resp.Sense = append([]byte(nil), resp.Sense...)
	}
	s.calls.Put(c)
	return resp, nil
}

// abandon gives c up for cause: takes it back if it was never sent, else asks the target to
// abort it. c's slot stays taken until the target can no longer answer it. Needs mu.
func (s *Session) abandon(c *call, cause error) {
	if c.abandoned || c.state == callAnswered {
		return
	}
	op := opName(&c.cmd.CDB)
	if c.state == callQueued {
		s.unqueue(c)
		c.err = requestError(op, false, cause)
		s.finish(c)
		return
	}
	c.abandoned, c.abortedAt = true, time.Now()
	c.err = requestError(op, !harmless(&c.cmd.CDB), cause)
	s.dropBurst(c)
	s.sendAbort(c)
	s.signal(c)
}

// finish records that c is over and frees its slot. Needs mu.
func (s *Session) finish(c *call) {
	if c.state == callAnswered {
		return
	}
	c.state = callAnswered
	s.dropBurst(c)
	index := uint16(c.itt)
	s.slots[index].call = nil
	s.signal(c)
	s.free <- index // never blocks: it has room for every slot
}

// signal wakes c's waiter when the outcome is known and the buffers are free. Needs mu.
func (s *Session) signal(c *call) {
	if c.signalled || c.reading || c.writes > 0 || c.state != callAnswered && !c.abandoned {
		return
	}
	c.signalled = true
	c.done <- struct{}{}
}

// unqueue takes c out of the queue. Needs mu.
func (s *Session) unqueue(c *call) {
	for i, q := range s.queue {
		if q == c {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			return
		}
	}
}
