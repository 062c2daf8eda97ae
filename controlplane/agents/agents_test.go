package agents

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/secrets"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// log is a Proposer that keeps what it is given, and takes its time.
type log struct {
	mu      sync.Mutex
	entries []fsm.Command
	took    time.Duration
	err     error
}

func (l *log) Propose(_ context.Context, cmd fsm.Command) (fsm.Result, error) {
	<-time.After(l.took)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, cmd)
	return fsm.Result{}, l.err
}

func batchOf(n int, text string) *pb.AgentMessage {
	b := &pb.ReportBatch{}
	for i := range n {
		b.Reports = append(b.Reports, &pb.Report{Kind: pb.ReportKind_REPORT_KIND_REPLICA_FAILED, VolumeId: fmt.Sprint(i), Error: text})
	}
	return &pb.AgentMessage{Role: "unit", Id: "u1", CertSerial: "1", Incarnation: 1, Message: &pb.AgentMessage_Reports{Reports: b}}
}

// TestIntakeShares: many agents' reports make few log entries, none too long for the log, and each
// agent hears how its own fared.
func TestIntakeShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{took: 5 * time.Millisecond}
		in := NewIntake(l, nil)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- in.Run(ctx) }()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if err := in.Submit(ctx, batchOf(5, "")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		reports := 0
		for _, e := range l.entries {
			reports += len(e.(*fsm.Reports).Reports)
		}
		if reports != 1000 || len(l.entries) > 10 {
			t.Errorf("%d reports in %d entries", reports, len(l.entries))
		}
		l.entries = nil
		if err := in.Submit(ctx, batchOf(3000, strings.Repeat("ä", 400))); err != nil {
			t.Error(err)
		}
		reports = 0
		for _, e := range l.entries {
			if _, err := fsm.Encode(e); err != nil {
				t.Error(err)
			}
			for _, r := range e.(*fsm.Reports).Reports {
				if reports++; len(r.Error) > maxReportError || !utf8.ValidString(r.Error) {
					t.Fatalf("error of %d bytes, valid %v", len(r.Error), utf8.ValidString(r.Error))
				}
			}
		}
		if reports != 3000 {
			t.Errorf("%d of 3000 reports were committed", reports)
		}
		l.err = san.Errorf(san.KindUnavailable, "no leader")
		if err := in.Submit(ctx, batchOf(1, "")); san.KindOf(err) != san.KindUnavailable {
			t.Errorf("a batch that was not committed: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestIntakeMessages(t *testing.T) {
	l := &log{}
	var suspects []string
	in := NewIntake(l, func(r san.Role, id string) { suspects = append(suspects, string(r)+id) })
	for _, m := range []*pb.AgentMessage{
		{Role: "unit", Id: "u", Message: &pb.AgentMessage_Hello{Hello: &pb.Hello{}}},
		{Role: "host", Id: "h", Message: &pb.AgentMessage_Hello{Hello: &pb.Hello{}}},
		{Role: "unit", Id: "u", Message: &pb.AgentMessage_StorageInfo{StorageInfo: &pb.StorageInfo{Media: []*pb.MediumInfo{{Id: "m"}}, Replicas: []*pb.ReplicaInfo{{VolumeId: "v"}}}}},
		{Role: "unit", Id: "u", Message: &pb.AgentMessage_Goodbye{Goodbye: &pb.Goodbye{}}},
		{Role: "host", Id: "h", Message: &pb.AgentMessage_Goodbye{Goodbye: &pb.Goodbye{}}},
		{Role: "unit", Id: "u", Message: &pb.AgentMessage_StreamLost{StreamLost: &pb.StreamLost{}}},
	} {
		if err := in.Submit(context.Background(), m); err != nil {
			t.Errorf("%v: %v", m, err)
		}
	}
	var kinds []string
	for _, e := range l.entries {
		kinds = append(kinds, strings.TrimPrefix(fmt.Sprintf("%T", e), "*fsm."))
	}
	if want := "[UnitStarted SetHostState UnitStorage SetUnitState SetHostState]"; fmt.Sprint(kinds) != want || fmt.Sprint(suspects) != "[unitu]" {
		t.Errorf("commands %v, suspects %v", kinds, suspects)
	}
	for _, bad := range []*pb.AgentMessage{
		{Role: "host", Id: "h", Message: &pb.AgentMessage_StorageInfo{StorageInfo: &pb.StorageInfo{}}},
		{Role: "unit", Id: "u"},
	} {
		if err := in.Submit(context.Background(), bad); san.KindOf(err) != san.KindInvalid {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// lead says who leads, by turns.
type lead struct {
	mu   sync.Mutex
	here []bool
}

func (l *lead) IsLeader() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.here[0]
	if len(l.here) > 1 {
		l.here = l.here[1:]
	}
	return now
}

func (l *lead) Leader() (san.StationID, bool) { return "", false }

func TestForwarder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		f := &Forwarder{Leader: &lead{here: []bool{false, false, true}}, Proposer: l, Intake: NewIntake(l, nil), Address: func(san.StationID) string { return "" }}
		if err := f.Propose(context.Background(), &fsm.SetFormat{}); err != nil || len(l.entries) != 1 {
			t.Errorf("once there is a leader: %v, %d entries", err, len(l.entries))
		}
		f.Leader = &lead{here: []bool{false}}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		began := time.Now()
		if err := f.Propose(ctx, &fsm.SetFormat{}); san.KindOf(err) != san.KindUnavailable || time.Since(began) < time.Minute {
			t.Errorf("without a leader: %v after %v", err, time.Since(began))
		}
		f.Leader = &lead{here: []bool{true}}
		l.err = san.Errorf(san.KindConflict, "refused")
		if err := f.Propose(context.Background(), &fsm.SetFormat{}); san.KindOf(err) != san.KindConflict {
			t.Errorf("a refusal: %v", err)
		}
		l.err = nil
		l.took = attempt + time.Second // longer than one try may take: nothing hangs
		ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := f.Submit(ctx, &pb.AgentMessage{Role: "unit", Message: &pb.AgentMessage_Hello{Hello: &pb.Hello{}}}); err != nil {
			t.Error(err)
		}
	})
}

// tables is a machine with a unit, hosts and volumes.
type tables struct {
	*fsm.Machine
	t      *testing.T
	index  san.Index
	sealer *identity.Sealer
}

func newTables(t *testing.T) *tables {
	sealer, err := identity.NewSealer(identity.NewClusterKey())
	if err != nil {
		t.Fatal(err)
	}
	s := &tables{Machine: fsm.New(), t: t, sealer: sealer}
	s.apply(&fsm.InitCluster{ID: "c", CACertPEM: []byte("x"), CAKeySealed: []byte("x"), JoinTokens: []fsm.JoinToken{{ID: "u", Name: "u", Role: san.RoleUnit, SecretHash: []byte("x")}}})
	s.apply(&fsm.Enrol{Role: san.RoleUnit, ID: "u1", CertSerial: "1", JoinToken: "u"})
	s.apply(&fsm.AddHost{ID: "h1", Initiators: []string{"iqn.2004-10.com.example:h1"}})
	return s
}

func (s *tables) apply(cmd fsm.Command) {
	s.t.Helper()
	cmd.Header().At = time.Unix(1e9, 0)
	b, err := fsm.Encode(cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	s.index++
	if res, err := s.Apply(s.index, b); err != nil || res.Err != nil {
		s.t.Fatalf("%T: %v, %v", cmd, err, res.Err)
	}
}

func (s *tables) approve() {
	s.apply(&fsm.ApproveUnit{ID: "u1"})
	s.apply(&fsm.UnitStarted{ID: "u1", CertSerial: "1", Incarnation: 1, APIAddress: "a:1", Portal: "a:2"})
	s.apply(&fsm.UnitStorage{ID: "u1", CertSerial: "1", Incarnation: 1, Media: []fsm.MediumInfo{{ID: "m1", CapacityExtents: 1 << 20}}})
}

func (s *tables) volume(id string, host san.HostID) {
	cmd := &fsm.CreateVolume{ID: san.VolumeID(id), Name: id, SizeBytes: san.ExtentSizeBytes, BlockSizeBytes: 512, Host: host,
		Copies: []fsm.Copy{{Unit: "u1", Role: fsm.RolePrimary, Slices: []fsm.Slice{{Medium: "m1", Extents: 1}}}}}
	if host != "" {
		var err error
		if cmd.CHAPUser, cmd.CHAPSecretSealed, err = secrets.NewCHAP(s.sealer, cmd.ID, host); err != nil {
			s.t.Fatal(err)
		}
	}
	s.apply(cmd)
}

func TestDesired(t *testing.T) {
	s := newTables(t)
	d := &desired{role: san.RoleUnit, id: "u1", sealer: s.sealer}
	_, sub, err := s.Watch()
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	next := func() ([]*pb.DesiredState, bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		batch, err := sub.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		out, again, err := d.changes(s.View(), batch)
		if err != nil {
			t.Fatal(err)
		}
		return out, again
	}
	if out, err := d.full(s.View()); err != nil || len(out) != 1 || !out[0].Full || out[0].More {
		t.Errorf("a unit without approval: %v, %v", out, err)
	}
	s.approve()
	if out, again := next(); !again || out != nil {
		t.Errorf("its approval: %v, again %v", out, again)
	}
	s.volume("v1", "h1")
	out, again := next()
	if again || len(out) != 1 || out[0].Full || len(out[0].Replicas) != 1 || len(out[0].Assignments) != 1 {
		t.Fatalf("a volume with a host: %v, again %v", out, again)
	}
	a := out[0].Assignments[0]
	if a.ChapSecret == "" || a.Initiators[0] != "iqn.2004-10.com.example:h1" || a.SizeBytes != san.ExtentSizeBytes || a.Generation != 1 {
		t.Errorf("assignment %v", a)
	}
	before := a.Stamp.Index
	s.apply(&fsm.AddHost{ID: "h2", Initiators: []string{"iqn.2004-10.com.example:h2"}})
	if out, again := next(); out != nil || again {
		t.Errorf("a host that does not concern it: %v, %v", out, again)
	}
	s.apply(&fsm.Unassign{Volume: "v1", Host: "h1"})
	if out, _ := next(); len(out) != 1 || !out[0].Assignments[0].Release || out[0].Assignments[0].Stamp.Index <= before {
		t.Errorf("a release: %v", out)
	}
	s.apply(&fsm.Reports{Reports: []fsm.Report{{Role: san.RoleUnit, Agent: "u1", CertSerial: "1", Incarnation: 1, Kind: fsm.ReportReleased, Volume: "v1", Host: "h1", Generation: 2}}})
	if out, _ := next(); len(out) != 1 || !out[0].Assignments[0].Gone {
		t.Errorf("a released assignment: %v", out)
	}
	s.apply(&fsm.DeleteVolume{ID: "v1"})
	if out, _ := next(); len(out) != 1 || !out[0].Replicas[0].Deleted {
		t.Errorf("a deletion: %v", out)
	}
}

// TestDesiredParts: a large state comes in parts of bounded size, all of it once.
func TestDesiredParts(t *testing.T) {
	s := newTables(t)
	s.approve()
	const n = 2*chunkObjects + 10
	for i := range n {
		s.volume(fmt.Sprintf("v%d", i), map[bool]san.HostID{true: "h1"}[i%3 == 0])
	}
	d := &desired{role: san.RoleUnit, id: "u1", sealer: s.sealer}
	out, err := d.full(s.View())
	if err != nil {
		t.Fatal(err)
	}
	replicas, assignments := map[string]bool{}, map[string]bool{}
	for i, m := range out {
		if !m.Full || m.More != (i < len(out)-1) || len(m.Replicas)+len(m.Assignments) > chunkObjects {
			t.Errorf("part %d of %d: full %v, more %v, %d objects", i+1, len(out), m.Full, m.More, len(m.Replicas)+len(m.Assignments))
		}
		for _, r := range m.Replicas {
			replicas[r.VolumeId] = true
		}
		for _, a := range m.Assignments {
			assignments[a.VolumeId] = true
		}
	}
	if len(replicas) != n || len(assignments) != (n+2)/3 || len(out) < 3 {
		t.Errorf("%d replicas, %d assignments in %d parts", len(replicas), len(assignments), len(out))
	}
	// A station that can't open the secrets takes nothing away: it says that it can't tell.
	other, err := identity.NewSealer(identity.NewClusterKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&desired{role: san.RoleUnit, id: "u1", sealer: other}).full(s.View()); !errors.Is(err, errSecret) {
		t.Errorf("with another cluster key: %v", err)
	}
}

// TestHubRemembers: the time since an agent was heard goes on when its stream ends, until it opens
// another or is forgotten.
func TestHubRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub(HubConfig{})
		open := func() *session {
			s := &session{hub: h, key: agentKey{san.RoleUnit, "u1"}, incarnation: 3, cancel: func(error) {}}
			s.hear()
			h.enter(s)
			return s
		}
		wait := func(d time.Duration) { <-time.After(d) }
		age := func() time.Duration {
			ages := h.Ages()
			if len(ages) != 1 || ages[0].ID != "u1" || ages[0].Incarnation != 3 {
				t.Fatalf("ages %v", ages)
			}
			return ages[0].Age
		}
		s := open()
		wait(2 * time.Second)
		if age() != 2*time.Second {
			t.Errorf("a live stream's age is %v", age())
		}
		second := open()
		if h.leave(s) {
			t.Error("a stream that was replaced counted as its agent's")
		}
		wait(time.Second)
		if !h.leave(second) {
			t.Error("the agent's stream did not count as such")
		}
		wait(4 * time.Second)
		if age() != 5*time.Second {
			t.Errorf("after the stream ended the age is %v", age())
		}
		third := open()
		if age() != 0 {
			t.Errorf("after it came back the age is %v", age())
		}
		h.leave(third)
		wait(rememberLost + 1)
		if ages := h.Ages(); len(ages) > 0 || len(h.gone) > 0 {
			t.Errorf("never forgotten: %v", ages)
		}
	})
}
