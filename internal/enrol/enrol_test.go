package enrol

import (
	"context"
	"crypto/x509"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// desk signs what it is asked to, after the troubles that the test wants.
type desk struct {
	ca      *identity.CA
	mu      sync.Mutex
	trouble []error
	lost    int // answers that it makes and that don't arrive
	csrs    [][]byte
}

func (d *desk) Enrol(_ context.Context, req *connect.Request[pb.EnrolRequest]) (*connect.Response[pb.EnrolResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.csrs = append(d.csrs, req.Msg.CsrDer)
	if len(d.trouble) > 0 {
		err := d.trouble[0]
		d.trouble = d.trouble[1:]
		return nil, convert.ToConnect(err)
	}
	cert, err := d.ca.Sign(req.Msg.CsrDer, identity.Subject{Role: san.Role(req.Msg.Role), ID: req.Msg.Id}, time.Now())
	if err != nil {
		return nil, convert.ToConnect(err)
	}
	if d.lost > 0 {
		d.lost--
		panic(http.ErrAbortHandler)
	}
	return connect.NewResponse(&pb.EnrolResponse{
		CertificatePem: cert, CaPem: d.ca.CertPEM(), ClusterId: string(d.ca.Cluster()), GossipKey: []byte("gossip"),
		GossipJoin: []string{"g:1"}, Initiators: []string{"iqn.2004-10.com.example:x"},
	}), nil
}

type silence struct{}

func (silence) Write(b []byte) (int, error) { return len(b), nil }

func open(t *testing.T) (*desk, string) {
	t.Helper()
	ca, err := identity.NewCA("11111111-2222-4333-8444-555555555555", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id, err := ca.Issue(identity.Subject{Role: san.RoleStation, ID: "s1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{ca: ca}
	mux := http.NewServeMux()
	mux.Handle(sandbarv1connect.NewEnrolServiceHandler(d))
	srv := &http.Server{Handler: mux, TLSConfig: identity.ServerTLS(id, identity.ClientCertOptional, identity.Member), ErrorLog: log.New(silence{}, "", 0)}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { srv.Close(); <-done })
	return d, l.Addr().String()
}

func request(t *testing.T, d *desk, endpoint string) Request {
	t.Helper()
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	store, err := identity.OpenStore(dir.Path("identity"), identity.Holder{Role: san.RoleUnit, ID: "u1"})
	if err != nil {
		t.Fatal(err)
	}
	return Request{Dir: dir, Store: store, Role: san.RoleUnit, ID: "u1", Endpoints: []string{endpoint},
		Token: identity.NewJoinToken(d.ca.Fingerprint()).Reveal(), Log: slog.New(slog.NewTextHandler(silence{}, nil))}
}

func limited(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// TestEnrol: it asks until it is answered, always with the same key, and keeps what it was told.
func TestEnrol(t *testing.T) {
	d, addr := open(t)
	d.trouble = []error{san.Errorf(san.KindUnavailable, "no leader"), san.Errorf(san.KindUnknown, "who knows")}
	d.lost = 1
	r := request(t, d, addr)
	id, join, err := Enrol(limited(t, 20*time.Second), r)
	if err != nil {
		t.Fatal(err)
	}
	if self := id.Self(); self.ID != "u1" || self.Role != san.RoleUnit {
		t.Errorf("identity %v", self)
	}
	key := func(der []byte) string {
		csr, err := parse(der)
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	for _, csr := range d.csrs {
		if key(csr) != key(d.csrs[0]) {
			t.Error("a retry came with another key")
		}
	}
	if len(d.csrs) != 4 {
		t.Errorf("%d requests", len(d.csrs))
	}
	kept, err := Load(r.Dir)
	if err != nil || !slices.Equal(kept.Endpoints, []string{addr}) || !slices.Equal(kept.Gossip, []string{"g:1"}) || !slices.Equal(kept.Endpoints, join.Endpoints) || len(kept.Initiators) != 1 {
		t.Errorf("kept %v, %v", kept, err)
	}
	if secret, err := r.Store.Secret(GossipKey); err != nil || string(secret) != "gossip" {
		t.Errorf("gossip key %q, %v", secret, err)
	}
	if _, err := r.Store.Secret(ClusterKey); san.KindOf(err) != san.KindNotFound {
		t.Errorf("a unit kept a cluster key: %v", err)
	}
	if err := Keep(r.Dir, Join{Endpoints: []string{"new:1"}}); err != nil {
		t.Error(err)
	}
	if kept, err := Load(r.Dir); err != nil || kept.Endpoints[0] != "new:1" {
		t.Errorf("kept %v, %v", kept, err)
	}
	if err := SameCluster(id, r.Token); err != nil {
		t.Errorf("its own token: %v", err)
	}
	if err := SameCluster(id, ""); err != nil {
		t.Errorf("no token: %v", err)
	}
	if err := SameCluster(id, identity.NewJoinToken(identity.Fingerprint{1}).Reveal()); san.KindOf(err) != san.KindConflict || !strings.Contains(err.Error(), "another data folder") {
		t.Errorf("another cluster's token: %v", err)
	}
}

func TestEnrolFails(t *testing.T) {
	d, addr := open(t)
	d.trouble = []error{san.Errorf(san.KindUnauthenticated, "join token x expired")}
	if _, _, err := Enrol(limited(t, 20*time.Second), request(t, d, addr)); san.KindOf(err) != san.KindUnauthenticated || !strings.Contains(err.Error(), "enrol unit u1: join token x expired") {
		t.Errorf("refused: %v", err)
	}
	r := request(t, d, addr)
	r.Token = "sbt_x"
	if _, _, err := Enrol(limited(t, 20*time.Second), r); san.KindOf(err) != san.KindUnauthenticated {
		t.Errorf("not a join token: %v", err)
	}
	r = request(t, d, addr)
	r.Token = identity.NewJoinToken(identity.Fingerprint{1}).Reveal()
	if _, _, err := Enrol(limited(t, 20*time.Second), r); san.KindOf(err) != san.KindUnauthenticated || !strings.Contains(err.Error(), "certificate of the cluster") {
		t.Errorf("a token of another cluster: %v", err)
	}
	r = request(t, d, "127.0.0.1:1")
	if _, _, err := Enrol(limited(t, 300*time.Millisecond), r); err == nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody there: %v", err)
	}
	r.Endpoints = nil
	if _, _, err := Enrol(limited(t, time.Second), r); san.KindOf(err) != san.KindInvalid {
		t.Errorf("no endpoint: %v", err)
	}
	if j, err := Load(r.Dir); err != nil || len(j.Endpoints) > 0 {
		t.Errorf("a part that never enrolled remembers %v, %v", j, err)
	}
}

// parse returns the public key of a request.
func parse(der []byte) (string, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return "", err
	}
	return string(csr.RawSubjectPublicKeyInfo), nil
}
