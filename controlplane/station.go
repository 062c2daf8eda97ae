package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/agents"
	"github.com/sandbar-san/sandbar/controlplane/discovery"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/controlplane/rpc"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/internal/gossip"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// alpnRaft keeps a raft link from being mistaken for an API link.
const alpnRaft = "sandbar-raft/1"

// raftFolder holds the log and the snapshots.
const raftFolder = "raft"

// Station is a running station's parts.
type Station struct {
	cfg      Config
	log      *slog.Logger
	dir      *datadir.Dir
	self     *self
	machine  *fsm.Machine
	replica  *replica.Replica
	gossip   *gossip.Member
	members  *members
	hub      *agents.Hub
	intake   *agents.Intake
	forward  *agents.Forwarder
	suspects *discovery.Suspects
	founder  *founder // nil at all but the founder of a cluster that is not bootstrapped
	server   *rpc.Server
}

// Run runs a station until ctx ends or it can't go on. It returns after all that it started
// has stopped.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	dir, err := datadir.Open(cfg.Data)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // nothing is in it but the lock
	apiListener, err := listen(ctx, "api-listen", cfg.APIListen)
	if err != nil {
		return err
	}
	defer apiListener.Close()
	raftListener, err := listen(ctx, "raft-listen", cfg.RaftListen)
	if err != nil {
		return err
	}
	s := &Station{cfg: cfg, log: cfg.Log, dir: dir, machine: fsm.New(), suspects: &discovery.Suspects{}}
	if s.self, err = become(ctx, &cfg, dir); err != nil {
		return errors.Join(err, raftListener.Close())
	}
	if err := s.openReplica(raftListener); err != nil {
		return err
	}
	if err := s.startGossip(); err != nil {
		return errors.Join(err, s.replica.Close())
	}
	if err := s.wire(); err != nil {
		return errors.Join(err, s.replica.Close(), s.gossip.Close())
	}
	s.log.Info("station runs", "station", cfg.ID, "cluster", s.cluster(), "api", cfg.APIAdvertise)
	return s.run(ctx, apiListener)
}

func listen(ctx context.Context, key, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, san.Errorf(san.KindConflict, "address %s (%s) is in use by another process; stop it, or set %s to another", addr, key, key)
	}
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "can't listen at %s (%s): %w", addr, key, err)
	}
	return l, nil
}

func (s *Station) cluster() san.ClusterID { return s.self.identity.Self().Cluster }

func (s *Station) openReplica(l net.Listener) error {
	stations := identity.Roles(san.RoleStation)
	server := identity.ServerTLS(s.self.identity, identity.ClientCertRequired, stations)
	client := identity.ClientTLS(s.self.identity, stations)
	server.NextProtos, client.NextProtos = []string{alpnRaft}, []string{alpnRaft}
	var err error
	s.replica, err = replica.Open(replica.Config{
		ID: s.cfg.ID, Dir: s.dir.Path(raftFolder), Advertise: s.cfg.RaftAdvertise, Listener: l,
		ServerTLS: server, ClientTLS: client, PeerID: stationID,
		Machine: s.machine, Timing: s.cfg.RaftTiming, Logger: s.log,
	})
	return err
}

func stationID(cs tls.ConnectionState) (san.StationID, error) {
	peer, ok, err := identity.PeerOf(&cs)
	if err == nil && !ok {
		err = san.Errorf(san.KindUnauthenticated, "no certificate")
	}
	return san.StationID(peer.ID), err
}

func (s *Station) startGossip() error {
	timing := gossip.LAN()
	if s.cfg.FastGossip {
		timing = gossip.Fast()
	}
	var err error
	s.gossip, err = gossip.Start(gossip.Config{
		Name: gossip.Name(san.RoleStation, string(s.cfg.ID)), Cluster: s.cluster(), Key: s.self.keys.Gossip,
		Bind: s.cfg.GossipListen, Advertise: s.cfg.GossipAdvertise, Timing: timing,
		Tags:   map[string]string{tagAPI: s.cfg.APIAdvertise, tagRaft: s.cfg.RaftAdvertise, tagVersion: s.cfg.Version},
		Join:   s.gossipJoin,
		Logger: s.log,
	})
	return err
}

// gossipJoin are candidates to join the gossip at: what enrolment told and what the tables say.
func (s *Station) gossipJoin() []string {
	out := append([]string(nil), s.self.join.Gossip...)
	for _, row := range s.machine.View().Stations() {
		if row.ID != s.cfg.ID {
			out = append(out, row.GossipAddress)
		}
	}
	return out
}

func (s *Station) wire() error {
	client, err := stationclient.New(stationclient.Config{
		Endpoints: []string{s.cfg.APIAdvertise},
		TLS:       identity.ClientTLS(s.self.identity, identity.Roles(san.RoleStation, san.RoleUnit)),
	})
	if err != nil {
		return err
	}
	s.members = &members{self: s.cfg.ID, replica: s.replica, gossip: s.gossip, client: client}
	s.intake = agents.NewIntake(s.replica, s.suspects.Suspect)
	s.forward = &agents.Forwarder{Leader: s.replica, Intake: s.intake, Proposer: s.replica, Address: s.members.APIAddress, Client: client}
	s.hub = agents.NewHub(agents.HubConfig{
		Self: s.cfg.ID, Machine: s.machine, Sealer: s.self.sealer, Submit: s.forward,
		Endpoints: s.members.Endpoints, Log: s.log.With("part", "agents"),
	})
	asker := &agents.Asker{Hub: s.hub, Others: s.members.others, Client: client}
	var enrolNow rpc.EnrolFunc
	if s.self.founding != nil {
		ca, err := s.self.founding.openCA(s.self.sealer)
		if err != nil {
			return err
		}
		s.founder = &founder{
			dir: s.dir, ca: ca, keys: s.self.keys, self: s.cfg.ID, expect: s.cfg.BootstrapExpect,
			gossip: s.cfg.GossipAdvertise, api: s.cfg.APIAdvertise, log: s.log, f: s.self.founding,
		}
		enrolNow = s.founder.enrol
	}
	s.server = rpc.New(rpc.Config{
		Self: s.cfg.ID, Version: s.cfg.Version, Replica: s.replica, Machine: s.machine,
		Peers: s.members, Stations: s.members, Units: asker, Identity: s.self.identity, Sealer: s.self.sealer, Keys: s.self.keys,
		Founder: enrolNow, Agents: s.hub,
		Peer: &agents.Peer{Hub: s.hub, Intake: s.intake, Proposer: s.replica, Bootstrap: s.bootstrapState, Known: s.members.known},
		Log:  s.log.With("part", "rpc"),
	})
	return nil
}

func (s *Station) bootstrapState() (agents.Bootstrap, error) {
	has, err := s.replica.HasState()
	return agents.Bootstrap{HasState: has, Expect: s.cfg.BootstrapExpect, Cluster: s.cluster()}, err
}

func (s *Station) run(ctx context.Context, api net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.replica.Run(ctx) })
	g.Go(func() error { return s.gossip.Run(ctx) })
	g.Go(func() error { return s.intake.Run(ctx) })
	g.Go(func() error { return s.hub.Run(ctx) })
	g.Go(func() error { return s.serve(ctx, api) })
	g.Go(func() error { return s.replica.Terms(ctx, s.lead) })
	g.Go(func() error { return s.establish(ctx) })
	g.Go(func() error { return s.renew(ctx) })
	err := g.Wait()
	s.members.client.Close()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serve runs the API until ctx ends. Streams and calls under way end with ctx: their clients
// go to another station.
func (s *Station) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.server.Handler(),
		TLSConfig:         identity.ServerTLS(s.self.identity, identity.ClientCertOptional, identity.Member),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          log.New(quiet{s.log}, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 1024,
			SendPingTimeout:      5 * time.Second, // a client that vanished frees its stream within ten
			PingTimeout:          5 * time.Second,
			WriteByteTimeout:     10 * time.Second,
		},
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(newLimitListener(l, maxAPIConns, s.log), "", "") }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if srv.Shutdown(sctx) != nil {
		_ = srv.Close() // whoever is still there had two seconds
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

// quiet takes net/http's own log: refused handshakes and the like, which strangers cause.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(b []byte) (int, error) {
	q.log.Debug("http", "message", string(b))
	return len(b), nil
}

// renew keeps the station's certificate fresh.
func (s *Station) renew(ctx context.Context) error {
	r := &identity.Renewer{Store: s.self.store, Identity: s.self.identity, Log: s.log, Request: func(ctx context.Context, csr []byte) ([]byte, error) {
		m := &pb.EnrolRequest{Role: string(san.RoleStation), Id: string(s.cfg.ID), CsrDer: csr, Addresses: certAddresses(&s.cfg)}
		resp, err := s.members.client.Enrol(s.cfg.APIAdvertise).Enrol(ctx, connect.NewRequest(m))
		if err != nil {
			return nil, err
		}
		return resp.Msg.CertificatePem, nil
	}}
	return r.Run(ctx)
}

// rememberPeers keeps where the others are, for a start at which the tables are still empty.
func (s *Station) rememberPeers() {
	j := enrol.Join{Endpoints: s.members.Endpoints(), Gossip: s.gossipJoin()}
	if err := enrol.Keep(s.dir, j); err != nil {
		s.log.Warn("the other stations' addresses were not kept", "err", err)
	}
}
