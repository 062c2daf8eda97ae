package controlplane

import (
	"context"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/agents"
	"github.com/sandbar-san/sandbar/controlplane/discovery"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/controlplane/rpc"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/gossip"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// Gossip tags.
const (
	tagAPI     = "api"
	tagRaft    = "raft"
	tagVersion = "v"
)

// members is what this station knows of the others: the tables' rows decide, gossip fills in
// what they don't have yet.
type members struct {
	self    san.StationID
	replica *replica.Replica
	gossip  *gossip.Member
	client  *stationclient.Client // with this station's certificate
}

// APIAddress implements rpc.Peers.
func (m *members) APIAddress(id san.StationID) string {
	if row := m.replica.View().Station(id); row != nil {
		return row.APIAddress
	}
	if n, ok := m.node(san.RoleStation, string(id)); ok {
		return n.Tags[tagAPI]
	}
	return ""
}

// Client implements rpc.Peers.
func (m *members) Client() *stationclient.Client { return m.client }

func (m *members) node(role san.Role, id string) (gossip.Node, bool) {
	for _, n := range m.gossip.Members() {
		if n.Role == role && n.ID == id {
			return n, true
		}
	}
	return gossip.Node{}, false
}

// Endpoints implements rpc.Stations.
func (m *members) Endpoints() []string {
	var out []string
	for _, row := range m.replica.View().Stations() {
		if row.APIAddress != "" { // one that has enrolled and not yet run has none
			out = append(out, row.APIAddress)
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, n := range m.gossip.Members() {
		if n.Role == san.RoleStation && n.Tags[tagAPI] != "" {
			out = append(out, n.Tags[tagAPI])
		}
	}
	return out
}

// others are the API addresses of the other stations.
func (m *members) others() []string {
	var out []string
	for _, row := range m.replica.View().Stations() {
		if row.ID != m.self && row.APIAddress != "" {
			out = append(out, row.APIAddress)
		}
	}
	return out
}

// GossipAddresses implements rpc.Stations.
func (m *members) GossipAddresses() []string {
	var out []string
	for _, row := range m.replica.View().Stations() {
		if row.GossipAddress != "" {
			out = append(out, row.GossipAddress)
		}
	}
	return out
}

// Suffrage implements rpc.Stations.
func (m *members) Suffrage(id san.StationID) string {
	for _, s := range m.replica.Configuration() {
		if s.ID == id {
			if s.Voter {
				return "Voter"
			}
			return "Nonvoter"
		}
	}
	return rpc.SuffrageNone
}

// GossipStatus implements rpc.Stations.
func (m *members) GossipStatus(id san.StationID) string {
	if n, ok := m.node(san.RoleStation, string(id)); ok {
		return string(n.Status)
	}
	return "unknown"
}

// world is what discovery asks for.
type world struct {
	*members
	hub *agents.Hub
}

var _ discovery.World = (*world)(nil)

// View implements discovery.World.
func (w *world) View() fsm.View { return w.replica.View() }

// Propose implements discovery.World.
func (w *world) Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	return w.replica.Propose(ctx, cmd)
}

// GossipStatus implements discovery.World.
func (w *world) GossipStatus(role san.Role, id string) string {
	n, ok := w.node(role, id)
	if !ok {
		return ""
	}
	var unit *fsm.Unit
	if role == san.RoleUnit {
		unit = w.View().Unit(san.UnitID(id))
	}
	return statusOf(n, unit)
}

// statusOf is what gossip's view of a part is worth. A goodbye is of one start of a unit: one that has
// started since, and crashed before all had heard of it, did not leave in order.
func statusOf(n gossip.Node, unit *fsm.Unit) string {
	if unit != nil && n.Status == gossip.StatusLeft && n.Tags[gossip.IncarnationTag] != strconv.FormatUint(uint64(unit.Incarnation), 10) {
		return ""
	}
	return string(n.Status)
}

// askTimeout bounds one question to another station.
const askTimeout = time.Second

// known tells whether a station belongs to the cluster. Before the bootstrap everyone with a
// certificate does; those that founded it are in the Raft group before they are in the tables.
func (m *members) known(id san.StationID) bool {
	v := m.replica.View()
	return v.Cluster() == nil || v.Station(id) != nil || m.Suffrage(id) != rpc.SuffrageNone
}

// Heartbeats implements discovery.World: this station's own streams and those of all
// others that answer. One that does not answer counts as silent only while gossip sees it: a
// station that is down holds no streams.
func (w *world) Heartbeats(ctx context.Context) (ages []discovery.Heartbeat, silent int) {
	for _, a := range w.hub.Ages() {
		ages = append(ages, discovery.Heartbeat{Role: a.Role, ID: a.ID, Incarnation: a.Incarnation, Age: a.Age})
	}
	rows := slices.DeleteFunc(w.replica.View().Stations(), func(s *fsm.Station) bool { return s.ID == w.self || s.APIAddress == "" })
	answers := make([][]*pb.HeartbeatAge, len(rows))
	failed := make([]bool, len(rows))
	var g errgroup.Group
	for i, row := range rows {
		g.Go(func() error {
			actx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			resp, err := w.client.Peers(row.APIAddress).HeartbeatAges(actx, connect.NewRequest(&pb.HeartbeatAgesRequest{}))
			if failed[i] = err != nil; err == nil {
				answers[i] = resp.Msg.Ages
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return no errors
	for i, row := range rows {
		if failed[i] && w.GossipStatus(san.RoleStation, string(row.ID)) == string(gossip.StatusAlive) {
			silent++
		}
		for _, a := range answers[i] {
			ages = append(ages, discovery.Heartbeat{Role: san.Role(a.Role), ID: a.Id, Incarnation: san.Incarnation(a.Incarnation), Age: time.Duration(a.AgeMillis) * time.Millisecond})
		}
	}
	return ages, silent
}

// Probe implements discovery.World.
func (w *world) Probe(ctx context.Context, u *fsm.Unit) error {
	resp, err := w.client.Probes(u.APIAddress).Probe(ctx, connect.NewRequest(&pb.ProbeRequest{}))
	switch {
	case err != nil:
		return err
	case resp.Msg.UnitId != string(u.ID):
		return san.Errorf(san.KindConflict, "unit %s answers at the address of unit %s", resp.Msg.UnitId, u.ID)
	case san.Incarnation(resp.Msg.Incarnation) != u.Incarnation:
		return san.Errorf(san.KindConflict, "incarnation %d answers, not %d", resp.Msg.Incarnation, u.Incarnation)
	}
	return nil
}
