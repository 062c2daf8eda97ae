package hostlib

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sandbar-san/sandbar/internal/initiator"
	"github.com/sandbar-san/sandbar/san"
)

// busyPause is how long to leave a unit alone that answered that it can't at present.
const busyPause = 100 * time.Millisecond

// errStale is an answer that came from a session that was over by then.
var errStale = errors.New("the connection was lost as the answer came")

// errLeft is a request that was not sent because nobody waits for it any more.
var errLeft = errors.New("the caller gave up")

func isGone(err error) bool { return errors.Is(err, ErrGone) }

// op is a request as attempt sees it.
type op struct {
	what string
	// mutates: a session in which its outcome is open must end before anything else is done.
	mutates bool
	do      func(l *live) error
}

// attempt has a request done by one session after the other until it is answered for good, ctx ends, or the
// volume is gone. If ctx has no deadline, waiting ends after the volume's retry limit.
func (v *Volume) attempt(ctx context.Context, o op) error {
	began, after, doubt := time.Now(), uint64(0), false
	for {
		l, err := v.session(ctx, began, after)
		if err != nil {
			return v.gaveUp(o, doubt, err)
		}
		err = o.do(l)
		if err == nil && !l.bad.Load() {
			return nil
		}
		open := err == nil || errors.Is(err, errStale) || l.unanswered(err)
		busy := !open && san.KindOf(err) == san.KindUnavailable && time.Since(began) <= v.opts.retryLimit
		if o.mutates && (err == nil || busy || errors.Is(err, errStale) || initiator.MayHaveTakenEffect(err)) {
			doubt = true
		}
		if open && (o.mutates || ctx.Err() == nil) {
			l.suspect()
		}
		switch {
		case errors.Is(err, errLeft):
			return v.gaveUp(o, doubt, context.Cause(ctx))
		case !open && !busy: // the unit's last word
			return san.Wrap(o.what+" volume "+v.name, err)
		case ctx.Err() != nil:
			return v.gaveUp(o, doubt, context.Cause(ctx))
		case open:
			after = l.number
		case !pause(ctx, busyPause):
			return v.gaveUp(o, doubt, context.Cause(ctx))
		}
	}
}

// session waits for a session later than the one numbered after.
func (v *Volume) session(ctx context.Context, began time.Time, after uint64) (*live, error) {
	if l := v.line.current.Load(); l != nil && l.number > after {
		return l, nil
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, began.Add(v.opts.retryLimit), context.DeadlineExceeded)
		defer cancel()
	}
	return v.line.next(ctx, after)
}

// gaveUp makes the error of a request that nobody answered.
func (v *Volume) gaveUp(o op, doubt bool, cause error) error {
	kind, outcome := san.KindUnavailable, "it has not taken effect"
	if doubt {
		kind, outcome = san.KindUnknown, "it may have taken effect"
	}
	if !o.mutates {
		outcome = "nothing was changed"
	}
	switch {
	case isGone(cause), errors.Is(cause, ErrClosed):
		if !doubt {
			kind = san.KindConflict
		}
		return san.Errorf(kind, "%s volume %s: %w; %s", o.what, v.name, cause, outcome)
	case errors.Is(cause, context.Canceled):
		return san.Errorf(kind, "%s volume %s: %w; %s", o.what, v.name, cause, outcome)
	}
	return san.Errorf(kind, "%s volume %s: %w (%w); %s", o.what, v.name, ErrLost, cause, outcome)
}

// aligned widens a range to whole blocks.
func (v *Volume) aligned(off int64, length int) (from, to int64) {
	return off / v.block * v.block, (off + int64(length) + v.block - 1) / v.block * v.block
}

// read does one step of a read.
func (v *Volume) read(ctx context.Context, p []byte, off int64) error {
	from, to := v.aligned(off, len(p))
	h, err := v.locks.lock(ctx, from, to, true)
	if err != nil {
		return v.gaveUp(op{what: "read"}, false, err)
	}
	defer v.locks.leave(h)
	if to-from == int64(len(p)) {
		return v.fetch(ctx, p, off)
	}
	buf := make([]byte, to-from)
	if err := v.fetch(ctx, buf, from); err != nil {
		return err
	}
	copy(p, buf[off-from:])
	return nil
}

// fetch reads whole blocks, of which the caller holds the range.
func (v *Volume) fetch(ctx context.Context, p []byte, off int64) error {
	return v.attempt(ctx, op{what: "read", do: func(l *live) error { return l.ReadAt(ctx, p, off) }})
}

// write does one step of a write: the blocks that it touches, made whole by what is there.
func (v *Volume) write(ctx context.Context, p []byte, off int64) error {
	from, to := v.aligned(off, len(p))
	// A copy, since it may be needed after the caller has p back: when the unit has to be
	// given it again, and when the caller does not wait for the end.
	buf := make([]byte, to-from)
	copy(buf[off-from:], p)
	return v.detached(ctx, "write", func(sent *sending) error {
		h, err := v.locks.lock(ctx, from, to, false)
		if err != nil {
			return v.gaveUp(op{what: "write", mutates: true}, false, err)
		}
		defer v.locks.leave(h)
		if err := v.fillEdges(ctx, buf, from, off, off+int64(len(p))); err != nil {
			return err
		}
		return v.change(ctx, sent, "write", change{off: from, size: to - from, data: buf}, func(l *live) error {
			return l.WriteAt(v.ctx, buf, from)
		})
	})
}

// fillEdges reads what is before start and from end on in the first and last block of buf,
// which begins at from.
func (v *Volume) fillEdges(ctx context.Context, buf []byte, from, start, end int64) error {
	block, to := v.block, from+int64(len(buf))
	head, tail := start > from, end < to
	if !head && !tail {
		return nil
	}
	old := make([]byte, block)
	if head {
		if err := v.fetch(ctx, old, from); err != nil {
			return err
		}
		copy(buf[:start-from], old)
	}
	if tail {
		if !head || to-from > block { // else it is the same block
			if err := v.fetch(ctx, old, to-block); err != nil {
				return err
			}
		}
		copy(buf[end-from:], old[end-(to-block):])
	}
	return nil
}

func (v *Volume) discard(ctx context.Context, from, to int64) error {
	return v.detached(ctx, "discard", func(sent *sending) error {
		h, err := v.locks.lock(ctx, from, to, false)
		if err != nil {
			return v.gaveUp(op{what: "discard", mutates: true}, false, err)
		}
		defer v.locks.leave(h)
		return v.change(ctx, sent, "discard", change{off: from, size: to - from}, func(l *live) error {
			if !l.CanDiscard() {
				return san.Errorf(san.KindInvalid, "discard: %w by the unit", errors.ErrUnsupported)
			}
			return l.Discard(v.ctx, from, to-from)
		})
	})
}

// change has a write or discard done and notes it as not yet stable. The caller holds its range, so that
// doing it again changes nothing, however often it was done.
func (v *Volume) change(ctx context.Context, sent *sending, what string, c change, do func(*live) error) error {
	o := op{what: what, mutates: true}
	if err := v.room(ctx); err != nil {
		return err
	}
	o.do = func(l *live) error {
		if !sent.begin(ctx) {
			return errLeft
		}
		defer sent.end()
		if err := do(l); err != nil {
			return err
		}
		if !v.line.commit(l, c) {
			return errStale
		}
		return nil
	}
	err := v.attempt(ctx, o)
	if v.line.unflushedBytes() > v.opts.unflushedBytes/2 {
		v.wantFlush()
	}
	return err
}

// sending says whether a request is at the unit, for a caller who would rather not wait.
type sending struct{ at atomic.Bool }

// begin notes that the request goes to the unit, unless ctx has ended.
func (s *sending) begin(ctx context.Context) bool {
	s.at.Store(true)
	if ctx.Err() != nil { // looked at after the note: see detached
		s.at.Store(false)
		return false
	}
	return true
}

func (s *sending) end() { s.at.Store(false) }

// detached runs a request that must not be called back once it is at the unit: there is no telling when an aborted
// write has had its last effect, while a write that goes on holds its range until it was answered. If ctx ends while
// the request is at the unit, detached returns and the request goes on by itself; a request that is not at the unit
// ends by itself with ctx.
func (v *Volume) detached(ctx context.Context, what string, run func(*sending) error) error {
	sent := &sending{}
	if ctx.Done() == nil {
		return run(sent)
	}
	done := make(chan error, 1)
	v.ops.Add(1) // the caller is in, so that Close waits already
	go func() {
		defer v.ops.Done()
		done <- run(sent)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if !sent.at.Load() {
		// What begins from now on sees that ctx ended, so that run is about to return.
		return <-done
	}
	select {
	case err := <-done:
		return err
	default:
		return v.gaveUp(op{what: what, mutates: true}, true, context.Cause(ctx))
	}
}

// flush makes stable what was answered before.
func (v *Volume) flush(ctx context.Context) error {
	return v.attempt(ctx, op{what: "flush", do: func(l *live) error {
		mark := v.line.mark()
		if err := l.Flush(ctx); err != nil {
			return err
		}
		if !v.line.flushed(l, mark) {
			return errStale
		}
		return nil
	}})
}

func (v *Volume) wantFlush() {
	select {
	case v.flushWanted <- struct{}{}:
	default:
	}
}

// makeRoom is the goroutine that flushes when much is not stable.
func (v *Volume) makeRoom() {
	for {
		select {
		case <-v.flushWanted:
		case <-v.ctx.Done():
			return
		}
		if v.line.unflushedBytes() <= v.opts.unflushedBytes/2 {
			continue
		}
		if err := v.flush(v.ctx); err != nil && v.ctx.Err() == nil {
			v.line.noRoom(err)
		}
	}
}

// room waits until there is room for a change among those that are not stable.
func (v *Volume) room(ctx context.Context) error {
	o := op{what: "make room for a write to", mutates: true}
	for {
		freed, bytes := v.line.room()
		if bytes < v.opts.unflushedBytes {
			return nil
		}
		v.wantFlush()
		select {
		case <-freed:
		case <-ctx.Done():
			return v.gaveUp(o, false, context.Cause(ctx))
		case <-v.ctx.Done():
			return v.gaveUp(o, false, context.Cause(v.ctx))
		}
		if err := v.line.flushFailure(); err != nil {
			return err
		}
	}
}
