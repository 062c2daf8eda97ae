package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// slowLog is a log whose disk can hang or fail.
type slowLog struct {
	raft.LogStore
	mu   sync.Mutex
	hung chan struct{}
	err  error
}

func (s *slowLog) set(hung chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hung, s.err = hung, err
}

func (s *slowLog) StoreLogs(logs []*raft.Log) error {
	s.mu.Lock()
	hung, err := s.hung, s.err
	s.mu.Unlock()
	if hung != nil {
		<-hung
	}
	if err != nil {
		return err
	}
	return s.LogStore.StoreLogs(logs)
}

type failingStable struct {
	raft.StableStore
	mu  sync.Mutex
	err error
}

func (s *failingStable) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *failingStable) SetUint64(key []byte, val uint64) error {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.StableStore.SetUint64(key, val)
}

// faulty adjusts configurations so that each station's disk can be reached by the test.
func faulty() (map[san.StationID]*slowLog, map[san.StationID]*failingStable, func(*Config)) {
	logs, stables := make(map[san.StationID]*slowLog), make(map[san.StationID]*failingStable)
	return logs, stables, func(c *Config) {
		id := c.ID
		c.wrapLog = func(l raft.LogStore) raft.LogStore {
			logs[id] = &slowLog{LogStore: l}
			return logs[id]
		}
		c.wrapStable = func(s raft.StableStore) raft.StableStore {
			stables[id] = &failingStable{StableStore: s}
			return stables[id]
		}
	}
}

func TestStalledLeaderIsReplacedAndGivesUp(t *testing.T) {
	logs, _, adjust := faulty()
	inBubble(t, Safe(), adjust, func(t *testing.T, g *group) {
		g.found(3)
		old := g.leader()
		old.mustPropose(t, "before")
		hung := make(chan struct{})
		logs[old.id].set(hung, nil)
		began := time.Now()
		outcome := make(chan error, 1)
		go func() {
			_, err := old.Propose(context.Background(), request("stuck"))
			outcome <- err
		}()
		fresh := g.leader(old.id)
		if d := time.Since(began); d > DefaultStallLimit/4+4*time.Second {
			t.Errorf("new leader after %v", d)
		}
		if old.IsLeader() {
			t.Error("the station whose disk hangs still takes itself for the leader")
		}
		fresh.mustPropose(t, "after")
		err := <-old.ended
		if d := time.Since(began); err == nil || d > 2*DefaultStallLimit {
			t.Errorf("Run ended after %v with %v", d, err)
		}
		if err := <-outcome; san.KindOf(err) != san.KindUnknown {
			t.Errorf("the stuck change: %v (%v)", err, san.KindOf(err))
		}
		if _, err := old.ReadIndex(t.Context()); err == nil {
			t.Error("a read was answered after the end")
		}
		delete(g.members, old.id)
		close(hung) // the process would be gone; here its goroutines end
		if err := old.disk.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestShortStallHeals(t *testing.T) {
	logs, _, adjust := faulty()
	inBubble(t, Safe(), adjust, func(t *testing.T, g *group) {
		g.found(3)
		old := g.leader()
		hung := make(chan struct{})
		logs[old.id].set(hung, nil)
		go old.Propose(context.Background(), request("stuck"))
		fresh := g.leader(old.id)
		res := fresh.mustPropose(t, "after")
		logs[old.id].set(nil, nil)
		close(hung)
		if err := old.WaitApplied(t.Context(), res.Index); err != nil {
			t.Fatal(err)
		}
		if err := old.Status().Failed; err != nil {
			t.Errorf("failed: %v", err)
		}
	})
}

func TestFailedWriteEndsReplica(t *testing.T) {
	broken := errors.New("input/output error")
	for _, follower := range []bool{false, true} {
		t.Run(fmt.Sprintf("follower=%v", follower), func(t *testing.T) {
			logs, _, adjust := faulty()
			inBubble(t, Safe(), adjust, func(t *testing.T, g *group) {
				g.found(3)
				l := g.leader()
				victim := l
				for _, m := range g.members {
					if follower && m != l {
						victim = m
					}
				}
				logs[victim.id].set(nil, broken)
				l.Propose(t.Context(), request("x"))
				if err := <-victim.ended; !errors.Is(err, broken) {
					t.Errorf("Run ended with %v", err)
				}
				delete(g.members, victim.id)
				g.leader(victim.id).mustPropose(t, "y")
			})
		})
	}
}

func TestFailedTermWriteEndsReplicaWithoutPanic(t *testing.T) {
	_, stables, adjust := faulty()
	broken := errors.New("input/output error")
	inBubble(t, Safe(), adjust, func(t *testing.T, g *group) {
		g.found(3)
		l := g.leader()
		var victim *member
		for _, m := range g.members {
			if m != l {
				victim = m
			}
		}
		stables[victim.id].set(broken)
		if err := l.TransferLeadership(t.Context(), victim.id); err != nil {
			t.Log("handover:", err)
		}
		if err := <-victim.ended; !errors.Is(err, broken) {
			t.Errorf("Run ended with %v", err)
		}
		delete(g.members, victim.id)
		g.leader(victim.id).mustPropose(t, "y")
	})
}

// An entry that this program does not know stops the replica before its state moves, again at each start.
func TestUnknownEntryHalts(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(1)
		m := g.leader()
		before := m.mustPropose(t, "before")
		f := m.raft.Apply([]byte("from the future"), time.Second)
		after, err := m.Propose(t.Context(), request("after"))
		// Taken by raft or refused because the end came first, but never confirmed.
		if k := san.KindOf(err); k != san.KindUnknown && k != san.KindUnavailable {
			t.Errorf("a change behind the unknown entry: %+v, %v", after, err)
		}
		for start := range 3 {
			if start > 0 {
				m = g.start("s1")
			}
			if err := <-m.ended; err == nil {
				t.Error("station went on")
			}
			if m.machine.AppliedIndex() != before.Index || !has(m.View(), "before") || has(m.View(), "after") {
				t.Errorf("start %d: applied index %d, want %d", start, m.machine.AppliedIndex(), before.Index)
			}
		}
		if err := f.Error(); err == nil {
			if _, ok := f.Response().(error); !ok {
				t.Errorf("the unknown entry was answered with %v", f.Response())
			}
		}
		clear(g.members)
	})
}

// All replicas stop at it, whichever leads; none counts it as applied.
func TestUnknownEntryHaltsFollowers(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		all := g.found(3)
		l := g.leader()
		before := l.mustPropose(t, "before")
		for _, m := range all {
			if err := m.WaitApplied(t.Context(), before.Index); err != nil {
				t.Fatal(err)
			}
		}
		l.raft.Apply([]byte("from the future"), time.Second)
		halted := 0
		for _, m := range all {
			select {
			case err := <-m.ended:
				halted++
				if err == nil {
					t.Errorf("%s ended without a reason", m.id)
				}
				delete(g.members, m.id)
			case <-time.After(10 * time.Second):
			}
			if m.machine.AppliedIndex() != before.Index {
				t.Errorf("%s: applied index %d, want %d", m.id, m.machine.AppliedIndex(), before.Index)
			}
		}
		// The last one may be alone before it learns that the entry is committed.
		if halted < 2 {
			t.Errorf("%d stations halted", halted)
		}
	})
}

func TestFolderStartedTwice(t *testing.T) {
	g := newGroup(t, nil, Fast(), nil)
	m := g.start("s1")
	_, err := Open(func() Config {
		c := g.config("s1-again")
		c.Dir = filepath.Join(g.dir, "s1")
		return c
	}())
	if san.KindOf(err) != san.KindConflict {
		t.Errorf("got %v (%v), want a conflict", err, san.KindOf(err))
	}
	m.end(t)
	again := g.start("s1")
	again.end(t)
}

func TestDamagedSnapshotIsNoticed(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"lost": os.RemoveAll,
		"cut": func(dir string) error {
			states, err := filepath.Glob(filepath.Join(dir, "*", "state.bin"))
			if err == nil && len(states) == 1 {
				err = os.Truncate(states[0], 10)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Safe(), func(c *Config) { c.TrailingEntries = 1 }, func(t *testing.T, g *group) {
				g.found(1)
				l := g.leader()
				for i := range 10 {
					l.mustPropose(t, fmt.Sprintf("k%d", i))
				}
				if err := l.TakeSnapshot(t.Context()); err != nil {
					t.Fatal(err)
				}
				g.endAll()
				clear(g.members)
				if err := damage(filepath.Join(g.dir, "s1", "snapshots")); err != nil {
					t.Fatal(err)
				}
				r, err := Open(g.config("s1"))
				if err == nil {
					r.Close()
					t.Fatal("opened")
				}
				// Nothing of the failed start is left behind.
				if _, again := Open(g.config("s1")); again == nil || again.Error() != err.Error() {
					t.Errorf("second try: %v, first: %v", again, err)
				}
			})
		})
	}
}

func TestWrittenSnapshotRestores(t *testing.T) {
	inBubble(t, Safe(), nil, func(t *testing.T, g *group) {
		g.found(1)
		l := g.leader()
		res := l.mustPropose(t, "x")
		var buf bytes.Buffer
		index, err := l.WriteSnapshot(&buf)
		if err != nil || index != res.Index {
			t.Fatalf("index %d, %v; want %d", index, err, res.Index)
		}
		m := fsm.New()
		if err := m.Restore(&buf); err != nil || !has(m.View(), "x") {
			t.Errorf("restore: %v", err)
		}
	})
}

func TestStrangersAreRefused(t *testing.T) {
	g := newGroup(t, newMemNet(), Safe(), nil)
	s1 := g.start("s1")
	other, err := identity.NewCA("7f6b9c3e-5a76-4f0f-8f58-8d2d6a3e9b11", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ca   *identity.CA
		role san.Role
		ok   bool
	}{
		"station":              {g.ca, san.RoleStation, true},
		"unit of the cluster":  {g.ca, san.RoleUnit, false},
		"station of another's": {other, san.RoleStation, false},
	} {
		cfg := g.config("s2")
		cfg.ServerTLS, cfg.ClientTLS = stationTLS(t, c.ca, c.role, "s2")
		// A client learns at its first read that it was refused.
		s := newStream(&cfg, func(raft.ServerAddress) (san.StationID, bool) { return "", false })
		conn, err := s.Dial(raft.ServerAddress(s1.addr), time.Second)
		if err == nil {
			conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if stays := errors.Is(err, os.ErrDeadlineExceeded); stays != c.ok {
			t.Errorf("%s: stays connected: %v (%v)", name, stays, err)
		}
		s.Close()
	}
	s1.end(t)
}

func TestStationAtAnothersAddressIsRefused(t *testing.T) {
	g := newGroup(t, newMemNet(), Safe(), nil)
	s1 := g.start("s1")
	cfg := g.config("s2")
	for want, ok := range map[san.StationID]bool{"s1": true, "s3": false} {
		s := newStream(&cfg, func(raft.ServerAddress) (san.StationID, bool) { return want, true })
		conn, err := s.Dial(raft.ServerAddress(s1.addr), time.Second)
		if (err == nil) != ok {
			t.Errorf("dialling s1 as %s: %v", want, err)
		}
		if err == nil {
			conn.Close()
		}
		s.Close()
		cfg.Listener = g.mem.listen(cfg.Advertise)
	}
	cfg.Listener.Close()
	s1.end(t)
}

func TestConfigIsChecked(t *testing.T) {
	g := newGroup(t, newMemNet(), Safe(), nil)
	for name, spoil := range map[string]func(*Config){
		"no name":      func(c *Config) { c.ID = "" },
		"no folder":    func(c *Config) { c.Dir = "" },
		"bad address":  func(c *Config) { c.Advertise = "nowhere" },
		"no TLS":       func(c *Config) { c.ServerTLS = nil },
		"no machine":   func(c *Config) { c.Machine = nil },
		"RPC too long": func(c *Config) { c.Timing.RPC = c.Timing.Heartbeat },
		"lease":        func(c *Config) { c.Timing.Lease = 2 * c.Timing.Heartbeat },
		"election":     func(c *Config) { c.Timing.Election = 1 },
	} {
		cfg := g.config("s1")
		spoil(&cfg)
		if r, err := Open(cfg); err == nil {
			r.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

// Over real sockets and a real disk: three stations, a leader that crashes, a restart of all.
func TestLoopback(t *testing.T) {
	g := newGroup(t, nil, Safe(), nil)
	g.found(3)
	g.commit("a")
	l := g.leader()
	g.crash(l)
	var last fsm.Result
	for i := range 10 {
		last = g.commit(fmt.Sprintf("b%d", i))
	}
	back := g.start(l.id)
	if err := back.WaitApplied(t.Context(), last.Index); err != nil {
		t.Fatal(err)
	}
	for try := 0; ; try++ {
		v, err := g.leader().ReadIndex(t.Context())
		if err == nil {
			if !has(v, "a") || !has(v, "b9") {
				t.Error("read misses what was acknowledged")
			}
			return
		}
		if try > 20 {
			t.Fatal(err)
		}
	}
}
