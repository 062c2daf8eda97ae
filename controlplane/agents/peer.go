package agents

import (
	"context"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// Bootstrap tells what this station would bring to a bootstrap.
type Bootstrap struct {
	HasState bool
	Expect   int
	Cluster  san.ClusterID
}

// Peer implements PeerService, what stations ask of each other.
type Peer struct {
	Hub       *Hub
	Intake    *Intake
	Proposer  Proposer
	Bootstrap func() (Bootstrap, error)
	// Known tells whether a station still belongs to the cluster: a certificate outlives a removal.
	Known func(san.StationID) bool
}

// stationOnly refuses all but stations of this cluster.
func (p *Peer) stationOnly(ctx context.Context) error {
	peer, ok, err := identity.PeerFrom(ctx)
	switch {
	case err != nil || !ok || peer.Role != san.RoleStation:
		return convert.ToConnect(san.Errorf(san.KindDenied, "only stations may call this service"))
	case !p.Known(san.StationID(peer.ID)):
		return convert.ToConnect(san.Errorf(san.KindDenied, "station %s is no member of this cluster any more; enrol it with a new join token", peer.ID))
	}
	return nil
}

// Submit implements PeerService. Its messages are committed in order.
func (p *Peer) Submit(ctx context.Context, req *connect.Request[pb.SubmitRequest]) (*connect.Response[pb.SubmitResponse], error) {
	if err := p.stationOnly(ctx); err != nil {
		return nil, err
	}
	out := &pb.SubmitResponse{}
	for _, m := range req.Msg.Messages {
		err := p.Intake.Submit(ctx, m)
		switch k := san.KindOf(err); {
		case err == nil:
			out.Errors = append(out.Errors, "")
		case k == san.KindUnavailable || k == san.KindUnknown || ctx.Err() != nil:
			return nil, convert.ToConnect(err) // not the leader, or not now: the sender tries again
		default:
			out.Errors = append(out.Errors, err.Error())
		}
	}
	return connect.NewResponse(out), nil
}

// HeartbeatAges implements PeerService.
func (p *Peer) HeartbeatAges(ctx context.Context, _ *connect.Request[pb.HeartbeatAgesRequest]) (*connect.Response[pb.HeartbeatAgesResponse], error) {
	if err := p.stationOnly(ctx); err != nil {
		return nil, err
	}
	out := &pb.HeartbeatAgesResponse{}
	for _, a := range p.Hub.Ages() {
		out.Ages = append(out.Ages, &pb.HeartbeatAge{Role: string(a.Role), Id: a.ID, Incarnation: uint64(a.Incarnation), AgeMillis: a.Age.Milliseconds()})
	}
	return connect.NewResponse(out), nil
}

// Propose implements PeerService.
func (p *Peer) Propose(ctx context.Context, req *connect.Request[pb.ProposeRequest]) (*connect.Response[pb.ProposeResponse], error) {
	if err := p.stationOnly(ctx); err != nil {
		return nil, err
	}
	cmd, err := fsm.Decode(req.Msg.Command)
	if err != nil {
		return nil, convert.ToConnect(san.Errorf(san.KindInvalid, "the command can't be read: %w", err))
	}
	res, err := p.Proposer.Propose(ctx, cmd)
	if err == nil {
		err = res.Err
	}
	if err != nil {
		return nil, convert.ToConnect(err)
	}
	return connect.NewResponse(&pb.ProposeResponse{Index: uint64(res.Index)}), nil
}

// Ask implements PeerService.
func (p *Peer) Ask(ctx context.Context, req *connect.Request[pb.AskRequest]) (*connect.Response[pb.AskResponse], error) {
	if err := p.stationOnly(ctx); err != nil {
		return nil, err
	}
	a, err := p.Hub.Ask(ctx, san.UnitID(req.Msg.UnitId), req.Msg.Question)
	if err != nil {
		return nil, convert.ToConnect(err)
	}
	return connect.NewResponse(&pb.AskResponse{Answer: a}), nil
}

// BootstrapState implements PeerService.
func (p *Peer) BootstrapState(ctx context.Context, _ *connect.Request[pb.BootstrapStateRequest]) (*connect.Response[pb.BootstrapStateResponse], error) {
	if err := p.stationOnly(ctx); err != nil {
		return nil, err
	}
	b, err := p.Bootstrap()
	if err != nil {
		return nil, convert.ToConnect(err)
	}
	return connect.NewResponse(&pb.BootstrapStateResponse{HasState: b.HasState, Expect: uint32(b.Expect), ClusterId: string(b.Cluster)}), nil
}
