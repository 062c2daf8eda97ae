package discovery

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

const lease = 5 * time.Second

func TestJudgeUnit(t *testing.T) {
	dead := errors.New("connection refused")
	for _, x := range []struct {
		name string
		e    Evidence
		want Verdict
		says string
	}{
		{"heard just now", Evidence{Age: 0, Gossip: "failed"}, Alive, "heartbeat"},
		{"heard within the lease", Evidence{Age: lease - 1, Gossip: "failed", Probe: dead, Probed: true}, Alive, "heartbeat"},
		{"lease over, gossip sees it", Evidence{Age: lease, Gossip: "alive"}, Alive, "gossip"},
		{"no stream, gossip sees it", Evidence{Age: -1, Gossip: "alive", Probe: dead, Probed: true}, Alive, "gossip"},
		{"no stream, gossip lost it", Evidence{Age: -1, Gossip: "failed"}, NeedProbe, "heartbeat"},
		{"lease over, gossip never knew it", Evidence{Age: lease}, NeedProbe, "gossip"},
		{"all lost, it answers", Evidence{Age: -1, Gossip: "failed", Probed: true}, Alive, "probes"},
		{"left, it answers", Evidence{Age: -1, Gossip: "left", Probed: true}, Alive, "probes"},
		{"all lost", Evidence{Age: -1, Gossip: "failed", Probe: dead, Probed: true}, Lost, "gossip says failed, the probe failed: connection refused"},
		{"all lost, unknown to gossip", Evidence{Age: time.Hour, Probe: dead, Probed: true}, Lost, "gossip says unknown"},
		{"left, silent", Evidence{Age: -1, Gossip: "left", Probe: dead, Probed: true}, Gone, "in order"},
		{"silent stations change nothing", Evidence{Age: -1, Silent: 2, Gossip: "failed", Probe: dead, Probed: true}, Lost, ""},
	} {
		if got, why := judgeUnit(x.e, lease); got != x.want || !strings.Contains(why, x.says) {
			t.Errorf("%s: %v (%s), want %v (%s)", x.name, got, why, x.want, x.says)
		}
	}
}

func TestJudgeHost(t *testing.T) {
	for _, x := range []struct {
		name string
		e    Evidence
		want Verdict
	}{
		{"heard", Evidence{Age: lease - 1}, Alive},
		{"lease over", Evidence{Age: lease}, Lost},
		{"no stream", Evidence{Age: -1}, Lost},
		{"no stream, a station did not answer", Evidence{Age: -1, Silent: 1}, Alive},
	} {
		if got, _ := judgeHost(x.e, lease); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

// stage is a world of one unit and one host.
type stage struct {
	t       *testing.T
	machine *fsm.Machine
	index   san.Index

	mu       sync.Mutex
	rounds   int
	probes   int
	ages     []Heartbeat
	gossip   string
	probe    error
	onProbe  func()
	proposed []fsm.Command
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, machine: fsm.New(), probe: errors.New("dead"), gossip: "failed"}
	at := fsm.Header{At: time.Unix(1e9, 0)}
	s.apply(&fsm.InitCluster{H: at, ID: "c", CACertPEM: []byte("x"), CAKeySealed: []byte("x"), JoinTokens: []fsm.JoinToken{
		{ID: "u", Name: "u", Role: san.RoleUnit, SecretHash: []byte("x"), Approve: true},
		{ID: "h", Name: "h", Role: san.RoleHost, SecretHash: []byte("x")},
	}})
	s.apply(&fsm.Enrol{H: at, Role: san.RoleUnit, ID: "u1", CertSerial: "1", JoinToken: "u"})
	s.apply(&fsm.Enrol{H: at, Role: san.RoleHost, ID: "h1", CertSerial: "2", JoinToken: "h"})
	s.start(1)
	s.apply(&fsm.SetHostState{H: at, ID: "h1", CertSerial: "2", Incarnation: 1, State: fsm.HostOnline})
	return s
}

// start brings the unit online.
func (s *stage) start(incarnation san.Incarnation) {
	at := fsm.Header{At: time.Unix(1e9, 0)}
	s.apply(&fsm.UnitStarted{H: at, ID: "u1", CertSerial: "1", Incarnation: incarnation, APIAddress: "a:1", Portal: "a:2"})
	s.apply(&fsm.UnitStorage{H: at, ID: "u1", CertSerial: "1", Incarnation: incarnation})
}

func (s *stage) apply(cmd fsm.Command) fsm.Result {
	b, err := fsm.Encode(cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock() // a probe may apply while another of the round's goroutines proposes
	defer s.mu.Unlock()
	s.index++
	res, err := s.machine.Apply(s.index, b)
	if err != nil || res.Err != nil {
		s.t.Fatalf("%T: %v, %v", cmd, err, res.Err)
	}
	return res
}

func (s *stage) View() fsm.View { return s.machine.View() }

func (s *stage) Heartbeats(context.Context) ([]Heartbeat, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rounds++
	return s.ages, 0
}

func (s *stage) GossipStatus(san.Role, string) string { return s.gossip }

func (s *stage) Probe(context.Context, *fsm.Unit) error {
	s.mu.Lock()
	s.probes++
	s.mu.Unlock()
	if s.onProbe != nil {
		s.onProbe()
	}
	return s.probe
}

func (s *stage) Propose(_ context.Context, cmd fsm.Command) (fsm.Result, error) {
	s.mu.Lock()
	s.proposed = append(s.proposed, cmd)
	s.mu.Unlock()
	return s.apply(cmd), nil
}

func (s *stage) watch(hints *Suspects, span time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), span)
	defer cancel()
	w := NewWatcher(s, lease, slog.New(slog.DiscardHandler))
	hints.Set(w)
	defer hints.Set(nil)
	if err := w.Run(ctx); err != nil {
		s.t.Error(err)
	}
}

func TestWatcher(t *testing.T) {
	unit := func(s *stage) fsm.UnitState { return s.View().Unit("u1").State }
	host := func(s *stage) fsm.HostState { return s.View().Host("h1").State }
	t.Run("lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.watch(&Suspects{}, lease-time.Millisecond)
			if unit(s) != fsm.UnitOnline || host(s) != fsm.HostOnline || s.rounds == 0 {
				t.Error("agents were judged before those of a lost station could dial another")
			}
			s.watch(&Suspects{}, lease+2*roundEvery)
			if unit(s) != fsm.UnitUnreachable || host(s) != fsm.HostOffline || s.probes != 1 {
				t.Errorf("unit %s, host %s, %d probes", unit(s), host(s), s.probes)
			}
			if len(s.proposed) != 2 {
				t.Errorf("proposed %v", s.proposed)
			}
		})
	})
	t.Run("heard at one station", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.ages = []Heartbeat{{san.RoleUnit, "u1", 1, time.Hour}, {san.RoleUnit, "u1", 1, time.Second}, {san.RoleHost, "h1", 1, 0}}
			s.watch(&Suspects{}, lease+2*roundEvery)
			if len(s.proposed) != 0 || s.probes != 0 {
				t.Errorf("proposed %v after %d probes", s.proposed, s.probes)
			}
		})
	})
	t.Run("silent since before the term", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.ages = []Heartbeat{{san.RoleUnit, "u1", 1, lease}, {san.RoleHost, "h1", 1, lease}}
			s.watch(&Suspects{}, roundEvery+time.Millisecond)
			if unit(s) != fsm.UnitUnreachable || host(s) != fsm.HostOffline {
				t.Errorf("unit %s, host %s: a new leader began to count from zero", unit(s), host(s))
			}
		})
	})
	t.Run("left", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.gossip = "left"
			s.watch(&Suspects{}, lease+2*roundEvery)
			if unit(s) != fsm.UnitStopped {
				t.Errorf("a unit that left is %s", unit(s))
			}
		})
	})
	t.Run("back during the probe", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.onProbe = sync.OnceFunc(func() { s.start(2) })
			// One round after the lease: the probe goes on failing, and a second would believe it.
			s.watch(&Suspects{}, lease+roundEvery)
			if unit(s) != fsm.UnitOnline {
				t.Errorf("a unit that came back while it was probed is %s", unit(s))
			}
		})
	})
	t.Run("hints", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.gossip = "alive"
			hints := &Suspects{}
			hints.Suspect(san.RoleUnit, "u1") // nobody watches: nothing happens
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.watch(hints, lease+20*time.Second)
			}()
			tick := time.NewTicker(settle / 2)
			defer tick.Stop()
			for range 160 { // 20 s of hints without a pause
				<-tick.C
				hints.Suspect(san.RoleUnit, "u1")
			}
			<-done
			if s.rounds < 15 {
				t.Errorf("%d rounds in 15 s: hints that never end put the rounds off", s.rounds)
			}
		})
	})
}
