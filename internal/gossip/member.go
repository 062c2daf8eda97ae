package gossip

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/serf/serf"

	"github.com/sandbar-san/sandbar/san"
)

// Status is what the others think of a member.
type Status string

// The states of a member.
const (
	StatusAlive   Status = "alive"
	StatusLeaving Status = "leaving" // said goodbye
	StatusLeft    Status = "left"    // said goodbye and is gone
	StatusFailed  Status = "failed"  // stopped answering
	StatusGone    Status = "gone"    // left or failed a day ago, and forgotten
)

// Node is a member as this one sees it.
type Node struct {
	Name   string // role:id
	Role   san.Role
	ID     string
	Addr   string // ip:port of its gossip
	Tags   map[string]string
	Status Status
}

const (
	// eventBuffer holds serf's events until Run takes them.
	eventBuffer = 1024
	// candidatesTried bounds one answer of Config.Join.
	candidatesTried = 64
	// settledPause is how often candidates are looked at when all were reached.
	settledPause = 15 * time.Second
)

// Member is this part's membership.
type Member struct {
	cfg     Config
	log     *slog.Logger
	serf    *serf.Serf
	events  chan serf.Event
	started atomic.Bool

	mu   sync.Mutex
	subs map[*Subscription]struct{}
}

// Start opens the gossip port. The caller runs Run at once, which also closes the member; or Close if it never
// does. Errors:
// san.KindInvalid for a bad configuration or an address that can't be listened at, san.KindConflict for one that is taken.
func Start(cfg Config) (*Member, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	events := make(chan serf.Event, eventBuffer)
	sc, err := cfg.serfConfig(events)
	if err != nil {
		return nil, err
	}
	m := &Member{cfg: cfg, log: cfg.Logger, events: events, subs: make(map[*Subscription]struct{})}
	// First by hand: serf would lose the error's identity and, in failing, a goroutine.
	port, err := Reserve(cfg.Bind)
	if err != nil {
		return nil, err
	}
	if err = port.Release(); err == nil {
		m.serf, err = serf.Create(sc)
	}
	if err != nil {
		return nil, unusable(cfg.Bind, err)
	}
	return m, nil
}

// Run keeps this part a member until ctx ends: it joins the candidates, over and over, and passes events on. It
// leaves if Config.LeaveAtEnd says so, closes everything and returns nil.
func (m *Member) Run(ctx context.Context) error {
	if !m.started.CompareAndSwap(false, true) {
		return san.Errorf(san.KindInternal, "gossip of %s is run twice", m.cfg.Name)
	}
	var children sync.WaitGroup
	drained := make(chan struct{})
	children.Go(func() { m.drain(drained) })
	children.Go(func() { m.keepJoining(ctx) })
	var err error
	select {
	case <-ctx.Done():
		if m.cfg.LeaveAtEnd {
			err = m.Leave()
		}
	case <-m.serf.ShutdownCh():
		err = san.Errorf(san.KindInternal, "gossip of %s stopped by itself", m.cfg.Name)
	}
	err = errors.Join(err, m.serf.Shutdown())
	// Whatever serf still had to say has gone into the channel, or is dropped by serf itself.
	close(drained)
	children.Wait()
	m.closeSubscriptions()
	return err
}

// Close closes a member that was started and never run.
func (m *Member) Close() error {
	if !m.started.CompareAndSwap(false, true) {
		return nil
	}
	m.closeSubscriptions()
	return m.serf.Shutdown()
}

// Leave says goodbye to the others; only Run's end closes the port.
func (m *Member) Leave() error {
	return san.Wrap("leave the gossip as "+m.cfg.Name, m.serf.Leave())
}

// SetTags replaces this member's tags. If they could not be told to anybody within Timing.LeaveTimeout
// it says so; they are set, and spread, all the same.
func (m *Member) SetTags(tags map[string]string) error {
	if err := m.cfg.checkTags(tags); err != nil {
		return err
	}
	return san.Wrap("set the gossip tags of "+m.cfg.Name, m.serf.SetTags(m.cfg.allTags(tags)))
}

// Addr returns ip:port at which the others reach this member.
func (m *Member) Addr() string { return address(m.serf.LocalMember()) }

// Members returns everybody known, this member included, by name. Members whose name is no part's are left out.
func (m *Member) Members() []Node {
	var nodes []Node
	for _, s := range m.serf.Members() {
		if n, ok := nodeOf(s); ok {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, byName)
	return nodes
}

func address(s serf.Member) string {
	return net.JoinHostPort(s.Addr.String(), strconv.Itoa(int(s.Port)))
}

func nodeOf(s serf.Member) (Node, bool) {
	role, id, ok := ParseName(s.Name)
	if !ok {
		return Node{}, false
	}
	n := Node{Name: s.Name, Role: role, ID: id, Addr: address(s), Tags: make(map[string]string, len(s.Tags))}
	for k, v := range s.Tags {
		if k != clusterTag {
			n.Tags[k] = v
		}
	}
	switch s.Status {
	case serf.StatusAlive:
		n.Status = StatusAlive
	case serf.StatusLeaving:
		n.Status = StatusLeaving
	case serf.StatusLeft:
		n.Status = StatusLeft
	case serf.StatusFailed:
		n.Status = StatusFailed
	default:
		return Node{}, false
	}
	return n, true
}

// keepJoining tries candidates that are no members, sooner while there are any.
func (m *Member) keepJoining(ctx context.Context) {
	if m.cfg.Join == nil {
		return
	}
	pause := m.cfg.Timing.Retry
	for {
		missing := m.missing()
		wait := settledPause
		if m.join(missing) < len(missing) {
			wait = pause
			pause = min(2*pause, m.cfg.Timing.RetryMax)
		} else {
			pause = m.cfg.Timing.Retry
		}
		// Members that start together must not keep step.
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// join returns how many of the candidates it reached.
func (m *Member) join(candidates []string) int {
	if len(candidates) == 0 {
		return 0
	}
	// Old events are of no use: membership is all that is gossiped.
	n, err := m.serf.Join(candidates, true)
	if err != nil && m.serf.State() == serf.SerfAlive {
		m.log.Warn("gossip does not reach some candidates; trying again", "member", m.cfg.Name, "reached", n, "of", len(candidates), "error", err)
	}
	return n
}

// alive returns the addresses of the members that answer, this one included.
func (m *Member) alive() map[string]bool {
	alive := make(map[string]bool)
	for _, s := range m.serf.Members() {
		if s.Status == serf.StatusAlive {
			alive[address(s)] = true
		}
	}
	return alive
}

// missing returns the candidates that are no members.
func (m *Member) missing() []string {
	alive := m.alive()
	var missing []string
	for _, c := range m.cfg.Join() {
		if !alive[c] && len(missing) < candidatesTried {
			missing = append(missing, c)
		}
	}
	return missing
}
