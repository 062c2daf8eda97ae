package daemon

import (
	"io"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/config"
	"github.com/sandbar-san/sandbar/hostlib/agent"
	"github.com/sandbar-san/sandbar/san"
)

const keyInitiator = "initiator"

// HostKeys are the settings of `sandbar host run`.
func HostKeys() config.Keys {
	return common("host", config.Key{Name: keyInitiator, Kind: config.List,
		Help: "initiator name that this host may log in with; repeatable; without it: one made from its id"})
}

// Host makes a host agent's configuration; its log goes to stderr.
func Host(v *config.Values, version string, stderr io.Writer) (agent.Config, error) {
	id, err := identityOf(v, "host")
	if err != nil {
		return agent.Config{}, err
	}
	token, err := memberToken(v, "host", id)
	if err != nil {
		return agent.Config{}, err
	}
	return agent.Config{
		Data: v.Text(keyData), ID: san.HostID(id), Initiators: v.List(keyInitiator),
		Join: v.List(keyJoin), JoinToken: token, Version: version, Log: logger(v, stderr),
	}, nil
}
