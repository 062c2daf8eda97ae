package rpc

import (
	"context"
	"errors"
	"slices"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
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
		for _, a := range v.Audit(san.Index(m.FromIndex), limit) {
			out.Entries = append(out.Entries, wire.AuditEntry(a))
		}
		return out, nil
	})
}

// watchable are the tables that a watch may follow.
var watchable = []fsm.Table{fsm.TableStations, fsm.TableUnits, fsm.TableMedia, fsm.TableVolumes, fsm.TableHosts, fsm.TableAssignments}

// Watch implements StationService, from this station's own tables.
func (s *Server) Watch(ctx context.Context, req *connect.Request[pb.WatchRequest], stream *connect.ServerStream[pb.WatchResponse]) error {
	c, err := s.router.auth.caller(ctx, req.Header(), s.replica.View())
	if err != nil {
		return convert.ToConnect(err)
	}
	if err := access.Authorize(c.Principal, access.ActionRead, clusterObject); err != nil {
		return convert.ToConnect(err)
	}
	tables, err := watchTables(req.Msg.Tables)
	if err != nil {
		return convert.ToConnect(err)
	}
	sub, err := s.machine.Subscribe(san.Index(req.Msg.FromIndex))
	if err != nil {
		return watchError(err)
	}
	defer sub.Close()
	// An answer at once: the client knows that the watch stands and from where.
	if err := stream.Send(&pb.WatchResponse{Index: max(req.Msg.FromIndex, uint64(s.replica.View().Index()))}); err != nil {
		return err
	}
	for {
		changes, err := sub.Next(ctx)
		if err != nil {
			return watchError(err)
		}
		if out := s.watchResponse(changes, tables); out != nil {
			if err := stream.Send(out); err != nil {
				return err
			}
		}
	}
}

func watchTables(names []string) ([]fsm.Table, error) {
	if len(names) == 0 {
		return watchable, nil
	}
	var out []fsm.Table
	for _, n := range names {
		i := slices.IndexFunc(watchable, func(t fsm.Table) bool { return t.String() == n })
		if i < 0 {
			return nil, san.Errorf(san.KindInvalid, "table %q can't be watched; use stations, units, media, volumes, hosts or assignments", clip(n))
		}
		out = append(out, watchable[i])
	}
	return out, nil
}

func watchError(err error) error {
	if errors.Is(err, fsm.ErrResync) {
		return connect.NewError(connect.CodeAborted, err)
	}
	return convert.ToConnect(err)
}

func (s *Server) watchResponse(changes []fsm.Change, tables []fsm.Table) *pb.WatchResponse {
	v := s.replica.View()
	out := &pb.WatchResponse{}
	for _, ch := range changes {
		out.Index = max(out.Index, uint64(ch.Index))
		if slices.Contains(tables, ch.Table) {
			out.Changes = append(out.Changes, wire.Change(v, ch))
		}
	}
	if len(out.Changes) == 0 {
		return nil
	}
	return out
}
