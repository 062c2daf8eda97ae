package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/internal/freeport"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// cluster is stations in this process, over real loopback connections.
type cluster struct {
	t        *testing.T
	dir      string
	stations []*testStation
}

type testStation struct {
	cfg  Config
	link []*link // what the others reach it through, in a cluster whose stations can be cut off
	stop context.CancelFunc
	done chan error
}

// freeAddr finds a loopback port that is free over TCP and UDP, for a station that is started on it again and again.
func freeAddr(t *testing.T) string {
	t.Helper()
	addrs, err := freeport.Loopback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0]
}

// patience is how long a test waits for what comes in a moment on a machine that has little else to do.
const patience = 90 * time.Second

// patient is the timing of a test's stations, whose leader changes only when the test has it so: on a machine that is
// busy with other things, the process may get no time for longer than replica.LAN allows.
func patient() replica.Timing {
	return replica.Timing{Heartbeat: 2 * time.Second, Election: 2 * time.Second, Lease: 2 * time.Second,
		Commit: 10 * time.Millisecond, RPC: 1900 * time.Millisecond}
}

func testLog(t *testing.T) *slog.Logger {
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("test", t.Name())
}

// plan makes the configuration of a station.
func (c *cluster) plan(expect int) *testStation {
	id := fmt.Sprintf("station-%d", len(c.stations)+1)
	s := &testStation{cfg: Config{
		Data: filepath.Join(c.dir, id), ID: san.StationID(id),
		APIListen: freeAddr(c.t), RaftListen: freeAddr(c.t), GossipListen: freeAddr(c.t),
		BootstrapExpect: expect, RaftTiming: patient(), FastGossip: true, HealthyFor: time.Second, Version: "test", Log: testLog(c.t),
	}}
	c.stations = append(c.stations, s)
	return s
}

// newCluster founds a cluster of n stations and waits until all are in its table.
func newCluster(t *testing.T, n int) *cluster { return foundCluster(t, n, false) }

// foundCluster is newCluster whose stations, if cuttable, reach each other through links.
func foundCluster(t *testing.T, n int, cuttable bool) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	for range n {
		s := c.plan(n)
		if cuttable {
			api, raft := newLink(t, s.cfg.APIListen), newLink(t, s.cfg.RaftListen)
			s.cfg.APIAdvertise, s.cfg.RaftAdvertise, s.link = api.addr(), raft.addr(), []*link{api, raft}
		}
	}
	t.Cleanup(c.stopAll)
	c.start(0)
	c.await("the founder's tokens", func() error { _, err := os.Stat(c.file("ca.pem")); return err })
	for i := 1; i < n; i++ {
		c.join(i)
	}
	c.awaitStations(n)
	return c
}

// join starts a station that enrols with the founder's token.
func (c *cluster) join(i int) {
	c.stations[i].cfg.Join = []string{c.stations[0].cfg.APIListen}
	c.stations[i].cfg.JoinToken = c.read("station.join-token")
	c.start(i)
}

func (c *cluster) file(name string) string { return filepath.Join(c.stations[0].cfg.Data, name) }

func (c *cluster) read(name string) string {
	c.t.Helper()
	b, err := os.ReadFile(c.file(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (c *cluster) start(i int) {
	s := c.stations[i]
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.done = cancel, make(chan error, 1)
	go func() { s.done <- Run(ctx, s.cfg) }()
}

// halt stops a station in order and returns what its Run returned.
func (c *cluster) halt(i int) error {
	s := c.stations[i]
	if s.stop == nil {
		return nil
	}
	s.stop()
	s.stop = nil
	return <-s.done
}

func (c *cluster) stopAll() {
	var wg sync.WaitGroup
	for i := range c.stations {
		wg.Go(func() {
			if err := c.halt(i); err != nil && !c.t.Failed() {
				c.t.Errorf("station %d: %v", i+1, err)
			}
		})
	}
	wg.Wait()
}

func (c *cluster) await(what string, ready func() error) {
	c.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if err = ready(); err == nil {
			return
		}
		for i, s := range c.stations {
			select {
			case err := <-s.done:
				s.stop = nil
				c.t.Fatalf("station %d ended while waiting for %s: %v", i+1, what, err)
			default:
			}
		}
	}
	c.t.Fatalf("waited too long for %s: %v", what, err)
}

func (c *cluster) awaitStations(n int) {
	c.t.Helper()
	cl := c.client(c.read("admin.token"))
	c.await("the stations", func() error {
		m, err := ask(cl, 2*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.ListStationsResponse], error) {
			return cl.Stations(ep).ListStations(ctx, connect.NewRequest(&pb.ListStationsRequest{}))
		})
		if err == nil && len(m.Stations) != n {
			err = fmt.Errorf("%d stations in the table", len(m.Stations))
		}
		return err
	})
}

// client is one with a token, to all stations.
func (c *cluster) client(token string) *stationclient.Client {
	c.t.Helper()
	tlsConfig, err := identity.CATLS([]byte(c.read("ca.pem")))
	if err != nil {
		c.t.Fatal(err)
	}
	return c.clientOf(token, tlsConfig, c.endpoints()...)
}

// admin is a client with the first token, to all stations.
func (c *cluster) admin() *stationclient.Client { return c.client(c.read("admin.token")) }

// at is a client with a token, to one station.
func (c *cluster) at(i int, token string) *stationclient.Client {
	c.t.Helper()
	tlsConfig, err := identity.CATLS([]byte(c.read("ca.pem")))
	if err != nil {
		c.t.Fatal(err)
	}
	return c.clientOf(token, tlsConfig, c.stations[i].cfg.APIListen)
}

// as is a client with a certificate, to station i.
func (c *cluster) as(i int, id *identity.Identity) *stationclient.Client {
	return c.clientOf("", identity.ClientTLS(id, identity.Roles(san.RoleStation)), c.stations[i].cfg.APIListen)
}

func (c *cluster) endpoints() []string {
	var eps []string
	for _, s := range c.stations {
		eps = append(eps, s.cfg.APIListen)
	}
	return eps
}

func (c *cluster) clientOf(token string, tlsConfig *tls.Config, eps ...string) *stationclient.Client {
	c.t.Helper()
	cl, err := stationclient.New(stationclient.Config{Endpoints: eps, TLS: tlsConfig, Token: token})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}

func ask[T any](c *stationclient.Client, limit time.Duration, fn func(context.Context, string) (*connect.Response[T], error)) (*T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	resp, err := stationclient.Call(ctx, c, fn)
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// create makes a volume.
func create(cl *stationclient.Client, m *pb.CreateVolumeRequest) (*pb.Volume, error) {
	out, err := ask(cl, 20*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.CreateVolumeResponse], error) {
		return cl.Volumes(ep).CreateVolume(ctx, connect.NewRequest(m))
	})
	return out.GetVolume(), err
}

func show(cl *stationclient.Client, name string) (*pb.Volume, error) {
	out, err := ask(cl, 20*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.GetVolumeResponse], error) {
		return cl.Volumes(ep).GetVolume(ctx, connect.NewRequest(&pb.GetVolumeRequest{Volume: name}))
	})
	return out.GetVolume(), err
}

// awaitUnit waits until the pool shows a unit in a state.
func (c *cluster) awaitUnit(cl *stationclient.Client, id, state string) {
	c.t.Helper()
	c.await("unit "+id+" "+state, func() error {
		m, err := ask(cl, 2*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.GetUnitResponse], error) {
			return cl.Units(ep).GetUnit(ctx, connect.NewRequest(&pb.GetUnitRequest{Id: id}))
		})
		if err == nil && m.Unit.State != state {
			err = fmt.Errorf("it is %s (%s)", m.Unit.State, m.Unit.Reason)
		}
		return err
	})
}

// leader returns who leads, as station i and its majority see it, and a follower.
func (c *cluster) leader() (leader, follower int) {
	c.t.Helper()
	leader = -1
	cl := c.admin()
	c.await("a leader", func() error {
		m, err := ask(cl, 2*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.ListStationsResponse], error) {
			return cl.Stations(ep).ListStations(ctx, connect.NewRequest(&pb.ListStationsRequest{}))
		})
		if err != nil {
			return err
		}
		for i, s := range c.stations {
			for _, row := range m.Stations {
				if row.Leader && row.Id == string(s.cfg.ID) {
					leader = i
				} else if row.Id == string(s.cfg.ID) && row.Suffrage == "Voter" {
					follower = i
				}
			}
		}
		if leader < 0 {
			return errors.New("nobody leads")
		}
		return nil
	})
	return leader, follower
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// in is the cluster as a subtest uses it.
func (c *cluster) in(t *testing.T) *cluster {
	d := *c
	d.t = t
	return &d
}

// wantErr checks an error's kind and that its message says what it is about.
func wantErr(t *testing.T, err error, kind san.Kind, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %v (%v)", kind, says)
		return
	}
	if san.KindOf(err) != kind {
		t.Errorf("error %v is %v, want %v", err, san.KindOf(err), kind)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}

// said keeps what a station logs.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func newSaid() *said { return &said{} }

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) logger() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

func (s *said) has(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !strings.Contains(s.text.String(), text) {
		return fmt.Errorf("the log does not say %q", text)
	}
	return nil
}
