package access

import (
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// CheckExpiry reports whether the token that what names ("join token rack4") counts at
// now. The zero expiresAt is never reached.
func CheckExpiry(what string, expiresAt, now time.Time) error {
	if expiresAt.IsZero() || now.Before(expiresAt) {
		return nil
	}
	return san.Errorf(san.KindUnauthenticated, "%s expired at %s; ask an admin for a new one", what, expiresAt.UTC().Format(time.RFC3339))
}

// JoinGrant is what a verified join token lets its bearer do.
type JoinGrant struct {
	// Name is the token's name.
	Name string
	// Role is what its bearer may become.
	Role      san.Role
	ExpiresAt time.Time
	// Uses is how many certificates were given for it; MaxUses bounds them, 0 does not.
	Uses, MaxUses uint32
}

// CheckJoin reports whether a part of the given role may enrol by g at now. A part that
// sends its request again counts once: the caller finds the certificate it already gave
// for the same key before it asks.
func CheckJoin(g JoinGrant, role san.Role, now time.Time) error {
	if err := CheckExpiry("join token "+g.Name, g.ExpiresAt, now); err != nil {
		return err
	}
	switch {
	case !role.Valid():
		return san.Errorf(san.KindInvalid, "role %q is unknown; a part joins as station, unit or host", role)
	case role != g.Role:
		return san.Errorf(san.KindDenied, "join token %s is for a %s, not for a %s; ask an admin for a join token of that role", g.Name, g.Role, role)
	case g.MaxUses != 0 && g.Uses >= g.MaxUses:
		return san.Errorf(san.KindDenied, "join token %s was used %d times and allows %d; ask an admin for a new one", g.Name, g.Uses, g.MaxUses)
	}
	return nil
}
