package controlplane

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/internal/agentlink"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
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
	stop context.CancelFunc
	done chan error
}

// freeAddr finds a loopback port that is free over TCP and UDP.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		u, err := net.ListenPacket("udp4", addr)
		l.Close()
		if err == nil {
			u.Close()
			return addr
		}
	}
	t.Fatal("no port is free over TCP and UDP")
	return ""
}

func testLog(t *testing.T) *slog.Logger {
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("test", t.Name())
}

// newCluster founds a cluster of n stations and waits until all are in its table.
func newCluster(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	for i := range n {
		c.stations = append(c.stations, &testStation{cfg: Config{
			Data: filepath.Join(c.dir, fmt.Sprintf("station-%d", i+1)), ID: san.StationID(fmt.Sprintf("station-%d", i+1)),
			APIListen: freeAddr(t), RaftListen: freeAddr(t), GossipListen: freeAddr(t),
			BootstrapExpect: n, RaftTiming: replica.LAN(), FastGossip: true, Version: "test", Log: testLog(t),
		}})
	}
	t.Cleanup(c.stopAll)
	c.start(0)
	c.await("the founder's tokens", func() error { _, err := os.Stat(c.file("ca.pem")); return err })
	for i := 1; i < n; i++ {
		c.stations[i].cfg.Join = []string{c.stations[0].cfg.APIListen}
		c.stations[i].cfg.JoinToken = c.read("station.join-token")
		c.start(i)
	}
	c.awaitStations(n)
	return c
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
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-tick.C {
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
	var eps []string
	for _, s := range c.stations {
		eps = append(eps, s.cfg.APIListen)
	}
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

// testUnit is a unit's agent without disks: it says that it did what it was told, and
// remembers it.
type testUnit struct {
	id          string
	incarnation uint64
	extents     uint32
	medium      string
	outbox      *agentlink.Outbox
	stop        context.CancelFunc
	done        chan error

	mu          sync.Mutex
	assignments map[string]*pb.DesiredAssignment
	fulls       int
	silent      bool // reports nothing
}

// enrolAs gets a part its identity.
func (c *cluster) enrolAs(role san.Role, id, token string) (*identity.Identity, error) {
	c.t.Helper()
	dir, err := datadir.Open(filepath.Join(c.dir, string(role)+"-"+id))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	store, err := identity.OpenStore(dir.Path("identity"), identity.Holder{Role: role, ID: id})
	if err != nil {
		return nil, err
	}
	if have, err := store.Load(); err == nil {
		return have, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ident, _, err := enrol.Enrol(ctx, enrol.Request{Dir: dir, Store: store, Role: role, ID: id, Endpoints: []string{c.stations[0].cfg.APIListen, c.stations[len(c.stations)-1].cfg.APIListen}, Token: token, Log: testLog(c.t)})
	return ident, err
}

// unit starts a unit's agent.
func (c *cluster) unit(id string, incarnation uint64, extents uint32) *testUnit {
	c.t.Helper()
	ident, err := c.enrolAs(san.RoleUnit, id, c.read("unit.join-token"))
	if err != nil {
		c.t.Fatal(err)
	}
	u := &testUnit{id: id, incarnation: incarnation, extents: extents, medium: uuid.NewSHA1(uuid.Nil, []byte(id)).String(), outbox: agentlink.NewOutbox(), assignments: map[string]*pb.DesiredAssignment{}}
	var eps []string
	for _, s := range c.stations {
		eps = append(eps, s.cfg.APIListen)
	}
	ctx, cancel := context.WithCancel(context.Background())
	u.stop, u.done = cancel, make(chan error, 1)
	go func() {
		u.done <- agentlink.Run(ctx, agentlink.Config{
			Identity: ident, Endpoints: eps, Reports: u.outbox, Log: testLog(c.t), Reason: "test ends",
			Hello: func() *pb.Hello {
				return &pb.Hello{Incarnation: incarnation, Version: "test", Portal: "127.0.0.1:1", ApiAddress: "127.0.0.1:1"}
			},
			StorageInfo: func() *pb.StorageInfo {
				return &pb.StorageInfo{Media: []*pb.MediumInfo{{Id: u.medium, Path: "test", CapacityExtents: extents}}}
			},
			OnDesired: u.apply,
		})
	}()
	c.t.Cleanup(u.end)
	return u
}

func (u *testUnit) end() {
	if u.stop != nil {
		u.stop()
		<-u.done
		u.stop = nil
	}
}

func (u *testUnit) apply(d *pb.DesiredState) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if d.Full {
		u.fulls++
	}
	if u.silent {
		return nil
	}
	for _, r := range d.Replicas {
		kind := pb.ReportKind_REPORT_KIND_REPLICA_READY
		if r.Deleted {
			kind = pb.ReportKind_REPORT_KIND_REPLICA_DELETED
		}
		u.outbox.Put(&pb.Report{Kind: kind, VolumeId: r.VolumeId})
	}
	for _, a := range d.Assignments {
		key := a.VolumeId + "/" + a.HostId
		switch {
		case a.Gone:
			delete(u.assignments, key)
		case a.Release:
			delete(u.assignments, key)
			u.outbox.Put(&pb.Report{Kind: pb.ReportKind_REPORT_KIND_RELEASED, VolumeId: a.VolumeId, HostId: a.HostId, Generation: a.Generation})
		default:
			u.assignments[key] = a
			u.outbox.Put(&pb.Report{Kind: pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, VolumeId: a.VolumeId, HostId: a.HostId, Generation: a.Generation})
		}
	}
	return nil
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
