package dataplane_test

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

const clusterID = san.ClusterID("0b7c9a52-6a0e-4a5b-9a52-2f6a4d1b8c01")

// patience bounds every wait of a test.
const patience = 10 * time.Second

// station is a scripted station: it enrols whoever has its token, sends what the test wants
// done, and notes what comes back.
type station struct {
	t     *testing.T
	ca    *identity.CA
	self  *identity.Identity
	token identity.JoinToken
	// address is where it is, stop ends it as a crash would.
	address string
	stop    func()
	keys    []byte
	// lifetime is that of certificates for join tokens; zero is the usual one.
	lifetime time.Duration

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	index    uint64
	replicas map[string]*pb.DesiredReplica
	access   map[string]*pb.DesiredAssignment
	pending  []*pb.DesiredState // for the stream there is
	asking   []*pb.Question     // likewise
	answers  []*pb.Answer
	streams  int      // streams that began
	serials  []string // of the certificates that they showed
	issued   int      // certificates
	hellos   []*pb.Hello
	storage  []*pb.StorageInfo
	reports  []*pb.Report
	goodbyes []string
}

func newStation(t *testing.T, cluster san.ClusterID) *station {
	t.Helper()
	ca, err := identity.NewCA(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	self, err := ca.Issue(identity.Subject{Role: san.RoleStation, ID: "s1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := &station{
		t: t, ca: ca, self: self, token: identity.NewJoinToken(ca.Fingerprint()), keys: identity.NewClusterKey(), changed: make(chan struct{}),
		replicas: map[string]*pb.DesiredReplica{}, access: map[string]*pb.DesiredAssignment{}, index: 10,
	}
	s.start("127.0.0.1:0")
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *station) start(addr string) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(sandbarv1connect.NewEnrolServiceHandler(s))
	mux.Handle(sandbarv1connect.NewAgentServiceHandler(s))
	srv := &http.Server{
		Handler:   identity.WithConnection(mux),
		TLSConfig: identity.ServerTLS(s.self, identity.ClientCertOptional, identity.Member),
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.ServeTLS(ln, "", "") }()
	s.address = ln.Addr().String()
	s.stop = func() { srv.Close(); <-ended }
}

func (s *station) endpoint() string { return s.address }

// note changes something under the lock and wakes those who wait.
func (s *station) note(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait returns once ok, called under the lock, is true.
func (s *station) wait(what string, ok func() bool) {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("no %s in %v; reports: %v", what, patience, s.reports)
		}
	}
}

func (s *station) Enrol(ctx context.Context, req *connect.Request[pb.EnrolRequest]) (*connect.Response[pb.EnrolResponse], error) {
	subject := identity.Subject{Role: san.Role(req.Msg.Role), ID: req.Msg.Id}
	if req.Msg.JoinToken == "" {
		if peer, ok, err := identity.PeerFrom(ctx); err != nil || !ok || peer.ID != req.Msg.Id || peer.Role != subject.Role {
			return nil, convert.ToConnect(san.Errorf(san.KindUnauthenticated, "a renewal needs the certificate in use"))
		}
		// Late enough for a stream to be there that shows the old one.
		s.wait("stream", func() bool { return s.streams > 0 })
	} else {
		tok, err := identity.ParseJoinToken(req.Msg.JoinToken)
		if err != nil || !tok.Verify(s.token.Hash()) {
			return nil, convert.ToConnect(san.Errorf(san.KindUnauthenticated, "join token is unknown or revoked"))
		}
		subject.Lifetime = s.lifetime
	}
	cert, err := s.ca.Sign(req.Msg.CsrDer, subject, time.Now())
	if err != nil {
		return nil, err
	}
	s.note(func() { s.issued++ })
	return connect.NewResponse(&pb.EnrolResponse{
		CertificatePem: cert, CaPem: s.ca.CertPEM(), ClusterId: string(s.ca.Cluster()), GossipKey: s.keys, StationEndpoints: []string{s.endpoint()},
	}), nil
}

func (s *station) Session(ctx context.Context, stream *connect.BidiStream[pb.SessionRequest, pb.SessionResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	acks := make(chan uint64, 100)
	ended := make(chan error, 1)
	go func() { ended <- s.receive(stream, acks) }() // ends with the stream
	peer, _, err := identity.PeerFrom(ctx)
	if err != nil {
		return err
	}
	var full *pb.DesiredState
	var number int
	s.note(func() {
		s.streams++
		number = s.streams
		s.serials = append(s.serials, peer.Serial)
		s.hellos = append(s.hellos, first.GetHello())
		full, s.pending = s.full(), nil
	})
	send := func(m *pb.SessionResponse) {
		if err == nil {
			err = stream.Send(m)
		}
	}
	send(&pb.SessionResponse{Message: &pb.SessionResponse_Welcome{Welcome: &pb.Welcome{StationId: "s1", StationEndpoints: []string{s.endpoint()}, HeartbeatMillis: 200}}})
	send(&pb.SessionResponse{Message: &pb.SessionResponse_NeedStorageInfo{NeedStorageInfo: &pb.NeedStorageInfo{}}})
	send(&pb.SessionResponse{Message: &pb.SessionResponse_DesiredState{DesiredState: full}})
	for err == nil {
		s.mu.Lock()
		changed := s.changed
		var due []*pb.DesiredState
		var asking []*pb.Question
		if number == s.streams {
			due, s.pending = s.pending, nil
			asking, s.asking = s.asking, nil
		}
		s.mu.Unlock()
		for _, q := range asking {
			send(&pb.SessionResponse{Message: &pb.SessionResponse_Question{Question: q}})
		}
		for _, m := range due {
			send(&pb.SessionResponse{Message: &pb.SessionResponse_DesiredState{DesiredState: m}})
		}
		select {
		case n := <-acks:
			send(&pb.SessionResponse{Message: &pb.SessionResponse_HeartbeatAck{HeartbeatAck: &pb.HeartbeatAck{Sequence: n}}})
		case <-changed:
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (s *station) receive(stream *connect.BidiStream[pb.SessionRequest, pb.SessionResponse], acks chan<- uint64) error {
	for {
		in, err := stream.Receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch x := in.Message.(type) {
		case *pb.SessionRequest_Heartbeat:
			select {
			case acks <- x.Heartbeat.Sequence:
			default:
			}
		case *pb.SessionRequest_Reports:
			s.note(func() { s.reports = append(s.reports, x.Reports.Reports...) })
		case *pb.SessionRequest_Answer:
			s.note(func() { s.answers = append(s.answers, x.Answer) })
		case *pb.SessionRequest_StorageInfo:
			s.note(func() { s.storage = append(s.storage, x.StorageInfo) })
		case *pb.SessionRequest_Goodbye:
			s.note(func() { s.goodbyes = append(s.goodbyes, x.Goodbye.Reason) })
			return nil
		}
	}
}

func (s *station) stamp() *pb.Stamp { return &pb.Stamp{ClusterGeneration: 1, Index: s.index} }

// full is everything that is desired; the lock is held.
func (s *station) full() *pb.DesiredState {
	m := &pb.DesiredState{Full: true, Stamp: s.stamp()}
	for _, k := range slices.Sorted(maps.Keys(s.replicas)) {
		m.Replicas = append(m.Replicas, s.replicas[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.access)) {
		m.Assignments = append(m.Assignments, s.access[k])
	}
	return m
}

// want commits replicas and assignments and tells the unit.
func (s *station) want(replicas []*pb.DesiredReplica, access ...*pb.DesiredAssignment) {
	s.note(func() {
		s.index++
		m := &pb.DesiredState{Stamp: s.stamp()}
		for _, r := range replicas {
			r = proto.CloneOf(r)
			r.Stamp = s.stamp()
			s.replicas[r.VolumeId] = r
			m.Replicas = append(m.Replicas, r)
		}
		for _, a := range access {
			a = proto.CloneOf(a)
			a.Stamp = s.stamp()
			s.access[a.VolumeId+a.HostId] = a
			m.Assignments = append(m.Assignments, a)
		}
		s.pending = append(s.pending, m)
	})
}

// stats asks the unit what it has counted for a volume.
func (s *station) stats(volume string) *pb.VolumeStats {
	s.t.Helper()
	a := s.ask(&pb.Question{Question: &pb.Question_VolumeStats{VolumeStats: &pb.VolumeStatsQuestion{VolumeId: volume}}})
	if a.GetVolumeStats() == nil {
		s.t.Fatalf("the question was answered with %v", a)
	}
	return a.GetVolumeStats().Stats
}

// ask asks the unit and returns its answer.
func (s *station) ask(q *pb.Question) *pb.Answer {
	s.t.Helper()
	var id uint64
	s.note(func() {
		id = uint64(len(s.answers) + 1)
		q.Id = id
		s.asking = append(s.asking, q)
	})
	var a *pb.Answer
	s.wait("answer", func() bool {
		if len(s.answers) == int(id) {
			a = s.answers[id-1]
		}
		return a != nil
	})
	if a.Id != id {
		s.t.Fatalf("question %d was answered with %v", id, a)
	}
	return a
}

// tell sends a state as it is.
func (s *station) tell(m *pb.DesiredState) {
	s.note(func() { s.pending = append(s.pending, m) })
}

// forget takes an assignment and a replica out of the tables without a word.
func (s *station) forget(volume, host string) {
	s.note(func() {
		s.index++
		delete(s.access, volume+host)
		delete(s.replicas, volume)
	})
}

// reported waits for a report and returns it.
func (s *station) reported(kind pb.ReportKind, volume, host string, generation uint64) *pb.Report {
	s.t.Helper()
	var found *pb.Report
	s.wait(kind.String(), func() bool {
		for _, r := range s.reports {
			if r.Kind == kind && r.VolumeId == volume && r.HostId == host && r.Generation == generation {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// forgetReports makes reported wait for new ones.
func (s *station) forgetReports() { s.note(func() { s.reports = nil }) }

// probe asks a unit as a station does, or as another part.
func (s *station) probe(role san.Role, addr string) (*pb.ProbeResponse, error) {
	id, err := s.ca.Issue(identity.Subject{Role: role, ID: "p1"}, time.Now())
	if err != nil {
		return nil, err
	}
	c, err := stationclient.New(stationclient.Config{Endpoints: []string{addr}, TLS: identity.ClientTLS(id, identity.Roles(san.RoleUnit))})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	resp, err := c.Probes(addr).Probe(ctx, connect.NewRequest(&pb.ProbeRequest{}))
	if err != nil {
		return nil, convert.FromConnect(err)
	}
	return resp.Msg, nil
}
