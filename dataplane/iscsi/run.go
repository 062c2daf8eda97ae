package iscsi

import (
	"runtime/debug"
	"slices"
	"sync"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// keepIdle is how many workers of a session wait for more when there is nothing to do;
// starting one costs less than what an idle one's stack takes from memory.
const keepIdle = 2

// commandPool recycles commands. What is not in use is the garbage collector's.
type commandPool struct{ pool sync.Pool }

func (p *commandPool) get() *command {
	if c, ok := p.pool.Get().(*command); ok {
		return c
	}
	return &command{}
}

func (p *commandPool) put(c *command) { p.pool.Put(c) }

// fifo is a queue of commands that reuses its memory.
type fifo struct {
	list []*command
	head int
}

func (f *fifo) len() int { return len(f.list) - f.head }

func (f *fifo) push(c *command) {
	if f.head > 0 && len(f.list) == cap(f.list) {
		f.list = f.list[:copy(f.list, f.list[f.head:])]
		f.head = 0
	}
	f.list = append(f.list, c)
}

// pushFront makes c the next.
func (f *fifo) pushFront(c *command) {
	if f.head > 0 {
		f.head--
		f.list[f.head] = c
		return
	}
	f.list = slices.Insert(f.list, 0, c)
}

func (f *fifo) pop() *command {
	c := f.list[f.head]
	f.list[f.head] = nil
	f.head++
	if f.head == len(f.list) {
		f.list, f.head = f.list[:0], 0
	}
	return c
}

// remove takes c out wherever it is.
func (f *fifo) remove(c *command) {
	for i := f.head; i < len(f.list); i++ {
		if f.list[i] == c {
			f.list = append(f.list[:i], f.list[i+1:]...)
			return
		}
	}
}

// reserve takes room for n bytes of c's data, unless it must wait for others of the session, or there is not so
// much left. What the session's own share has room for never waits. s.mu is held.
func (s *session) reserve(c *command, n int) bool {
	if n > s.own && (len(s.waiting) > 0 || s.room() < n) {
		return false
	}
	r, ok := s.take(n, false)
	c.room.add(r)
	return ok
}

// freed gives room back and lets those go on that waited for it.
func (s *session) freed(r room) {
	if s.takeBack(r) {
		s.out.flush()
	}
}

func (s *session) takeBack(r room) (asked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.giveRoom(r)
}

// giveRoom is freed with s.mu held; it reports whether something was queued for sending.
func (s *session) giveRoom(r room) (asked bool) {
	s.giveBack(r)
	if s.dying {
		return false // those who wait are being thrown away
	}
	for len(s.waiting) > 0 {
		c := s.waiting[0]
		need := c.task.DataInLimit
		if c.write {
			need = int(c.expected)
		}
		if s.room() < need {
			break
		}
		got, ok := s.take(need, false)
		if !ok {
			break
		}
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		c.room.add(got)
		c.roomy = true
		switch c.phase {
		case phaseWaiting:
			s.enqueue(c)
		case phaseSolicited:
			asked = s.proceed(c) || asked
		}
	}
	s.lineUp()
	if s.paused.Load() {
		s.roomy.Broadcast()
	}
	return asked
}

// beginRead queues a command without data-out once there is room for its data-in.
func (s *session) beginRead(c *command) { announce(s.admitRead(c)) }

func (s *session) admitRead(c *command) (gone []*barrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.filling = false
	switch n := c.task.DataInLimit; {
	case c.aborted:
		return s.resolve(c)
	case c.dormant:
		c.phase = phaseDormant
	case n == 0 || s.reserve(c, n):
		s.start(c)
	default:
		c.phase = phaseWaiting
		s.waiting = append(s.waiting, c)
		s.lineUp()
	}
	return nil
}

// enqueue hands a command to a worker. s.mu is held.
func (s *session) enqueue(c *command) {
	c.phase = phaseQueued
	c.fetch()
	if c.attr == pdu.AttrHeadOfQueue {
		s.runQueue.pushFront(c)
	} else {
		s.runQueue.push(c)
	}
	switch {
	case s.idle > 0:
		s.work.Signal()
	case s.workers < s.limits.ParallelCommands && !s.dying:
		s.workers++
		s.workerDone.Go(s.worker)
	}
}

// post has f done on a goroutine of this session's, for callers that must not wait for this
// session's connection. It is no worker's job: those may all be waiting for the device.
// When the session is ending f is forgotten.
func (s *session) post(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.postLocked(f)
}

// postLocked is post with s.mu held.
func (s *session) postLocked(f func()) {
	if !s.dying {
		s.workerDone.Go(func() {
			defer func() {
				if defect := recover(); defect != nil {
					s.defect(defect)
				}
			}()
			f()
		})
	}
}

// worker executes commands while there are any.
func (s *session) worker() {
	for c := s.nextCommand(); c != nil; c = s.nextCommand() {
		s.perform(c)
	}
}

// nextCommand waits for a command to execute; nil tells the worker to end.
func (s *session) nextCommand() *command {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.runQueue.len() == 0 {
		if s.dying || s.idle >= keepIdle {
			s.workers--
			return nil
		}
		s.idle++
		s.work.Wait()
		s.idle--
	}
	c := s.runQueue.pop()
	c.phase = phaseRunning
	return c
}

// perform executes and answers a command. If the answering itself has a defect, the session
// ends, but neither the process nor anybody who waits for the command's end is stuck.
func (s *session) perform(c *command) {
	itt := c.itt
	defer func() {
		if defect := recover(); defect != nil {
			s.unanswerable(itt, defect)
		}
	}()
	s.complete(c, s.execute(c))
}

// unanswerable ends the session for a command whose answering has a defect.
func (s *session) unanswerable(itt uint32, defect any) {
	s.defect(defect)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, itt)
	s.settled.Broadcast()
}

// defect logs what recover returned and closes the connection, which ends the session.
func (s *session) defect(what any) {
	s.logger.Error("iscsi session ended by a defect; please report it", "defect", what, "stack", string(debug.Stack()))
	_ = s.conn.Close()
}

// execute runs a command on the logical unit. A defect there must not take more than the command.
func (s *session) execute(c *command) (r scsi.Result) {
	defer func() {
		if defect := recover(); defect != nil {
			s.logger.Error("scsi command failed by a defect; please report it", "defect", defect, "stack", string(debug.Stack()))
			r = defective()
		}
	}()
	return s.lu.Execute(c.ctx, &c.task)
}

// defective is the result of a command that a defect has ended.
func defective() scsi.Result {
	return checkCondition(cdb.KeyHardwareError, cdb.ASCInternalTargetFailure)
}

// complete answers a command, unless it was aborted, and takes it out of the task set.
// Both happen under s.mu, so that an abort finds a command either unanswered or gone.
func (s *session) complete(c *command, r scsi.Result) {
	gone := s.conclude(c, &r)
	s.out.flush()
	announce(gone)
}

func (s *session) conclude(c *command, r *scsi.Result) []*barrier {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.filling = false
	if !c.aborted {
		s.respond(c, r)
	} else if r.Release != nil {
		r.Release()
	}
	return s.resolve(c)
}

// resolve takes a command out of the task set and returns those who wait for that, to be
// told by announce when s.mu has been let go. s.mu is held.
func (s *session) resolve(c *command) []*barrier {
	delete(s.tasks, c.itt)
	if c.attr > pdu.AttrSimple || !s.set.empty() {
		s.part(c)
	}
	if c.aborted {
		s.meter.Aborted()
	}
	s.unwait(c)
	if !c.numbered {
		s.immediates--
	} else if c.aborted {
		s.maxCmdSN.Add(1) // respond does it for the others
	}
	s.srv.buffers.put(c.buf)
	if c.room != (room{}) {
		s.giveRoom(c.room)
	}
	if len(s.tasks) == 0 {
		s.settled.Broadcast()
	}
	var gone []*barrier
	if len(c.waits) > 0 {
		gone = append(gone, c.waits...)
	}
	clear(c.waits)
	c.buf, c.ctx, c.task = nil, nil, scsi.Task{}
	s.srv.commands.put(c)
	return gone
}

// respond queues the answer to a command: its data-in, and its status in the last Data-In PDU
// where that may be, else in a SCSI response. s.mu is held.
func (s *session) respond(c *command, r *scsi.Result) {
	if c.numbered {
		s.maxCmdSN.Add(1)
	}
	in := r.DataIn[:min(len(r.DataIn), int(c.readLen))]
	over, under, residual := c.residual(r, len(in))
	s.meter.Answered(c.began, c.cdb[0], r.Status, len(in)+int(c.got))
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	collapsed := len(in) > 0 && r.Status == cdb.StatusGood && !c.write
	dataPDUs := s.dataIn(c, in, collapsed, over, under, residual)
	if !collapsed {
		var b pdu.BHS
		h := pdu.SCSIResponse{Response: pdu.ResponseCompleted, Status: r.Status, ITT: c.itt, StatSN: s.out.nextStatSN(),
			ExpCmdSN: s.expCmdSN.Load(), MaxCmdSN: s.maxCmdSN.Load(), ExpDataSN: dataPDUs,
			Overflow: over, Underflow: under, Residual: residual}
		if c.write && c.readLen > 0 {
			h.BidiUnderflow, h.BidiResidual = len(in) < int(c.readLen), c.readLen-uint32(len(in))
		}
		h.Encode(&b)
		var sense []byte
		if len(r.Sense) > 0 {
			sense = pdu.AppendSense(nil, r.Sense)
		}
		s.out.add(&b, sense)
	}
	if len(in) >= copyBelow {
		// The queue refers to the data until it has been sent.
		s.out.lend(lent{release: r.Release, room: c.room})
		c.room = room{}
	} else if r.Release != nil {
		r.Release()
	}
}

// dataIn queues the Data-In PDUs of a read and returns their number. A burst ends with F;
// with collapsed the last PDU carries the status. s.out.mu is held.
func (s *session) dataIn(c *command, in []byte, collapsed, over, under bool, residual uint32) (n uint32) {
	segment, burst := int(s.params.MaxSendDataSegmentLength), int(s.params.MaxBurstLength)
	for off := 0; off < len(in); {
		end := min(off+segment, len(in), off-off%burst+burst)
		h := pdu.DataIn{Final: end == len(in) || end%burst == 0, LUN: c.task.LUN, ITT: c.itt, TTT: pdu.NoTag,
			ExpCmdSN: s.expCmdSN.Load(), MaxCmdSN: s.maxCmdSN.Load(), DataSN: n, BufferOffset: uint32(off)}
		if collapsed && end == len(in) {
			h.HasStatus, h.StatSN = true, s.out.nextStatSN()
			h.Overflow, h.Underflow, h.Residual = over, under, residual
		}
		var b pdu.BHS
		h.Encode(&b)
		s.out.add(&b, in[off:end])
		n++
		off = end
	}
	return n
}

// residual says by how much the transfer missed the expected length (RFC 7143 §11.4.5).
func (c *command) residual(r *scsi.Result, in int) (over, under bool, n uint32) {
	expected, total, moved := int64(c.readLen), int64(r.DataInTotal), int64(in)
	if c.write {
		expected, total = int64(c.expected), int64(r.DataOutTotal)
		moved = min(expected, total)
	}
	switch {
	case total > expected:
		return true, false, uint32(min(total-expected, 1<<32-1))
	case moved < expected:
		return false, true, uint32(expected - moved)
	}
	return false, false, 0
}
