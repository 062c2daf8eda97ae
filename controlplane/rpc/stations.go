package rpc

import (
	"context"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/access"
	"github.com/sandbar-san/sandbar/controlplane/wire"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

var clusterObject = access.Object{Kind: access.ObjectCluster, Name: "cluster"}

// ListStations implements StationService.
func (s *Server) ListStations(ctx context.Context, req *connect.Request[pb.ListStationsRequest]) (*connect.Response[pb.ListStationsResponse], error) {
	return read(ctx, &s.router, req, req.Msg.Stale, func(ctx context.Context, ep string, r *connect.Request[pb.ListStationsRequest]) (*connect.Response[pb.ListStationsResponse], error) {
		return s.peers.Client().Stations(ep).ListStations(ctx, r)
	}, func(_ context.Context, c Caller, v fsm.View, _ *pb.ListStationsRequest) (*pb.ListStationsResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionRead, access.Object{Kind: access.ObjectStation}); err != nil {
			return nil, err
		}
		st := s.replica.Status()
		out := &pb.ListStationsResponse{Term: st.Term, AppliedIndex: uint64(st.Applied)}
		if cl := v.Cluster(); cl != nil {
			out.ClusterId = string(cl.ID)
		}
		leader, _ := s.replica.Leader()
		for _, row := range v.Stations() {
			ps := wire.Station(row)
			ps.Leader = row.ID == leader
			ps.Suffrage = s.stations.Suffrage(row.ID)
			ps.GossipStatus = s.stations.GossipStatus(row.ID)
			out.Stations = append(out.Stations, ps)
		}
		return out, nil
	})
}

// TransferLeadership implements StationService.
func (s *Server) TransferLeadership(ctx context.Context, req *connect.Request[pb.TransferLeadershipRequest]) (*connect.Response[pb.TransferLeadershipResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.TransferLeadershipRequest]) (*connect.Response[pb.TransferLeadershipResponse], error) {
		return s.peers.Client().Stations(ep).TransferLeadership(ctx, r)
	}, func(ctx context.Context, c Caller, m *pb.TransferLeadershipRequest) (*pb.TransferLeadershipResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionStationWrite, access.Object{Kind: access.ObjectStation, Name: clip(m.StationId)}); err != nil {
			return nil, err
		}
		if m.StationId != "" && s.replica.View().Station(san.StationID(m.StationId)) == nil {
			return nil, san.Errorf(san.KindNotFound, "station %q does not exist; 'sandbar station list' shows those that do", clip(m.StationId))
		}
		return &pb.TransferLeadershipResponse{}, s.replica.TransferLeadership(ctx, san.StationID(m.StationId))
	})
}

// Health implements StationService.
func (s *Server) Health(_ context.Context, _ *connect.Request[pb.HealthRequest]) (*connect.Response[pb.HealthResponse], error) {
	v := s.replica.View()
	leader, ok := s.replica.Leader()
	out := &pb.HealthResponse{StationId: string(s.self), LeaderId: string(leader), AppliedIndex: uint64(v.Index()), Version: s.version}
	if cl := v.Cluster(); cl != nil {
		out.ClusterId = string(cl.ID)
		out.Ready = ok
	}
	return connect.NewResponse(out), nil
}

// ListAudit implements StationService.
func (s *Server) ListAudit(ctx context.Context, req *connect.Request[pb.ListAuditRequest]) (*connect.Response[pb.ListAuditResponse], error) {
	return read(ctx, &s.router, req, false, func(ctx context.Context, ep string, r *connect.Request[pb.ListAuditRequest]) (*connect.Response[pb.ListAuditResponse], error) {
		return s.peers.Client().Stations(ep).ListAudit(ctx, r)
	}, func(_ context.Context, c Caller, v fsm.View, m *pb.ListAuditRequest) (*pb.ListAuditResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionRead, clusterObject); err != nil {
			return nil, err
		}
		limit := int(m.Limit)
		if limit == 0 {
			limit = 200
		}
		out := &pb.ListAuditResponse{}
		for _, a := range v.Audit(san.Index(m.FromIndex)+1, limit) {
			out.Entries = append(out.Entries, wire.AuditEntry(a))
		}
		return out, nil
	})
}
