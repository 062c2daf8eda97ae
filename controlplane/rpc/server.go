package rpc

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/validate"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/controlplane/agents"
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

// SuffrageNone is the part in the Raft group of a station that is not in it.
const SuffrageNone = "None"

// Keys are the cluster's shared secrets, handed to those who enrol.
type Keys struct {
	Gossip  []byte
	Cluster []byte
}

// Units reaches units over the streams that they hold to stations.
type Units interface {
	// Ask puts a question to a unit, a bounded time.
	Ask(ctx context.Context, unit san.UnitID, q *pb.Question) (*pb.Answer, error)
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
	Units    Units
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
	units    Units
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
		router: router{self: cfg.Self, replica: cfg.Replica, peers: cfg.Peers, auth: &authn{member: func(id san.StationID) bool {
			return cfg.Stations.Suffrage(id) != SuffrageNone
		}}, log: cfg.Log},
		machine:  cfg.Machine,
		version:  cfg.Version,
		stations: cfg.Stations,
		units:    cfg.Units,
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
	return identity.WithConnection(agents.Interruptible(bounded(mux)))
}

// bodyWait bounds how long a request's message may take to arrive, before which nobody is known.
const bodyWait = 30 * time.Second

// bounded gives every request that is no stream so long to arrive.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != sandbarv1connect.AgentServiceSessionProcedure {
			// A connection that takes no deadline is over already.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWait))
		}
		next.ServeHTTP(w, req)
	})
}

// recovered keeps a defect in one call from ending the station.
func (s *Server) recovered(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
	s.log.Error("a call failed by a defect of the station", "procedure", spec.Procedure, "panic", p, "stack", string(debug.Stack()))
	return connect.NewError(connect.CodeInternal, san.Errorf(san.KindInternal, "%s failed by a defect of the station; its log has the details", spec.Procedure))
}
