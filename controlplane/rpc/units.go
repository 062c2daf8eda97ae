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

func unitObject(id string) access.Object {
	return access.Object{Kind: access.ObjectUnit, Name: clip(id)}
}

// GetUnit implements UnitService.
func (s *Server) GetUnit(ctx context.Context, req *connect.Request[pb.GetUnitRequest]) (*connect.Response[pb.GetUnitResponse], error) {
	return read(ctx, &s.router, req, req.Msg.Stale, func(ctx context.Context, ep string, r *connect.Request[pb.GetUnitRequest]) (*connect.Response[pb.GetUnitResponse], error) {
		return s.peers.Client().Units(ep).GetUnit(ctx, r)
	}, func(_ context.Context, c Caller, v fsm.View, m *pb.GetUnitRequest) (*pb.GetUnitResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionRead, unitObject(m.Id)); err != nil {
			return nil, err
		}
		row, err := findUnit(v, m.Id)
		if err != nil {
			return nil, err
		}
		return &pb.GetUnitResponse{Unit: wire.Unit(v, row)}, nil
	})
}

// ListUnits implements UnitService.
func (s *Server) ListUnits(ctx context.Context, req *connect.Request[pb.ListUnitsRequest]) (*connect.Response[pb.ListUnitsResponse], error) {
	return read(ctx, &s.router, req, req.Msg.Stale, func(ctx context.Context, ep string, r *connect.Request[pb.ListUnitsRequest]) (*connect.Response[pb.ListUnitsResponse], error) {
		return s.peers.Client().Units(ep).ListUnits(ctx, r)
	}, func(_ context.Context, c Caller, v fsm.View, m *pb.ListUnitsRequest) (*pb.ListUnitsResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionRead, unitObject("")); err != nil {
			return nil, err
		}
		out := &pb.ListUnitsResponse{}
		out.Units, out.NextPageToken = pageOf(v.Units(), m.PageSize, m.PageToken, func(row *fsm.Unit) string { return string(row.ID) },
			func(row *fsm.Unit) *pb.Unit { return wire.Unit(v, row) })
		return out, nil
	})
}

// ApproveUnit implements UnitService.
func (s *Server) ApproveUnit(ctx context.Context, req *connect.Request[pb.ApproveUnitRequest]) (*connect.Response[pb.ApproveUnitResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.ApproveUnitRequest]) (*connect.Response[pb.ApproveUnitResponse], error) {
		return s.peers.Client().Units(ep).ApproveUnit(ctx, r)
	}, func(ctx context.Context, c Caller, m *pb.ApproveUnitRequest) (*pb.ApproveUnitResponse, error) {
		u, err := s.changeUnit(ctx, c, m, func(h fsm.Header) fsm.Command {
			return &fsm.ApproveUnit{H: h, ID: san.UnitID(m.Id)}
		})
		return &pb.ApproveUnitResponse{Unit: u}, err
	})
}

// SetUnit implements UnitService.
func (s *Server) SetUnit(ctx context.Context, req *connect.Request[pb.SetUnitRequest]) (*connect.Response[pb.SetUnitResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.SetUnitRequest]) (*connect.Response[pb.SetUnitResponse], error) {
		return s.peers.Client().Units(ep).SetUnit(ctx, r)
	}, func(ctx context.Context, c Caller, m *pb.SetUnitRequest) (*pb.SetUnitResponse, error) {
		u, err := s.changeUnit(ctx, c, m, func(h fsm.Header) fsm.Command {
			return &fsm.SetUnit{H: h, ID: san.UnitID(m.Id), Spare: m.Spare, Labels: m.Labels}
		})
		return &pb.SetUnitResponse{Unit: u}, err
	})
}

func (s *Server) changeUnit(ctx context.Context, c Caller, m mutationOf, command func(fsm.Header) fsm.Command) (*pb.Unit, error) {
	if err := access.Authorize(c.Principal, access.ActionUnitWrite, unitObject(m.GetId())); err != nil {
		return nil, err
	}
	h, replay, err := s.header(c, m)
	if err != nil {
		return nil, err
	}
	if _, err := findUnit(s.replica.View(), m.GetId()); err != nil {
		return nil, err
	}
	if replay == nil {
		if _, err := s.propose(ctx, command(h)); err != nil {
			return nil, err
		}
	}
	v := s.replica.View()
	row, err := findUnit(v, m.GetId())
	if err != nil {
		return nil, err
	}
	return wire.Unit(v, row), nil
}

// GetPool implements UnitService.
func (s *Server) GetPool(ctx context.Context, req *connect.Request[pb.GetPoolRequest]) (*connect.Response[pb.GetPoolResponse], error) {
	return read(ctx, &s.router, req, req.Msg.Stale, func(ctx context.Context, ep string, r *connect.Request[pb.GetPoolRequest]) (*connect.Response[pb.GetPoolResponse], error) {
		return s.peers.Client().Units(ep).GetPool(ctx, r)
	}, func(_ context.Context, c Caller, v fsm.View, _ *pb.GetPoolRequest) (*pb.GetPoolResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionRead, access.Object{Kind: access.ObjectCluster, Name: "pool"}); err != nil {
			return nil, err
		}
		return wire.Pool(v), nil
	})
}
