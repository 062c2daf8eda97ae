package access

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/san"
)

// Whatever the principal's and object's fields are, whoever acts for a host never
// reaches what belongs to others.
func TestHostBoundNeverReachesOthers(t *testing.T) {
	hosts := []san.HostID{"", "h1", "h2", "h3"}
	rapid.Check(t, func(t *rapid.T) {
		host := rapid.SampledFrom(hosts[1:]).Draw(t, "host")
		p := OfToken("csi", RoleProvisioner, host)
		if rapid.Bool().Draw(t, "agent") {
			p = Principal{Kind: KindHost, Name: string(host), Host: host, Approved: true}
		}
		o := Object{
			Kind:     rapid.SampledFrom([]ObjectKind{ObjectVolume, ObjectHost, ObjectUnit, ObjectStation, ObjectToken, ObjectCluster, ""}).Draw(t, "kind"),
			Name:     rapid.SampledFrom([]string{"", "h1", "h2", "v"}).Draw(t, "name"),
			Owner:    rapid.SampledFrom(hosts).Draw(t, "owner"),
			Assigned: rapid.SliceOfN(rapid.SampledFrom(hosts[1:]), 0, 3).Draw(t, "assigned"),
			Target:   rapid.SampledFrom(hosts).Draw(t, "target"),
		}
		action := rapid.SampledFrom(allActions).Draw(t, "action")
		if Authorize(p, action, o) != nil {
			return
		}
		concerned := o.Owner == host || slices.Contains(o.Assigned, host)
		switch action {
		case ActionHealth, ActionEnrol:
		case ActionAgentSession, ActionCertificateRenew:
			if p.Kind != KindHost || o.Name != string(host) {
				t.Fatalf("%v did %s as %+v", p, action, o)
			}
		case ActionRead:
			if !(o.Kind == ObjectHost && o.Name == string(host)) && !(o.Kind == ObjectVolume && concerned) {
				t.Fatalf("%v read %+v", p, o)
			}
		case ActionVolumeCreate:
			if o.Target != "" && o.Target != host {
				t.Fatalf("%v made a volume for %s", p, o.Target)
			}
		case ActionVolumeAssign, ActionVolumeUnassign, ActionCredentialsRead:
			if !concerned || o.Target != host {
				t.Fatalf("%v did %s on %+v", p, action, o)
			}
		case ActionVolumeDelete, ActionVolumeGrow:
			if !concerned || slices.ContainsFunc(o.Assigned, func(h san.HostID) bool { return h != host }) {
				t.Fatalf("%v did %s on %+v", p, action, o)
			}
		default:
			t.Fatalf("%v did %s", p, action)
		}
	})
}

func TestAuthorizeErrors(t *testing.T) {
	volume := Object{Kind: ObjectVolume, Name: "db", Assigned: []san.HostID{"h2"}, Target: "h2"}
	for _, c := range []struct {
		name   string
		p      Principal
		action Action
		object Object
		kind   san.Kind
		says   []string
	}{
		{"anonymous", Anonymous(), ActionRead, volume, san.KindUnauthenticated, []string{"without token", "volume db", "role admin or operator or viewer"}},
		{"viewer", OfToken("eye", RoleViewer, ""), ActionVolumeDelete, volume, san.KindDenied, []string{"token eye (viewer)", "volume.delete", "admin or operator"}},
		{"other host", OfToken("csi", RoleProvisioner, "h1"), ActionCredentialsRead, volume, san.KindDenied, []string{"provisioner of host h1", "only for host h1"}},
		{"pending unit", Principal{Kind: KindUnit, Name: "u1"}, ActionRead, volume, san.KindDenied, []string{"unit u1", "nobody approved"}},
		{"another's session", Principal{Kind: KindUnit, Name: "u1", Approved: true}, ActionAgentSession, Object{Kind: ObjectUnit, Name: "u2"}, san.KindDenied, []string{"for itself only", "u2"}},
		{"peer", OfToken("root", RoleAdmin, ""), ActionPeerSubmit, Object{}, san.KindDenied, []string{"certificate of a station"}},
		{"unknown action", OfToken("root", RoleAdmin, ""), "volume.paint", volume, san.KindDenied, []string{"volume.paint", "no such action"}},
		{"zero principal", Principal{}, ActionRead, volume, san.KindDenied, []string{"unknown kind"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Authorize(c.p, c.action, c.object)
			if err == nil || san.KindOf(err) != c.kind {
				t.Fatalf("got %v (%v), want kind %v", err, san.KindOf(err), c.kind)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error %q does not say %q", err, s)
				}
			}
		})
	}
}

func TestPrincipal(t *testing.T) {
	seen := map[string]string{}
	for _, p := range allPrincipals() {
		want := san.HostID("")
		if p.name == "prov-h1" || p.name == "host-h1" {
			want = "h1"
		}
		if got := p.OwnerHost(); got != want {
			t.Errorf("%s: OwnerHost is %q, want %q", p.name, got, want)
		}
		seen[p.String()] = p.name
	}
	for _, want := range []string{"token:root", "host:h1", "unit:u1", "station:s1", "anonymous"} {
		if seen[want] == "" {
			t.Errorf("no principal is called %s: %v", want, seen)
		}
	}
}

func TestCheckRole(t *testing.T) {
	for _, c := range []struct {
		role Role
		host san.HostID
		ok   bool
	}{
		{RoleAdmin, "", true}, {RoleOperator, "", true}, {RoleViewer, "", true}, {RoleProvisioner, "h1", true},
		{RoleAdmin, "h1", false}, {RoleViewer, "h1", false}, {RoleProvisioner, "", false}, {RoleProvisioner, "h 1", false},
		{"", "", false}, {"root", "", false}, {"Admin", "", false},
	} {
		if err := CheckRole(c.role, c.host); (err == nil) != c.ok || err != nil && san.KindOf(err) != san.KindInvalid {
			t.Errorf("CheckRole(%q, %q) = %v, want ok %v", c.role, c.host, err, c.ok)
		}
	}
}

func TestCheckExpiry(t *testing.T) {
	now := time.Date(2030, 5, 6, 7, 8, 9, 0, time.UTC)
	for _, c := range []struct {
		name      string
		expiresAt time.Time
		ok        bool
	}{
		{"never", time.Time{}, true},
		{"later", now.Add(time.Nanosecond), true},
		{"now", now, false},
		{"before", now.Add(-time.Hour), false},
	} {
		err := CheckExpiry("operator token ci", c.expiresAt, now)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && (san.KindOf(err) != san.KindUnauthenticated || !strings.Contains(err.Error(), "ci expired at 2030-05-06T")) {
			t.Errorf("%s: unclear error %v", c.name, err)
		}
	}
}

func TestCheckJoin(t *testing.T) {
	now := time.Date(2030, 5, 6, 7, 8, 9, 0, time.UTC)
	grant := func(change func(*JoinGrant)) JoinGrant {
		g := JoinGrant{Name: "rack4", Role: san.RoleUnit, ExpiresAt: now.Add(time.Hour)}
		change(&g)
		return g
	}
	for _, c := range []struct {
		name  string
		grant JoinGrant
		role  san.Role
		kind  san.Kind // KindInternal: allowed
	}{
		{"good", grant(func(*JoinGrant) {}), san.RoleUnit, san.KindInternal},
		{"last use", grant(func(g *JoinGrant) { g.Uses, g.MaxUses = 2, 3 }), san.RoleUnit, san.KindInternal},
		{"used up", grant(func(g *JoinGrant) { g.Uses, g.MaxUses = 3, 3 }), san.RoleUnit, san.KindDenied},
		{"expired", grant(func(g *JoinGrant) { g.ExpiresAt = now }), san.RoleUnit, san.KindUnauthenticated},
		{"wrong role", grant(func(*JoinGrant) {}), san.RoleStation, san.KindDenied},
		{"no role", grant(func(g *JoinGrant) { g.Role = "" }), "", san.KindInvalid},
	} {
		err := CheckJoin(c.grant, c.role, now)
		if (err == nil) != (c.kind == san.KindInternal) || san.KindOf(err) != c.kind {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
