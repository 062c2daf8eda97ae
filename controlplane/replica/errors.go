package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/sandbar-san/sandbar/san"
)

// NotLeader says that only the leader can do what was asked, and who that is. Nothing happened. Its kind
// is san.KindUnavailable: the caller asks the leader, or again when there is one.
type NotLeader struct {
	// ID is the leader's; empty while none is known.
	ID san.StationID
	// Addr is its raft address; its API address is in the tables.
	Addr string
}

// Error says whom to ask instead.
func (e *NotLeader) Error() string {
	if e.ID == "" {
		return "the stations have no leader at present; try again in a few seconds, and look at `sandbar station list` if that lasts"
	}
	return fmt.Sprintf("this station is not the leader, %s is; ask that one", e.ID)
}

// Unwrap gives the error its kind.
func (e *NotLeader) Unwrap() error {
	return &san.Error{Kind: san.KindUnavailable, Err: errNotLeader}
}

var (
	errNotLeader = errors.New("not the leader")
	errStopping  = errors.New("the station is shutting down")
)

func (r *Replica) notLeader() error {
	id, addr := r.leader()
	if id == r.cfg.ID {
		// raft still names us, or does so again: whoever asks must look anew.
		return &NotLeader{}
	}
	return &NotLeader{ID: id, Addr: addr}
}

// explain turns raft's word on an operation into ours; done says what would have been done.
func (r *Replica) explain(err error, done string) error {
	var known *san.Error
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, raft.ErrNotLeader):
		return r.notLeader()
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return san.Errorf(san.KindUnavailable, "the leadership is being handed over; try again")
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return san.Errorf(san.KindUnavailable, "station %s is too busy to take the change; try again", r.cfg.ID)
	case errors.Is(err, raft.ErrLeadershipLost):
		return san.Errorf(san.KindUnknown, "station %s lost the leadership before it learnt whether the %s happened; ask again with the same request id", r.cfg.ID, done)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return san.Errorf(san.KindUnknown, "gave up before it was known whether the %s happened (%w); ask again with the same request id", done, err)
	case errors.Is(err, raft.ErrRaftShutdown):
		return san.Errorf(san.KindUnknown, "station %s shut down before it learnt whether the %s happened; ask another with the same request id", r.cfg.ID, done)
	}
	return san.Errorf(san.KindUnknown, "station %s cannot tell whether the %s happened: %w", r.cfg.ID, done, err)
}

// failure is the first thing that makes it impossible to go on.
type failure struct {
	mu   sync.Mutex
	err  error
	done chan struct{}
}

func newFailure() *failure { return &failure{done: make(chan struct{})} }

func (f *failure) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		close(f.done)
	}
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// gate counts the operations that raft owes an answer, and lets nobody in once it is closed.
type gate struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // closed when closed and n == 0
}

func newGate() *gate { return &gate{idle: make(chan struct{})} }

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.n++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	if g.closed && g.n == 0 {
		close(g.idle)
	}
}

func (g *gate) close() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		if g.n == 0 {
			close(g.idle)
		}
	}
	return g.idle
}
