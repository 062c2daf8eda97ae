package daemon

import (
	"io"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/config"
	"github.com/sandbar-san/sandbar/controlplane"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/san"
)

const (
	keyBootstrapExpect = "bootstrap-expect"
	keyRaftTiming      = "raft-timing"
)

// StationKeys are the settings of `sandbar station run`.
func StationKeys() config.Keys {
	var own []config.Key
	own = append(own, address("api", "the API, which serves operators, units and hosts", "0.0.0.0:7420")...)
	own = append(own, address("raft", "the stations' Raft group", "0.0.0.0:7421")...)
	own = append(own, address("gossip", "the gossip of stations and units", "0.0.0.0:7422")...)
	own = append(own,
		config.Key{Name: keyBootstrapExpect, Kind: config.Number, Default: 3, Help: "how many stations found the cluster: 1, 3 or 5"},
		config.Key{Name: keyRaftTiming, Default: "safe", OneOf: []string{"safe", "lan"},
			Help: "how soon a lost leader is replaced; lan for a quiet network"},
		gossipTiming(),
	)
	return common("station", own...)
}

// Station makes a station's configuration; its log goes to stderr.
func Station(v *config.Values, version string, stderr io.Writer) (controlplane.Config, error) {
	id, err := identityOf(v, "station")
	if err != nil {
		return controlplane.Config{}, err
	}
	token, enrolled, err := joinToken(v)
	if err != nil {
		return controlplane.Config{}, err
	}
	// Without this a station whose operator forgot the token would found a cluster of its own.
	if len(v.List(keyJoin)) > 0 && token == "" && !enrolled {
		return controlplane.Config{}, san.Errorf(san.KindInvalid,
			"station %s is to join a cluster but has no join token: set %s, or leave out %s to found a new cluster", id, keyJoinTokenFile, keyJoin)
	}
	cfg := controlplane.Config{
		Data: v.Text(keyData), ID: san.StationID(id),
		APIListen: v.Text("api-listen"), APIAdvertise: advertised(v, "api", machineAddrs),
		RaftListen: v.Text("raft-listen"), RaftAdvertise: advertised(v, "raft", machineAddrs),
		GossipListen: v.Text("gossip-listen"), GossipAdvertise: advertised(v, "gossip", machineAddrs),
		BootstrapExpect: int(v.Number(keyBootstrapExpect)),
		Join:            v.List(keyJoin), JoinToken: token,
		RaftTiming: replica.Safe(), FastGossip: v.Text(keyGossipTiming) == "fast",
		Version: version, Log: logger(v, stderr),
	}
	if v.Text(keyRaftTiming) == "lan" {
		cfg.RaftTiming = replica.LAN()
	}
	return cfg, nil
}
