package controlplane

import (
	"context"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

const establishEvery = 200 * time.Millisecond

// establish brings this station into its cluster: the founder bootstraps the Raft group and
// writes the first entry; every station then writes its own row. It ends when that is done.
func (s *Station) establish(ctx context.Context) error {
	err := s.enter(ctx)
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // what it met on the way out, a log that is closed already say, is no failure
	}
	return err
}

func (s *Station) enter(ctx context.Context) error {
	if s.founder != nil {
		if err := s.bootstrap(ctx); err != nil {
			return err
		}
	}
	if err := s.awaitCluster(ctx); err != nil {
		return err
	}
	row := fsm.Station{
		ID: s.cfg.ID, APIAddress: s.cfg.APIAdvertise, RaftAddress: s.cfg.RaftAdvertise, GossipAddress: s.cfg.GossipAdvertise,
		CertSerial: s.self.identity.Self().Serial, Version: s.cfg.Version, Format: fsm.FormatVersion, At: time.Now().UTC().Truncate(time.Millisecond),
	}
	cmd := &fsm.PutStation{H: fsm.Header{At: row.At, Principal: "station " + string(s.cfg.ID)}, Station: row}
	if err := s.forward.Propose(ctx, cmd); err != nil {
		return err
	}
	s.log.Info("station is in its cluster", "station", s.cfg.ID, "cluster", s.cluster())
	return s.poll(ctx, func() bool {
		if s.machine.View().Station(s.cfg.ID) == nil {
			return false
		}
		s.rememberPeers()
		return true
	})
}

// poll asks until done or ctx ends.
func (s *Station) poll(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(establishEvery)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// bootstrap founds the Raft group once all expected stations are there. Only the founder
// does; the others learn the group from it.
func (s *Station) bootstrap(ctx context.Context) error {
	has, err := s.replica.HasState()
	if err != nil {
		return err
	}
	said := ""
	err = s.poll(ctx, func() bool {
		if has {
			return true
		}
		voters, why := s.founder.voters(ctx, s.gossip.Members(), s.askBootstrap)
		if why != "" {
			if why != said {
				s.log.Warn("not bootstrapped yet", "expect", s.cfg.BootstrapExpect, "why", why)
				said = why
			}
			return false
		}
		var servers []replica.Server
		for id, addr := range voters {
			servers = append(servers, replica.Server{ID: id, Addr: addr, Voter: true})
		}
		if berr := s.replica.Bootstrap(servers); berr != nil {
			err = berr
		}
		return true
	})
	if err != nil {
		return err
	}
	return s.initCluster(ctx)
}

// initCluster writes the first entry, through whoever leads, and then forgets what founding kept.
func (s *Station) initCluster(ctx context.Context) error {
	if s.machine.View().Cluster() == nil {
		err := s.forward.Propose(ctx, s.founder.initCommand())
		if k := san.KindOf(err); err != nil && k != san.KindConflict && k != san.KindExists {
			return san.Wrap("cluster's first entry", err)
		}
	}
	if err := s.awaitCluster(ctx); err != nil {
		return err
	}
	s.log.Info("cluster is bootstrapped", "cluster", s.cluster(), "stations", s.cfg.BootstrapExpect)
	return s.dir.Remove(foundingFile)
}

// awaitCluster waits for the cluster's row, and refuses another cluster's: a folder that was put
// together from two.
func (s *Station) awaitCluster(ctx context.Context) error {
	if err := s.poll(ctx, func() bool { return s.machine.View().Cluster() != nil }); err != nil {
		return err
	}
	if has := s.machine.View().Cluster().ID; has != s.cluster() {
		return san.Errorf(san.KindConflict, "data folder %s: its log is of cluster %s and its identity of cluster %s; restore the one that belongs to the other, or start with an empty folder", s.cfg.Data, has, s.cluster())
	}
	return nil
}

func (s *Station) askBootstrap(ctx context.Context, api string) (*pb.BootstrapStateResponse, error) {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := s.members.client.Peers(api).BootstrapState(actx, connect.NewRequest(&pb.BootstrapStateRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}
