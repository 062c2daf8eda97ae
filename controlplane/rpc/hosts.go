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

// AddHost implements HostService.
func (s *Server) AddHost(ctx context.Context, req *connect.Request[pb.AddHostRequest]) (*connect.Response[pb.AddHostResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.AddHostRequest]) (*connect.Response[pb.AddHostResponse], error) {
		return s.peers.Client().Hosts(ep).AddHost(ctx, r)
	}, func(ctx context.Context, c Caller, m *pb.AddHostRequest) (*pb.AddHostResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionHostWrite, hostObject(m.Id)); err != nil {
			return nil, err
		}
		h, replay, err := s.header(c, m)
		if err != nil {
			return nil, err
		}
		if replay == nil {
			cmd := &fsm.AddHost{H: h, ID: san.HostID(m.Id), Initiators: m.Initiators, AllowFrom: m.AllowFrom}
			if _, err := s.propose(ctx, cmd); err != nil {
				return nil, err
			}
		}
		row, err := findHost(s.replica.View(), m.Id)
		if err != nil {
			return nil, err
		}
		return &pb.AddHostResponse{Host: wire.Host(row)}, nil
	})
}

func hostObject(id string) access.Object {
	return access.Object{Kind: access.ObjectHost, Name: clip(id), Target: san.HostID(id)}
}

// GetHost implements HostService.
func (s *Server) GetHost(ctx context.Context, req *connect.Request[pb.GetHostRequest]) (*connect.Response[pb.GetHostResponse], error) {
	return read(ctx, &s.router, req, req.Msg.Stale, func(ctx context.Context, ep string, r *connect.Request[pb.GetHostRequest]) (*connect.Response[pb.GetHostResponse], error) {
		return s.peers.Client().Hosts(ep).GetHost(ctx, r)
	}, func(_ context.Context, c Caller, v fsm.View, m *pb.GetHostRequest) (*pb.GetHostResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionRead, hostObject(m.Id)); err != nil {
			return nil, err
		}
		row, err := findHost(v, m.Id)
		if err != nil {
			return nil, err
		}
		return &pb.GetHostResponse{Host: wire.Host(row)}, nil
	})
}

// ListHosts implements HostService.
func (s *Server) ListHosts(ctx context.Context, req *connect.Request[pb.ListHostsRequest]) (*connect.Response[pb.ListHostsResponse], error) {
	return read(ctx, &s.router, req, req.Msg.Stale, func(ctx context.Context, ep string, r *connect.Request[pb.ListHostsRequest]) (*connect.Response[pb.ListHostsResponse], error) {
		return s.peers.Client().Hosts(ep).ListHosts(ctx, r)
	}, func(_ context.Context, c Caller, v fsm.View, m *pb.ListHostsRequest) (*pb.ListHostsResponse, error) {
		out := &pb.ListHostsResponse{}
		if err := access.Authorize(c.Principal, access.ActionRead, hostObject(string(c.OwnerHost()))); err != nil {
			return nil, err
		}
		out.Hosts, out.NextPageToken = pageOf(v.Hosts(), m.PageSize, m.PageToken, func(row *fsm.Host) string { return string(row.ID) }, func(row *fsm.Host) *pb.Host {
			if access.Authorize(c.Principal, access.ActionRead, hostObject(string(row.ID))) != nil {
				return nil
			}
			return wire.Host(row)
		})
		return out, nil
	})
}

// RemoveHost implements HostService.
func (s *Server) RemoveHost(ctx context.Context, req *connect.Request[pb.RemoveHostRequest]) (*connect.Response[pb.RemoveHostResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.RemoveHostRequest]) (*connect.Response[pb.RemoveHostResponse], error) {
		return s.peers.Client().Hosts(ep).RemoveHost(ctx, r)
	}, func(ctx context.Context, c Caller, m *pb.RemoveHostRequest) (*pb.RemoveHostResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionHostWrite, hostObject(m.Id)); err != nil {
			return nil, err
		}
		h, replay, err := s.header(c, m)
		if err != nil || replay != nil {
			return &pb.RemoveHostResponse{}, err
		}
		if _, err := findHost(s.replica.View(), m.Id); err != nil {
			return nil, err
		}
		_, err = s.propose(ctx, &fsm.RemoveHost{H: h, ID: san.HostID(m.Id)})
		return &pb.RemoveHostResponse{}, err
	})
}
