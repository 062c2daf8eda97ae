package agent

import (
	"context"

	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/san"
)

// startsFile counts the agent's starts.
const startsFile = "starts.json"

// joinCluster finds the host's identity in its folder, or enrols, and decides on the host's names. It waits for a
// station until ctx ends.
func joinCluster(ctx context.Context, cfg Config, dir *datadir.Dir) (*enrol.Member, error) {
	m, err := enrol.Find(enrol.Part{
		Dir: dir, Role: san.RoleHost, ID: string(cfg.ID), Endpoints: cfg.Join, Token: cfg.JoinToken, Initiators: cfg.Initiators, Log: cfg.Log,
		Keep: func(j enrol.Join) error {
			// What programs on the host need.
			return state.WriteHost(dir, state.Host{ID: cfg.ID, Initiators: j.Initiators, Endpoints: j.Endpoints})
		},
	})
	if err != nil {
		return nil, err
	}
	if err := m.Enrol(ctx); err != nil {
		return nil, err
	}
	names := cfg.Initiators
	if len(names) == 0 {
		names = m.Initiators()
	}
	if len(names) == 0 {
		names = []string{san.HostInitiatorName(cfg.ID)}
	}
	return m, m.SetInitiators(names)
}

// begin counts this start of the agent, stable before the number is used.
func begin(dir *datadir.Dir) (san.Incarnation, error) {
	var starts struct {
		Incarnation san.Incarnation `json:"incarnation"`
	}
	if _, err := dir.ReadJSON(startsFile, &starts); err != nil {
		return 0, err
	}
	starts.Incarnation++
	return starts.Incarnation, dir.WriteJSON(startsFile, starts)
}
