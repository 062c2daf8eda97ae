package gossip

import (
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"github.com/sandbar-san/sandbar/san"
)

const (
	// clusterTag holds the cluster's id in each member's tags; Node.Tags leaves it out.
	clusterTag = "cluster"
	// MaxTagBytes bounds a member's tags as they are encoded, the cluster's id included.
	MaxTagBytes = memberlist.MetaMaxSize
	// IncarnationTag is the tag of a unit's start number, in decimal. Gossip may still show what an earlier
	// start of the unit did.
	IncarnationTag = "inc"
)

// Timing is how fast members notice a loss. All members should have the same.
type Timing struct {
	// Probe is the pause between two probes, ProbeTimeout how long an answer may take.
	Probe, ProbeTimeout time.Duration
	// SuspicionMult is how many probe intervals, times log10 of the members, a suspect has to speak up.
	SuspicionMult int
	// Gossip is the pause between two rounds of gossip.
	Gossip time.Duration
	// LeaveTimeout bounds each of the steps of leaving: saying so, and letting it spread.
	LeaveTimeout time.Duration
	// Dial bounds opening a connection to a member.
	Dial time.Duration
	// Retry is the pause before the first retry to join; it doubles up to RetryMax.
	Retry, RetryMax time.Duration
}

// LAN notices a crash within about 2.4 s, at worst 3.3 s.
func LAN() Timing {
	return Timing{Probe: 500 * time.Millisecond, ProbeTimeout: 200 * time.Millisecond, SuspicionMult: 3,
		Gossip: 100 * time.Millisecond, LeaveTimeout: 500 * time.Millisecond, Dial: 2 * time.Second,
		Retry: 500 * time.Millisecond, RetryMax: 15 * time.Second}
}

// Fast suits tests over loopback.
func Fast() Timing {
	return Timing{Probe: 150 * time.Millisecond, ProbeTimeout: 100 * time.Millisecond, SuspicionMult: 2,
		Gossip: 20 * time.Millisecond, LeaveTimeout: 150 * time.Millisecond, Dial: time.Second,
		Retry: 50 * time.Millisecond, RetryMax: 500 * time.Millisecond}
}

// Config is what a member needs. Fields are required unless said otherwise.
type Config struct {
	// Name is "role:id"; see Name.
	Name string
	// Cluster is the id of the only cluster whose members are let in.
	Cluster san.ClusterID
	// Key encrypts and authenticates all gossip: 16, 24 or 32 bytes.
	Key []byte
	// Bind is ip:port to listen on, TCP and UDP; port 0 takes any that is free.
	Bind string
	// Advertise is ip:port at which the others reach Bind; optional if Bind names an address of its own.
	Advertise string
	// Tags are what the others see of this member; see MaxTagBytes.
	Tags map[string]string
	// Join returns candidates, host:port, that may be members already. It is asked again and again: a
	// candidate that is no member is tried until it is one. Optional.
	Join func() []string
	// LeaveAtEnd makes Run say goodbye, so that the others see StatusLeft and not StatusFailed.
	LeaveAtEnd bool
	// SnapshotPath is a file that keeps the members known, to join them again after a restart. Optional.
	SnapshotPath string
	// Timing is optional; zero means LAN().
	Timing Timing
	Logger *slog.Logger
}

// Name returns the member name of the part of role that is called id.
func Name(role san.Role, id string) string { return string(role) + ":" + id }

// ParseName is the inverse of Name; ok is false for a name that no part bears.
func ParseName(name string) (role san.Role, id string, ok bool) {
	r, id, found := strings.Cut(name, ":")
	role = san.Role(r)
	return role, id, found && role.Valid() && san.CheckName(r, id) == nil
}

func (c *Config) check() error {
	if c.Timing == (Timing{}) {
		c.Timing = LAN()
	}
	role, _, ok := ParseName(c.Name)
	switch n := len(c.Key); {
	case !ok || role == san.RoleHost:
		return san.Errorf(san.KindInvalid, "gossip name %q is not station:ID or unit:ID", c.Name)
	case c.Cluster == "" || len(c.Cluster) > memberlist.LabelMaxSize:
		return san.Errorf(san.KindInvalid, "gossip of %s has no usable cluster id (%q)", c.Name, c.Cluster)
	case n != 16 && n != 24 && n != 32:
		return san.Errorf(san.KindInvalid, "gossip key of %s has %d bytes; it must have 16, 24 or 32, the same on all stations and units", c.Name, n)
	case c.Logger == nil:
		return san.Errorf(san.KindInternal, "gossip of %s has no logger", c.Name)
	}
	return c.checkTags(c.Tags)
}

// checkTags bounds the tags by their size in MessagePack, in which each string has a header of at most 3 bytes.
func (c *Config) checkTags(tags map[string]string) error {
	size := 1 + 3
	for k, v := range c.allTags(tags) {
		size += len(k) + len(v) + 6
	}
	if _, taken := tags[clusterTag]; taken {
		return san.Errorf(san.KindInvalid, "gossip tag %q of %s is reserved", clusterTag, c.Name)
	}
	if size > MaxTagBytes {
		return san.Errorf(san.KindInvalid, "gossip tags of %s take %d bytes; at most %d are allowed, so shorten them", c.Name, size, MaxTagBytes)
	}
	return nil
}

func (c *Config) allTags(tags map[string]string) map[string]string {
	all := map[string]string{clusterTag: string(c.Cluster)}
	for k, v := range tags {
		all[k] = v
	}
	return all
}

// serfConfig translates c.
func (c *Config) serfConfig(events chan<- serf.Event) (*serf.Config, error) {
	m := memberlist.DefaultLANConfig()
	var err error
	if m.BindAddr, m.BindPort, err = splitAddress("bind", c.Bind); err != nil {
		return nil, err
	}
	m.AdvertisePort = m.BindPort
	if c.Advertise != "" {
		if m.AdvertiseAddr, m.AdvertisePort, err = splitAddress("advertise", c.Advertise); err != nil {
			return nil, err
		}
	}
	m.SecretKey = c.Key
	m.Label = string(c.Cluster)
	m.ProbeInterval, m.ProbeTimeout = c.Timing.Probe, c.Timing.ProbeTimeout
	m.SuspicionMult, m.GossipInterval = c.Timing.SuspicionMult, c.Timing.Gossip
	m.TCPTimeout = c.Timing.Dial
	// A part that crashed may come back under another address as soon as it is known to have failed.
	m.DeadNodeReclaimTime = c.Timing.Probe
	m.Logger = newLineLogger(c.Logger)

	s := serf.DefaultConfig()
	s.NodeName = c.Name
	s.Tags = c.allTags(c.Tags)
	s.EventCh = events
	s.MemberlistConfig = m
	s.Logger = m.Logger
	s.Merge = sameCluster{c.Cluster}
	s.EnableNameConflictResolution = false
	s.DisableCoordinates = true
	s.SnapshotPath = c.SnapshotPath
	s.RejoinAfterLeave = true
	s.BroadcastTimeout, s.LeavePropagateDelay = c.Timing.LeaveTimeout, c.Timing.LeaveTimeout
	s.MsgpackUseNewTimeFormat = true
	return s, nil
}

func splitAddress(what, address string) (ip string, port int, err error) {
	host, p, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil || port < 0 || port > 65535 || net.ParseIP(host) == nil {
		return "", 0, san.Errorf(san.KindInvalid, "gossip %s address %q is not ip:port, such as 10.0.0.5:7946", what, address)
	}
	return host, port, nil
}

// sameCluster refuses members of other clusters, one by one as they turn up and all of a merge if one is foreign.
type sameCluster struct{ cluster san.ClusterID }

// NotifyMerge judges members that another part tells of.
func (s sameCluster) NotifyMerge(members []*serf.Member) error {
	for _, m := range members {
		if got := m.Tags[clusterTag]; got != string(s.cluster) {
			return san.Errorf(san.KindDenied, "gossip member %s is of cluster %q, this is cluster %s", m.Name, got, s.cluster)
		}
	}
	return nil
}
