package agents

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// Heartbeats.
const (
	// HeartbeatEvery is how often an agent says that it lives.
	HeartbeatEvery = time.Second
	// HeartbeatLease is how long its word counts.
	HeartbeatLease = 5 * time.Second
	// silence ends a stream on which nothing came; the agent then dials anew.
	silence = 3 * HeartbeatLease
	// helloWait bounds how long a new stream may take to say who it is.
	helloWait = 5 * time.Second
	// maxStreams bounds the agents of one station.
	maxStreams = 4096
	// queueLength bounds what one agent may report ahead of what is committed.
	queueLength = 64
	// changesApart is the least time between two messages of desired state on one stream.
	changesApart = 5 * time.Millisecond
	// lostQueue bounds the lost streams that the leader is not told of yet.
	lostQueue = 256
	// rememberLost is how long a station knows when it heard an agent last whose stream ended.
	rememberLost = time.Minute
)

// Submitter hands messages of agents to the leader, wherever it is, and returns once they
// are committed (nil) or refused for good.
type Submitter interface {
	Submit(ctx context.Context, msg *pb.AgentMessage) error
}

// HubConfig is what a Hub needs.
type HubConfig struct {
	Self      san.StationID
	Machine   *fsm.Machine
	Sealer    *identity.Sealer
	Submit    Submitter
	Endpoints func() []string // API addresses of all stations
	Log       *slog.Logger
}

// Age is how long ago an agent was heard.
type Age struct {
	Role        san.Role
	ID          string
	Incarnation san.Incarnation
	Age         time.Duration
}

// Hub holds one station's streams.
type Hub struct {
	cfg HubConfig

	base time.Time // of clock

	mu      sync.Mutex
	live    map[agentKey]*session
	streams int // those not brought in yet included
	// gone are the agents whose streams ended here, so that a leader that has only just
	// been elected need not wait to find out for how long they have not been heard.
	gone map[agentKey]farewell

	lost chan *pb.AgentMessage
}

// farewell is when an agent was heard last.
type farewell struct {
	incarnation san.Incarnation
	at          time.Duration // on the hub's clock
}

type agentKey struct {
	role san.Role
	id   string
}

// NewHub makes a Hub.
func NewHub(cfg HubConfig) *Hub {
	return &Hub{cfg: cfg, base: time.Now(), live: map[agentKey]*session{}, gone: map[agentKey]farewell{}, lost: make(chan *pb.AgentMessage, lostQueue)}
}

// clock is the time since the hub began. It goes on evenly when somebody sets the machine's.
func (h *Hub) clock() time.Duration { return time.Since(h.base) }

// Run tells the leader of lost streams until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	for {
		select {
		case m := <-h.lost:
			tctx, cancel := context.WithTimeout(ctx, HeartbeatLease)
			if err := h.cfg.Submit.Submit(tctx, m); err != nil && ctx.Err() == nil {
				h.cfg.Log.Info("a lost stream could not be told to the leader", "role", m.Role, "id", m.Id, "err", err)
			}
			cancel()
		case <-ctx.Done():
			return nil
		}
	}
}

// Ages tells how long ago each agent was heard that holds a stream to this station or did so a
// moment ago, by role and id.
func (h *Hub) Ages() []Age {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Age, 0, len(h.live))
	for k, s := range h.live {
		out = append(out, Age{Role: k.role, ID: k.id, Incarnation: s.incarnation, Age: s.silentFor()})
	}
	for k, f := range h.gone {
		age := h.clock() - f.at
		if age > rememberLost {
			delete(h.gone, k)
			continue
		}
		out = append(out, Age{Role: k.role, ID: k.id, Incarnation: f.incarnation, Age: age})
	}
	slices.SortFunc(out, func(a, b Age) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// admit counts one more stream; dismiss counts it out.
func (h *Hub) admit() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams >= maxStreams {
		return san.Errorf(san.KindUnavailable, "station %s holds %d agents' streams, its limit; use another station", h.cfg.Self, h.streams)
	}
	h.streams++
	return nil
}

func (h *Hub) dismiss() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams--
}

// enter makes s its agent's stream; the one before it is ended.
func (h *Hub) enter(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.live[s.key]; old != nil {
		old.cancel(errReplaced)
	}
	h.live[s.key] = s
	delete(h.gone, s.key)
}

// leave removes s and tells whether it was still its agent's stream.
func (h *Hub) leave(s *session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live[s.key] != s {
		return false
	}
	delete(h.live, s.key)
	if len(h.gone) < maxStreams {
		h.gone[s.key] = farewell{incarnation: s.incarnation, at: time.Duration(s.lastHeard.Load())}
	}
	return true
}
