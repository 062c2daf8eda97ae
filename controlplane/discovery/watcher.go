package discovery

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// roundEvery is how often all are looked at when nothing hints at a loss.
	roundEvery = 2 * time.Second
	// settle is how long a hint waits, so that gossip can come to the same view.
	settle = 250 * time.Millisecond
	// probeTimeout bounds one probe.
	probeTimeout = 1500 * time.Millisecond
	// probesAtOnce bounds how many run.
	probesAtOnce = 16
)

// Heartbeat is an agent's youngest heartbeat at some station.
type Heartbeat struct {
	Role        san.Role
	ID          string
	Incarnation san.Incarnation
	Age         time.Duration
}

// World is what the watcher asks for.
type World interface {
	View() fsm.View
	// Heartbeats gathers the ages from all stations; silent counts those that did not answer.
	Heartbeats(ctx context.Context) (ages []Heartbeat, silent int)
	// GossipStatus is alive, left, failed or "" for a part.
	GossipStatus(role san.Role, id string) string
	// Probe asks a unit at its own address whether it serves, as the incarnation named.
	Probe(ctx context.Context, u *fsm.Unit) error
	// Propose commits a command.
	Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error)
}

// Watcher finds lost agents.
type Watcher struct {
	world World
	lease time.Duration
	log   *slog.Logger
	hint  chan struct{}
}

// NewWatcher makes a Watcher; lease is how long a heartbeat counts.
func NewWatcher(w World, lease time.Duration, log *slog.Logger) *Watcher {
	return &Watcher{world: w, lease: lease, log: log, hint: make(chan struct{}, 1)}
}

// Hint makes the next round come soon. It never blocks.
func (w *Watcher) Hint() {
	select {
	case w.hint <- struct{}{}:
	default:
	}
}

// Run looks at all agents, round after round, until ctx (the term) ends.
func (w *Watcher) Run(ctx context.Context) error {
	started := time.Now()
	due := started.Add(roundEvery)
	timer := time.NewTimer(roundEvery)
	defer timer.Stop()
	for {
		select {
		case <-w.hint:
			// A hint brings the next round forward and never puts it off: hints may come without end.
			if soon := time.Now().Add(settle); soon.Before(due) {
				due = soon
				timer.Reset(settle)
			}
			continue
		case <-timer.C:
			due = time.Now().Add(roundEvery)
			timer.Reset(roundEvery)
		case <-ctx.Done():
			return nil
		}
		w.round(ctx, time.Since(started) > w.lease)
	}
}

// round looks at all agents once. Of those that no station can tell when it heard them, none is
// judged before the term is settled: the agents of a station that died need a moment to dial another.
func (w *Watcher) round(ctx context.Context, settled bool) {
	v := w.world.View()
	ages, silent := w.world.Heartbeats(ctx)
	youngest := map[string]time.Duration{}
	for _, a := range ages {
		k := string(a.Role) + ":" + a.ID
		if age, ok := youngest[k]; !ok || a.Age < age {
			youngest[k] = a.Age
		}
	}
	evidence := func(role san.Role, id string) Evidence {
		e := Evidence{Age: -1, Silent: silent, Gossip: w.world.GossipStatus(role, id)}
		if age, ok := youngest[string(role)+":"+id]; ok {
			e.Age = age
		}
		return e
	}
	var wg errgroup.Group
	wg.SetLimit(probesAtOnce)
	for _, u := range v.Units() {
		e := evidence(san.RoleUnit, string(u.ID))
		if (u.State == fsm.UnitOnline || u.State == fsm.UnitStarting) && (settled || e.Age >= 0) {
			wg.Go(func() error { w.unit(ctx, u, e); return nil })
		}
	}
	for _, h := range v.Hosts() {
		e := evidence(san.RoleHost, string(h.ID))
		if h.State == fsm.HostOnline && (settled || e.Age >= 0) {
			wg.Go(func() error { w.host(ctx, h, e); return nil })
		}
	}
	_ = wg.Wait() // the functions return no errors
}

func (w *Watcher) unit(ctx context.Context, u *fsm.Unit, e Evidence) {
	verdict, reason := judgeUnit(e, w.lease)
	if verdict == NeedProbe {
		pctx, cancel := context.WithTimeout(ctx, probeTimeout)
		e.Probe, e.Probed = w.world.Probe(pctx, u), true
		cancel()
		verdict, reason = judgeUnit(e, w.lease)
	}
	if verdict != Lost && verdict != Gone || ctx.Err() != nil {
		return
	}
	// While it was probed it may have come back, maybe as the same incarnation.
	if now := w.world.View().Unit(u.ID); now == nil || now.Meta.ModifyIndex != u.Meta.ModifyIndex {
		return
	}
	state := fsm.UnitUnreachable
	if verdict == Gone {
		state = fsm.UnitStopped
	}
	w.log.Warn("unit is lost", "unit", u.ID, "incarnation", u.Incarnation, "state", state, "reason", reason)
	w.propose(ctx, &fsm.SetUnitState{H: w.header(), ID: u.ID, Incarnation: u.Incarnation, State: state, Reason: reason})
}

func (w *Watcher) host(ctx context.Context, h *fsm.Host, e Evidence) {
	verdict, reason := judgeHost(e, w.lease)
	if verdict != Lost || ctx.Err() != nil {
		return
	}
	if now := w.world.View().Host(h.ID); now == nil || now.Meta.ModifyIndex != h.Meta.ModifyIndex {
		return
	}
	w.log.Warn("host's agent is offline", "host", h.ID, "reason", reason)
	w.propose(ctx, &fsm.SetHostState{H: w.header(), ID: h.ID, CertSerial: h.CertSerial, Incarnation: h.Incarnation, State: fsm.HostOffline, Addresses: h.Addresses, Version: h.Version, Initiators: h.Initiators})
}

func (w *Watcher) header() fsm.Header {
	return fsm.Header{At: time.Now().UTC().Truncate(time.Millisecond), Principal: "discovery"}
}

func (w *Watcher) propose(ctx context.Context, cmd fsm.Command) {
	if res, err := w.world.Propose(ctx, cmd); err != nil || res.Err != nil {
		w.log.Info("discovery's proposal was not taken; the next round looks again", "err", err, "refused", res.Err)
	}
}

// Suspects is told of lost streams by controlplane/agents; it wakes the watcher of the
// present term, if there is one.
type Suspects struct {
	mu  sync.Mutex
	now *Watcher
}

// Set makes w the one to be woken; nil for none.
func (s *Suspects) Set(w *Watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = w
}

// Suspect wakes the watcher.
func (s *Suspects) Suspect(san.Role, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil {
		s.now.Hint()
	}
}
