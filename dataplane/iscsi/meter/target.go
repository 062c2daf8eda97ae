package meter

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sandbar-san/sandbar/internal/histogram"
)

// Target counts for all sessions with one target. It is safe for concurrent use.
type Target struct {
	exposed time.Time
	depth   atomic.Int64
	deepest atomic.Int64

	mu    sync.Mutex
	live  sessions
	ended struct {
		totals
		reads, writes histogram.Counts
	}
	sampled
}

// sessions are those that are open, oldest first.
type sessions []*Session

func (l *sessions) remove(s *Session) bool {
	i := slices.Index(*l, s)
	if i >= 0 {
		*l = slices.Delete(*l, i, i+1)
	}
	return i >= 0
}

// Count is what was counted of a class.
type Count struct{ Commands, Bytes, Errors uint64 }

type totals struct {
	classes [classes]Count
	aborted uint64
}

func (t totals) addTo(sum *totals) {
	for i, c := range t.classes {
		sum.classes[i].Commands += c.Commands
		sum.classes[i].Bytes += c.Bytes
		sum.classes[i].Errors += c.Errors
	}
	sum.aborted += t.aborted
}

// sampled is what the rates come from: the totals at the last sample, and by how much they had
// grown since the one before.
type sampled struct {
	at    time.Time
	last  totals
	grown [classes]Count
	took  time.Duration // between those two samples; 0 if there was but one, or none
}

func (s *sampled) sample(now time.Time, t totals) {
	if !s.at.IsZero() { // before the first sample nothing is known of a whole interval
		s.took = now.Sub(s.at)
		for i, c := range t.classes {
			s.grown[i] = Count{Commands: c.Commands - s.last.classes[i].Commands, Bytes: c.Bytes - s.last.classes[i].Bytes}
		}
	}
	s.at, s.last = now, t
}

// NewTarget makes the counters of a target that is exposed from now on.
func NewTarget() *Target {
	return &Target{exposed: time.Now()}
}

// Open begins to count for a session; Close ends it.
func (t *Target) Open(p Peer) *Session {
	s := &Session{target: t, peer: p}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live = append(t.live, s)
	return s
}

// Sample ends one interval of the rates and begins the next. It is to be called at even times.
func (t *Target) Sample() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	sum := t.ended.totals
	for _, s := range t.live {
		own := s.totals()
		own.addTo(&sum)
		s.sample(now, own)
	}
	t.sample(now, sum)
}

// Figures are those of one class.
type Figures struct {
	Count
	// CommandsPerSecond and BytesPerSecond are over the last whole interval.
	CommandsPerSecond, BytesPerSecond float64
}

// IO are the figures of a session, or of a target's sessions together.
type IO struct {
	// Class is indexed by Read, Write and Other.
	Class         [classes]Figures
	Reads, Writes *histogram.Counts // latencies
	Aborted       uint64
	// Depth is the queue depth now, DepthMax the greatest since the beginning.
	Depth, DepthMax int64
	// Interval is how long the rates' interval was; 0: there was none yet and the rates are 0.
	Interval time.Duration
}

// Add adds the figures of another target's sessions.
func (io *IO) Add(o IO) {
	for i, f := range o.Class {
		c := &io.Class[i]
		c.Commands, c.Bytes, c.Errors = c.Commands+f.Commands, c.Bytes+f.Bytes, c.Errors+f.Errors
		c.CommandsPerSecond, c.BytesPerSecond = c.CommandsPerSecond+f.CommandsPerSecond, c.BytesPerSecond+f.BytesPerSecond
	}
	io.Reads.Add(o.Reads)
	io.Writes.Add(o.Writes)
	io.Aborted, io.Depth = io.Aborted+o.Aborted, io.Depth+o.Depth
	io.DepthMax, io.Interval = max(io.DepthMax, o.DepthMax), max(io.Interval, o.Interval)
}

func figures(now totals, s *sampled) IO {
	io := IO{Aborted: now.aborted, Interval: s.took, Reads: &histogram.Counts{}, Writes: &histogram.Counts{}}
	for i := range io.Class {
		io.Class[i].Count = now.classes[i]
		if sec := s.took.Seconds(); sec > 0 {
			io.Class[i].CommandsPerSecond = float64(s.grown[i].Commands) / sec
			io.Class[i].BytesPerSecond = float64(s.grown[i].Bytes) / sec
		}
	}
	return io
}

// SessionStats are the figures of one session.
type SessionStats struct {
	Peer
	IO
}

// Stats is what a target has counted.
type Stats struct {
	// Since is when it was exposed, At when these figures were taken.
	Since, At time.Time
	// IO has all sessions, those that have ended included.
	IO
	// Sessions are the open ones, oldest first.
	Sessions []SessionStats
}

// Stats returns the figures up to now.
func (t *Target) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum, reads, writes := t.ended.totals, &histogram.Counts{}, &histogram.Counts{}
	reads.Add(&t.ended.reads)
	writes.Add(&t.ended.writes)
	out := Stats{Since: t.exposed, At: time.Now()}
	for _, s := range t.live {
		own := s.totals()
		own.addTo(&sum)
		st := SessionStats{Peer: s.peer, IO: figures(own, &s.sampled)}
		s.reads.AddTo(st.Reads)
		s.writes.AddTo(st.Writes)
		st.Depth, st.DepthMax = max(s.depth.Load(), 0), s.deepest.Load()
		reads.Add(st.Reads)
		writes.Add(st.Writes)
		out.Sessions = append(out.Sessions, st)
	}
	out.IO = figures(sum, &t.sampled)
	out.Reads, out.Writes = reads, writes
	out.Depth, out.DepthMax = max(t.depth.Load(), 0), t.deepest.Load()
	return out
}
