package cli

import (
	"context"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/san"
)

// onePage is the first row, or the second with the token that came with the first.
func onePage[R any](token string, first, second R) (page []R, next string) {
	if token == "" {
		return []R{first}, "2"
	}
	return []R{second}, ""
}

type fakeUnits struct {
	sandbarv1connect.UnimplementedUnitServiceHandler
	f *fakeCluster
}

func fakeUnit() *pb.Unit {
	return &pb.Unit{Id: "u1", State: "Online", Approved: true, Incarnation: 3, Portal: "192.0.2.1:3260", ApiAddress: "192.0.2.1:7430",
		StateAt: testTime, Version: "v1", Labels: map[string]string{"rack": "a", "hall": "2"},
		Media:           []*pb.Medium{{Id: "m1", UnitId: "u1", Path: "/dev/sdb", State: "Online", CapacityBytes: 10 << 30, ReservedBytes: 80 << 20, UsedBytes: 4 << 20}},
		Volumes:         []*pb.UnitVolume{{VolumeId: "00000000-0000-4000-8000-000000000001", Name: "v1", LengthBlocks: 163840, EndLba: 163839}},
		OrphanVolumeIds: []string{"00000000-0000-4000-8000-000000000009"}}
}

func (u fakeUnits) get(id string) (*pb.Unit, error) {
	if id != "u1" {
		return nil, convert.ToConnect(san.Errorf(san.KindNotFound, "unit %q does not exist", id))
	}
	return fakeUnit(), nil
}

func (u fakeUnits) GetUnit(_ context.Context, r *connect.Request[pb.GetUnitRequest]) (*connect.Response[pb.GetUnitResponse], error) {
	row, err := u.get(r.Msg.Id)
	return connect.NewResponse(&pb.GetUnitResponse{Unit: row}), err
}

func (u fakeUnits) ListUnits(_ context.Context, r *connect.Request[pb.ListUnitsRequest]) (*connect.Response[pb.ListUnitsResponse], error) {
	page, next := onePage(r.Msg.PageToken, fakeUnit(), &pb.Unit{Id: "u2", State: "Pending"})
	return connect.NewResponse(&pb.ListUnitsResponse{Units: page, NextPageToken: next}), nil
}

func (u fakeUnits) GetUnitStats(_ context.Context, r *connect.Request[pb.GetUnitStatsRequest]) (*connect.Response[pb.GetUnitStatsResponse], error) {
	if _, err := u.get(r.Msg.Id); err != nil {
		return nil, err
	}
	io := &pb.IOStats{Reads: &pb.IOFigures{}, Other: &pb.IOFigures{}, QueueDepth: 4, Writes: &pb.IOFigures{
		Commands: 10, Bytes: 40960, Iops: 2, BytesPerSecond: 8192, Latency: &pb.Latency{P50Micros: 90, P90Micros: 100, P99Micros: 110, P999Micros: 120, MaxMicros: 130}}}
	return connect.NewResponse(&pb.GetUnitStatsResponse{Stats: &pb.UnitStats{UnitId: r.Msg.Id, At: testTime, Io: io,
		Volumes: []*pb.UnitVolumeStats{{VolumeId: "00000000-0000-4000-8000-000000000001", VolumeName: "v1", SessionCount: 2, Io: io}}, VolumesOmitted: 3}}), nil
}

func (u fakeUnits) ApproveUnit(_ context.Context, r *connect.Request[pb.ApproveUnitRequest]) (*connect.Response[pb.ApproveUnitResponse], error) {
	row, err := u.get(r.Msg.Id)
	return connect.NewResponse(&pb.ApproveUnitResponse{Unit: row}), err
}

func (u fakeUnits) SetUnit(_ context.Context, r *connect.Request[pb.SetUnitRequest]) (*connect.Response[pb.SetUnitResponse], error) {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	u.f.note(r.Header(), r.Msg)
	row, err := u.get(r.Msg.Id)
	if row != nil && r.Msg.Spare != nil {
		row.Spare = *r.Msg.Spare
	}
	return connect.NewResponse(&pb.SetUnitResponse{Unit: row}), err
}

func (u fakeUnits) GetPool(context.Context, *connect.Request[pb.GetPoolRequest]) (*connect.Response[pb.GetPoolResponse], error) {
	return connect.NewResponse(&pb.GetPoolResponse{Units: 2, UnitsOnline: 1, Media: 1, CapacityBytes: 10 << 30, ReservedBytes: 80 << 20, FreeBytes: 10<<30 - 80<<20, Index: 9}), nil
}

type fakeHosts struct {
	sandbarv1connect.UnimplementedHostServiceHandler
	f *fakeCluster
}

func (h fakeHosts) AddHost(_ context.Context, r *connect.Request[pb.AddHostRequest]) (*connect.Response[pb.AddHostResponse], error) {
	if r.Msg.Id == "h1" {
		return nil, convert.ToConnect(san.Errorf(san.KindExists, "there is a host %q already", r.Msg.Id))
	}
	return connect.NewResponse(&pb.AddHostResponse{Host: &pb.Host{Id: r.Msg.Id, State: "Registered", Initiators: r.Msg.Initiators, AllowFrom: r.Msg.AllowFrom, StateAt: testTime}}), nil
}

func (h fakeHosts) ListHosts(_ context.Context, r *connect.Request[pb.ListHostsRequest]) (*connect.Response[pb.ListHostsResponse], error) {
	page, next := onePage(r.Msg.PageToken, &pb.Host{Id: "h1", State: "Online", Agent: true, Initiators: []string{"iqn.2004-10.com.example:h1"}}, &pb.Host{Id: "h2", State: "Registered"})
	return connect.NewResponse(&pb.ListHostsResponse{Hosts: page, NextPageToken: next}), nil
}

func (h fakeHosts) GetHost(_ context.Context, r *connect.Request[pb.GetHostRequest]) (*connect.Response[pb.GetHostResponse], error) {
	return nil, convert.ToConnect(san.Errorf(san.KindNotFound, "host %q does not exist", r.Msg.Id))
}

func (h fakeHosts) RemoveHost(context.Context, *connect.Request[pb.RemoveHostRequest]) (*connect.Response[pb.RemoveHostResponse], error) {
	return connect.NewResponse(&pb.RemoveHostResponse{}), nil
}

type fakeStations struct {
	sandbarv1connect.UnimplementedStationServiceHandler
	f *fakeCluster
}

func (s fakeStations) ListStations(context.Context, *connect.Request[pb.ListStationsRequest]) (*connect.Response[pb.ListStationsResponse], error) {
	return connect.NewResponse(&pb.ListStationsResponse{ClusterId: string(testCluster), Term: 2, AppliedIndex: 9, Stations: []*pb.Station{
		{Id: "s1", Leader: true, Suffrage: "Voter", GossipStatus: "alive", ApiAddress: "192.0.2.11:7420", RaftAddress: "192.0.2.11:7421", GossipAddress: "192.0.2.11:7422", Version: "v1"},
		{Id: "s2", Suffrage: "Voter", GossipStatus: "failed", ApiAddress: "192.0.2.12:7420"},
	}}), nil
}

func (s fakeStations) TransferLeadership(_ context.Context, r *connect.Request[pb.TransferLeadershipRequest]) (*connect.Response[pb.TransferLeadershipResponse], error) {
	if r.Msg.StationId == "s9" {
		return nil, convert.ToConnect(san.Errorf(san.KindNotFound, "station %q does not exist", r.Msg.StationId))
	}
	return connect.NewResponse(&pb.TransferLeadershipResponse{}), nil
}

// ListAudit has 2500 entries, of which a page has 1000.
func (s fakeStations) ListAudit(_ context.Context, r *connect.Request[pb.ListAuditRequest]) (*connect.Response[pb.ListAuditResponse], error) {
	out := &pb.ListAuditResponse{}
	for i := r.Msg.FromIndex + 1; i <= 2500 && len(out.Entries) < int(r.Msg.Limit); i++ {
		out.Entries = append(out.Entries, &pb.AuditEntry{Index: i, At: testTime, Principal: "token:admin", Action: "host.add", Object: "h1"})
	}
	return connect.NewResponse(out), nil
}

func (s fakeStations) Watch(_ context.Context, r *connect.Request[pb.WatchRequest], stream *connect.ServerStream[pb.WatchResponse]) error {
	return s.f.watch(r.Msg, stream)
}

type fakeTokens struct {
	sandbarv1connect.UnimplementedTokenServiceHandler
	f *fakeCluster
}

func (k fakeTokens) CreateToken(_ context.Context, r *connect.Request[pb.CreateTokenRequest]) (*connect.Response[pb.CreateTokenResponse], error) {
	k.f.mu.Lock()
	defer k.f.mu.Unlock()
	k.f.note(r.Header(), r.Msg)
	return connect.NewResponse(&pb.CreateTokenResponse{Token: &pb.Token{Id: "aa", Name: r.Msg.Name, Role: r.Msg.Role, HostId: r.Msg.HostId}, Secret: "sbt_aa_bb"}), nil
}

func (k fakeTokens) CreateJoinToken(_ context.Context, r *connect.Request[pb.CreateJoinTokenRequest]) (*connect.Response[pb.CreateJoinTokenResponse], error) {
	k.f.mu.Lock()
	defer k.f.mu.Unlock()
	k.f.note(r.Header(), r.Msg)
	return connect.NewResponse(&pb.CreateJoinTokenResponse{Token: &pb.Token{Id: "cc", Name: r.Msg.Name, Role: r.Msg.Role, Join: true, ExpiresAt: testTime}, Secret: "sbj_cc_dd_ee"}), nil
}

func (k fakeTokens) ListTokens(_ context.Context, r *connect.Request[pb.ListTokensRequest]) (*connect.Response[pb.ListTokensResponse], error) {
	page, next := onePage(r.Msg.PageToken, &pb.Token{Id: "aa", Name: "admin", Role: "admin"}, &pb.Token{Id: "cc", Name: "j", Role: "unit", Join: true, Uses: 2, ExpiresAt: testTime})
	return connect.NewResponse(&pb.ListTokensResponse{Tokens: page, NextPageToken: next}), nil
}

func (k fakeTokens) DeleteToken(context.Context, *connect.Request[pb.DeleteTokenRequest]) (*connect.Response[pb.DeleteTokenResponse], error) {
	return connect.NewResponse(&pb.DeleteTokenResponse{}), nil
}
