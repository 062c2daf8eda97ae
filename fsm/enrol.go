package fsm

import (
	"bytes"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// Enrol records a certificate that is about to be handed out, counts the join token's
// use and makes the station's, unit's or host's row. Refused: token unknown, expired at H.At, used up
// or of another role; id already enrolled unless the request proves the old key
// (Renewal) — with what to do next. The same id, public key and token again is a retry whose reply was
// lost: the row takes the new certificate and the token's use is not counted twice.
type Enrol struct {
	H          Header      `cbor:"1,keyasint"`
	Role       san.Role    `cbor:"2,keyasint"`
	ID         string      `cbor:"3,keyasint"`
	CertSerial string      `cbor:"4,keyasint"`
	JoinToken  san.TokenID `cbor:"5,keyasint"`
	Renewal    bool        `cbor:"6,keyasint"` // caller proved the present certificate; JoinToken empty
	Initiators []string    `cbor:"7,keyasint"` // of a host
	PublicKey  []byte      `cbor:"8,keyasint"` // SHA-256 of it: a lost reply may be asked for again with the same key
}

// Kind implements Command.
func (c *Enrol) Kind() Kind { return KindEnrol }

// Header implements Command.
func (c *Enrol) Header() *Header { return &c.H }

func (c *Enrol) action() string {
	if c.Renewal {
		return string(c.Role) + ".renew"
	}
	return string(c.Role) + ".enrol"
}

func (c *Enrol) apply(x *tx) (string, error) {
	if err := c.checkEnrol(); err != nil {
		return "", err
	}
	have := c.enrolled(x)
	switch {
	case c.Renewal && !have.enrolled:
		return "", refuse(san.KindNotFound, "%s %q is not enrolled, so its certificate can't be renewed; enrol it with a join token", c.Role, c.ID)
	case c.Renewal:
		return c.ID, c.certify(x)
	case have.enrolled && c.isRetry(have):
		return c.ID, c.certify(x)
	case have.enrolled:
		return "", refuse(san.KindExists, "%s %q is enrolled already; start it with its own data folder, or choose another id for a new %s", c.Role, c.ID, c.Role)
	case have.bare:
		return "", refuse(san.KindExists, "host %q is registered without an agent; remove it first (sandbar host remove %s) or choose another id", c.ID, c.ID)
	}
	token, err := c.redeem(x)
	if err != nil {
		return "", err
	}
	return c.ID, c.admit(x, token.Approve)
}

func (c *Enrol) checkEnrol() error {
	if !c.Role.Valid() {
		return refuse(san.KindInvalid, "role %q is unknown; use %s, %s or %s", clip(string(c.Role)), san.RoleStation, san.RoleUnit, san.RoleHost)
	}
	if err := san.CheckName(string(c.Role), c.ID); err != nil {
		return err
	}
	if c.CertSerial == "" {
		return refuse(san.KindInvalid, "%s %q would get a certificate without serial number", c.Role, c.ID)
	}
	if err := checkText("certificate's serial number", c.CertSerial, maxShortText); err != nil {
		return err
	}
	if len(c.PublicKey) > maxHash {
		return refuse(san.KindInvalid, "hash of a public key has %d bytes, %d are allowed", len(c.PublicKey), maxHash)
	}
	if c.Role != san.RoleHost && len(c.Initiators) > 0 {
		return refuse(san.KindInvalid, "%s %q has no initiator names; only hosts do", c.Role, c.ID)
	}
	return nil
}

// enrolment is what the state knows of an id that wants to enrol.
type enrolment struct {
	enrolled bool
	bare     bool // a host known by name alone
	key      []byte
	token    san.TokenID
}

func (c *Enrol) enrolled(x *tx) enrolment {
	switch c.Role {
	case san.RoleStation:
		if s := x.Station(san.StationID(c.ID)); s != nil {
			return enrolment{enrolled: s.CertSerial != "", key: s.PublicKey, token: s.JoinToken}
		}
	case san.RoleUnit:
		if u := x.Unit(san.UnitID(c.ID)); u != nil {
			return enrolment{enrolled: true, key: u.PublicKey, token: u.JoinToken}
		}
	case san.RoleHost:
		if h := x.Host(san.HostID(c.ID)); h != nil {
			return enrolment{enrolled: h.Agent, bare: !h.Agent, key: h.PublicKey, token: h.JoinToken}
		}
	}
	return enrolment{}
}

func (c *Enrol) isRetry(have enrolment) bool {
	return len(c.PublicKey) > 0 && bytes.Equal(c.PublicKey, have.key) && c.JoinToken != "" && c.JoinToken == have.token
}

// certify gives the row, which is there, its new certificate.
func (c *Enrol) certify(x *tx) error {
	key := func(old []byte) []byte {
		if len(c.PublicKey) == 0 {
			return old
		}
		return c.PublicKey
	}
	switch c.Role {
	case san.RoleStation:
		row := *x.Station(san.StationID(c.ID))
		row.CertSerial, row.PublicKey = c.CertSerial, key(row.PublicKey)
		x.put(&row)
	case san.RoleUnit:
		row := *x.Unit(san.UnitID(c.ID))
		row.CertSerial, row.PublicKey = c.CertSerial, key(row.PublicKey)
		x.put(&row)
	case san.RoleHost:
		row := *x.Host(san.HostID(c.ID))
		row.CertSerial, row.PublicKey = c.CertSerial, key(row.PublicKey)
		x.put(&row)
	}
	return nil
}

// redeem counts a use of the join token.
func (c *Enrol) redeem(x *tx) (*JoinToken, error) {
	t := x.JoinToken(c.JoinToken)
	switch {
	case t == nil:
		return nil, refuse(san.KindUnauthenticated, "join token of %s %q is unknown here: deleted, or of another cluster; create one (sandbar join-token create) and use that", c.Role, c.ID)
	case t.Role != c.Role:
		return nil, refuse(san.KindUnauthenticated, "join token %q is for a %s, and %q wants to be a %s; create one for a %s", t.Name, t.Role, c.ID, c.Role, c.Role)
	case Expired(t.ExpiresAt, x.at):
		return nil, refuse(san.KindUnauthenticated, "join token %q expired at %s; create another (sandbar join-token create)", t.Name, t.ExpiresAt.Format(time.RFC3339))
	case t.MaxUses > 0 && t.Uses >= t.MaxUses:
		return nil, refuse(san.KindUnauthenticated, "join token %q was used %s, as often as it may be; create another (sandbar join-token create)", t.Name, count(int(t.Uses), "time"))
	}
	row := *t
	row.Uses++
	x.put(&row)
	return &row, nil
}

// admit makes the row of a new member.
func (c *Enrol) admit(x *tx, approve bool) error {
	switch c.Role {
	case san.RoleStation:
		row := Station{ID: san.StationID(c.ID)}
		if old := x.Station(row.ID); old != nil {
			row = *old
		}
		row.CertSerial, row.PublicKey, row.JoinToken, row.At = c.CertSerial, c.PublicKey, c.JoinToken, x.at
		x.put(&row)
	case san.RoleUnit:
		row := Unit{ID: san.UnitID(c.ID), CertSerial: c.CertSerial, PublicKey: c.PublicKey, JoinToken: c.JoinToken,
			Approved: approve, State: UnitPending, StateAt: x.at}
		if approve {
			row.State = UnitEnrolled
		}
		x.put(&row)
	case san.RoleHost:
		names, err := x.claimInitiators(san.HostID(c.ID), c.Initiators)
		if err != nil {
			return err
		}
		x.put(&Host{ID: san.HostID(c.ID), Agent: true, CertSerial: c.CertSerial, PublicKey: c.PublicKey, JoinToken: c.JoinToken,
			Initiators: names, State: HostEnrolled, StateAt: x.at})
	}
	return nil
}
