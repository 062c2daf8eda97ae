package fsm

import "github.com/sandbar-san/sandbar/san"

// InitCluster makes the cluster row and the first tokens; refused if there is one.
type InitCluster struct {
	H           Header        `cbor:"1,keyasint"`
	ID          san.ClusterID `cbor:"2,keyasint"`
	CACertPEM   []byte        `cbor:"3,keyasint"`
	CAKeySealed []byte        `cbor:"4,keyasint"`
	Tokens      []Token       `cbor:"5,keyasint"`
	JoinTokens  []JoinToken   `cbor:"6,keyasint"`
}

// Kind implements Command.
func (c *InitCluster) Kind() Kind { return KindInitCluster }

// Header implements Command.
func (c *InitCluster) Header() *Header { return &c.H }

func (c *InitCluster) action() string { return "cluster.init" }

func (c *InitCluster) apply(x *tx) (string, error) {
	if have := x.Cluster(); have != nil {
		return "", refuse(san.KindConflict, "these stations already are cluster %s; to make another cluster, start stations with empty data folders", have.ID)
	}
	switch {
	case c.ID == "" || len(c.ID) > san.MaxNameLength:
		return "", refuse(san.KindInvalid, "cluster id %q is not usable; give a UUID", c.ID)
	case len(c.CACertPEM) == 0 || len(c.CAKeySealed) == 0:
		return "", refuse(san.KindInvalid, "cluster %s comes without a CA; give its certificate and sealed key", c.ID)
	}
	x.put(&Cluster{ID: c.ID, Generation: 1, FormatVersion: 1, CACertPEM: c.CACertPEM, CAKeySealed: c.CAKeySealed, CreatedAt: x.at})
	for i := range c.Tokens {
		if err := x.addToken(c.Tokens[i]); err != nil {
			return "", err
		}
	}
	for i := range c.JoinTokens {
		if err := x.addJoinToken(c.JoinTokens[i]); err != nil {
			return "", err
		}
	}
	return string(c.ID), nil
}

// SetFormat raises the log format that may be used, once every station's program knows it. It
// never goes down: an older program could not read what is in the log.
type SetFormat struct {
	H       Header `cbor:"1,keyasint"`
	Version uint32 `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *SetFormat) Kind() Kind { return KindSetFormat }

// Header implements Command.
func (c *SetFormat) Header() *Header { return &c.H }

func (c *SetFormat) action() string { return "cluster.set-format" }

func (c *SetFormat) apply(x *tx) (string, error) {
	have := x.Cluster()
	if have == nil {
		return "", refuse(san.KindConflict, "there is no cluster yet; bootstrap it first")
	}
	if c.Version < have.FormatVersion {
		return "", refuse(san.KindConflict, "the log is at format %d and can't go back to %d; keep the newer program", have.FormatVersion, c.Version)
	}
	for _, s := range x.Stations() {
		if s.format() < c.Version {
			return "", refuse(san.KindConflict, "station %q (version %s) reads log formats up to %d, not %d; update or remove it first", s.ID, s.Version, s.format(), c.Version)
		}
	}
	if c.Version > have.FormatVersion {
		row := *have
		row.FormatVersion = c.Version
		x.put(&row)
	}
	return string(have.ID), nil
}

// AuditRead records that somebody read a secret.
type AuditRead struct {
	H      Header `cbor:"1,keyasint"`
	Action string `cbor:"2,keyasint"`
	Object string `cbor:"3,keyasint"`
}

// Kind implements Command.
func (c *AuditRead) Kind() Kind { return KindAuditRead }

// Header implements Command.
func (c *AuditRead) Header() *Header { return &c.H }

func (c *AuditRead) action() string { return c.Action }

func (c *AuditRead) apply(*tx) (string, error) {
	if c.Action == "" {
		return "", refuse(san.KindInvalid, "audit entry has no action; say what was read")
	}
	if err := checkText("audit entry's action", c.Action, maxShortText); err != nil {
		return "", err
	}
	return c.Object, checkText("audit entry's object", c.Object, maxLongText)
}
