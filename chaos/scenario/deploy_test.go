package scenario

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/sandbar-san/sandbar/chaos/lab"
	"github.com/sandbar-san/sandbar/internal/freeport"
)

const deployDir = "../../deploy"

// variables are a daemon's settings as its environment has them: they win over the file's.
func variables(role string, settings map[string]string) []string {
	var env []string
	for key, value := range settings {
		env = append(env, "SANDBAR_"+strings.ToUpper(role)+"_"+strings.ToUpper(strings.ReplaceAll(key, "-", "_"))+"="+value)
	}
	return env
}

// TestSampleConfigsStart starts a station, a unit and a host from what is installed, with no other
// changes than an operator makes: where data lies, addresses, and a cluster of one.
func TestSampleConfigsStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stationData := filepath.Join(dir, "station")
	ports, err := freeport.Loopback(t.Context(), 6)
	if err != nil {
		t.Fatal(err)
	}
	api := ports[0]
	run := func(role string, settings map[string]string) *lab.Process {
		t.Helper()
		return spawn(t, role, variables(role, settings), role, "run", "--config", filepath.Join(deployDir, "config", role+".yaml"))
	}
	member := func(role string) map[string]string {
		return map[string]string{"data": filepath.Join(dir, role), "join": api, "join-token-file": filepath.Join(stationData, role+".join-token")}
	}
	station := run("station", map[string]string{
		"data": stationData, "bootstrap-expect": "1", "api-listen": api, "raft-listen": ports[1], "gossip-listen": ports[2],
	})
	c := &cluster{t: t, Lab: &lab.Lab{Dir: dir, Binary: program, Access: lab.Access{
		Endpoints: []string{api}, TokenFile: filepath.Join(stationData, "admin.token"), CAFile: filepath.Join(stationData, "ca.pem"),
	}}}
	c.await("the station founds its cluster", patience, func(ctx context.Context) error {
		if !station.Alive() {
			log, _ := station.Log()
			t.Fatalf("it has ended: %s", log)
		}
		return c.CLI(ctx, "station", "list", "--timeout", "2s").Err()
	})
	unitSettings := member("unit")
	unitSettings["media"], unitSettings["medium-size"] = filepath.Join(dir, "m1"), "64MiB"
	for i, name := range []string{"portal-listen", "api-listen", "gossip-listen"} {
		unitSettings[name] = ports[3+i]
	}
	unit, host := run("unit", unitSettings), run("host", member("host"))
	for role, id := range map[string]string{"unit": sampleID(t, "unit"), "host": sampleID(t, "host")} {
		if err := c.AwaitState(t.Context(), role, id, "Online", patience); err != nil {
			t.Fatal(err)
		}
	}
	c.ok("volume", "create", "v", "--size", "8MiB", "--host", sampleID(t, "host"), "--wait")
	for _, p := range []*lab.Process{host, unit, station} {
		if err := p.Terminate(); err != nil {
			t.Fatal(err)
		}
		if code, said := ends(t, p); code != 0 {
			t.Errorf("%s: SIGTERM: exit code %d: %s", p.ID, code, said)
		}
	}
}

// sampleID is the name that a sample configuration gives.
func sampleID(t *testing.T, role string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, "config", role+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		ID string `json:"id"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil || config.ID == "" {
		t.Fatalf("%s.yaml: id %q, %v", role, config.ID, err)
	}
	return config.ID
}

// TestServicesVerify has systemd judge the services.
func TestServicesVerify(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is missing")
	}
	// The program must be where the services say: a copy of them names the one under test.
	dir := t.TempDir()
	for _, role := range []string{"station", "unit", "host"} {
		name := "sandbar-" + role + ".service"
		text, err := os.ReadFile(filepath.Join(deployDir, "systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Replace(text, []byte("ExecStart=/usr/bin/sandbar "), fmt.Appendf(nil, "ExecStart=%s ", program), 1)
		if bytes.Equal(changed, text) {
			t.Fatalf("%s does not start /usr/bin/sandbar", name)
		}
		if err := os.WriteFile(filepath.Join(dir, name), changed, 0o600); err != nil {
			t.Fatal(err)
		}
		r := try(t, "systemd-analyze", "verify", "--man=no", filepath.Join(dir, name))
		if r.Code != 0 || strings.Contains(r.Said(), name) {
			t.Errorf("%s: %v %s", name, r.Err(), r.Said())
		}
	}
}
