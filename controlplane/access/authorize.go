package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sandbar-san/sandbar/san"
)

// ObjectKind says what kind of thing an action is on.
type ObjectKind string

// The kinds of objects that rules tell apart.
const (
	ObjectVolume  ObjectKind = "volume"
	ObjectHost    ObjectKind = "host"
	ObjectUnit    ObjectKind = "unit"
	ObjectStation ObjectKind = "station"
	ObjectToken   ObjectKind = "token"
	// ObjectCluster is all that belongs to no single one of the others: pool, audit, settings.
	ObjectCluster ObjectKind = "cluster"
)

// Object is what an action is on, as the tables have it at that moment.
type Object struct {
	Kind ObjectKind
	// Name is the volume's name, or the host's, unit's or station's id.
	Name string
	// Owner is the host whose provisioner made the volume, if one did.
	Owner san.HostID
	// Assigned are the hosts that the volume is assigned to.
	Assigned []san.HostID
	// Target is the host that the action names: to create for, assign to, unassign from,
	// or whose credentials to read.
	Target san.HostID
}

// Authorize reports whether p may do action on object: nil, or an error that says why not
// (san.KindUnauthenticated if p showed nothing to be known by, else san.KindDenied).
func Authorize(p Principal, action Action, object Object) error {
	row := rightsOf(action)
	who := p.actor()
	granted := row[who]
	if granted.covers(p, object) {
		return nil
	}
	what := string(action)
	if object.Kind != "" {
		what += fmt.Sprintf(" on %s", strings.TrimSpace(string(object.Kind)+" "+object.Name))
	}
	switch {
	case who == asAnonymous:
		return san.Errorf(san.KindUnauthenticated, "%s may not do %s; %s", p.describe(), what, whoMay(row))
	case granted == self:
		return san.Errorf(san.KindDenied, "%s may do %s for itself only, not for %s", p.describe(), action, object.Name)
	case granted != never:
		return san.Errorf(san.KindDenied, "%s may do %s only for host %s and its volumes, not %s; %s", p.describe(), action, p.Host, what, whoMay(row))
	}
	return san.Errorf(san.KindDenied, "%s may not do %s; %s", p.describe(), what, whoMay(row))
}

// covers reports whether the scope, granted to p, reaches object.
func (s scope) covers(p Principal, o Object) bool {
	switch s {
	case always:
		return true
	case self:
		return p.Name != "" && string(o.Kind) == string(p.Kind) && o.Name == p.Name
	case ownHost:
		return o.Kind == ObjectHost && o.Name == string(p.Host) || mine(p, o)
	case forHost:
		return o.Kind == ObjectVolume && (o.Target == "" || o.Target == p.Host)
	case byHost:
		return mine(p, o) && o.Target == p.Host
	case sole:
		foreign := func(h san.HostID) bool { return h != p.Host }
		return mine(p, o) && (o.Owner == "" || o.Owner == p.Host) && !slices.ContainsFunc(o.Assigned, foreign)
	}
	return false
}

// mine reports whether o is a volume that p's host made or has.
func mine(p Principal, o Object) bool {
	return o.Kind == ObjectVolume && p.Host != "" && (o.Owner == p.Host || slices.Contains(o.Assigned, p.Host))
}

// hostOf is the host that a host's own certificate makes its holder act for.
func hostOf(p Principal) san.HostID { return san.HostID(p.Name) }

// whoMay says what to show instead.
func whoMay(row rights) string {
	var tokens, parts []string
	for a := asAdmin; a < actorCount; a++ {
		switch {
		case row[a] == never || a == asPending:
		case a <= asProvisioner:
			tokens = append(tokens, actorNames[a])
		default:
			parts = append(parts, actorNames[a])
		}
	}
	switch {
	case len(tokens) > 0:
		return "use a token with role " + strings.Join(tokens, " or ")
	case len(parts) > 0:
		return "it is for the certificate of a " + strings.Join(parts, " or ")
	}
	return "no such action is known"
}
