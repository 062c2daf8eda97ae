package agent

import (
	"log/slog"

	"github.com/sandbar-san/sandbar/san"
)

// Config is what a host's agent needs to know.
type Config struct {
	Data string // folder
	ID   san.HostID

	// Initiators are the host's iSCSI names; empty: those of the last start, at first the one that
	// is made from ID.
	Initiators []string

	// Join are API addresses of stations at which to enrol with JoinToken; both are needed
	// for the first start only.
	Join      []string
	JoinToken string

	Version string
	Log     *slog.Logger
}

func (c *Config) check() error {
	if err := san.CheckName("host", string(c.ID)); err != nil {
		return err
	}
	if len(c.Initiators) > san.MaxInitiatorsPerHost {
		return san.Errorf(san.KindInvalid, "host %s has %d initiator names, %d are allowed", c.ID, len(c.Initiators), san.MaxInitiatorsPerHost)
	}
	names := make([]string, 0, len(c.Initiators))
	for _, n := range c.Initiators {
		if err := san.CheckInitiatorName(n); err != nil {
			return err
		}
		names = append(names, san.NormalizeInitiator(n))
	}
	c.Initiators = names
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
