package hostlib

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandbar-san/sandbar/san"
)

const (
	redialMin = 20 * time.Millisecond
	redialMax = 500 * time.Millisecond
	// dialWait bounds one login, so that a portal that swallows packets costs a turn only.
	dialWait = 4 * time.Second
	// logoutWait bounds the wait for the answer to a logout.
	logoutWait = 2 * time.Second
	// replayWidth is how many changes are given again at once.
	replayWidth = 32
)

// line keeps one session with a volume's logical unit at a time: it dials, notices the end, dials again, and
// gives the unit again what it may have lost.
type line struct {
	// dial logs in. After an error that is ErrGone there is no use in trying again.
	dial func(ctx context.Context) (device, error)
	log  *slog.Logger

	current atomic.Pointer[live] // nil while there is none

	mu      sync.Mutex
	journal journal
	over    error         // why there will be no session any more
	changed chan struct{} // closed and replaced when current or over changed
}

func newLine(dial func(context.Context) (device, error), log *slog.Logger) *line {
	return &line{dial: dial, log: log, journal: newJournal(), changed: make(chan struct{})}
}

// publish makes l, which may be nil, the present session; over ends the line.
func (n *line) publish(l *live, over error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.current.Store(l)
	if n.over == nil {
		n.over = over
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// next returns the present session if it is later than the one numbered after, and else waits
// for that until ctx ends or the line does.
func (n *line) next(ctx context.Context, after uint64) (*live, error) {
	for {
		n.mu.Lock()
		l, over, changed := n.current.Load(), n.over, n.changed
		n.mu.Unlock()
		switch {
		case over != nil:
			return nil, over
		case l != nil && l.number > after:
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// commit notes a change that was answered on l. It fails if l is over: the unit may have lost the change by
// now, and it is not among those that were given again.
func (n *line) commit(l *live, c change) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.current.Load() != l || l.bad.Load() {
		return false
	}
	n.journal.add(c)
	return true
}

// mark is up to where a flush that begins now makes changes stable.
func (n *line) mark() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.journal.seq
}

// flushed notes that l has made everything up to mark stable; false if l is over.
func (n *line) flushed(l *live, mark uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.current.Load() != l || l.bad.Load() {
		return false
	}
	n.journal.trim(mark)
	return true
}

// unflushedBytes is what changes that are not known to be stable count for.
func (n *line) unflushedBytes() int64 {
	_, bytes := n.room()
	return bytes
}

func (n *line) unflushed() bool { return n.unflushedBytes() > 0 }

// gone reports whether the volume is not this host's any more.
func (n *line) gone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return isGone(n.over)
}

// room returns unflushedBytes, and a channel that is closed when that was to change.
func (n *line) room() (freed <-chan struct{}, bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.journal.freed, n.journal.bytes
}

// noRoom tells those who wait for room that there will be none now, and why.
func (n *line) noRoom(why error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.journal.wake(why)
}

// flushFailure is why the last flush that was to make room failed, nil if it did not.
func (n *line) flushFailure() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.journal.failed
}

// keep serves from the session first until ctx ends or the volume is gone. It returns when
// no session is left.
func (n *line) keep(ctx context.Context, first *live) {
	for l := first; ; {
		select {
		case <-l.Done():
		case <-l.drop:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			n.publish(nil, context.Cause(ctx))
			n.logout(l)
			return
		}
		n.publish(nil, nil)
		// Nothing of the old session may be left on this side when the new one logs in.
		_ = l.Close() // its end is what is wanted
		n.log.Warn("connection to the volume lost; dialling again")
		began := time.Now()
		next, err := n.redial(ctx, l.number+1)
		if err != nil {
			if ctx.Err() == nil {
				n.log.Error("the volume can't be reached any more", "err", err)
			}
			n.publish(nil, err)
			return
		}
		n.log.Info("connection to the volume is back", "after", time.Since(began))
		l = next
		n.publish(l, nil)
	}
}

// logout ends a session in order.
func (n *line) logout(l *live) {
	ctx, cancel := context.WithTimeout(context.Background(), logoutWait)
	defer cancel()
	if err := l.Logout(ctx); err != nil {
		n.log.Info("the unit did not answer the logout", "err", err)
	}
}

// redial logs in until it succeeds, there is no use in it, or ctx ends.
func (n *line) redial(ctx context.Context, number uint64) (*live, error) {
	said := ""
	for wait := redialMin; ; wait = min(2*wait, redialMax) {
		dctx, cancel := context.WithTimeout(ctx, dialWait)
		d, err := n.dial(dctx)
		cancel()
		if err == nil {
			l := newLive(d, number)
			if err = n.replay(ctx, l); err == nil {
				return l, nil
			}
			_ = l.Close() // it can't be used
		}
		if isGone(err) {
			return nil, err
		}
		if text := err.Error(); text != said {
			said = text
			n.log.Info("the volume can't be reached yet", "err", err)
		}
		if !pause(ctx, wait/2+rand.N(wait/2)) {
			return nil, context.Cause(ctx)
		}
	}
}

// replay gives l all changes that are not known to be stable, those that overlap in the order in
// which they were answered.
func (n *line) replay(ctx context.Context, l *live) error {
	n.mu.Lock()
	changes := n.journal.changes // nobody adds to it while there is no session
	n.mu.Unlock()
	if len(changes) == 0 {
		return nil
	}
	var order rangeLock
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(replayWidth)
	for i := range changes {
		c := &changes[i]
		h := order.enter(c.off, c.off+c.size, false)
		g.Go(func() error {
			if err := order.wait(gctx, h); err != nil {
				return err
			}
			defer order.leave(h)
			if c.data == nil {
				return l.Discard(gctx, c.off, c.size)
			}
			return l.WriteAt(gctx, c.data, c.off)
		})
	}
	if err := g.Wait(); err != nil {
		return san.Wrap("give the unit what it may have lost", err)
	}
	if l.bad.Load() {
		return san.Errorf(san.KindUnavailable, "the unit was reset meanwhile")
	}
	return nil
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
