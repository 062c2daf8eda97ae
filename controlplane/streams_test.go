package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/controlplane/agents"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// testPendingUnit: a unit that nobody approved is shown and given nothing, not even a question;
// once it is approved it gets all.
func testPendingUnit(t *testing.T, c *cluster) {
	admin := c.admin()
	token, _ := newJoinToken(t, admin, &pb.CreateJoinTokenRequest{Name: "pending", Role: "unit"})
	id, err := c.enrolAs(san.RoleUnit, "up", token)
	if err != nil {
		t.Fatal(err)
	}
	_, follower := c.leader()
	a := c.rawAgent(t, follower, id, unitHello(1, "127.0.0.1:1"))
	a.await(t, "welcome", isWelcome)
	if m := a.await(t, "state", func(*pb.SessionResponse) bool { return true }); !isFull(m) || len(m.GetDesiredState().Replicas) > 0 {
		t.Fatalf("a pending unit was sent %v", m)
	}
	if u, err := getUnit(admin, "up"); err != nil || u.State != "Pending" || u.Approved {
		t.Fatalf("pending unit: %v, %v", u, err)
	}
	// One that speaks unasked is refused and stays pending.
	b := c.rawAgent(t, follower, id, unitHello(1, "127.0.0.1:1"))
	b.await(t, "welcome", isWelcome)
	b.say(t, storageInfo("00000000-0000-4000-8000-00000000000a", 1000))
	if err := b.awaitEnd(t); !strings.Contains(err.Error(), "not approved") {
		t.Errorf("unasked storage info of a pending unit: %v", err)
	}
	if err := a.awaitEnd(t); !strings.Contains(err.Error(), "newer stream") {
		t.Errorf("the former stream ended with %v", err)
	}
	a = c.rawAgent(t, follower, id, unitHello(1, "127.0.0.1:1"))
	a.await(t, "welcome", isWelcome)
	a.await(t, "empty state", isFull)
	if _, err := once(units(admin).ApproveUnit, &pb.ApproveUnitRequest{Id: "up"}); err != nil {
		t.Fatal(err)
	}
	a.await(t, "question for storage info", isNeed)
	a.await(t, "full state", isFull)
	a.say(t, storageInfo("00000000-0000-4000-8000-00000000000a", 0))
	c.awaitUnit(admin, "up", "Online")
	a.say(t, &pb.SessionRequest{Message: &pb.SessionRequest_Goodbye{Goodbye: &pb.Goodbye{Reason: "for a test"}}})
	if err := a.awaitEnd(t); connect.CodeOf(err) != connect.CodeUnknown || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("after its goodbye the stream ended with %v", err)
	}
	if u, err := getUnit(admin, "up"); err != nil || u.State != "Stopped" || u.Reason != "for a test" {
		t.Errorf("after goodbye: %v, %v", u, err)
	}
}

// testAgentStreams: what agents may not say, and who may not push whom out.
func testAgentStreams(t *testing.T, c *cluster) {
	id, err := c.enrolAs(san.RoleUnit, "us", c.read("unit.join-token"))
	if err != nil {
		t.Fatal(err)
	}
	good := c.rawAgent(t, 0, id, unitHello(5, "127.0.0.1:1"))
	good.await(t, "question", isNeed)
	good.say(t, storageInfo("00000000-0000-4000-8000-00000000000b", 0))
	c.awaitUnit(c.admin(), "us", "Online")

	old := c.rawAgent(t, 0, id, unitHello(4, "127.0.0.1:1"))
	if err := old.awaitEnd(t); !strings.Contains(err.Error(), "start number 4") {
		t.Errorf("an older start: %v", err)
	}
	good.say(t, &pb.SessionRequest{Message: &pb.SessionRequest_Heartbeat{Heartbeat: &pb.Heartbeat{Sequence: 9}}})
	ack := good.await(t, "the answer to a heartbeat on a stream that nobody replaced", func(m *pb.SessionResponse) bool { return m.GetHeartbeatAck() != nil })
	if ack.GetHeartbeatAck().Sequence != 9 {
		t.Errorf("heartbeat answered with %v", ack)
	}

	// The same start at another station: a reconnect, which leaves the unit as it is.
	again := c.rawAgent(t, 1, id, unitHello(5, "127.0.0.1:1"))
	again.await(t, "question", isNeed)
	if u, err := getUnit(c.admin(), "us"); err != nil || u.State != "Online" || u.Incarnation != 5 {
		t.Errorf("after a reconnect: %v, %v", u, err)
	}
	again.say(t, &pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: unitHello(5, "127.0.0.1:1")}})
	if err := again.awaitEnd(t); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a second hello: %v", err)
	}
	cl := c.as(0, id)
	stream := cl.Agents(cl.Endpoint()).Session(context.Background())
	if err := stream.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Heartbeat{Heartbeat: &pb.Heartbeat{}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a heartbeat before the hello: %v", err)
	}
	_ = stream.CloseResponse() // it is over
	for name, cl := range map[string]*connect.BidiStreamForClient[pb.SessionRequest, pb.SessionResponse]{
		"token": c.at(0, c.read("admin.token")).Agents(c.stations[0].cfg.APIListen).Session(context.Background()),
	} {
		_ = cl.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: unitHello(1, "127.0.0.1:1")}})
		if _, err := cl.Receive(); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("an agent's stream by %s: %v", name, err)
		}
		_ = cl.CloseResponse()
	}
}

// probed is a unit's side of probes.
type probed struct {
	answers atomic.Bool
	id      string
	start   uint64
}

func (p *probed) Probe(context.Context, *connect.Request[pb.ProbeRequest]) (*connect.Response[pb.ProbeResponse], error) {
	if !p.answers.Load() {
		return nil, convert.ToConnect(errors.New("it is dead"))
	}
	return connect.NewResponse(&pb.ProbeResponse{UnitId: p.id, Incarnation: p.start}), nil
}

// serve answers probes with the identity of a unit.
func (p *probed) serve(t *testing.T, id *identity.Identity) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(sandbarv1connect.NewProbeServiceHandler(p))
	cfg := identity.ServerTLS(id, identity.ClientCertRequired, identity.Roles(san.RoleStation))
	srv := &http.Server{Handler: mux, TLSConfig: cfg, ErrorLog: log.New(nothing{}, "", 0)}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(tls.NewListener(l, cfg)) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String()
}

type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }

// testLostUnit: a unit whose stream broke stays online while it answers probes, is unreachable
// once it does not, and comes back with the same start.
func testLostUnit(t *testing.T, c *cluster) {
	t.Parallel() // it mostly waits
	id, err := c.enrolAs(san.RoleUnit, "ul", c.read("unit.join-token"))
	if err != nil {
		t.Fatal(err)
	}
	p := &probed{id: "ul", start: 1}
	p.answers.Store(true)
	addr := p.serve(t, id)
	_, follower := c.leader()
	a := c.rawAgent(t, follower, id, unitHello(1, addr))
	a.await(t, "question", isNeed)
	a.say(t, storageInfo("00000000-0000-4000-8000-00000000000c", 0))
	c.awaitUnit(c.admin(), "ul", "Online")
	a.cut()
	cut := time.Now()
	c.await("the lease to run out, and a round after it", func() error {
		u, err := getUnit(c.admin(), "ul")
		late := err == nil && strings.Contains(u.Reason, "deadline_exceeded") // the machine is too busy for it to answer
		if err != nil || u.State != "Online" && !late {
			t.Fatalf("while it answers probes: %v, %v", u, err)
		}
		if time.Since(cut) < agents.HeartbeatLease+3*time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	p.answers.Store(false)
	c.awaitUnit(c.admin(), "ul", "Unreachable")
	if u, err := getUnit(c.admin(), "ul"); err != nil || !strings.Contains(u.Reason, "probe failed") {
		t.Errorf("unreachable unit: %v, %v", u, err)
	}
	a = c.rawAgent(t, follower, id, unitHello(1, addr))
	a.await(t, "question", isNeed)
	a.say(t, storageInfo("00000000-0000-4000-8000-00000000000c", 0))
	c.awaitUnit(c.admin(), "ul", "Online")
}

// testLostHost: a host's agent that is lost is offline, and online again when it is back.
func testLostHost(t *testing.T, c *cluster) {
	t.Parallel() // it mostly waits
	id, err := c.enrolAs(san.RoleHost, "hl", c.read("host.join-token"))
	if err != nil {
		t.Fatal(err)
	}
	state := func(want string) {
		t.Helper()
		c.await("host hl "+want, func() error {
			m, err := once(hosts(c.admin()).GetHost, &pb.GetHostRequest{Id: "hl"})
			if err == nil && m.Host.State != want {
				err = fmt.Errorf("it is %s", m.Host.State)
			}
			return err
		})
	}
	hello := &pb.Hello{Incarnation: 1, Version: "test", Addresses: []string{"192.0.2.1"}}
	a := c.rawAgent(t, 0, id, hello)
	a.await(t, "full state", isFull)
	state("Online")
	a.cut()
	state("Offline")
	a = c.rawAgent(t, 1, id, hello)
	a.await(t, "full state", isFull)
	state("Online")
	// It gets what is assigned to it, and its word completes the assignment.
	if _, err := create(c.admin(), &pb.CreateVolumeRequest{Name: "hlv", SizeBytes: extent, HostId: "hl"}); err != nil {
		t.Fatal(err)
	}
	m := a.await(t, "assignment with its unit's portal and secret", func(m *pb.SessionResponse) bool { return len(m.GetDesiredState().GetAssignments()) > 0 })
	da := m.GetDesiredState().Assignments[0]
	if da.ChapSecret == "" || len(da.Paths) != 1 || da.Paths[0].Portal != "127.0.0.1:1" || da.Paths[0].EndLba != extent/512-1 {
		t.Errorf("assignment %v", da)
	}
	if v, err := show(c.admin(), "hlv"); err != nil || v.Assignments[0].State != "Pending" {
		t.Errorf("before the host's word: %v, %v", v, err)
	}
	a.say(t, &pb.SessionRequest{Message: &pb.SessionRequest_Reports{Reports: &pb.ReportBatch{Reports: []*pb.Report{
		{Kind: pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, VolumeId: da.VolumeId, HostId: "hl", Generation: da.Generation},
	}}}})
	c.await("hlv to be assigned", func() error {
		v, err := show(c.admin(), "hlv")
		if err == nil && v.Assignments[0].State != "Assigned" {
			err = fmt.Errorf("it is %s", v.Assignments[0].State)
		}
		return err
	})
	unassign(t, c.admin(), "hlv", "hl")
	a.await(t, "word that the assignment is gone", func(m *pb.SessionResponse) bool {
		as := m.GetDesiredState().GetAssignments()
		return len(as) > 0 && as[0].Gone
	})
	a.say(t, &pb.SessionRequest{Message: &pb.SessionRequest_Goodbye{Goodbye: &pb.Goodbye{}}})
	state("Stopped")
	c.await("hlv to be deletable", func() error { return deleteVolume(c.admin(), "hlv") })
}
