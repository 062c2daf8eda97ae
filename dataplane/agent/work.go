package agent

import (
	"context"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// serve makes one volume what was told, as far as that can be done now.
func (a *Agent) serve(ctx context.Context, id san.VolumeID) {
	a.mu.Lock()
	e := a.entries[id]
	s := situation{told: a.book.volumes[id], kept: e.kept, shown: e.shown}
	a.mu.Unlock()
	// Only this goroutine changes kept and shown while e is running.
	var err error
	for _, st := range plan(s) {
		failure := a.do(ctx, e, s, st)
		if failure == nil {
			continue
		}
		a.failed(ctx, s, st, failure)
		if err = failure; st.op != opGrow {
			break
		}
		// Hosts can use the volume in its former size meanwhile.
	}
	if err == nil {
		err = a.tidy(e)
	}
	a.finish(ctx, id, e, err)
}

// do carries out one step and notes what it has come to.
func (a *Agent) do(ctx context.Context, e *entry, s situation, st step) error {
	err := a.act(ctx, e, s, st)
	if err == nil && st.shown != nil {
		e.shown[st.host] = st.shown
	}
	return err
}

func (a *Agent) act(ctx context.Context, e *entry, s situation, st step) error {
	switch st.op {
	case opHide:
		a.cfg.Gate.Hide(s.Volume, st.host)
		delete(e.shown, st.host)
	case opClose:
		return a.closeSessions(ctx, s.Volume, st.host, st.grant)
	case opKeep:
		if err := a.store.save(st.record); err != nil {
			return err
		}
		a.mu.Lock()
		e.kept = st.record
		a.mu.Unlock()
	case opDelete:
		return a.delete(ctx, s)
	case opCreate:
		return a.cfg.Volumes.Create(ctx, *s.Spec)
	case opGrow:
		grown, err := a.cfg.Volumes.Grow(ctx, *s.Spec)
		if grown {
			a.cfg.Gate.Grown(s.Volume)
		}
		if err == nil {
			a.cfg.Report(st.report)
		}
		return err
	case opShow:
		return a.cfg.Gate.Show(*st.grant)
	case opReport:
		a.cfg.Report(st.report)
	}
	return nil
}

// delete deletes the replica, and notes at once that the very deletion that was told is done: what is
// made in its place must not be deleted when a later step fails.
func (a *Agent) delete(ctx context.Context, s situation) error {
	if err := a.closeSessions(ctx, s.Volume, "", nil); err != nil {
		return err
	}
	a.cfg.Gate.Forget(s.Volume)
	if err := a.cfg.Volumes.Delete(ctx, s.Volume); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.book.volumes[s.Volume]; t.Purge == s.Purge {
		t.Purge = nil
		a.book.volumes[s.Volume] = t
	}
	return nil
}

// closeSessions waits, a bounded time, for commands that may hang as long as their host likes, and other volumes
// don't wait with it.
func (a *Agent) closeSessions(ctx context.Context, v san.VolumeID, h san.HostID, covers *Grant) error {
	a.pause()
	defer a.resume()
	ctx, cancel := context.WithTimeout(ctx, closeWait)
	defer cancel()
	return a.cfg.Gate.Close(ctx, v, h, covers)
}

// failed tells the stations whom a step's failure concerns.
func (a *Agent) failed(ctx context.Context, s situation, st step, err error) {
	if ctx.Err() != nil {
		return // the unit is shutting down; that is no failure of the volume
	}
	a.cfg.Log.Error("an order could not be carried out; it is tried again", "volume", s.Volume, "host", st.host, "err", err)
	if st.op == opCreate || st.op == opGrow || st.op == opDelete || st.op == opKeep && (s.Spec != nil || s.Purge != nil) {
		a.fail(s.Volume, "", 0, err)
	}
	if st.op == opGrow {
		return
	}
	for h, access := range s.Hosts {
		concerned := st.host == h || st.host == ""
		if concerned && access.State != Gone {
			a.fail(s.Volume, h, access.Generation, err)
		}
	}
}

// tidy removes the record of a volume of which nothing needs to be remembered any more.
func (a *Agent) tidy(e *entry) error {
	a.mu.Lock()
	over := a.over(e.kept.Volume)
	a.mu.Unlock()
	if !over || e.kept.Replica == nil && len(e.kept.Hosts) == 0 {
		return nil
	}
	if err := a.store.forget(e.kept.Volume); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	e.kept = Record{Volume: e.kept.Volume}
	return nil
}

// over reports whether the floor on disk makes all that was told of a volume superfluous, and nothing of it is
// still to be done.
func (a *Agent) over(id san.VolumeID) bool {
	t := a.book.volumes[id]
	_, empty := t.without(a.book.kept)
	return empty && t.Purge == nil
}

// finish notes the outcome of one round, and forgets a volume that is no more.
func (a *Agent) finish(ctx context.Context, id san.VolumeID, e *entry, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.running = false
	switch {
	case err == nil:
		e.failures = 0
	case ctx.Err() == nil:
		e.failures++
		e.retryAt = time.Now().Add(min(backoffMin<<min(e.failures-1, 10), backoffMax))
	}
	if e.again {
		e.again = false
		a.enqueue(id)
		return
	}
	if err == nil && a.over(id) && len(e.shown) == 0 && e.kept.Replica == nil && len(e.kept.Hosts) == 0 {
		delete(a.entries, id)
		delete(a.book.volumes, id)
	}
}
