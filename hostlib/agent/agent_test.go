package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/hostlib/internal/stationtest"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ready  = pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY
	failed = pb.ReportKind_REPORT_KIND_ASSIGNMENT_ERROR
)

func config(t *testing.T, s *stationtest.Station) Config {
	return Config{
		Data: filepath.Join(t.TempDir(), "host"), ID: "host-1", Join: []string{s.Endpoint()}, JoinToken: s.JoinToken(),
		Version: "test", Log: stationtest.Log(t),
	}
}

// start runs an agent until stop, which returns what Run did.
func start(t *testing.T, cfg Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func testVolume(i int, generation uint64) stationtest.Volume {
	return stationtest.Volume{
		ID: fmt.Sprintf("id-%d", i), Name: fmt.Sprintf("data-%d", i), SizeBytes: 1 << 20, Host: "host-1", Generation: generation, Agent: true,
		Path:     &pb.Path{UnitId: "unit-1", Portal: "192.0.2.1:3260", TargetIqn: "iqn.2026-11.io.sandbar:unit-1:id", EndLba: 2047},
		CHAPUser: "user", CHAPSecret: "a secret",
	}
}

func read(t *testing.T, cfg Config) state.State {
	t.Helper()
	s, err := state.Read(cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAssignmentsAreKeptThenConfirmed(t *testing.T) {
	s := stationtest.New(t)
	s.Put(testVolume(1, 3))
	cfg := config(t, s)
	stop := start(t, cfg)
	hello := s.AwaitHellos(1)
	if hello.Incarnation != 1 || hello.Version != "test" || len(hello.Addresses) == 0 || len(hello.Initiators) != 1 || hello.Initiators[0] != san.HostInitiatorName("host-1") {
		t.Errorf("hello %v", hello)
	}
	s.AwaitReport(ready, "id-1", 3)
	s.Put(testVolume(2, 1))
	s.AwaitReport(ready, "id-2", 1)
	got := read(t, cfg)
	if a := got.Find("data-1"); len(got.Assignments) != 2 || a == nil || a.Generation != 3 || a.CHAPSecret != "a secret" || a.Paths[0].Portal != "192.0.2.1:3260" || a.Paths[0].EndLBA != 2047 {
		t.Errorf("kept %+v", got)
	}
	info, err := os.Stat(filepath.Join(cfg.Data, state.FileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	h, err := state.ReadHost(cfg.Data)
	if err != nil || h.ID != "host-1" || len(h.Endpoints) == 0 || len(h.Initiators) != 1 {
		t.Errorf("host %+v, %v", h, err)
	}
	release := testVolume(1, 4)
	release.Releasing = true
	s.Put(release)
	s.Put(testVolume(3, 1))
	s.AwaitReport(ready, "id-3", 1)
	if got := read(t, cfg); got.Find("id-1") != nil || got.Find("id-2") == nil {
		t.Errorf("after a release: %+v", got)
	}
	gone := testVolume(2, 1)
	gone.Host = ""
	s.Put(gone)
	s.Put(testVolume(3, 2))
	s.AwaitReport(ready, "id-3", 2)
	if got := read(t, cfg); got.Find("id-2") != nil || len(got.Assignments) != 1 {
		t.Errorf("after an assignment went: %+v", got)
	}
	stop()
	s.AwaitGoodbye()
}

func TestRestartWithAndWithoutStation(t *testing.T) {
	s := stationtest.New(t)
	s.Put(testVolume(1, 1))
	s.Put(testVolume(2, 1))
	cfg := config(t, s)
	cfg.Initiators = []string{"iqn.2026-11.io.sandbar.test:Big-Name"}
	stop := start(t, cfg)
	s.AwaitReport(ready, "id-2", 1)
	stop()
	s.Drop("id-2") // while the agent was away
	s.ForgetReports()
	s.Stop()
	again := cfg
	again.Join, again.JoinToken, again.Initiators = nil, "", nil
	stop = start(t, again)
	if got := read(t, cfg); len(got.Assignments) != 2 {
		t.Errorf("with no station: %+v", got)
	}
	s.Restart()
	hello := s.AwaitHellos(2)
	if hello.Incarnation != 2 || hello.Initiators[0] != "iqn.2026-11.io.sandbar.test:big-name" {
		t.Errorf("hello %v", hello)
	}
	s.AwaitReport(ready, "id-1", 1)
	if got := read(t, cfg); len(got.Assignments) != 1 {
		t.Errorf("what a full state lacks: %+v", got)
	}
	stop()
}

// What a station tells of where stations are, and what a hand left in the folder, must not end the next start.
func TestAddressesThatCannotBeDialledAreNoObstacle(t *testing.T) {
	s := stationtest.New(t)
	s.TellOf("192.0.2.7:7000", "station-without-a-port")
	cfg := config(t, s)
	stop := start(t, cfg)
	s.AwaitHellos(1)
	s.Put(testVolume(1, 1))
	s.AwaitReport(ready, "id-1", 1) // after the welcome
	stop()
	again := cfg
	again.Join, again.JoinToken = nil, ""
	stop = start(t, again)
	s.AwaitHellos(2)
	stop()

	spoilt := fmt.Sprintf(`{"endpoints": ["station-without-a-port", %q]}`, s.Endpoint())
	if err := os.WriteFile(filepath.Join(cfg.Data, "join.json"), []byte(spoilt), 0o600); err != nil {
		t.Fatal(err)
	}
	stop = start(t, again)
	s.AwaitHellos(3)
	if h, err := state.ReadHost(cfg.Data); err != nil || !slices.Equal(h.Endpoints, []string{s.Endpoint()}) {
		t.Errorf("programs are told of %v, %v", h.Endpoints, err)
	}
	stop()
}

func TestConfirmsAgainOnEachStream(t *testing.T) {
	s := stationtest.New(t)
	s.Put(testVolume(1, 1))
	start(t, config(t, s))
	s.AwaitReport(ready, "id-1", 1)
	s.ForgetReports()
	s.Stop()
	s.Restart()
	s.AwaitReport(ready, "id-1", 1)
}

func TestStaleStationIsRefused(t *testing.T) {
	s := stationtest.New(t)
	s.Put(testVolume(1, 1))
	cfg := config(t, s)
	start(t, cfg)
	s.AwaitReport(ready, "id-1", 1)
	s.Send(&pb.DesiredState{Full: true, Stamp: &pb.Stamp{ClusterGeneration: 1, Index: 2}})
	s.AwaitHellos(2) // it turned to another stream
	if got := read(t, cfg); got.Find("id-1") == nil {
		t.Error("a stale state took an assignment away")
	}
}

func TestNonsenseIsReported(t *testing.T) {
	s := stationtest.New(t)
	s.Put(testVolume(1, 1))
	cfg := config(t, s)
	start(t, cfg)
	s.AwaitReport(ready, "id-1", 1)
	bad := testVolume(1, 2)
	bad.SizeBytes = 1000
	s.Put(bad)
	if r := s.AwaitReport(failed, "id-1", 2); r.Error == "" {
		t.Error("no reason")
	}
	if a := read(t, cfg).Assignments[0]; a.Generation != 1 {
		t.Errorf("nonsense was kept: %+v", a)
	}
}

func TestWhatCantBeKeptIsNotConfirmed(t *testing.T) {
	s := stationtest.New(t)
	cfg := config(t, s)
	start(t, cfg)
	s.AwaitHellos(1)
	file := filepath.Join(cfg.Data, state.FileName)
	s.Put(testVolume(2, 1))
	s.AwaitReport(ready, "id-2", 1)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	// A folder in the file's place stops root too.
	if err := os.MkdirAll(filepath.Join(file, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Put(testVolume(1, 1))
	s.AwaitReport(failed, "id-1", 1)
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	s.AwaitReport(ready, "id-1", 1)
}

func TestCertificateIsRenewed(t *testing.T) {
	s := stationtest.New(t)
	s.SetLifetime(time.Minute) // a certificate's life begins some minutes before it is signed: this one's is nearly over
	start(t, config(t, s))
	s.AwaitCertificates(2)
	s.AwaitHellos(2) // the stream was begun anew, with the new certificate
}

func TestRefusals(t *testing.T) {
	s, other := stationtest.New(t), stationtest.New(t)
	good := config(t, s)
	stop := start(t, good)
	s.AwaitHellos(1)
	for name, c := range map[string]struct {
		edit func(*Config)
		kind san.Kind
	}{
		"folder in use":     {func(*Config) {}, san.KindConflict},
		"no name":           {func(c *Config) { c.ID = "" }, san.KindInvalid},
		"wrong initiator":   {func(c *Config) { c.Initiators = []string{"me"} }, san.KindInvalid},
		"too many names":    {func(c *Config) { c.Initiators = make([]string, san.MaxInitiatorsPerHost+1) }, san.KindInvalid},
		"no folder":         {func(c *Config) { c.Data = "" }, san.KindInvalid},
		"no token":          {func(c *Config) { c.Data += "2"; c.JoinToken = "" }, san.KindInvalid},
		"no station":        {func(c *Config) { c.Data += "3"; c.Join = nil }, san.KindInvalid},
		"token is nonsense": {func(c *Config) { c.Data += "5"; c.JoinToken = "x" }, san.KindUnauthenticated},
	} {
		cfg := good
		c.edit(&cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if err := Run(ctx, cfg); san.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	stop()
	cfg := good
	cfg.JoinToken = other.JoinToken()
	if err := Run(t.Context(), cfg); san.KindOf(err) != san.KindConflict {
		t.Errorf("the folder of another cluster: %v", err)
	}
	cfg = good
	cfg.ID = "host-2"
	if err := Run(t.Context(), cfg); san.KindOf(err) != san.KindConflict {
		t.Errorf("the folder of another host: %v", err)
	}
}
