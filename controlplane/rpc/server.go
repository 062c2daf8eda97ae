package rpc

import (
	"context"
	"log/slog"
	"net/http"

	"connectrpc.com/connect"
	"connectrpc.com/validate"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// MaxRequestBytes bounds a request's message.
	MaxRequestBytes = 1 << 20
	// compressFrom is the size from which answers are compressed: below it, on a data
	// centre's network, compressing costs more time than it saves.
	compressFrom = 32 << 10
)

// Stations is what the station knows of the others, by table and gossip.
type Stations interface {
	// Endpoints are the API addresses of all stations.
	Endpoints() []string
	// GossipAddresses are where to join the gossip.
	GossipAddresses() []string
	// Suffrage is Voter, Nonvoter or None.
	Suffrage(id san.StationID) string
	// GossipStatus is what gossip says of a station.
	GossipStatus(id san.StationID) string
}

// Keys are the cluster's shared secrets, handed to those who enrol.
type Keys struct {
	Gossip  []byte
	Cluster []byte
}

// EnrolFunc answers an enrolment.
type EnrolFunc func(context.Context, *connect.Request[pb.EnrolRequest]) (*connect.Response[pb.EnrolResponse], error)

// Config is what a Server needs.
type Config struct {
	Self     san.StationID
	Version  string
	Replica  *replica.Replica
	Machine  *fsm.Machine
	Peers    Peers
	Stations Stations
	Identity *identity.Identity
	Sealer   *identity.Sealer
	Keys     Keys
	Founder  EnrolFunc // answers while there is no cluster yet; nil at all but the founder
	// Agents and PeerService are the handlers of controlplane/agents.
	Agents sandbarv1connect.AgentServiceHandler
	Peer   sandbarv1connect.PeerServiceHandler
	Log    *slog.Logger
}

// Server implements the public services.
type Server struct {
	router
	machine  *fsm.Machine
	version  string
	stations Stations
	identity *identity.Identity
	sealer   *identity.Sealer
	keys     Keys
	founder  EnrolFunc
	agents   sandbarv1connect.AgentServiceHandler
	peer     sandbarv1connect.PeerServiceHandler
}

// New makes a Server.
func New(cfg Config) *Server {
	return &Server{
		router:   router{self: cfg.Self, replica: cfg.Replica, peers: cfg.Peers, auth: &authn{}, log: cfg.Log},
		machine:  cfg.Machine,
		version:  cfg.Version,
		stations: cfg.Stations,
		identity: cfg.Identity,
		sealer:   cfg.Sealer,
		keys:     cfg.Keys,
		founder:  cfg.Founder,
		agents:   cfg.Agents,
		peer:     cfg.Peer,
	}
}

// Handler serves all services. It must be behind a TLS server of internal/identity that asks
// for client certificates.
func (s *Server) Handler() http.Handler {
	opts := []connect.HandlerOption{
		connect.WithReadMaxBytes(MaxRequestBytes),
		connect.WithCompressMinBytes(compressFrom),
		connect.WithInterceptors(validate.NewInterceptor()),
		connect.WithRecover(s.recovered),
	}
	mux := http.NewServeMux()
	mux.Handle(sandbarv1connect.NewVolumeServiceHandler(s, opts...))
	mux.Handle(sandbarv1connect.NewHostServiceHandler(s, opts...))
	mux.Handle(sandbarv1connect.NewUnitServiceHandler(s, opts...))
	mux.Handle(sandbarv1connect.NewStationServiceHandler(s, opts...))
	mux.Handle(sandbarv1connect.NewTokenServiceHandler(s, opts...))
	mux.Handle(sandbarv1connect.NewEnrolServiceHandler(s, opts...))
	mux.Handle(sandbarv1connect.NewAgentServiceHandler(s.agents, connect.WithReadMaxBytes(MaxRequestBytes), connect.WithCompressMinBytes(compressFrom), connect.WithRecover(s.recovered)))
	mux.Handle(sandbarv1connect.NewPeerServiceHandler(s.peer, connect.WithReadMaxBytes(MaxRequestBytes), connect.WithCompressMinBytes(compressFrom), connect.WithRecover(s.recovered)))
	return identity.WithConnection(mux)
}

// recovered keeps a defect in one call from ending the station.
func (s *Server) recovered(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
	s.log.Error("a call failed by a defect of the station", "procedure", spec.Procedure, "panic", p)
	return connect.NewError(connect.CodeInternal, san.Errorf(san.KindInternal, "%s failed by a defect of the station; its log has the details", spec.Procedure))
}
