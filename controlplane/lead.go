package controlplane

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/agents"
	"github.com/sandbar-san/sandbar/controlplane/discovery"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/gossip"
	"github.com/sandbar-san/sandbar/san"
)

// lead is one term as leader. It returns once all that it runs has stopped.
func (s *Station) lead(ctx context.Context, term uint64) {
	s.log.Info("leading", "station", s.cfg.ID, "term", term)
	w := discovery.NewWatcher(&world{members: s.members, hub: s.hub}, agents.HeartbeatLease, s.log.With("part", "discovery"))
	s.suspects.Set(w)
	defer s.suspects.Set(nil)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.Run(ctx) })
	g.Go(func() error { return s.growGroup(ctx) })
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		s.log.Error("leading ended early", "err", err)
	}
	s.log.Info("no longer leading", "station", s.cfg.ID, "term", term)
}

const (
	groupEvery = time.Second
	// defaultHealthyFor is how long a new station must be seen alive before it votes.
	defaultHealthyFor = 10 * time.Second
	// smallLag is how many entries a new voter may be behind.
	smallLag = 1000
)

// growGroup takes stations that enrolled later into the Raft group: first without a vote
// (AddVoter would count it at once, however far behind it is), with one after it was
// healthy for a while and has caught up. It changes one station a round.
func (s *Station) growGroup(ctx context.Context) error {
	aliveSince := map[san.StationID]time.Time{}
	tick := time.NewTicker(groupEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		for _, row := range s.machine.View().Stations() {
			changed, err := s.growBy(ctx, row, aliveSince)
			if err != nil {
				s.log.Warn("a station could not be taken into the group; trying again", "station", row.ID, "err", err)
			}
			if changed || err != nil {
				break
			}
		}
	}
}

func (s *Station) growBy(ctx context.Context, row *fsm.Station, aliveSince map[san.StationID]time.Time) (changed bool, err error) {
	n, ok := s.members.node(san.RoleStation, string(row.ID))
	if !ok || n.Status != gossip.StatusAlive {
		delete(aliveSince, row.ID)
		return false, nil
	}
	if aliveSince[row.ID].IsZero() {
		aliveSince[row.ID] = time.Now()
	}
	have := replica.Server{}
	for _, sv := range s.replica.Configuration() {
		if sv.ID == row.ID {
			have = sv
		}
	}
	// A station that was not reached yet, or moved, can't have its address in the tables. Gossip's is
	// good enough to dial: raft's links make sure who is there.
	addr := n.Tags[tagRaft]
	switch {
	case addr == "":
		return false, nil
	case have.ID == "":
		s.log.Info("taking a station into the group", "station", row.ID, "raft", addr)
		return true, s.replica.AddNonvoter(ctx, row.ID, addr)
	case have.Addr != addr && have.Voter:
		return true, s.replica.AddVoter(ctx, row.ID, addr)
	case have.Addr != addr:
		return true, s.replica.AddNonvoter(ctx, row.ID, addr)
	case have.Voter || row.APIAddress == "" || time.Since(aliveSince[row.ID]) < s.cfg.HealthyFor:
		return false, nil
	}
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := s.members.client.Stations(row.APIAddress).Health(actx, connect.NewRequest(&pb.HealthRequest{}))
	if err != nil || resp.Msg.AppliedIndex+smallLag < uint64(s.machine.AppliedIndex()) {
		return false, err
	}
	s.log.Info("giving a station its vote", "station", row.ID)
	return true, s.replica.AddVoter(ctx, row.ID, addr)
}
