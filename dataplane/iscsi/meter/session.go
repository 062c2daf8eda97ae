package meter

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/histogram"
	"github.com/sandbar-san/sandbar/san"
)

// Class is what kind of command it is.
type Class uint8

// The classes. Reads and writes move blocks of the volume; whatever else there is, from TEST UNIT READY over
// UNMAP to SYNCHRONIZE CACHE, is Other.
const (
	Read Class = iota
	Write
	Other
	classes
)

// classOf tells a command's class by its operation code.
func classOf(opcode byte) Class {
	switch opcode {
	case cdb.OpRead6, cdb.OpRead10, cdb.OpRead12, cdb.OpRead16:
		return Read
	case cdb.OpWrite6, cdb.OpWrite10, cdb.OpWrite12, cdb.OpWrite16,
		cdb.OpWriteAndVerify10, cdb.OpWriteAndVerify12, cdb.OpWriteAndVerify16,
		cdb.OpWriteSame10, cdb.OpWriteSame16, cdb.OpCompareAndWrite, cdb.OpOrWrite16, cdb.OpWriteAtomic16:
		return Write
	}
	return Other
}

// Peer is whose session it is.
type Peer struct {
	Initiator string
	Address   netip.AddrPort
	Host      san.HostID
	Since     time.Time
}

// Session counts for one session. Its methods but Close may be called from many goroutines at once.
type Session struct {
	target  *Target
	peer    Peer
	classes [classes]counter
	aborted atomic.Uint64
	depth   atomic.Int64
	deepest atomic.Int64
	reads   histogram.Recorder
	writes  histogram.Recorder

	sampled // guarded by target.mu
}

type counter struct{ commands, bytes, errors atomic.Uint64 }

// Begin counts a command that has come. The time that it returns is for Answered.
func (s *Session) Begin() time.Duration {
	deeper(&s.deepest, s.depth.Add(1))
	deeper(&s.target.deepest, s.target.depth.Add(1))
	return time.Since(s.target.exposed)
}

// deeper raises most to n.
func deeper(most *atomic.Int64, n int64) {
	for {
		was := most.Load()
		if n <= was || most.CompareAndSwap(was, n) {
			return
		}
	}
}

// Answered counts the answer to a command that began then and moved so many bytes.
func (s *Session) Answered(began time.Duration, opcode, status byte, bytes int) {
	took := time.Since(s.target.exposed) - began
	class := classOf(opcode)
	switch class {
	case Read:
		s.reads.Record(took)
	case Write:
		s.writes.Record(took)
	}
	c := &s.classes[class]
	c.commands.Add(1)
	if bytes > 0 {
		c.bytes.Add(uint64(bytes))
	}
	if status != cdb.StatusGood {
		c.errors.Add(1)
	}
	s.depth.Add(-1)
	s.target.depth.Add(-1)
}

// Aborted counts a command that has ended without an answer.
func (s *Session) Aborted() {
	s.aborted.Add(1)
	s.depth.Add(-1)
	s.target.depth.Add(-1)
}

// Close hands what was counted to the target, and takes the session off its list. Nothing may be
// counted any more.
func (s *Session) Close() {
	t := s.target
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.live.remove(s) {
		return
	}
	s.totals().addTo(&t.ended.totals)
	s.reads.AddTo(&t.ended.reads)
	s.writes.AddTo(&t.ended.writes)
	t.depth.Add(-s.depth.Load()) // of commands that a defect has swallowed
}

func (s *Session) totals() totals {
	var t totals
	for i := range s.classes {
		c := &s.classes[i]
		t.classes[i] = Count{Commands: c.commands.Load(), Bytes: c.bytes.Load(), Errors: c.errors.Load()}
	}
	t.aborted = s.aborted.Load()
	return t
}
