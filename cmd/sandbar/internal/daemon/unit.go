package daemon

import (
	"io"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/config"
	"github.com/sandbar-san/sandbar/dataplane"
	"github.com/sandbar-san/sandbar/san"
)

const (
	keyMedia      = "media"
	keyMediumSize = "medium-size"
)

// UnitKeys are the settings of `sandbar unit run`.
func UnitKeys() config.Keys {
	own := []config.Key{
		{Name: keyMedia, Kind: config.List, Help: "file or block device to store volumes on; repeatable"},
		{Name: keyMediumSize, Kind: config.Size, Help: "make media files that are missing, of this size"},
	}
	own = append(own, address("portal", "the iSCSI portal, which hosts log in to", "0.0.0.0:3260")...)
	own = append(own, address("api", "what answers the stations' probes", "0.0.0.0:7430")...)
	own = append(own, address("gossip", "the gossip of stations and units", "0.0.0.0:7432")...)
	own = append(own, gossipTiming())
	return common("unit", own...)
}

// Unit makes a unit's configuration; its log goes to stderr.
func Unit(v *config.Values, version string, stderr io.Writer) (dataplane.Config, error) {
	id, err := identityOf(v, "unit")
	if err != nil {
		return dataplane.Config{}, err
	}
	token, err := memberToken(v, "unit", id)
	if err != nil {
		return dataplane.Config{}, err
	}
	return dataplane.Config{
		Data: v.Text(keyData), ID: san.UnitID(id),
		Media: v.List(keyMedia), MediumSizeBytes: v.Number(keyMediumSize),
		Join: v.List(keyJoin), JoinToken: token,
		PortalListen: v.Text("portal-listen"), PortalAdvertise: advertised(v, "portal", machineAddrs),
		APIListen: v.Text("api-listen"), APIAdvertise: advertised(v, "api", machineAddrs),
		GossipListen: v.Text("gossip-listen"), GossipAdvertise: advertised(v, "gossip", machineAddrs),
		FastGossip: v.Text(keyGossipTiming) == "fast", Version: version, Log: logger(v, stderr),
	}, nil
}
