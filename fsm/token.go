package fsm

import (
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// The roles of an operator's or program's token.
const (
	TokenAdmin       = "admin"
	TokenOperator    = "operator"
	TokenViewer      = "viewer"
	TokenProvisioner = "provisioner" // makes volumes for its host, and sees them
)

// Expired reports whether something that ends at expires (zero: never) is over at the time at.
func Expired(expires, at time.Time) bool { return !expires.IsZero() && !at.Before(expires) }

// CreateToken adds an operator token.
type CreateToken struct {
	H     Header `cbor:"1,keyasint"`
	Token Token  `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *CreateToken) Kind() Kind { return KindCreateToken }

// Header implements Command.
func (c *CreateToken) Header() *Header { return &c.H }

func (c *CreateToken) action() string { return "token.create" }

func (c *CreateToken) apply(x *tx) (string, error) {
	return string(c.Token.ID), x.addToken(c.Token)
}

func (x *tx) addToken(t Token) error {
	if err := checkTokenParts(t.ID, t.Name, t.SecretHash, t.ExpiresAt, x.at); err != nil {
		return err
	}
	switch t.Role {
	case TokenAdmin, TokenOperator, TokenViewer:
		if t.Host != "" {
			return refuse(san.KindInvalid, "token %q names host %q, which only a %s's does; leave the host out", t.Name, t.Host, TokenProvisioner)
		}
	case TokenProvisioner:
		if x.Host(t.Host) == nil {
			return refuse(san.KindNotFound, "token %q is for host %q, which is not there; add the host first", t.Name, t.Host)
		}
	default:
		return refuse(san.KindInvalid, "token %q has the role %q; use %s, %s, %s or %s", t.Name, clip(t.Role), TokenAdmin, TokenOperator, TokenViewer, TokenProvisioner)
	}
	have := x.Tokens()
	if len(have) >= maxTokens {
		return refuse(san.KindConflict, "there are %d tokens, the most that can be; delete some", len(have))
	}
	for _, o := range have {
		if o.ID == t.ID || o.Name == t.Name {
			return refuse(san.KindExists, "there is a token %q already; delete it first or choose another name", o.Name)
		}
	}
	t.Meta, t.CreatedAt, t.ExpiresAt = Meta{}, x.at, utc(t.ExpiresAt)
	x.put(&t)
	return nil
}

// utc keeps zero times zero.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

func checkTokenParts(id san.TokenID, name string, hash []byte, expires, at time.Time) error {
	if id == "" || len(id) > san.MaxNameLength {
		return refuse(san.KindInvalid, "token id %q is not usable; give 1 to %d characters", clip(string(id)), san.MaxNameLength)
	}
	if err := san.CheckName("token", name); err != nil {
		return err
	}
	if err := checkBytes("hash of token "+name, hash, maxHash); err != nil {
		return err
	}
	if Expired(expires, at) {
		return refuse(san.KindInvalid, "token %q would have expired at %s already; choose a later time", name, expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// DeleteToken revokes one. The last token of an administrator that has not expired stays, or nobody could
// make another.
type DeleteToken struct {
	H  Header      `cbor:"1,keyasint"`
	ID san.TokenID `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *DeleteToken) Kind() Kind { return KindDeleteToken }

// Header implements Command.
func (c *DeleteToken) Header() *Header { return &c.H }

func (c *DeleteToken) action() string { return "token.delete" }

func (c *DeleteToken) apply(x *tx) (string, error) {
	row := x.Token(c.ID)
	if row == nil {
		return "", refuse(san.KindNotFound, "there is no token with id %q; see: sandbar token list", clip(string(c.ID)))
	}
	if row.Role == TokenAdmin && !Expired(row.ExpiresAt, x.at) {
		left := 0
		for _, t := range x.Tokens() {
			if t.ID != c.ID && t.Role == TokenAdmin && !Expired(t.ExpiresAt, x.at) {
				left++
			}
		}
		if left == 0 {
			return "", refuse(san.KindConflict, "token %q is the last one of an administrator; create another before deleting it", row.Name)
		}
	}
	x.del(row)
	return string(c.ID), nil
}

// CreateJoinToken adds a join token.
type CreateJoinToken struct {
	H     Header    `cbor:"1,keyasint"`
	Token JoinToken `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *CreateJoinToken) Kind() Kind { return KindCreateJoinToken }

// Header implements Command.
func (c *CreateJoinToken) Header() *Header { return &c.H }

func (c *CreateJoinToken) action() string { return "join-token.create" }

func (c *CreateJoinToken) apply(x *tx) (string, error) {
	return string(c.Token.ID), x.addJoinToken(c.Token)
}

func (x *tx) addJoinToken(t JoinToken) error {
	if err := checkTokenParts(t.ID, t.Name, t.SecretHash, t.ExpiresAt, x.at); err != nil {
		return err
	}
	if !t.Role.Valid() {
		return refuse(san.KindInvalid, "join token %q is for role %q; use %s, %s or %s", t.Name, clip(string(t.Role)), san.RoleStation, san.RoleUnit, san.RoleHost)
	}
	have := x.JoinTokens()
	if len(have) >= maxTokens {
		return refuse(san.KindConflict, "there are %d join tokens, the most that can be; delete some", len(have))
	}
	for _, o := range have {
		if o.ID == t.ID || o.Name == t.Name {
			return refuse(san.KindExists, "there is a join token %q already; delete it first or choose another name", o.Name)
		}
	}
	t.Meta, t.CreatedAt, t.ExpiresAt, t.Uses = Meta{}, x.at, utc(t.ExpiresAt), 0
	x.put(&t)
	return nil
}

// DeleteJoinToken revokes one.
type DeleteJoinToken struct {
	H  Header      `cbor:"1,keyasint"`
	ID san.TokenID `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *DeleteJoinToken) Kind() Kind { return KindDeleteJoinToken }

// Header implements Command.
func (c *DeleteJoinToken) Header() *Header { return &c.H }

func (c *DeleteJoinToken) action() string { return "join-token.delete" }

func (c *DeleteJoinToken) apply(x *tx) (string, error) {
	row := x.JoinToken(c.ID)
	if row == nil {
		return "", refuse(san.KindNotFound, "there is no join token with id %q; see: sandbar join-token list", clip(string(c.ID)))
	}
	x.del(row)
	return string(c.ID), nil
}
