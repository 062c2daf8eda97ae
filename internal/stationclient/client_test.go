package stationclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/internal/freeport"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const clusterID = "11111111-2222-4333-8444-555555555555"

// station answers Health as the test says.
type station struct {
	sandbarv1connect.UnimplementedStationServiceHandler
	id   string
	addr string

	mu     sync.Mutex
	asked  int
	tokens []string
	answer func(ctx context.Context, n int) error
}

func (s *station) Health(ctx context.Context, req *connect.Request[pb.HealthRequest]) (*connect.Response[pb.HealthResponse], error) {
	s.mu.Lock()
	s.asked++
	n := s.asked
	s.tokens = append(s.tokens, req.Header().Get("Authorization"))
	s.mu.Unlock()
	if s.answer != nil {
		if err := s.answer(ctx, n); err != nil {
			return nil, convert.ToConnect(err)
		}
	}
	return connect.NewResponse(&pb.HealthResponse{StationId: s.id}), nil
}

func (s *station) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

type silence struct{}

func (silence) Write(b []byte) (int, error) { return len(b), nil }

func newCA(t *testing.T) *identity.CA {
	t.Helper()
	ca, err := identity.NewCA(clusterID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func serve(t *testing.T, ca *identity.CA, role san.Role, s *station) *station {
	t.Helper()
	id, err := ca.Issue(identity.Subject{Role: role, ID: s.id}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	mux := http.NewServeMux()
	mux.Handle(sandbarv1connect.NewStationServiceHandler(s))
	srv := &http.Server{Handler: mux, TLSConfig: identity.ServerTLS(id, identity.ClientCertOptional, identity.Member), ErrorLog: log.New(silence{}, "", 0)}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { srv.Close(); <-done })
	return s
}

func client(t *testing.T, ca *identity.CA, token string, eps ...string) *Client {
	t.Helper()
	cfg, err := identity.CATLS(ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	return clientWith(t, cfg, token, eps...)
}

func clientWith(t *testing.T, cfg *tls.Config, token string, eps ...string) *Client {
	t.Helper()
	c, err := New(Config{Endpoints: eps, TLS: cfg, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.current = 0
	return c
}

func health(c *Client, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	resp, err := Call(ctx, c, func(ctx context.Context, ep string) (*connect.Response[pb.HealthResponse], error) {
		return c.Stations(ep).Health(ctx, connect.NewRequest(&pb.HealthRequest{}))
	})
	if err != nil {
		return "", err
	}
	return resp.Msg.StationId, nil
}

// nobody is an address where nothing listens.
func nobody(t *testing.T) string {
	free, err := freeport.Loopback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return free[0]
}

func TestNextStation(t *testing.T) {
	ca := newCA(t)
	b := serve(t, ca, san.RoleStation, &station{id: "b"})
	c := client(t, ca, "secret", nobody(t), b.addr)
	if id, err := health(c, 10*time.Second); err != nil || id != "b" {
		t.Fatalf("%q, %v", id, err)
	}
	if c.Endpoint() != b.addr {
		t.Error("the client does not stay with the station that answered")
	}
	if b.tokens[0] != "Bearer secret" {
		t.Errorf("authorization %q", b.tokens[0])
	}
}

func TestRetriable(t *testing.T) {
	ca := newCA(t)
	for _, x := range []struct {
		kind  san.Kind
		again bool
	}{
		{san.KindUnavailable, true}, {san.KindUnknown, true},
		{san.KindInvalid, false}, {san.KindNotFound, false}, {san.KindExists, false}, {san.KindConflict, false},
		{san.KindNoSpace, false}, {san.KindDenied, false}, {san.KindUnauthenticated, false}, {san.KindInternal, false},
	} {
		s := serve(t, ca, san.RoleStation, &station{id: "a", answer: func(_ context.Context, n int) error {
			if n == 1 {
				return san.Errorf(x.kind, "as the test wants")
			}
			return nil
		}})
		_, err := health(client(t, ca, "", s.addr), 10*time.Second)
		switch {
		case x.again && (err != nil || s.count() != 2):
			t.Errorf("%v: %v after %d calls", x.kind, err, s.count())
		case !x.again && (san.KindOf(err) != x.kind || err.Error() != "as the test wants" || s.count() != 1):
			t.Errorf("%v: came back as %v (%v) after %d calls", x.kind, err, san.KindOf(err), s.count())
		}
	}
}

func TestGivesUp(t *testing.T) {
	ca := newCA(t)
	gone := nobody(t)
	_, err := health(client(t, ca, "", gone), 300*time.Millisecond)
	if san.KindOf(err) != san.KindUnavailable || !strings.Contains(err.Error(), gone) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody there: %v", err)
	}
	s := serve(t, ca, san.RoleStation, &station{id: "a", answer: func(context.Context, int) error {
		return san.Errorf(san.KindUnknown, "lost the leadership")
	}})
	_, err = health(client(t, ca, "", s.addr), 300*time.Millisecond)
	if san.KindOf(err) != san.KindUnknown || !strings.Contains(err.Error(), "lost the leadership") {
		t.Errorf("an outcome that stays unknown: %v", err)
	}
}

// TestGivesUpInTheMiddle: a try that the caller's time cuts short does not hide what the one before it met.
func TestGivesUpInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{Endpoints: []string{"a:1"}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		tries := 0
		_, err = Call(ctx, c, func(ctx context.Context, _ string) (int, error) {
			if tries++; tries == 1 {
				return 0, connect.NewError(connect.CodeUnavailable, errors.New("connection refused"))
			}
			<-ctx.Done()
			return 0, connect.NewError(connect.CodeDeadlineExceeded, ctx.Err())
		})
		if tries != 2 || !strings.Contains(err.Error(), "refused") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %d tries: %v", tries, err)
		}
	})
}

// TestStrangers: one endpoint of another cluster is passed over; if all are, it is said at once.
func TestStrangers(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	a := serve(t, other, san.RoleStation, &station{id: "a"})
	u := serve(t, ca, san.RoleUnit, &station{id: "u"})
	b := serve(t, ca, san.RoleStation, &station{id: "b"})
	if id, err := health(client(t, ca, "", a.addr, u.addr, b.addr), 10*time.Second); err != nil || id != "b" {
		t.Errorf("%q, %v", id, err)
	}
	began := time.Now()
	_, err := health(client(t, ca, "", a.addr, u.addr), 20*time.Second)
	if k := san.KindOf(err); k != san.KindUnauthenticated && k != san.KindDenied || time.Since(began) > 10*time.Second {
		t.Errorf("only strangers: %v (%v) after %v", err, k, time.Since(began))
	}
	if a.count()+u.count() > 0 {
		t.Error("a stranger was asked")
	}
}

// TestDies: a station that dies in the middle of a call is left for the next.
func TestDies(t *testing.T) {
	ca := newCA(t)
	b := serve(t, ca, san.RoleStation, &station{id: "b"})
	entered := make(chan struct{})
	a := serve(t, ca, san.RoleStation, &station{id: "a", answer: func(context.Context, int) error {
		close(entered)
		panic(http.ErrAbortHandler)
	}})
	if id, err := health(client(t, ca, "", a.addr, b.addr), 10*time.Second); err != nil || id != "b" {
		t.Errorf("%q, %v", id, err)
	}
	<-entered
}

// TestNewCertificate: one that was refused because it was replaced is shown on a new connection.
func TestNewCertificate(t *testing.T) {
	ca := newCA(t)
	s := serve(t, ca, san.RoleStation, &station{id: "a", answer: func(_ context.Context, n int) error {
		if n == 1 {
			return san.Errorf(san.KindUnauthenticated, "a newer certificate")
		}
		return nil
	}})
	id, err := ca.Issue(identity.Subject{Role: san.RoleHost, ID: "h"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := clientWith(t, identity.ClientTLS(id, identity.Roles(san.RoleStation)), "", s.addr)
	before := c.doer()
	if _, err := health(c, 10*time.Second); err != nil || s.count() != 2 || c.doer() == before {
		t.Errorf("%v after %d calls, new connections: %v", err, s.count(), c.doer() != before)
	}
}

func TestEndpoints(t *testing.T) {
	for _, bad := range [][]string{nil, {""}, {"host"}, {"a:1", "b"}} {
		if _, err := New(Config{Endpoints: bad}); san.KindOf(err) != san.KindInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	var many []string
	for i := range 2 * MaxEndpoints {
		many = append(many, fmt.Sprintf("h%d:1", i))
	}
	c := clientWith(t, nil, "", " https://a:1/ ", "a:1", "b:2")
	if got := c.Endpoints(); !slices.Equal(got, []string{"a:1", "b:2"}) {
		t.Errorf("endpoints %v", got)
	}
	c.Failed("b:2") // not the one in use
	if c.Endpoint() != "a:1" {
		t.Error("moved on although another failed")
	}
	c.Failed("a:1")
	c.SetEndpoints([]string{"c:3", "b:2"})
	if c.Endpoint() != "b:2" {
		t.Errorf("a new list moved the client to %s", c.Endpoint())
	}
	c.SetEndpoints([]string{"broken"})
	c.SetEndpoints(nil)
	if !slices.Equal(c.Endpoints(), []string{"c:3", "b:2", "a:1"}) {
		t.Errorf("an unusable list left %v", c.Endpoints())
	}
	c.SetEndpoints(many)
	if len(c.Endpoints()) != MaxEndpoints || c.Endpoint() != "h0:1" {
		t.Errorf("%d endpoints, at %s", len(c.Endpoints()), c.Endpoint())
	}
}
