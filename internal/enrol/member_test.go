package enrol

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

func part(t *testing.T, d *desk, endpoint string) Part {
	t.Helper()
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return Part{Dir: dir, Role: san.RoleHost, ID: "h1", Endpoints: []string{endpoint}, Token: identity.NewJoinToken(d.ca.Fingerprint()).Reveal(),
		Log: slog.New(slog.DiscardHandler)}
}

func find(t *testing.T, p Part) *Member {
	t.Helper()
	m, err := Find(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMember: looking asks nobody; a part enrols once, and finds itself again without a station.
func TestMember(t *testing.T) {
	d, addr := open(t)
	p := part(t, d, addr)
	var kept []Join
	p.Keep = func(j Join) error { kept = append(kept, j); return nil }
	m := find(t, p)
	if m.Enrolled() || m.Cluster() != "" || len(d.csrs) > 0 {
		t.Fatalf("enrolled by looking: %v in %q, %d requests", m.Enrolled(), m.Cluster(), len(d.csrs))
	}
	for range 2 {
		if err := m.Enrol(limited(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.csrs) != 1 || !m.Enrolled() || m.Cluster() != d.ca.Cluster() || m.Identity().Self().Role != san.RoleHost {
		t.Errorf("%d requests, enrolled in %q as %v", len(d.csrs), m.Cluster(), m.Identity().Self())
	}
	if err := m.SetInitiators([]string{"iqn.2004-10.com.example:y"}); err != nil {
		t.Error(err)
	}
	if len(kept) != 1 || !slices.Equal(kept[0].Initiators, []string{"iqn.2004-10.com.example:y"}) || !slices.Equal(kept[0].Endpoints, []string{addr}) {
		t.Errorf("was told to keep %v", kept)
	}

	p.Token, p.Endpoints = "", []string{"new:1"}
	m = find(t, p)
	if !m.Enrolled() || !slices.Equal(m.Endpoints(), []string{addr, "new:1"}) || !slices.Equal(m.Gossip(), []string{"g:1"}) ||
		!slices.Equal(m.Initiators(), []string{"iqn.2004-10.com.example:y"}) {
		t.Errorf("came back as %v with %v, %v, %v", m.Enrolled(), m.Endpoints(), m.Gossip(), m.Initiators())
	}
	if key, err := m.Secret(GossipKey); err != nil || string(key) != "gossip" {
		t.Errorf("gossip key %q, %v", key, err)
	}
}

func TestAMemberWhoseFolderOrTokenIsWrong(t *testing.T) {
	d, addr := open(t)
	p := part(t, d, addr)
	for name, c := range map[string]struct {
		edit func(*Part)
		kind san.Kind
		says string
	}{
		"no token":       {func(p *Part) { p.Token = "" }, san.KindInvalid, "join-token create --role host"},
		"no station":     {func(p *Part) { p.Endpoints = nil }, san.KindInvalid, "set 'join'"},
		"a broken token": {func(p *Part) { p.Token = "x" }, san.KindUnauthenticated, "malformed"},
	} {
		bad := p
		c.edit(&bad)
		if _, err := Find(bad); san.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := find(t, p).Enrol(limited(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	foreign := p
	foreign.Token = identity.NewJoinToken(identity.Fingerprint{1}).Reveal()
	if _, err := Find(foreign); san.KindOf(err) != san.KindConflict || !strings.Contains(err.Error(), p.Dir.Path("")) {
		t.Errorf("a token of another cluster: %v", err)
	}
	foreign = p
	foreign.ID = "h2"
	if _, err := Find(foreign); san.KindOf(err) != san.KindConflict {
		t.Errorf("the folder of another host: %v", err)
	}
}

// The next start goes by the addresses that are kept, and must not be kept from starting by them.
func TestOnlyUsableAddressesAreKept(t *testing.T) {
	d, addr := open(t)
	p := part(t, d, addr)
	m := find(t, p)
	if err := m.Enrol(limited(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	good := []string{"192.0.2.1:7000", "[2001:db8::1]:7000"}
	m.Welcomed(&pb.Welcome{StationEndpoints: good})
	for _, bad := range [][]string{nil, {"192.0.2.2:7000", "station3"}, {""}, make([]string, 65)} {
		m.Welcomed(&pb.Welcome{StationEndpoints: bad})
	}
	kept, err := Load(p.Dir)
	if err != nil || !slices.Equal(kept.Endpoints, good) || !slices.Equal(m.Endpoints(), good) {
		t.Errorf("%v are kept, %v are used, %v", kept.Endpoints, m.Endpoints(), err)
	}
	// What got into the folder all the same is passed over.
	if err := Keep(p.Dir, Join{Endpoints: append([]string{"station3", ""}, good...)}); err != nil {
		t.Fatal(err)
	}
	p.Endpoints = nil
	if m := find(t, p); !slices.Equal(m.Endpoints(), good) {
		t.Errorf("%v are used", m.Endpoints())
	}
}
