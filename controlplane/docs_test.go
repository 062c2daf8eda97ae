package controlplane

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// internalServices are not for outside programs.
var internalServices = map[protoreflect.Name]bool{"AgentService": true, "PeerService": true, "ProbeService": true}

// testDocs runs the commands of docs/api.md, each of which must be answered with 200, and checks
// that the page has every method with a command, and every field of every message.
func testDocs(t *testing.T, c *cluster) {
	for _, tool := range []string{"bash", "curl", "jq", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := &strings.Builder{}
	script.WriteString("set -eu -o pipefail\n")
	for _, block := range shellBlock.FindAllStringSubmatch(string(page), -1) {
		script.WriteString(block[1])
	}
	_, follower := c.leader()
	cmd := exec.Command("bash", "-x", "-c", script.String())
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "SANDBAR_ENDPOINT="+c.stations[follower].cfg.APIListen, "SANDBAR_CA_FILE="+c.file("ca.pem"), "SANDBAR_TOKEN_FILE="+c.file("admin.token"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the page's commands: %v; the last of what they said:\n%s", err, out[max(0, len(out)-2000):])
	}
	checkPage(t, string(page), script.String())
}

func checkPage(t *testing.T, page, script string) {
	for _, file := range []protoreflect.FileDescriptor{pb.File_sandbar_v1_volume_proto, pb.File_sandbar_v1_host_proto, pb.File_sandbar_v1_unit_proto, pb.File_sandbar_v1_station_proto, pb.File_sandbar_v1_stats_proto} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				if m := service.Methods().Get(j); !strings.Contains(script, string(service.Name()+"/"+m.Name())) && !internalServices[service.Name()] {
					t.Errorf("docs/api.md has no command for %s", m.FullName())
				}
			}
		}
		for i := range file.Messages().Len() {
			fields := file.Messages().Get(i).Fields()
			for j := range fields.Len() {
				if f := fields.Get(j); !strings.Contains(page, "`"+f.JSONName()+"`") {
					t.Errorf("docs/api.md does not name %s as `%s`", f.FullName(), f.JSONName())
				}
			}
		}
	}
}
