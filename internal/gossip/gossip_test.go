package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/serf/serf"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/internal/freeport"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const cluster = san.ClusterID("0b5ad9f0-2c5e-4d43-9b39-6f8a5c1d3e70")

var key = bytes.Repeat([]byte{7}, 32)

type running struct {
	*Member
	stop  context.CancelFunc
	ended chan error
}

func config(t *testing.T, name string, join ...string) Config {
	return Config{Name: name, Cluster: cluster, Key: key, Bind: "127.0.0.1:0", Timing: Fast(), LeaveAtEnd: true,
		Tags: map[string]string{"who": name}, Join: func() []string { return join },
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	m, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Member: m, stop: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- m.Run(ctx) }()
	t.Cleanup(func() { r.end(t) })
	return r
}

func (r *running) end(t *testing.T) {
	t.Helper()
	if r.ended == nil {
		return
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	r.ended = nil
}

// await follows r's events until name has the status.
func await(t *testing.T, r *running, name string, want Status) Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	sub := r.Events()
	defer sub.Close()
	last := Status("unknown")
	for {
		nodes, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("%s: %s is %s, want %s: %v", r.cfg.Name, name, last, want, err)
		}
		for _, n := range nodes {
			if n.Name == name {
				if last = n.Status; last == want {
					return n
				}
			}
		}
	}
}

func TestJoinAndTags(t *testing.T) {
	a := start(t, config(t, "station:x"))
	// A unit may bear a station's id.
	cfg := config(t, "unit:x", a.Addr())
	cfg.LeaveAtEnd, cfg.Timing.LeaveTimeout = false, 10*time.Second // which bounds SetTags too; the machine may be busy
	b := start(t, cfg)
	n := await(t, a, "unit:x", StatusAlive)
	if n.Role != san.RoleUnit || n.ID != "x" || n.Addr != b.Addr() || n.Tags["who"] != "unit:x" || len(n.Tags) != 1 {
		t.Errorf("got %+v", n)
	}
	await(t, b, "station:x", StatusAlive)
	if got := len(a.Members()); got != 2 {
		t.Errorf("%d members, want 2", got)
	}
	sub := a.Events()
	defer sub.Close()
	if err := b.SetTags(map[string]string{"spare": "yes"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		nodes, err := sub.Next(ctx)
		if err != nil {
			t.Fatal("the new tags never came")
		}
		for _, n := range nodes {
			if n.Name == "unit:x" && n.Tags["spare"] == "yes" {
				return
			}
		}
	}
}

func TestCrashLeaveAndReturn(t *testing.T) {
	a := start(t, config(t, "station:a"))
	b := start(t, config(t, "unit:b", a.Addr()))
	crashing := config(t, "unit:c", a.Addr())
	crashing.LeaveAtEnd = false
	c := start(t, crashing)
	await(t, a, "unit:b", StatusAlive)
	await(t, a, "unit:c", StatusAlive)
	c.end(t)
	await(t, a, "unit:c", StatusFailed)
	b.end(t)
	await(t, a, "unit:b", StatusLeft)
	start(t, config(t, "unit:b", a.Addr()))
	start(t, config(t, "unit:c", a.Addr()))
	await(t, a, "unit:b", StatusAlive)
	await(t, a, "unit:c", StatusAlive)
}

// A candidate that is not there yet is tried until it is; two islands become one.
func TestJoinIsRetried(t *testing.T) {
	free, err := freeport.Loopback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	later := free[0]
	a := start(t, config(t, "station:a", later))
	cfg := config(t, "station:b")
	cfg.Bind = later
	b := start(t, cfg)
	await(t, a, "station:b", StatusAlive)
	await(t, b, "station:a", StatusAlive)
}

func TestRejoinFromSnapshot(t *testing.T) {
	a := start(t, config(t, "station:a"))
	cfg := config(t, "unit:b", a.Addr())
	cfg.SnapshotPath = filepath.Join(t.TempDir(), "gossip")
	b := start(t, cfg)
	await(t, b, "station:a", StatusAlive)
	b.end(t)
	cfg.Join = nil
	b = start(t, cfg)
	await(t, b, "station:a", StatusAlive)
}

func TestForeignersAreRefused(t *testing.T) {
	a := start(t, config(t, "station:a"))
	for name, spoil := range map[string]func(*Config){
		"wrong key":     func(c *Config) { c.Key = bytes.Repeat([]byte{8}, 32) },
		"wrong cluster": func(c *Config) { c.Cluster = "7f6b9c3e-5a76-4f0f-8f58-8d2d6a3e9b11" },
	} {
		cfg := config(t, "unit:stranger")
		spoil(&cfg)
		s := start(t, cfg)
		if n, err := s.serf.Join([]string{a.Addr()}, true); err == nil || n != 0 {
			t.Errorf("%s: joined %d: %v", name, n, err)
		}
		if _, err := a.serf.Join([]string{s.Addr()}, true); err == nil {
			t.Errorf("%s: was joined", name)
		}
		if len(a.Members()) != 1 || len(s.Members()) != 1 {
			t.Errorf("%s: members %v and %v", name, a.Members(), s.Members())
		}
		s.end(t)
	}
}

// With key and label shared by mistake, the tags still tell clusters apart.
func TestMergeDelegateRefusesForeignTags(t *testing.T) {
	a := start(t, config(t, "station:a"))
	cfg := config(t, "unit:stranger")
	cfg.Cluster = "another"
	sc, err := cfg.serfConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	sc.MemberlistConfig.Label = string(cluster)
	s, err := serf.Create(sc)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	if _, err := a.serf.Join([]string{address(s.LocalMember())}, true); err == nil {
		t.Error("merged with a foreign member")
	}
	if _, err := s.Join([]string{a.Addr()}, true); err == nil {
		t.Error("was merged with a foreign member")
	}
	if len(a.Members()) != 1 {
		t.Errorf("members %v", a.Members())
	}
}

func TestPortInUse(t *testing.T) {
	a := start(t, config(t, "station:a"))
	wantTaken := func(what, address string) {
		t.Helper()
		cfg := config(t, "station:b")
		cfg.Bind = address
		_, err := Start(cfg)
		if san.KindOf(err) != san.KindConflict || !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: got %v (%v), want a conflict", what, err, san.KindOf(err))
		}
		for _, word := range []string{address, "gossip-listen", "in use by another process", "to another address"} {
			if !strings.Contains(fmt.Sprint(err), word) {
				t.Errorf("%s: %v does not say %q", what, err, word)
			}
		}
	}
	wantTaken("another member's", a.Addr())
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	wantTaken("taken in UDP alone", udp.LocalAddr().String())

	cfg := config(t, "station:b")
	cfg.Bind = "192.0.2.1:7432"
	if _, err := Start(cfg); san.KindOf(err) != san.KindInvalid || !strings.Contains(err.Error(), "gossip-listen") {
		t.Errorf("nobody's address: %v", err)
	}
}

func TestAReservationHoldsTheAddressUntilItIsReleased(t *testing.T) {
	cfg := config(t, "station:b")
	r, err := Reserve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Release(); err != nil {
		t.Fatal(err)
	}
	a := start(t, config(t, "station:a"))
	cfg.Bind = a.Addr()
	if _, err := Reserve(cfg.Bind); san.KindOf(err) != san.KindConflict {
		t.Errorf("a reservation of what is taken: %v", err)
	}
	free, err := freeport.Loopback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Bind = free[0]
	if r, err = Reserve(cfg.Bind); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(cfg); san.KindOf(err) != san.KindConflict {
		t.Errorf("a start at what is reserved: %v", err)
	}
	for range 2 {
		if err := r.Release(); err != nil {
			t.Error(err)
		}
	}
	start(t, cfg)
}

func TestConfigIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"host":          func(c *Config) { c.Name = "host:h" },
		"no role":       func(c *Config) { c.Name = "x" },
		"bad id":        func(c *Config) { c.Name = "unit:a b" },
		"no key":        func(c *Config) { c.Key = nil },
		"short key":     func(c *Config) { c.Key = key[:15] },
		"no cluster":    func(c *Config) { c.Cluster = "" },
		"bind":          func(c *Config) { c.Bind = "localhost:0" },
		"advertise":     func(c *Config) { c.Advertise = "1.2.3.4" },
		"reserved tag":  func(c *Config) { c.Tags = map[string]string{clusterTag: "x"} },
		"too many tags": func(c *Config) { c.Tags = map[string]string{"x": strings.Repeat("y", 500)} },
	} {
		cfg := config(t, "unit:a")
		spoil(&cfg)
		if m, err := Start(cfg); san.KindOf(err) != san.KindInvalid {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

// What checkTags lets pass, serf takes.
func TestTagBoundFitsSerf(t *testing.T) {
	a := start(t, config(t, "station:a"))
	rapid.Check(t, func(t *rapid.T) {
		tags := rapid.MapOfN(rapid.StringMatching(`[a-z]{1,40}`), rapid.StringMatching(`[a-z0-9]{0,300}`), 0, 12).Draw(t, "tags")
		if a.cfg.checkTags(tags) != nil {
			return
		}
		if err := a.SetTags(tags); err != nil {
			t.Fatalf("accepted by checkTags: %v", err)
		}
	})
}

// A reader that never reads holds one state per node, and then all it needs.
func TestSlowReader(t *testing.T) {
	a := start(t, config(t, "station:a"))
	sub := a.Events()
	if nodes, err := sub.Next(t.Context()); err != nil || len(nodes) != 1 || nodes[0].Name != "station:a" {
		t.Fatalf("first list %v, %v", nodes, err)
	}
	for i := range 3 * nodesPending {
		sub.put([]Node{{Name: "unit:u", ID: "u", Addr: string(rune('a' + i%20))}})
	}
	// serf's word on station:a itself may still come in between.
	nodes, err := sub.Next(t.Context())
	nodes = slices.DeleteFunc(nodes, func(n Node) bool { return n.Name == "station:a" })
	if err != nil || len(nodes) != 1 || nodes[0].Addr != string(rune('a'+(3*nodesPending-1)%20)) {
		t.Errorf("coalesced: %d nodes, %v", len(nodes), err)
	}
	flood := make([]Node, nodesPending+2)
	for i := range flood {
		flood[i].Name = strings.Repeat("x", 1+i%50) + string(rune(0x4e00+i))
	}
	sub.put(flood)
	if len(sub.pending) > nodesPending {
		t.Errorf("%d nodes pending", len(sub.pending))
	}
	if nodes, err := sub.Next(t.Context()); err != nil || len(nodes) != 1 || nodes[0].Name != "station:a" {
		t.Errorf("after a flood: %v, %v; want the list of members", nodes, err)
	}
	a.end(t)
	if _, err := sub.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := a.Events().Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("subscribed after the end: %v", err)
	}
}

func TestLinesAreBounded(t *testing.T) {
	var out bytes.Buffer
	l := newLineLogger(slog.New(slog.NewTextHandler(&out, nil)))
	for range 1000 {
		l.Printf("[ERR] memberlist: Decrypt packet failed: no key from=1.2.3.4:%d", 5)
		l.Printf("[DEBUG] nothing")
	}
	if n := strings.Count(out.String(), "\n"); n != linesAllowed {
		t.Errorf("%d lines, want %d", n, linesAllowed)
	}
	if !strings.Contains(out.String(), "level=WARN msg=\"memberlist: Decrypt") {
		t.Errorf("got %s", out.String())
	}
}

func TestCloseWithoutRun(t *testing.T) {
	m, err := Start(config(t, "unit:a"))
	if err != nil {
		t.Fatal(err)
	}
	bind := m.Addr()
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
	if err := m.Run(t.Context()); err == nil {
		t.Error("ran after it was closed")
	}
	cfg := config(t, "unit:a")
	cfg.Bind = bind
	start(t, cfg)
}

func TestNames(t *testing.T) {
	if r, id, ok := ParseName(Name(san.RoleUnit, "u1")); !ok || r != san.RoleUnit || id != "u1" {
		t.Errorf("%v %v %v", r, id, ok)
	}
	for _, bad := range []string{"", "unit", "unit:", ":x", "ghost:x", "unit:a:b"} {
		if _, _, ok := ParseName(bad); ok {
			t.Errorf("%q is taken for a part's name", bad)
		}
	}
}
