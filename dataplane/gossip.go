package dataplane

import (
	"strconv"

	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/internal/gossip"
	"github.com/sandbar-san/sandbar/san"
)

// Gossip tags of a unit. They are hints: the stations' tables decide.
const (
	tagAPI     = "api"
	tagPortal  = "portal"
	tagVersion = "v"
)

// startGossip makes the unit a member of its cluster's gossip. Who calls it calls Run on what it returns.
func (u *unit) startGossip() (*gossip.Member, error) {
	key, err := u.member.Secret(enrol.GossipKey)
	if err == nil {
		err = u.gossipPort.Release()
	}
	if err != nil {
		return nil, err
	}
	timing := gossip.LAN()
	if u.cfg.FastGossip {
		timing = gossip.Fast()
	}
	return gossip.Start(gossip.Config{
		Name: gossip.Name(san.RoleUnit, string(u.cfg.ID)), Cluster: u.member.Cluster(), Key: key,
		Bind: u.cfg.GossipListen, Advertise: u.cfg.GossipAdvertise, Timing: timing,
		Tags: map[string]string{
			tagAPI: u.cfg.APIAdvertise, tagPortal: u.cfg.PortalAdvertise, tagVersion: u.cfg.Version,
			gossip.IncarnationTag: strconv.FormatUint(uint64(u.state.Incarnation), 10),
		},
		Join: u.member.Gossip, LeaveAtEnd: true, SnapshotPath: u.dir.Path("gossip.snapshot"),
		Logger: u.log.With("part", "gossip"),
	})
}
