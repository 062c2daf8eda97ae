package controlplane

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/agentlink"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

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
	mute        bool // answers nothing
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
	ctx, cancel := context.WithCancel(context.Background())
	u.stop, u.done = cancel, make(chan error, 1)
	go func() {
		u.done <- agentlink.Run(ctx, agentlink.Config{
			Identity: ident, Endpoints: c.endpoints(), Reports: u.outbox, Log: testLog(c.t), Reason: "test ends",
			Hello: func() *pb.Hello {
				return &pb.Hello{Incarnation: incarnation, Version: "test", Portal: "127.0.0.1:1", ApiAddress: "127.0.0.1:1"}
			},
			StorageInfo: func() *pb.StorageInfo {
				return &pb.StorageInfo{Media: []*pb.MediumInfo{{Id: u.medium, Path: "test", CapacityExtents: extents}}}
			},
			OnDesired: u.apply, OnQuestion: u.answer,
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
		u.outbox.Put(&pb.Report{Kind: kind, VolumeId: r.VolumeId, SizeBytes: r.SizeBytes})
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

// rawAgent is an agent's stream without an agent: the test says what is sent, and when it breaks.
type rawAgent struct {
	stream *connect.BidiStreamForClient[pb.SessionRequest, pb.SessionResponse]
	got    chan *pb.SessionResponse
	ended  chan error
	cut    func()
}

// rawAgent opens a stream to station i and says hello.
func (c *cluster) rawAgent(t *testing.T, i int, id *identity.Identity, hello *pb.Hello) *rawAgent {
	t.Helper()
	cl := c.as(i, id)
	ctx, cancel := context.WithCancel(context.Background())
	a := &rawAgent{stream: cl.Agents(cl.Endpoint()).Session(ctx), got: make(chan *pb.SessionResponse, 1000), ended: make(chan error, 1)}
	a.cut = sync.OnceFunc(func() {
		cancel()
		_ = a.stream.CloseResponse() // a context alone does not end a stream whose request goes on
	})
	if err := a.stream.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := a.stream.Receive()
			if err != nil {
				a.ended <- err
				return
			}
			a.got <- m
		}
	}()
	t.Cleanup(func() { a.cut(); <-done })
	return a
}

func unitHello(incarnation uint64, api string) *pb.Hello {
	return &pb.Hello{Incarnation: incarnation, Version: "test", Portal: "127.0.0.1:1", ApiAddress: api}
}

// await returns the first message that is wanted.
func (a *rawAgent) await(t *testing.T, what string, want func(*pb.SessionResponse) bool) *pb.SessionResponse {
	t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		select {
		case m := <-a.got:
			if want(m) {
				return m
			}
		case err := <-a.ended:
			t.Fatalf("the stream ended before %s: %v", what, err)
		case <-timeout:
			t.Fatalf("no %s came", what)
		}
	}
}

// awaitEnd returns why the station ended the stream.
func (a *rawAgent) awaitEnd(t *testing.T) error {
	t.Helper()
	select {
	case err := <-a.ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the stream goes on")
		return nil
	}
}

func (a *rawAgent) say(t *testing.T, m *pb.SessionRequest) {
	t.Helper()
	if err := a.stream.Send(m); err != nil {
		t.Fatal(err)
	}
}

func isWelcome(m *pb.SessionResponse) bool { return m.GetWelcome() != nil }
func isNeed(m *pb.SessionResponse) bool    { return m.GetNeedStorageInfo() != nil }
func isFull(m *pb.SessionResponse) bool    { return m.GetDesiredState().GetFull() }

func storageInfo(medium string, extents uint32) *pb.SessionRequest {
	return &pb.SessionRequest{Message: &pb.SessionRequest_StorageInfo{StorageInfo: &pb.StorageInfo{
		Media: []*pb.MediumInfo{{Id: medium, Path: "test", CapacityExtents: extents}},
	}}}
}

func getUnit(cl *stationclient.Client, id string) (*pb.Unit, error) {
	m, err := ask(cl, 10*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.GetUnitResponse], error) {
		return cl.Units(ep).GetUnit(ctx, connect.NewRequest(&pb.GetUnitRequest{Id: id}))
	})
	return m.GetUnit(), err
}
