package replica

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// readRound is what readers who came at about the same time share.
type readRound struct {
	done  chan struct{}
	index uint64
	err   error
}

// readQueue gathers readers for the next round. Who comes while a round is under way must wait for the next
// one: the running one may have looked before what the reader is entitled to see was committed.
type readQueue struct {
	mu   sync.Mutex
	next *readRound
	kick chan struct{}
}

func newReadQueue() *readQueue { return &readQueue{kick: make(chan struct{}, 1)} }

func (q *readQueue) join() *readRound {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == nil {
		q.next = &readRound{done: make(chan struct{})}
		select {
		case q.kick <- struct{}{}:
		default:
		}
	}
	return q.next
}

func (q *readQueue) take() *readRound {
	q.mu.Lock()
	defer q.mu.Unlock()
	round := q.next
	q.next = nil
	return round
}

// ReadIndex returns a state that has everything that was committed before the call: a linearizable read.
// Leader only. Errors: *NotLeader, san.KindUnavailable.
func (r *Replica) ReadIndex(ctx context.Context) (fsm.View, error) {
	if err := r.mayLead(ctx); err != nil {
		return fsm.View{}, err
	}
	if _, err := r.tenure.until(ctx, func(g reign) bool { return g.readable || !g.leading }); err != nil {
		return fsm.View{}, san.Errorf(san.KindUnavailable, "station %s has only just become the leader: %w; try again", r.cfg.ID, err)
	}
	round := r.reads.join()
	select {
	case <-round.done:
	case <-ctx.Done():
		return fsm.View{}, san.Errorf(san.KindUnavailable, "station %s could not confirm in time that it is the leader: %w", r.cfg.ID, ctx.Err())
	case <-r.stopped:
		return fsm.View{}, san.Errorf(san.KindUnavailable, "%w; ask another station", errStopping)
	}
	if round.err != nil {
		return fsm.View{}, round.err
	}
	if err := r.WaitApplied(ctx, san.Index(round.index)); err != nil {
		return fsm.View{}, err
	}
	return r.View(), nil
}

// resumeReads allows reads again after a handover that failed. It may still be under way when its failure is
// known; a barrier goes through only once it is not.
func (r *Replica) resumeReads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.handoverFailed:
		}
		for now, _ := r.tenure.get(); now.ready && !now.readable; now, _ = r.tenure.get() {
			if r.barrier(ctx) == nil && r.raft.CurrentTerm() == now.term {
				r.tenure.update(now.seq, func(g *reign) { g.readable = g.ready && g.handovers == now.handovers })
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-r.failed.done:
				return
			case <-time.After(barrierRetry):
			}
		}
	}
}

// confirmReads runs the rounds, one after the other.
func (r *Replica) confirmReads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.reads.kick:
		}
		if round := r.reads.take(); round != nil {
			round.index, round.err = r.confirm(ctx)
			close(round.done)
		}
	}
}

// confirm returns an index that no entry committed before the call exceeds.
func (r *Replica) confirm(ctx context.Context) (uint64, error) {
	before, _ := r.tenure.get()
	if !before.readable {
		return 0, r.notLeader()
	}
	index := r.raft.CommitIndex()
	if !r.calls.enter() {
		return 0, san.Errorf(san.KindUnavailable, "%w; ask another station", errStopping)
	}
	err := r.await(ctx, r.raft.VerifyLeader())
	after, _ := r.tenure.get()
	switch {
	case err == nil && after == before && r.raft.CurrentTerm() == before.term:
		return index, nil
	case err == nil, errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost):
		return 0, r.notLeader()
	}
	return 0, san.Errorf(san.KindUnavailable, "station %s could not confirm that it is the leader: %w; try again", r.cfg.ID, err)
}
