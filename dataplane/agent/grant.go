package agent

import (
	"net/netip"
	"slices"

	"github.com/sandbar-san/sandbar/san"
)

// Grant is the leave of one host to reach one volume.
type Grant struct {
	Volume     san.VolumeID
	Host       san.HostID
	Generation san.Generation
	// Initiators are the host's initiator names, folded by san.NormalizeInitiator.
	Initiators []string
	// AllowFrom are the addresses it may call from; none means any.
	AllowFrom            []netip.Prefix
	CHAPUser, CHAPSecret string
}

// Knows reports whether initiator is one of the host's names.
func (g *Grant) Knows(initiator string) bool {
	return slices.Contains(g.Initiators, san.NormalizeInitiator(initiator))
}

// Allows reports whether the host may call from that address.
func (g *Grant) Allows(from netip.Addr) bool {
	from = from.Unmap().WithZone("")
	return len(g.AllowFrom) == 0 || slices.ContainsFunc(g.AllowFrom, func(p netip.Prefix) bool { return p.Contains(from) })
}

func (g *Grant) equal(o *Grant) bool {
	return g.Volume == o.Volume && g.Host == o.Host && g.Generation == o.Generation && slices.Equal(g.Initiators, o.Initiators) &&
		slices.Equal(g.AllowFrom, o.AllowFrom) && g.CHAPUser == o.CHAPUser && g.CHAPSecret == o.CHAPSecret
}
