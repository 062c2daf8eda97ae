package house

import (
	"fmt"
	"strings"
	"testing"
)

// layer says what of ours the packages below one folder may import. The first
// layer whose root holds a package is the one that applies to it, so that
// narrower roots stand before wider ones.
type layer struct {
	root string
	may  []string
}

// layers is the import order of docs/architecture.md: downward only.
var layers = []layer{
	{"san", []string{"san"}},
	{"fsm", []string{"fsm", "san"}},
	{"api/gen", []string{"api/gen"}},
	{"api/convert", []string{"api/gen", "san"}},
	{"internal", []string{"internal", "api", "san"}},
	{"dataplane", []string{"dataplane", "internal", "api", "san"}},
	{"hostlib", []string{"hostlib", "internal", "api", "san"}},
	{"controlplane/replica", []string{"controlplane/replica", "fsm", "internal", "san"}},
	{"controlplane/reconcile", []string{"controlplane/reconcile", "fsm", "internal", "san"}},
	{"controlplane", []string{"controlplane", "fsm", "internal", "api", "san"}},
	{"cmd", []string{"cmd", "controlplane", "dataplane", "hostlib", "fsm", "internal", "api", "san"}},
	{"deploy", []string{"cmd", "controlplane", "dataplane", "hostlib", "fsm", "internal", "api", "san"}},
	{"chaos", []string{"chaos", "controlplane", "dataplane", "hostlib", "fsm", "internal", "api", "san"}},
}

// soleImporters names the folders that may import a package of other people
// (or a dangerous one of the standard library). What lies behind one door can
// be replaced, bounded and tested there.
var soleImporters = []struct {
	prefix string
	homes  []string
}{
	{"github.com/hashicorp/raft", []string{"controlplane/replica"}},
	{"github.com/hashicorp/raft-boltdb", []string{"controlplane/replica"}},
	{"github.com/hashicorp/serf", []string{"internal/gossip"}},
	{"github.com/hashicorp/memberlist", []string{"internal/gossip"}},
	{"github.com/hashicorp/go-memdb", []string{"fsm"}},
	{"github.com/gostor/gotgt", []string{"dataplane/scsi"}},
	{"github.com/spf13/viper", []string{"cmd/sandbar"}},
	{"github.com/spf13/cobra", []string{"cmd/sandbar"}},
	{"os/signal", []string{"cmd/sandbar", "chaos"}},
}

// importFindings judges the imports of one file.
func importFindings(f *sourceFile) []string {
	var findings []string
	for _, imported := range f.imports() {
		if dir, ok := ours(imported); ok {
			if why := judgeOurs(f.dir, dir); why != "" {
				findings = append(findings, fmt.Sprintf("%s imports %s: %s", f.path, imported, why))
			}
			continue
		}
		if why := judgeTheirs(f, imported); why != "" {
			findings = append(findings, fmt.Sprintf("%s imports %s: %s", f.path, imported, why))
		}
	}
	return findings
}

func judgeOurs(from, to string) string {
	for _, l := range layers {
		if !within(from, l.root) {
			continue
		}
		for _, may := range l.may {
			if within(to, may) {
				return ""
			}
		}
		return l.root + " may import only " + strings.Join(l.may, ", ")
	}
	return "no rule says what " + from + " may import; add it to docs/architecture.md and to layers"
}

func judgeTheirs(f *sourceFile, imported string) string {
	thirdParty := strings.Contains(strings.SplitN(imported, "/", 2)[0], ".")
	if within(f.dir, "san") && thirdParty && !f.isTest() {
		return "san uses the standard library only"
	}
	for _, rule := range soleImporters {
		if !within(imported, rule.prefix) {
			continue
		}
		for _, home := range rule.homes {
			if within(f.dir, home) {
				return ""
			}
		}
		return "only " + strings.Join(rule.homes, ", ") + " may"
	}
	return ""
}

func TestImportsGoDownwardOnly(t *testing.T) {
	for _, f := range sourceTree(t) {
		report(t, importFindings(f))
	}
}

func TestImportRulesFindViolations(t *testing.T) {
	for _, c := range []struct {
		file, imported string
		ok             bool
	}{
		{"san/ids.go", "fmt", true},
		{"san/ids.go", module + "/internal/clock", false},
		{"san/ids.go", "golang.org/x/sync/errgroup", false},
		{"san/ids_test.go", "pgregory.net/rapid", true},
		{"san/record/record.go", module + "/san", true},
		{"fsm/apply.go", module + "/san", true},
		{"fsm/apply.go", module + "/api/gen/sandbar/v1", false},
		{"fsm/apply.go", module + "/internal/clock", false},
		{"api/convert/volume.go", module + "/fsm", false},
		{"internal/initiator/session.go", module + "/internal/pdu", true},
		{"internal/initiator/session.go", module + "/dataplane/iscsi", false},
		{"dataplane/unit.go", module + "/fsm", false},
		{"dataplane/unit.go", module + "/hostlib", false},
		{"dataplane/unit_test.go", module + "/hostlib", false},
		{"dataplane/unit.go", module + "/internal/cdb", true},
		{"hostlib/volume.go", module + "/dataplane/iscsi", false},
		{"hostlib/volume.go", module + "/controlplane", false},
		{"controlplane/station.go", module + "/controlplane/replica", true},
		{"controlplane/station.go", module + "/dataplane", false},
		{"controlplane/replica/replica.go", module + "/controlplane/rpc", false},
		{"controlplane/replica/replica.go", "github.com/hashicorp/raft", true},
		{"controlplane/rpc/volume.go", "github.com/hashicorp/raft", false},
		{"controlplane/rpc/volume.go", "github.com/hashicorp/raft-boltdb/v2", false},
		{"controlplane/station.go", "github.com/hashicorp/serf/serf", false},
		{"internal/gossip/gossip.go", "github.com/hashicorp/serf/serf", true},
		{"dataplane/volume/volume.go", "github.com/gostor/gotgt/pkg/scsi", false},
		{"dataplane/unit.go", "os/signal", false},
		{"cmd/sandbar/main.go", "github.com/spf13/viper", true},
		{"cmd/sandbar/main.go", module + "/chaos/lab", false},
		{"chaos/scenario/kill.go", module + "/controlplane", true},
		{"somewhere/new.go", module + "/san", false},
	} {
		src := "package p\n\nimport _ \"" + c.imported + "\"\n"
		findings := importFindings(parseFile(t, c.file, []byte(src)))
		if ok := len(findings) == 0; ok != c.ok {
			t.Errorf("%s importing %s: allowed is %v, want %v (%v)", c.file, c.imported, ok, c.ok, findings)
		}
	}
}
