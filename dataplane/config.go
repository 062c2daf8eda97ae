package dataplane

import (
	"log/slog"
	"net"
	"path/filepath"
	"slices"

	"github.com/sandbar-san/sandbar/san"
)

// maxMedia bounds the media of one unit.
const maxMedia = 64

// Config is what a unit needs to know.
type Config struct {
	Data string // folder
	ID   san.UnitID

	// Media are paths of files or block devices. With a MediumSizeBytes above zero, files that
	// are not there are made with that size.
	Media           []string
	MediumSizeBytes int64

	// Join are API addresses of stations at which to enrol with JoinToken; both are needed
	// for the first start only.
	Join      []string
	JoinToken string

	// Where the unit listens, host:port; what it advertises defaults to that.
	PortalListen, PortalAdvertise string // iSCSI
	APIListen, APIAdvertise       string // probes by stations
	GossipListen, GossipAdvertise string

	// FastGossip notices lost members sooner, at the price of more packets: for labs.
	FastGossip bool
	Version    string
	Log        *slog.Logger
}

func (c *Config) check() error {
	if err := san.CheckName("unit", string(c.ID)); err != nil {
		return err
	}
	switch {
	case len(c.Media) == 0:
		return san.Errorf(san.KindInvalid, "unit %s has no media; name at least one file or block device with 'media'", c.ID)
	case len(c.Media) > maxMedia:
		return san.Errorf(san.KindInvalid, "unit %s has %d media, %d are allowed; join some of them into one", c.ID, len(c.Media), maxMedia)
	case c.MediumSizeBytes < 0:
		return san.Errorf(san.KindInvalid, "medium-size %d is not positive", c.MediumSizeBytes)
	}
	paths := make([]string, 0, len(c.Media))
	for _, p := range c.Media {
		abs, err := filepath.Abs(p)
		if err != nil || p == "" {
			return san.Errorf(san.KindInvalid, "medium path %q can't be used: %w", p, err)
		}
		if slices.Contains(paths, abs) {
			return san.Errorf(san.KindInvalid, "medium %s is listed twice; list it once", abs)
		}
		paths = append(paths, abs)
	}
	c.Media = paths
	return errFirst(
		checkAddress("portal", c.PortalListen, c.PortalAdvertise),
		checkAddress("api", c.APIListen, c.APIAdvertise),
		checkAddress("gossip", c.GossipListen, c.GossipAdvertise),
	)
}

func errFirst(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkAddress reports whether others can know where to find what listens there.
func checkAddress(key, listen, advertise string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return san.Errorf(san.KindInvalid, "%s-listen %q is not host:port", key, listen)
	}
	if advertise == "" {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			return san.Errorf(san.KindInvalid, "%s-listen %s names no one address; say with %s-advertise where others reach this unit", key, listen, key)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(advertise)
	if err != nil || host == "" || port == "" || port == "0" {
		return san.Errorf(san.KindInvalid, "%s-advertise %q is not host:port", key, advertise)
	}
	return nil
}
