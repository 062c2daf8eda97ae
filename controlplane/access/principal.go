package access

import (
	"fmt"

	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// Kind says how a principal made itself known.
type Kind string

// The kinds of principals.
const (
	// KindAnonymous showed neither token nor certificate.
	KindAnonymous Kind = "anonymous"
	// KindToken showed an operator token.
	KindToken Kind = "token"
	// KindStation, KindUnit and KindHost showed a certificate of that role.
	KindStation Kind = "station"
	KindUnit    Kind = "unit"
	KindHost    Kind = "host"
)

// Role is the right that an operator token carries.
type Role string

// The roles, from most to least.
const (
	// RoleAdmin may do all that people may do.
	RoleAdmin Role = "admin"
	// RoleOperator runs volumes, hosts and units; no tokens, no secrets, no stations.
	RoleOperator Role = "operator"
	// RoleViewer sees all but secrets.
	RoleViewer Role = "viewer"
	// RoleProvisioner makes and uses volumes of one host.
	RoleProvisioner Role = "provisioner"
)

// Principal is an authenticated caller. The zero value is allowed nothing.
type Principal struct {
	Kind Kind
	// Name is the token's name, or the station's, unit's or host's id.
	Name string
	// Role is a token's role; empty for all others.
	Role Role
	// Host is the one host that a provisioner or a host agent acts for.
	Host san.HostID
	// Approved says that an operator let the unit or host in. Without it the part
	// may hold its session, where it is shown as pending, and nothing else.
	Approved bool
}

// Anonymous is a caller without token and certificate.
func Anonymous() Principal { return Principal{Kind: KindAnonymous} }

// OfToken is the bearer of a verified operator token.
func OfToken(name string, role Role, host san.HostID) Principal {
	return Principal{Kind: KindToken, Name: name, Role: role, Host: host}
}

// OfPeer is the holder of a verified certificate. approved is what the table's row of
// the unit or host says; it means nothing for a station.
func OfPeer(peer identity.Peer, approved bool) Principal {
	p := Principal{Name: peer.ID}
	switch peer.Role {
	case san.RoleStation:
		p.Kind = KindStation
	case san.RoleUnit:
		p.Kind, p.Approved = KindUnit, approved
	case san.RoleHost:
		p.Kind, p.Approved, p.Host = KindHost, approved, san.HostID(peer.ID)
	}
	return p
}

// String names the principal as the audit and the memory of request ids know it: unique
// among the cluster's principals at one time.
func (p Principal) String() string {
	if p.Name == "" {
		return string(p.Kind)
	}
	return string(p.Kind) + ":" + p.Name
}

// OwnerHost is the host that a volume belongs to when p makes it: the one that p acts
// for, none for operators and admins.
func (p Principal) OwnerHost() san.HostID {
	if a := p.actor(); a == asProvisioner || a == asHost {
		return p.Host
	}
	return ""
}

// describe names the principal in an error.
func (p Principal) describe() string {
	switch p.actor() {
	case asNobody:
		return fmt.Sprintf("caller of unknown kind %q", p.Kind)
	case asAnonymous:
		return "a caller without token or certificate"
	case asPending:
		return fmt.Sprintf("%s %s, which nobody approved yet,", p.Kind, p.Name)
	case asProvisioner:
		return fmt.Sprintf("token %s (provisioner of host %s)", p.Name, p.Host)
	case asStation, asUnit, asHost:
		return fmt.Sprintf("%s %s", p.Kind, p.Name)
	}
	return fmt.Sprintf("token %s (%s)", p.Name, p.Role)
}

// CheckRole reports whether an operator token may have role, bound to host: a
// provisioner is bound to one, all others to none.
func CheckRole(role Role, host san.HostID) error {
	switch role {
	case RoleAdmin, RoleOperator, RoleViewer:
		if host != "" {
			return san.Errorf(san.KindInvalid, "role %s is not bound to a host, but host %s is given; leave the host out, or make a %s", role, host, RoleProvisioner)
		}
		return nil
	case RoleProvisioner:
		if host == "" {
			return san.Errorf(san.KindInvalid, "a %s token is for one host, and none is given; name its host", role)
		}
		return san.CheckName("host", string(host))
	}
	return san.Errorf(san.KindInvalid, "role %q is unknown; use %s, %s, %s or %s", role, RoleAdmin, RoleOperator, RoleViewer, RoleProvisioner)
}
