package gossip

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/hashicorp/serf/serf"
)

// ErrClosed is returned by Next once the subscription or its member is closed.
var ErrClosed = errors.New("gossip subscription is closed")

// nodesPending bounds what a subscription holds for a reader that is slow; beyond, it falls back to a list of
// all members.
const nodesPending = 4096

// Subscription follows the members. However slow its reader, it holds no more than one state per node.
type Subscription struct {
	member  *Member
	mu      sync.Mutex
	pending map[string]Node
	flooded bool
	ready   chan struct{} // holds one token while there is something to read
	done    chan struct{}
	once    sync.Once
}

// Events subscribes to changes. Its first Next returns all members.
func (m *Member) Events() *Subscription {
	s := &Subscription{member: m, pending: make(map[string]Node), flooded: true, ready: make(chan struct{}, 1), done: make(chan struct{})}
	s.ready <- struct{}{}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.subs == nil {
		close(s.done)
		return s
	}
	m.subs[s] = struct{}{}
	return s
}

// Next waits for changes and returns the newest state of each node that changed since the last call, by
// name. Errors: ctx's, ErrClosed.
func (s *Subscription) Next(ctx context.Context) ([]Node, error) {
	select {
	case <-s.done:
		return nil, ErrClosed
	default:
	}
	select {
	case <-s.ready:
	case <-s.done:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	flooded := s.flooded
	s.flooded = false
	nodes := make([]Node, 0, len(s.pending))
	for _, n := range s.pending {
		nodes = append(nodes, n)
	}
	clear(s.pending)
	s.mu.Unlock()
	if flooded {
		return s.member.Members(), nil
	}
	slices.SortFunc(nodes, byName)
	return nodes, nil
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.member.mu.Lock()
	delete(s.member.subs, s)
	s.member.mu.Unlock()
	s.end()
}

func (s *Subscription) end() { s.once.Do(func() { close(s.done) }) }

func (s *Subscription) put(nodes []Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range nodes {
		if s.flooded {
			break
		}
		if s.pending[n.Name] = n; len(s.pending) > nodesPending {
			clear(s.pending)
			s.flooded = true
		}
	}
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func byName(a, b Node) int { return cmp.Compare(a.Name, b.Name) }

// drain takes serf's events, which serf waits for, and leaves them with the subscriptions.
func (m *Member) drain(done <-chan struct{}) {
	for {
		select {
		case e := <-m.events:
			if me, ok := e.(serf.MemberEvent); ok {
				m.publish(me)
			}
		case <-done:
			return
		}
	}
}

func (m *Member) publish(e serf.MemberEvent) {
	var nodes []Node
	for _, s := range e.Members {
		n, ok := nodeOf(s)
		if !ok {
			continue
		}
		if e.Type == serf.EventMemberReap {
			n.Status = StatusGone
		}
		m.log.Info("gossip member", "name", n.Name, "status", n.Status, "address", n.Addr)
		nodes = append(nodes, n)
	}
	if len(nodes) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.subs {
		s.put(nodes)
	}
}

func (m *Member) closeSubscriptions() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.subs {
		s.end()
	}
	m.subs = nil
}
