package stationtest

import (
	"context"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

const (
	clusterID = san.ClusterID("7b1d3f2e-52a1-4b8e-9f5c-0d6f8a1c2e3b")
	// patience bounds every wait of a test.
	patience = 10 * time.Second
)

// Station is a station of a test.
type Station struct {
	t     testing.TB
	ca    *identity.CA
	self  *identity.Identity
	join  identity.JoinToken
	token identity.OperatorToken
	addr  string
	stop  func()

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	index    uint64
	volumes  map[string]*Volume // by id
	requests map[string]string  // request id → volume id
	fail     error              // what calls fail with
	sessions []*session
	hellos   []*pb.Hello
	reports  []*pb.Report
	goodbyes []string
	serials  []string // of certificates, in the order in which they were issued
	lifetime time.Duration
	stations []string // others that it tells of
}

// Volume is a volume of a test. Its assignment goes to host Host with generation Generation; 0 is none.
type Volume struct {
	ID, Name   string
	SizeBytes  int64
	Host       string
	Generation uint64
	// Agent: it counts as Assigned only once the host's agent has confirmed it.
	Agent, Confirmed bool
	Releasing        bool
	Path             *pb.Path
	CHAPUser         string
	CHAPSecret       string
	stamp            uint64
}

// New starts a station that lives as long as the test.
func New(t testing.TB) *Station {
	t.Helper()
	ca, err := identity.NewCA(clusterID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	self, err := ca.Issue(identity.Subject{Role: san.RoleStation, ID: "s1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := &Station{
		t: t, ca: ca, self: self, join: identity.NewJoinToken(ca.Fingerprint()), token: identity.NewOperatorToken(),
		changed: make(chan struct{}), index: 10, volumes: map[string]*Volume{}, requests: map[string]string{},
	}
	s.start("127.0.0.1:0")
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *Station) start(addr string) {
	ln, err := (&net.ListenConfig{}).Listen(s.t.Context(), "tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	mux := http.NewServeMux()
	mux.Handle(sandbarv1connect.NewVolumeServiceHandler(&volumes{Station: s}))
	mux.Handle(sandbarv1connect.NewHostServiceHandler(&hosts{Station: s}))
	mux.Handle(sandbarv1connect.NewEnrolServiceHandler(&enrolment{Station: s}))
	mux.Handle(sandbarv1connect.NewAgentServiceHandler(&agents{Station: s}))
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{
		Handler: identity.WithConnection(mux), TLSConfig: identity.ServerTLS(s.self, identity.ClientCertOptional, identity.Member),
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: log.New(discard{}, "", 0),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(ln, "", "") // it ends with Close
	}()
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cancel()
			_ = srv.Close()
			<-done
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Stop ends the station as a crash would, Restart brings it back where it was.
func (s *Station) Stop() { s.stop() }

// Restart starts a station that was stopped.
func (s *Station) Restart() { s.start(s.addr) }

// Endpoint is where it is.
func (s *Station) Endpoint() string { return s.addr }

// JoinToken is a join token for anybody.
func (s *Station) JoinToken() string { return s.join.Reveal() }

// Credentials writes the files with which an operator calls.
func (s *Station) Credentials() (caFile, tokenFile string) {
	dir := s.t.TempDir()
	caFile, tokenFile = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	for name, text := range map[string]string{caFile: string(s.ca.CertPEM()), tokenFile: s.token.Reveal() + "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	return caFile, tokenFile
}

// Log is a logger into the test's log.
func Log(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// SetLifetime sets how long certificates for join tokens are valid.
func (s *Station) SetLifetime(d time.Duration) { s.with(func() { s.lifetime = d }) }

// TellOf makes it welcome agents with the addresses of further stations.
func (s *Station) TellOf(stations ...string) { s.with(func() { s.stations = stations }) }

func (s *Station) others() (out []string) {
	s.with(func() { out = append(out, s.stations...) })
	return out
}

// Fail has all calls for volumes fail with err, or with nil not any more.
func (s *Station) Fail(err error) { s.with(func() { s.fail = err }) }

// with does fn and tells those who wait.
func (s *Station) with(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Await waits until ok, which is asked at each change.
func (s *Station) Await(what string, ok func() bool) {
	s.t.Helper()
	late := time.After(patience)
	for {
		s.mu.Lock()
		yes, changed := ok(), s.changed
		s.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-changed:
		case <-late:
			s.t.Fatalf("waited for %s in vain; reports: %v", what, s.reports)
		}
	}
}

// AwaitReport waits for a report of a kind on a volume's generation.
func (s *Station) AwaitReport(kind pb.ReportKind, volume string, generation uint64) *pb.Report {
	s.t.Helper()
	var found *pb.Report
	s.Await(kind.String()+" of "+volume, func() bool {
		for _, r := range s.reports {
			if r.Kind == kind && r.VolumeId == volume && r.Generation == generation {
				found = r
			}
		}
		return found != nil
	})
	return found
}

// AwaitHellos waits until n streams have begun and returns the last one's hello.
func (s *Station) AwaitHellos(n int) *pb.Hello {
	s.t.Helper()
	var last *pb.Hello
	s.Await("hellos", func() bool {
		if len(s.hellos) < n {
			return false
		}
		last = s.hellos[len(s.hellos)-1]
		return true
	})
	return last
}

// AwaitGoodbye waits for an orderly end.
func (s *Station) AwaitGoodbye() {
	s.t.Helper()
	s.Await("a goodbye", func() bool { return len(s.goodbyes) > 0 })
}

// AwaitCertificates waits until n certificates were issued.
func (s *Station) AwaitCertificates(n int) {
	s.t.Helper()
	s.Await("certificates", func() bool { return len(s.serials) >= n })
}

// ForgetReports forgets the reports so far.
func (s *Station) ForgetReports() { s.with(func() { s.reports = nil }) }

// Put makes or changes a volume and tells its host's agent.
func (s *Station) Put(v Volume) {
	s.with(func() {
		s.index++
		v.stamp = s.index
		old := s.volumes[v.ID]
		s.volumes[v.ID] = &v
		if old != nil && old.Host != "" && v.Host == "" {
			gone := &pb.DesiredAssignment{Stamp: s.stamp(s.index), VolumeId: v.ID, HostId: old.Host, Generation: old.Generation, Gone: true}
			s.tell(old.Host, &pb.DesiredState{Stamp: s.stamp(s.index), Assignments: []*pb.DesiredAssignment{gone}})
		}
		if v.Host != "" {
			s.tell(v.Host, &pb.DesiredState{Stamp: s.stamp(s.index), Assignments: []*pb.DesiredAssignment{v.desired()}})
		}
	})
}

// Get returns a volume as it is now; zero if there is none.
func (s *Station) Get(id string) (v Volume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.volumes[id]; x != nil {
		v = *x
	}
	return v
}

// Drop takes a volume away without a word to agents, as if they had been away.
func (s *Station) Drop(id string) {
	s.with(func() { s.index++; delete(s.volumes, id) })
}

// Send has all agents told m as it stands.
func (s *Station) Send(m *pb.DesiredState) {
	s.with(func() {
		for _, x := range s.sessions {
			x.queue <- m
		}
	})
}

// Index is the present state's, for messages that Send is given.
func (s *Station) Index() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index
}

func (s *Station) stamp(index uint64) *pb.Stamp {
	return convert.StampProto(san.Stamp{ClusterGeneration: 1, Index: san.Index(index)})
}

// tell queues a message for a host's agent. Needs mu.
func (s *Station) tell(host string, m *pb.DesiredState) {
	for _, x := range s.sessions {
		if x.host == host {
			x.queue <- m
		}
	}
}

func (v *Volume) desired() *pb.DesiredAssignment {
	d := &pb.DesiredAssignment{
		Stamp: &pb.Stamp{ClusterGeneration: 1, Index: v.stamp}, VolumeId: v.ID, HostId: v.Host, Generation: v.Generation, Release: v.Releasing,
		VolumeName: v.Name, SizeBytes: v.SizeBytes, BlockSizeBytes: 512, ChapUser: v.CHAPUser, ChapSecret: v.CHAPSecret,
	}
	if p := v.Path; p != nil {
		d.Paths = append(d.Paths, &pb.DesiredPath{UnitId: p.UnitId, Portal: p.Portal, TargetIqn: p.TargetIqn, Lun: p.Lun, StartLba: p.StartLba, EndLba: p.EndLba})
	}
	return d
}

func notFound(format string, args ...any) error {
	return convert.ToConnect(san.Errorf(san.KindNotFound, format, args...))
}

func answer[T any](m *T) (*connect.Response[T], error) { return connect.NewResponse(m), nil }
