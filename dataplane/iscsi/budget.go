package iscsi

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
)

// budgetFloor is what first bursts leave free: enough for the largest command, so that commands
// whose first burst has come never wait for nothing but each other.
const budgetFloor = 2 * scsi.MaxTransferBytes

// budget is the memory for data that all sessions of a server share (Limits.TotalBufferBytes). Each session
// has a share of its own that nobody else can take; the rest is free for whoever asks, within what
// fairness to other hosts allows:
//
//   - a host gets more for whole commands as long as what it holds for them is not above what is then left free;
//     so however many sessions it opens, there is room for the next host at once;
//   - first bursts have come without being asked for, so they may go further: up to three times
//     what is left free, but never into the floor;
//   - a host that holds nothing and waits goes first, and nobody who holds something gets more until it has been served.
//
// Whoever gets no room waits in line: its commands, or for first bursts its connection, which is then not read from.
type budget struct {
	mu       sync.Mutex
	free     int
	accounts map[string]*account
	line     []*session // those that wait, in order of arrival
	wake     chan struct{}
}

// account is what one host holds, over all of its sessions.
type account struct {
	owner       string
	sessions    int
	first, full int
}

// room is memory for data that somebody holds: of its session's own share, or of what all share, there
// for a first burst or for a whole command.
type room struct{ own, first, full int }

func (r *room) add(o room) {
	r.own += o.own
	r.first += o.first
	r.full += o.full
}

func newBudget(total int) *budget {
	return &budget{free: total, accounts: map[string]*account{}, wake: make(chan struct{}, 1)}
}

// open sets a session's own share aside.
func (b *budget) open(owner string, own int) *account {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[owner]
	if a == nil {
		a = &account{owner: owner}
		b.accounts[owner] = a
	}
	a.sessions++
	b.free -= own
	return a
}

// sessions counts an owner's sessions.
func (b *budget) sessions(owner string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.accounts[owner]; a != nil {
		return a.sessions
	}
	return 0
}

// close gives a session's own share back, and what a defect has kept it from giving back.
func (b *budget) close(a *account, own int, lost room) {
	b.give(a, lost)
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.sessions--; a.sessions == 0 {
		delete(b.accounts, a.owner)
	}
	b.free += own
	b.ring()
}

// take takes n bytes for a whole command, or with first for a first burst, if there is room for a.
func (b *budget) take(a *account, n int, first bool) (room, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.free - n
	if first {
		if left < budgetFloor || a.first+n > 3*left {
			return room{}, false
		}
		b.free, a.first = left, a.first+n
		return room{first: n}, true
	}
	if left < 0 || a.full > 0 && a.full+n > left || b.comesLater(a) {
		return room{}, false
	}
	b.free, a.full = left, a.full+n
	return room{full: n}, true
}

// comesLater reports whether another host is to be served before a. b.mu is held.
func (b *budget) comesLater(a *account) bool {
	for _, s := range b.line {
		if s.account.full == 0 {
			return s.account != a
		}
	}
	return false
}

// give returns what a took.
func (b *budget) give(a *account, r room) {
	if r.first+r.full == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += r.first + r.full
	a.first -= r.first
	a.full -= r.full
	b.ring()
}

// ring has serve look at the line. b.mu is held.
func (b *budget) ring() {
	if len(b.line) == 0 {
		return
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// queue puts a session in line, or with in false takes it out.
func (b *budget) queue(s *session, in bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if in {
		b.line = append(b.line, s)
	} else if i := slices.Index(b.line, s); i >= 0 {
		b.line = slices.Delete(b.line, i, i+1)
	}
	// Who comes in may have missed what was given back just before; who leaves may have been in others' way.
	b.ring()
}

// contended reports whether anybody waits.
func (b *budget) contended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.line) > 0
}

// next lists those in line, those whose hosts hold least first.
func (b *budget) next() []*session {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := slices.Clone(b.line)
	slices.SortStableFunc(list, func(x, y *session) int { return x.account.full - y.account.full })
	return list
}

// serve lets those in line try again whenever something was given back, until ctx ends. Several may serve.
func (b *budget) serve(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
			for _, s := range b.next() {
				if s.takeBack(room{}) {
					s.post(s.out.flush) // its connection may be stuck, which must hold up nobody else
				}
			}
		}
	}
}

// take takes n bytes, of the session's own share if there is so much left of it. s.mu is held.
func (s *session) take(n int, first bool) (room, bool) {
	if n > 1<<minBufferShift {
		n = 1 << (sizeClass(n) + minBufferShift) // what the buffer takes
	}
	if n <= s.own {
		s.own -= n
		return room{own: n}, true
	}
	r, ok := s.srv.budget.take(s.account, n, first)
	s.held.add(r)
	return r, ok
}

// giveBack is the end of what take gave. s.mu is held.
func (s *session) giveBack(r room) {
	s.own += r.own
	s.held.first -= r.first
	s.held.full -= r.full
	s.srv.budget.give(s.account, r)
}

// room is what may still be taken for whole commands by the session's own limit. s.mu is held.
func (s *session) room() int { return s.limits.BufferBytes - s.held.full }

// lineUp puts the session in line for shared room while something of it waits for that. s.mu is held.
func (s *session) lineUp() {
	if waits := !s.dying && (len(s.waiting) > 0 || s.paused.Load()); waits != s.inLine {
		s.inLine = waits
		s.srv.budget.queue(s, waits)
	}
}

// takeFirst takes n bytes for data that the initiator sends unasked. If there is no room the reader waits, and the
// initiator finds that its connection takes no more, until there is. That must not be as long as another
// command can't end before the reader has got its data, or before this one, which may be the head of the queue: then there simply is no room. s.mu is held, but not while waiting.
func (s *session) takeFirst(c *command, n int) (room, bool) {
	for {
		r, ok := s.take(n, true)
		if ok || s.dying || s.stopping.Load() || c != nil && c.aborted || s.owed(c) || len(s.set.dormant) > 0 {
			s.paused.Store(false)
			s.lineUp()
			return r, ok
		}
		s.paused.Store(true)
		if s.out.unsent() {
			s.postLocked(s.out.flush) // the reader's own answers, which hold room
		}
		s.lineUp() // and stays in it: who leaves and comes back has the whole line looked at again
		s.roomy.Wait()
	}
}

// owed reports whether the initiator has data to send for a command other than but. s.mu is held.
func (s *session) owed(but *command) bool {
	for _, c := range s.tasks {
		if c != but && (len(c.r2ts) > 0 || c.phase == phaseUnsolicited && !c.filling) {
			return true
		}
	}
	return false
}

// owner is who pays for what the session holds.
func (s *session) owner() string {
	if s.info.Host != "" {
		return string(s.info.Host)
	}
	return "initiator " + s.info.Initiator // a discovery session's
}

// stalls reports whether the initiator has sent no data for PingTimeout though it owes some, while others
// wait for the room that this keeps. Only the watchdog calls it, with s.watch.mu held.
func (s *session) stalls(now time.Time) bool {
	w := &s.watch
	s.mu.Lock()
	owed := s.owed(nil)
	s.mu.Unlock()
	if n := s.dataPDUs.Load(); n != w.dataPDUs || !owed || w.data.IsZero() {
		w.dataPDUs, w.data = n, now
	}
	return now.Sub(w.data) > s.limits.PingTimeout && s.srv.budget.contended()
}
