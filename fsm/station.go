package fsm

import "github.com/sandbar-san/sandbar/san"

// PutStation records a station's addresses and version; also at each start of it. Empty fields that say
// how it enrolled leave the row's as they are.
type PutStation struct {
	H       Header  `cbor:"1,keyasint"`
	Station Station `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *PutStation) Kind() Kind { return KindPutStation }

// Header implements Command.
func (c *PutStation) Header() *Header { return &c.H }

func (c *PutStation) action() string { return "" }

// format is the highest log format that the station reads.
func (s *Station) format() uint32 { return max(s.Format, 1) }

func (c *PutStation) apply(x *tx) (string, error) {
	row := c.Station
	if err := c.checkStation(); err != nil {
		return "", err
	}
	if cl := x.Cluster(); cl != nil && row.format() < cl.FormatVersion {
		return "", refuse(san.KindConflict, "station %q (version %s) reads log formats up to %d and the cluster uses %d; update its program", row.ID, row.Version, row.format(), cl.FormatVersion)
	}
	row.Meta, row.At = Meta{}, x.at
	if old := x.Station(row.ID); old != nil {
		row.Meta = old.Meta
		if row.CertSerial == "" {
			row.CertSerial = old.CertSerial
		}
		row.PublicKey, row.JoinToken = old.PublicKey, old.JoinToken
	}
	x.put(&row)
	return string(row.ID), nil
}

func (c *PutStation) checkStation() error {
	s := &c.Station
	if err := san.CheckName("station", string(s.ID)); err != nil {
		return err
	}
	for _, a := range []struct{ what, value string }{
		{"API address", s.APIAddress}, {"raft address", s.RaftAddress}, {"gossip address", s.GossipAddress},
	} {
		if a.value == "" {
			continue // a station may lack gossip, or not have bound a port yet
		}
		if err := checkAddress("station "+string(s.ID)+"'s "+a.what, a.value); err != nil {
			return err
		}
	}
	if err := checkText("certificate's serial number", s.CertSerial, maxShortText); err != nil {
		return err
	}
	return checkText("version", s.Version, maxShortText)
}

// RemoveStation forgets a station that left.
type RemoveStation struct {
	H  Header        `cbor:"1,keyasint"`
	ID san.StationID `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *RemoveStation) Kind() Kind { return KindRemoveStation }

// Header implements Command.
func (c *RemoveStation) Header() *Header { return &c.H }

func (c *RemoveStation) action() string { return "station.remove" }

func (c *RemoveStation) apply(x *tx) (string, error) {
	row := x.Station(c.ID)
	if row == nil {
		return "", refuse(san.KindNotFound, "there is no station %q; see: sandbar station list", c.ID)
	}
	if len(x.Stations()) == 1 {
		return "", refuse(san.KindConflict, "station %q is the only one; add another before removing it", c.ID)
	}
	x.del(row)
	return string(c.ID), nil
}
