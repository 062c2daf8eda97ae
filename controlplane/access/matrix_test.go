package access

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

var allActions = []Action{
	ActionHealth, ActionEnrol, ActionRead, ActionCredentialsRead,
	ActionVolumeCreate, ActionVolumeAssign, ActionVolumeUnassign, ActionVolumeGrow, ActionVolumeDelete, ActionVolumeWrite,
	ActionHostWrite, ActionUnitWrite, ActionStationWrite, ActionTokenWrite,
	ActionAgentSession, ActionCertificateRenew,
	ActionPeerForward, ActionPeerSubmit, ActionPeerStatus, ActionPeerJoin,
	"no.such.action", "",
}

type namedPrincipal struct {
	name string
	Principal
}

func allPrincipals() []namedPrincipal {
	peer := func(role san.Role, id string, approved bool) Principal {
		return OfPeer(identity.Peer{Role: role, ID: id}, approved)
	}
	return []namedPrincipal{
		{"zero", Principal{}},
		{"anonymous", Anonymous()},
		{"admin", OfToken("root", RoleAdmin, "")},
		{"operator", OfToken("op", RoleOperator, "")},
		{"viewer", OfToken("eye", RoleViewer, "")},
		{"prov-h1", OfToken("csi", RoleProvisioner, "h1")},
		{"prov-none", OfToken("csi", RoleProvisioner, "")},
		{"admin-h1", OfToken("odd", RoleAdmin, "h1")},
		{"bad-role", OfToken("odd", "root", "")},
		{"host-h1", peer(san.RoleHost, "h1", true)},
		{"pending-h1", peer(san.RoleHost, "h1", false)},
		{"host-as-h2", Principal{Kind: KindHost, Name: "h1", Host: "h2", Approved: true}},
		{"unit-u1", peer(san.RoleUnit, "u1", true)},
		{"pending-u1", peer(san.RoleUnit, "u1", false)},
		{"station-s1", peer(san.RoleStation, "s1", false)},
		{"bad-peer", peer("king", "h1", true)},
	}
}

// objectCases are the objects that rules tell apart, as host h1 sees them.
var objectCases = []struct {
	key, why string
	Object
}{
	{"mine", "made by h1, for h1", Object{Kind: ObjectVolume, Name: "v", Owner: "h1", Target: "h1"}},
	{"have", "an operator's, assigned to h1, for h1", Object{Kind: ObjectVolume, Name: "v", Assigned: []san.HostID{"h1"}, Target: "h1"}},
	{"give", "assigned to h1, the act is for h2", Object{Kind: ObjectVolume, Name: "v", Assigned: []san.HostID{"h1"}, Target: "h2"}},
	{"share", "h1 and h2 have it, for h1", Object{Kind: ObjectVolume, Name: "v", Assigned: []san.HostID{"h2", "h1"}, Target: "h1"}},
	{"lent", "made by h2, assigned to h1, for h1", Object{Kind: ObjectVolume, Name: "v", Owner: "h2", Assigned: []san.HostID{"h1"}, Target: "h1"}},
	{"free", "nobody's, for h1", Object{Kind: ObjectVolume, Name: "v", Target: "h1"}},
	{"blank", "nobody's, for nobody", Object{Kind: ObjectVolume, Name: "v"}},
	{"theirs", "made by and assigned to h2, for h2", Object{Kind: ObjectVolume, Name: "v", Owner: "h2", Assigned: []san.HostID{"h2"}, Target: "h2"}},
	{"h1", "host h1", Object{Kind: ObjectHost, Name: "h1"}},
	{"h2", "host h2", Object{Kind: ObjectHost, Name: "h2"}},
	{"u1", "unit u1", Object{Kind: ObjectUnit, Name: "u1"}},
	{"u2", "unit u2", Object{Kind: ObjectUnit, Name: "u2"}},
	{"s1", "station s1", Object{Kind: ObjectStation, Name: "s1"}},
	{"token", "a token", Object{Kind: ObjectToken, Name: "root"}},
	{"pool", "all else", Object{Kind: ObjectCluster}},
	{"none", "no object", Object{}},
}

func renderMatrix() []byte {
	var out bytes.Buffer
	fmt.Fprintln(&out, "Who may do what on which object, by Authorize. \"*\" is every object, \"-\" none.")
	fmt.Fprintln(&out, "\nObjects:")
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, o := range objectCases {
		fmt.Fprintf(table, "  %s\t%s\n", o.key, o.why)
	}
	table.Flush()
	for _, action := range allActions {
		fmt.Fprintf(&out, "\n%q\n", string(action))
		for _, p := range allPrincipals() {
			var allowed []string
			for _, o := range objectCases {
				if Authorize(p.Principal, action, o.Object) == nil {
					allowed = append(allowed, o.key)
				}
			}
			cell := strings.Join(allowed, " ")
			switch len(allowed) {
			case 0:
				cell = "-"
			case len(objectCases):
				cell = "*"
			}
			fmt.Fprintf(&out, "  %-12s%s\n", p.name, cell)
		}
	}
	return out.Bytes()
}

// TestMatrix holds every decision to the golden file, which is what a reviewer reads. To
// change a right, run it with SANDBAR_UPDATE_GOLDEN=1 and judge the difference.
func TestMatrix(t *testing.T) {
	path := filepath.Join("testdata", "matrix.txt")
	got := renderMatrix()
	if os.Getenv("SANDBAR_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("the rights differ from %s; they are now:\n%s", path, got)
	}
}
