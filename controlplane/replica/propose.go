package replica

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// Propose commits c and returns what it came to, once this station has applied it. Leader only.
//
// Errors: *NotLeader and san.KindUnavailable: nothing happened. san.KindUnknown: it may have happened or
// may yet happen; repeating it with the same request id is safe. Any other kind is the state machine's
// refusal, which is Result.Err too, or a command that can't be encoded.
func (r *Replica) Propose(ctx context.Context, c fsm.Command) (fsm.Result, error) {
	if err := r.mayLead(ctx); err != nil {
		return fsm.Result{}, err
	}
	// A station with an older program would halt at a command that it can't read.
	if err := r.View().Allows(c); err != nil {
		return fsm.Result{}, err
	}
	entry, err := fsm.Encode(c)
	if err != nil {
		return fsm.Result{}, err
	}
	if !r.calls.enter() {
		return fsm.Result{}, san.Errorf(san.KindUnavailable, "%w; ask another station", errStopping)
	}
	f := r.raft.Apply(entry, enqueueTime(ctx))
	if err := r.await(ctx, f); err != nil {
		return fsm.Result{}, r.explain(err, "change")
	}
	switch answer := f.Response().(type) {
	case fsm.Result:
		return answer, answer.Err
	case error:
		return fsm.Result{}, san.Errorf(san.KindUnknown, "station %s halted: %w", r.cfg.ID, answer)
	default:
		return fsm.Result{}, san.Errorf(san.KindInternal, "the state machine answered with a %T", answer)
	}
}

// mayLead refuses early what only a leader can do.
func (r *Replica) mayLead(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return san.Errorf(san.KindUnavailable, "nothing was done: %w", err)
	}
	if err := r.failed.get(); err != nil {
		return san.Errorf(san.KindUnavailable, "station %s cannot go on: %w", r.cfg.ID, err)
	}
	if !r.IsLeader() {
		return r.notLeader()
	}
	return nil
}

func enqueueTime(ctx context.Context) time.Duration {
	limit := enqueueLimit
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	// raft takes 0 for no limit.
	return max(limit, time.Millisecond)
}

// await waits for raft's answer, for ctx, or for the end. The caller has entered the gate, which await leaves
// once raft has answered: leave waits for that.
func (r *Replica) await(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() {
		defer r.calls.leave()
		done <- f.Error()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-r.failed.done:
	}
	// raft may have answered at the same moment, and an answer is worth more.
	select {
	case err := <-done:
		return err
	default:
		return san.Errorf(san.KindUnknown, "station %s stopped before it learnt the outcome (%v); ask another with the same request id", r.cfg.ID, r.failed.get())
	}
}
