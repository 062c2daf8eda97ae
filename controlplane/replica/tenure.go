package replica

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// reign is one unbroken time as leader, as this station knows it.
type reign struct {
	seq      uint64 // counts reigns; one term may see only one
	term     uint64
	leading  bool
	ready    bool // a barrier of this term was applied
	readable bool // ready, and no handover is under way
	// handovers counts those that were begun.
	handovers int
}

// tenure publishes the present reign.
type tenure struct {
	mu      sync.Mutex
	now     reign
	changed chan struct{}
}

func newTenure() *tenure { return &tenure{changed: make(chan struct{})} }

func (t *tenure) get() (reign, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now, t.changed
}

// update changes the present reign, if it is still seq (0: whichever it is).
func (t *tenure) update(seq uint64, change func(*reign)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq != 0 && t.now.seq != seq {
		return
	}
	change(&t.now)
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tenure) begin() uint64 {
	var seq uint64
	t.update(0, func(r *reign) {
		seq = r.seq + 1
		*r = reign{seq: seq, leading: true}
	})
	return seq
}

func (t *tenure) end() {
	t.update(0, func(r *reign) { *r = reign{seq: r.seq} })
}

// until waits for a reign that ok accepts.
func (t *tenure) until(ctx context.Context, ok func(reign) bool) (reign, error) {
	for {
		now, changed := t.get()
		if ok(now) {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}

// followLeadership turns raft's signals into reigns, and makes each ready by a barrier. Two signals of
// leadership in a row mean that it was lost in between.
func (r *Replica) followLeadership(ctx context.Context) {
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case leading := <-r.raft.LeaderCh():
			stop()
			stop = func() {}
			r.tenure.end()
			if !leading {
				r.log.Info("leadership lost", "station", r.cfg.ID)
				continue
			}
			reignCtx, cancel := context.WithCancel(ctx)
			seq := r.tenure.begin()
			done := make(chan struct{})
			go func() {
				defer close(done)
				r.establish(reignCtx, seq)
			}()
			stop = func() {
				cancel()
				<-done
			}
		}
	}
}

// barrierRetry is the pause after a barrier that raft did not take.
const barrierRetry = 20 * time.Millisecond

func (r *Replica) establish(ctx context.Context, seq uint64) {
	for ctx.Err() == nil {
		term := r.raft.CurrentTerm()
		if err := r.barrier(ctx); err == nil && r.raft.State() == raft.Leader && r.raft.CurrentTerm() == term {
			r.log.Info("leadership gained", "station", r.cfg.ID, "term", term)
			r.tenure.update(seq, func(now *reign) { now.term, now.ready, now.readable = term, true, true })
			return
		}
		select {
		case <-ctx.Done():
		case <-r.failed.done:
			return
		case <-time.After(barrierRetry):
		}
	}
}

// barrier returns once all that was committed before it is applied.
func (r *Replica) barrier(ctx context.Context) error {
	if !r.calls.enter() {
		return errStopping
	}
	f := r.raft.Barrier(enqueueLimit)
	if err := r.await(ctx, f); err != nil {
		return err
	}
	// A state machine that halted lets barriers pass.
	if err := r.failed.get(); err != nil {
		return err
	}
	// The state machine never sees a barrier or the entry that opens a term; from here on the leader's log has
	// only entries that it does see, so that its watermark reaches every later commit index.
	if at, ok := f.(raft.IndexFuture); ok {
		r.applier.reached.advance(at.Index())
	}
	return nil
}

// Terms calls serve for each term in which this station leads, one at a time: after a barrier, so that View
// has all that was committed before the term. Its context ends when the leadership is lost, and the next call
// comes only after it has returned. Terms returns nil when ctx has ended and serve has returned.
func (r *Replica) Terms(ctx context.Context, serve func(ctx context.Context, term uint64)) error {
	var last uint64
	for {
		now, err := r.tenure.until(ctx, func(g reign) bool { return g.ready && g.seq > last })
		if err != nil {
			return nil
		}
		last = now.seq
		termCtx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			serve(termCtx, now.term)
		}()
		// The error is ctx's, which the next round sees.
		_, _ = r.tenure.until(ctx, func(g reign) bool { return g.seq != now.seq || !g.leading })
		cancel()
		<-done
	}
}
