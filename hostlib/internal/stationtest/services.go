package stationtest

import (
	"cmp"
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

type volumes struct {
	sandbarv1connect.UnimplementedVolumeServiceHandler
	*Station
}

// find returns a volume by id or name. Needs mu.
func (s *Station) find(volume string) (*Volume, error) {
	if s.fail != nil {
		return nil, convert.ToConnect(s.fail)
	}
	for _, v := range s.volumes {
		if v.ID == volume || v.Name == volume {
			found := *v // what is found must not change any more
			return &found, nil
		}
	}
	return nil, notFound("there is no volume %q", volume)
}

func (v *Volume) proto() *pb.Volume {
	out := &pb.Volume{Id: v.ID, Name: v.Name, State: "Ready", SizeBytes: v.SizeBytes, BlockSizeBytes: 512}
	if v.Host == "" {
		return out
	}
	a := &pb.Assignment{HostId: v.Host, State: "Assigned", Generation: v.Generation, VolumeId: v.ID}
	if v.Path != nil {
		a.Paths = append(a.Paths, v.Path)
	}
	switch {
	case v.Releasing:
		a.State = "Releasing"
	case v.Agent && !v.Confirmed:
		a.State = "Pending"
	}
	out.Assignments = append(out.Assignments, a)
	return out
}

// CreateVolume takes the volume named like the request with a Path for granted, and assigns it.
func (s *volumes) CreateVolume(_ context.Context, req *connect.Request[pb.CreateVolumeRequest]) (*connect.Response[pb.CreateVolumeResponse], error) {
	m := req.Msg
	s.mu.Lock()
	v, err := s.find(m.Name)
	id := s.requests[m.RequestId]
	s.mu.Unlock()
	switch {
	case err != nil && san.KindOf(convert.FromConnect(err)) != san.KindNotFound:
		return nil, err
	case id != "":
		made := s.Get(id)
		return answer(&pb.CreateVolumeResponse{Volume: made.proto()})
	case err == nil && v.Host != "":
		return nil, convert.ToConnect(san.Errorf(san.KindExists, "volume %q exists", m.Name))
	case err != nil:
		v = &Volume{ID: "id-" + m.Name, Name: m.Name}
	}
	next := *v
	next.SizeBytes, next.Host, next.Generation = m.SizeBytes, m.HostId, v.Generation+1
	s.Put(next)
	s.with(func() { s.requests[m.RequestId] = next.ID })
	return answer(&pb.CreateVolumeResponse{Volume: next.proto()})
}

// GetVolume implements VolumeService.
func (s *volumes) GetVolume(_ context.Context, req *connect.Request[pb.GetVolumeRequest]) (*connect.Response[pb.GetVolumeResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.find(req.Msg.Volume)
	if err != nil {
		return nil, err
	}
	return answer(&pb.GetVolumeResponse{Volume: v.proto()})
}

// ListVolumes lists one volume a page.
func (s *volumes) ListVolumes(_ context.Context, req *connect.Request[pb.ListVolumesRequest]) (*connect.Response[pb.ListVolumesResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, convert.ToConnect(s.fail)
	}
	var all []*pb.Volume
	for _, v := range s.Station.volumes {
		if v.Host == req.Msg.HostId && v.Name > req.Msg.PageToken {
			all = append(all, v.proto())
		}
	}
	slices.SortFunc(all, func(a, b *pb.Volume) int { return cmp.Compare(a.Name, b.Name) })
	out := &pb.ListVolumesResponse{}
	if len(all) > 0 {
		out.Volumes = all[:1]
	}
	if len(all) > 1 {
		out.NextPageToken = all[0].Name
	}
	return answer(out)
}

// UnassignVolume starts a release, which the test ends with Put.
func (s *volumes) UnassignVolume(_ context.Context, req *connect.Request[pb.UnassignVolumeRequest]) (*connect.Response[pb.UnassignVolumeResponse], error) {
	s.mu.Lock()
	v, err := s.find(req.Msg.Volume)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if v.Host != req.Msg.HostId {
		return nil, notFound("volume %q is not assigned", v.Name)
	}
	next := *v
	next.Releasing, next.Generation = true, v.Generation+1
	s.Put(next)
	return answer(&pb.UnassignVolumeResponse{Volume: next.proto()})
}

// DeleteVolume implements VolumeService.
func (s *volumes) DeleteVolume(_ context.Context, req *connect.Request[pb.DeleteVolumeRequest]) (*connect.Response[pb.DeleteVolumeResponse], error) {
	s.mu.Lock()
	v, err := s.find(req.Msg.Volume)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if v.Host != "" {
		return nil, convert.ToConnect(san.Errorf(san.KindConflict, "volume %q is assigned", v.Name))
	}
	s.Drop(v.ID)
	return answer(&pb.DeleteVolumeResponse{Volume: v.proto()})
}

// GetCredentials implements VolumeService.
func (s *volumes) GetCredentials(_ context.Context, req *connect.Request[pb.GetCredentialsRequest]) (*connect.Response[pb.GetCredentialsResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.find(req.Msg.Volume)
	if err != nil {
		return nil, err
	}
	return answer(&pb.GetCredentialsResponse{ChapUser: v.CHAPUser, ChapSecret: v.CHAPSecret})
}

type hosts struct {
	sandbarv1connect.UnimplementedHostServiceHandler
	*Station
}

// GetHost knows every host.
func (s *hosts) GetHost(_ context.Context, req *connect.Request[pb.GetHostRequest]) (*connect.Response[pb.GetHostResponse], error) {
	return answer(&pb.GetHostResponse{Host: &pb.Host{Id: req.Msg.Id, Initiators: []string{san.HostInitiatorName(san.HostID(req.Msg.Id))}}})
}

type enrolment struct {
	sandbarv1connect.UnimplementedEnrolServiceHandler
	*Station
}

// Enrol signs for whoever has the join token, or a certificate of the same name.
func (s *enrolment) Enrol(ctx context.Context, req *connect.Request[pb.EnrolRequest]) (*connect.Response[pb.EnrolResponse], error) {
	m := req.Msg
	peer, ok, err := identity.PeerFrom(ctx)
	subject := identity.Subject{Role: san.Role(m.Role), ID: m.Id}
	switch {
	case err != nil:
		return nil, convert.ToConnect(err)
	case m.JoinToken == s.join.Reveal():
		s.mu.Lock()
		subject.Lifetime = s.lifetime
		s.mu.Unlock()
	case m.JoinToken != "" || !ok || peer.Role != subject.Role || peer.ID != m.Id:
		return nil, convert.ToConnect(san.Errorf(san.KindUnauthenticated, "who are you"))
	}
	cert, err := s.ca.Sign(m.CsrDer, subject, time.Now())
	if err != nil {
		return nil, convert.ToConnect(err)
	}
	s.with(func() { s.serials = append(s.serials, m.Id) })
	return answer(&pb.EnrolResponse{
		CertificatePem: cert, CaPem: s.ca.CertPEM(), ClusterId: string(clusterID), StationEndpoints: []string{s.addr}, Initiators: m.Initiators,
	})
}

type agents struct {
	sandbarv1connect.UnimplementedAgentServiceHandler
	*Station
}

// session is an agent's stream.
type session struct {
	host  string
	queue chan *pb.DesiredState
}

// Session implements AgentService.
func (s *agents) Session(ctx context.Context, stream *connect.BidiStream[pb.SessionRequest, pb.SessionResponse]) error {
	peer, ok, err := identity.PeerFrom(ctx)
	if err != nil || !ok || peer.Role != san.RoleHost {
		return convert.ToConnect(san.Errorf(san.KindUnauthenticated, "who are you"))
	}
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	x := &session{host: peer.ID, queue: make(chan *pb.DesiredState, 1000)}
	s.with(func() {
		s.hellos = append(s.hellos, first.GetHello())
		s.sessions = append(s.sessions, x)
		x.queue <- s.full(x.host)
	})
	defer s.with(func() {
		s.sessions = slices.DeleteFunc(s.sessions, func(o *session) bool { return o == x })
	})
	welcome := &pb.Welcome{StationId: "s1", StationEndpoints: append([]string{s.addr}, s.others()...), HeartbeatMillis: 200}
	if err := stream.Send(&pb.SessionResponse{Message: &pb.SessionResponse_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	return s.serve(ctx, stream, x)
}

// full is all that a host has. Needs mu.
func (s *Station) full(host string) *pb.DesiredState {
	m := &pb.DesiredState{Full: true, Stamp: s.stamp(s.index)}
	for _, v := range s.volumes {
		if v.Host == host {
			m.Assignments = append(m.Assignments, v.desired())
		}
	}
	return m
}

func (s *Station) serve(ctx context.Context, stream *connect.BidiStream[pb.SessionRequest, pb.SessionResponse], x *session) error {
	in := make(chan *pb.SessionRequest)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the stream
		defer close(in)
		for {
			m, err := stream.Receive()
			if err != nil {
				return
			}
			select {
			case in <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		var out *pb.SessionResponse
		select {
		case d := <-x.queue:
			out = &pb.SessionResponse{Message: &pb.SessionResponse_DesiredState{DesiredState: d}}
		case m, ok := <-in:
			switch {
			case !ok:
				return nil
			case m.GetHeartbeat() != nil:
				out = &pb.SessionResponse{Message: &pb.SessionResponse_HeartbeatAck{HeartbeatAck: &pb.HeartbeatAck{Sequence: m.GetHeartbeat().Sequence}}}
			case m.GetReports() != nil:
				s.reported(m.GetReports().Reports)
				continue
			case m.GetGoodbye() != nil:
				s.with(func() { s.goodbyes = append(s.goodbyes, m.GetGoodbye().Reason) })
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if out == nil {
			continue
		}
		if err := stream.Send(out); err != nil {
			return err
		}
	}
}

func (s *Station) reported(reports []*pb.Report) {
	s.with(func() {
		s.reports = append(s.reports, reports...)
		for _, r := range reports {
			v := s.volumes[r.VolumeId]
			if v != nil && r.Kind == pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY && r.Generation == v.Generation && r.HostId == v.Host {
				v.Confirmed = true
			}
		}
	})
}
