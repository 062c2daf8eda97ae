package replica

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sandbar-san/sandbar/san"
)

// Server is a member of the Raft group.
type Server struct {
	ID    san.StationID
	Addr  string // host:port of its raft listener
	Voter bool
}

// Status is what one station knows of the group.
type Status struct {
	ID      san.StationID
	State   string // Follower, Candidate, Leader or Shutdown
	Term    uint64
	Leader  san.StationID // empty while none is known
	Last    san.Index     // last entry in the log
	Commit  san.Index     // last entry known to be committed
	Applied san.Index     // last entry that the state machine has seen
	// LastContact is how long ago the leader was heard; 0 on the leader, negative if never.
	LastContact time.Duration
	Servers     []Server
	// Failed says why the replica cannot go on.
	Failed error
}

// Bootstrap founds the group with servers, this station among them. Exactly one station of a new cluster
// calls it. Refused with san.KindConflict if the folder holds any state.
func (r *Replica) Bootstrap(servers []Server) error {
	has, err := r.HasState()
	if err != nil {
		return err
	}
	if has {
		return r.hasStateError()
	}
	var conf raft.Configuration
	self := false
	for _, s := range servers {
		self = self || s.ID == r.cfg.ID && s.Voter && s.Addr == r.cfg.Advertise
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr), Suffrage: suffrage(s.Voter)})
	}
	if !self {
		return san.Errorf(san.KindInvalid, "station %s at %s is no voter among the %d stations that it is to found the cluster with", r.cfg.ID, r.cfg.Advertise, len(servers))
	}
	if !r.calls.enter() {
		return san.Errorf(san.KindUnavailable, "%w", errStopping)
	}
	err = r.await(context.Background(), r.raft.BootstrapCluster(conf))
	if errors.Is(err, raft.ErrCantBootstrap) {
		return r.hasStateError()
	}
	return san.Wrap("found the cluster", err)
}

func (r *Replica) hasStateError() error {
	return san.Errorf(san.KindConflict, "station %s belongs to a cluster already: %s has a log; start it without founding one, or give it an empty folder", r.cfg.ID, r.cfg.Dir)
}

func suffrage(voter bool) raft.ServerSuffrage {
	if voter {
		return raft.Voter
	}
	return raft.Nonvoter
}

// AddVoter makes a station a voter, or changes its address. It votes from the entry's commit on, caught up
// or not: add it as a non-voter first. An address that another station has is san.KindConflict. Leader
// only; else errors as Propose's.
func (r *Replica) AddVoter(ctx context.Context, id san.StationID, addr string) error {
	if err := r.checkServer(id, addr); err != nil {
		return err
	}
	return r.change(ctx, "change of voters", func(limit time.Duration) raft.Future {
		return r.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(addr), 0, limit)
	})
}

// AddNonvoter makes a station receive the log without a vote; of a voter it changes the address only. An
// address that another station has is san.KindConflict. Leader only; else errors as Propose's.
func (r *Replica) AddNonvoter(ctx context.Context, id san.StationID, addr string) error {
	if err := r.checkServer(id, addr); err != nil {
		return err
	}
	return r.change(ctx, "change of members", func(limit time.Duration) raft.Future {
		return r.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(addr), 0, limit)
	})
}

// checkServer refuses what raft would refuse, with a kind.
func (r *Replica) checkServer(id san.StationID, addr string) error {
	if err := san.CheckName("station", string(id)); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return san.Errorf(san.KindInvalid, "raft address %q of station %s is not host:port: %w", addr, id, err)
	}
	for _, s := range r.Configuration() {
		if s.Addr == addr && s.ID != id {
			return san.Errorf(san.KindConflict, "raft address %s of station %s is station %s's; give each station its own, or remove %s first", addr, id, s.ID, s.ID)
		}
	}
	return nil
}

// RemoveServer takes a station out of the group; a leader may remove itself. Removing one that is no
// member is san.KindNotFound, the last voter san.KindConflict. Leader only; else errors as Propose's.
func (r *Replica) RemoveServer(ctx context.Context, id san.StationID) error {
	if err := r.mayLead(ctx); err != nil {
		return err
	}
	found := false
	for _, s := range r.Configuration() {
		found = found || s.ID == id
	}
	if !found {
		return san.Errorf(san.KindNotFound, "station %s is no member of the cluster; see `sandbar station list`", id)
	}
	if v := r.voters(); len(v) == 1 && v[0].ID == id {
		return san.Errorf(san.KindConflict, "station %s is the only voter; add another station before removing it", id)
	}
	return r.change(ctx, "removal", func(limit time.Duration) raft.Future {
		return r.raft.RemoveServer(raft.ServerID(id), 0, limit)
	})
}

func (r *Replica) change(ctx context.Context, what string, start func(time.Duration) raft.Future) error {
	if err := r.mayLead(ctx); err != nil {
		return err
	}
	if !r.calls.enter() {
		return san.Errorf(san.KindUnavailable, "%w; ask another station", errStopping)
	}
	return r.explain(r.await(ctx, start(enqueueTime(ctx))), what)
}

// TransferLeadership hands the leadership to station id, or to whichever is the most up to date if id is
// empty, and returns once this station has lost it. Leader only.
func (r *Replica) TransferLeadership(ctx context.Context, id san.StationID) error {
	if err := r.mayLead(ctx); err != nil {
		return err
	}
	target, err := r.successor(id)
	if err != nil {
		return err
	}
	if !r.calls.enter() {
		return san.Errorf(san.KindUnavailable, "%w; ask another station", errStopping)
	}
	now, _ := r.tenure.get()
	// From here on a successor may commit before this station knows of it.
	r.tenure.update(now.seq, func(g *reign) { g.readable = false; g.handovers++ })
	var f raft.Future
	if target == nil {
		f = r.raft.LeadershipTransfer()
	} else {
		f = r.raft.LeadershipTransferToServer(target.ID, target.Address)
	}
	if err = r.await(ctx, f); err == nil {
		return nil
	}
	select {
	case r.handoverFailed <- struct{}{}:
	default:
	}
	return san.Errorf(san.KindUnavailable, "the leadership was not handed over: %w; look whether the other stations are up, then try again", err)
}

func (r *Replica) successor(id san.StationID) (*raft.Server, error) {
	if id == "" {
		return nil, nil
	}
	if id == r.cfg.ID {
		return nil, san.Errorf(san.KindConflict, "station %s is the leader already", id)
	}
	for _, s := range r.voters() {
		if s.ID == id {
			return &raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr)}, nil
		}
	}
	return nil, san.Errorf(san.KindNotFound, "station %s is no voter of the cluster; see `sandbar station list`", id)
}

// Configuration returns the newest member list that this station knows; it may not be committed yet.
func (r *Replica) Configuration() []Server {
	var servers []Server
	for _, s := range r.raft.GetConfiguration().Configuration().Servers {
		servers = append(servers, Server{ID: san.StationID(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return servers
}

func (r *Replica) voters() []Server {
	var voters []Server
	for _, s := range r.Configuration() {
		if s.Voter {
			voters = append(voters, s)
		}
	}
	return voters
}

// serverAt returns the station that belongs at address.
func (r *Replica) serverAt(address raft.ServerAddress) (san.StationID, bool) {
	node := r.node.Load()
	if node == nil {
		return "", false
	}
	for _, s := range node.GetConfiguration().Configuration().Servers {
		if s.Address == address {
			return san.StationID(s.ID), true
		}
	}
	return "", false
}

func (r *Replica) leader() (san.StationID, string) {
	if r.failed.get() != nil || r.stream.isCut() {
		return "", ""
	}
	addr, id := r.raft.LeaderWithID()
	return san.StationID(id), string(addr)
}

// Leader returns the leader that this station knows of.
func (r *Replica) Leader() (san.StationID, bool) {
	id, _ := r.leader()
	return id, id != ""
}

// IsLeader reports whether this station takes itself for the leader. It may be wrong by one lease.
func (r *Replica) IsLeader() bool {
	return r.raft.State() == raft.Leader && r.failed.get() == nil && !r.stream.isCut()
}

// Term returns raft's current term.
func (r *Replica) Term() uint64 { return r.raft.CurrentTerm() }

// Status returns what this station knows of the group.
func (r *Replica) Status() Status {
	id, _ := r.leader()
	s := Status{
		ID: r.cfg.ID, State: r.raft.State().String(), Term: r.raft.CurrentTerm(), Leader: id,
		Last: san.Index(r.raft.LastIndex()), Commit: san.Index(r.raft.CommitIndex()),
		Applied: san.Index(r.applier.reached.get()), Servers: r.Configuration(), Failed: r.failed.get(),
	}
	switch last := r.raft.LastContact(); {
	case r.raft.State() == raft.Leader:
	case last.IsZero():
		s.LastContact = -1
	default:
		s.LastContact = time.Since(last)
	}
	return s
}
