package controlplane

import (
	"log/slog"
	"net"
	"time"

	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/san"
)

// Config is what a station needs to know.
type Config struct {
	Data string // folder
	ID   san.StationID

	APIListen, APIAdvertise       string // host:port; advertise defaults to listen
	RaftListen, RaftAdvertise     string
	GossipListen, GossipAdvertise string

	// BootstrapExpect is how many stations the cluster starts with: 1, 3 or 5.
	BootstrapExpect int
	// Join are API addresses of stations at which to enrol with JoinToken. A station
	// without identity and without JoinToken founds a new cluster.
	Join      []string
	JoinToken string

	RaftTiming replica.Timing
	// FastGossip notices lost members sooner, at the price of more packets: for labs.
	FastGossip bool
	// HealthyFor is how long a station that joins later must be seen alive before it votes; 0 means
	// ten seconds.
	HealthyFor time.Duration
	Version    string
	Log        *slog.Logger
}

func (c *Config) fill() error {
	if err := san.CheckName("station", string(c.ID)); err != nil {
		return err
	}
	for _, a := range []struct {
		key               string
		listen, advertise *string
	}{
		{"api", &c.APIListen, &c.APIAdvertise}, {"raft", &c.RaftListen, &c.RaftAdvertise}, {"gossip", &c.GossipListen, &c.GossipAdvertise},
	} {
		host, _, err := net.SplitHostPort(*a.listen)
		if err != nil {
			return san.Errorf(san.KindInvalid, "%s-listen %q is not host:port", a.key, *a.listen)
		}
		if *a.advertise != "" {
			if _, _, err := net.SplitHostPort(*a.advertise); err != nil {
				return san.Errorf(san.KindInvalid, "%s-advertise %q is not host:port", a.key, *a.advertise)
			}
			continue
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			return san.Errorf(san.KindInvalid, "%s-listen %s names no one address; say with %s-advertise where other stations reach it", a.key, *a.listen, a.key)
		}
		*a.advertise = *a.listen
	}
	switch c.BootstrapExpect {
	case 0, 1, 3, 5, 7:
	default:
		return san.Errorf(san.KindInvalid, "bootstrap-expect %d is not 1, 3, 5 or 7: an even number of stations tolerates no more losses than one fewer", c.BootstrapExpect)
	}
	if c.HealthyFor == 0 {
		c.HealthyFor = defaultHealthyFor
	}
	if c.RaftTiming == (replica.Timing{}) {
		c.RaftTiming = replica.Safe()
	}
	return nil
}
