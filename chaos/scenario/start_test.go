package scenario

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

// like makes a copy of a process's command line with flags changed or, to "", left out.
func like(p *lab.Process, flags map[string]string) []string {
	var out []string
	args := p.Argv[1:]
	for i := 0; i < len(args); i++ {
		name, isFlag := strings.CutPrefix(args[i], "--")
		value, change := flags[name]
		if !isFlag || !change {
			out = append(out, args[i])
			continue
		}
		if i++; value != "" {
			out = append(out, "--"+name, value)
		}
	}
	return out
}

// anew are the flags for a daemon of another folder and free ports.
func anew(data string, more map[string]string) map[string]string {
	flags := map[string]string{"data": data}
	for _, name := range []string{"api-listen", "raft-listen", "gossip-listen", "portal-listen"} {
		flags[name] = "127.0.0.1:0"
	}
	for name, value := range more {
		flags[name] = value
	}
	return flags
}

// TestDaemonsThatMustNotStart: each says why, in one line, and does no harm to those that run.
func TestDaemonsThatMustNotStart(t *testing.T) {
	t.Parallel()
	ours := start(t, "--stations", "1", "--units", "1", "--hosts", "1", "--medium-size", "64MiB")
	theirs := start(t, "--stations", "1", "--units", "1", "--hosts", "0", "--medium-size", "64MiB")
	ours.ok("host", "add", "a", "--initiator", otherIQN)
	ours.give("v", "8MiB", "a")
	cfg := ours.login("v", "a", otherIQN)
	station, unit, host := ours.Process("station-1"), ours.Process("unit-1"), ours.Process("host-1")
	file := func(name, text string) string {
		t.Helper()
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	// Each has a name of its own: one that got as far as to enrol is known from then on.
	number := 9
	id := func(role string) string { number++; return fmt.Sprintf("%s-%d", role, number) }
	fresh := func(p *lab.Process, more map[string]string) []string {
		dir := t.TempDir()
		if p.Role == "unit" {
			more["media"] = filepath.Join(dir, "m")
		}
		more["id"] = id(p.Role)
		return like(p, anew(filepath.Join(dir, "data"), more))
	}
	expired := file("expired", ours.ok("join-token", "create", "short", "--role", "unit", "--ttl", "1s"))
	hostToken := file("host-token", ours.ok("join-token", "create", "h", "--role", "host"))
	foreign := theirs.Process("unit-1").Flag("join-token-file")
	taken := unit.Portal
	theirUnit := theirs.Process("unit-1")
	theirs.terminate(theirUnit)
	theirStation := theirs.Process("station-1")

	for _, r := range []struct {
		name  string
		code  int
		words []string
		args  []string
	}{
		{"unit's folder used twice", 4, []string{unit.Flag("data"), "in use"}, like(unit, anew(unit.Flag("data"), nil))},
		{"station's folder used twice", 4, []string{station.Flag("data"), "in use"}, like(station, anew(station.Flag("data"), nil))},
		{"host's folder used twice", 4, []string{host.Flag("data"), "in use"}, like(host, anew(host.Flag("data"), nil))},
		{"medium used twice", 4, []string{unit.Media[0]}, like(unit, anew(t.TempDir(), map[string]string{"id": id("unit")}))},
		{"portal taken", 4, []string{taken, "portal-listen"}, fresh(unit, map[string]string{"portal-listen": taken})},
		{"unit's gossip port taken", 4, []string{unit.Flag("gossip-listen"), "in use"}, fresh(unit, map[string]string{"gossip-listen": unit.Flag("gossip-listen")})},
		{"API port taken", 4, []string{station.APIAddress, "api-listen"}, fresh(station, map[string]string{"api-listen": station.APIAddress})},
		{"raft port taken", 4, []string{station.Flag("raft-listen"), "raft-listen"}, fresh(station, map[string]string{"raft-listen": station.Flag("raft-listen")})},
		{"unit's folder of another cluster", 4, []string{"cluster", theirUnit.Flag("data")}, like(theirUnit, map[string]string{"join": unit.Flag("join"), "join-token-file": unit.Flag("join-token-file")})},
		{"medium of another cluster", 4, []string{theirUnit.Media[0], "cluster"}, like(unit, anew(t.TempDir(), map[string]string{"id": id("unit"), "media": theirUnit.Media[0]}))},
		{"another unit's folder", 4, []string{"unit-1", "unit-2"}, like(theirUnit, map[string]string{"id": "unit-2"})},
		{"foreign join token", 4, []string{"token"}, fresh(unit, map[string]string{"join-token-file": foreign})},
		{"join token for another role", 4, []string{"host", "unit"}, fresh(unit, map[string]string{"join-token-file": hostToken})},
		{"no join token", 2, []string{"join-token-file"}, fresh(unit, map[string]string{"join-token-file": ""})},
		{"no stations", 2, []string{"join"}, fresh(unit, map[string]string{"join": ""})},
		{"join token of nonsense", 2, []string{"join-token-file"}, fresh(unit, map[string]string{"join-token-file": file("x", "nonsense")})},
		{"no media", 2, []string{"media"}, like(unit, anew(t.TempDir(), map[string]string{"id": id("unit"), "media": ""}))},
		{"medium too small", 2, []string{"medium", "small"}, fresh(unit, map[string]string{"medium-size": "1MiB"})},
		{"medium with foreign data", 4, []string{"holds data"}, like(unit, anew(t.TempDir(), map[string]string{"id": id("unit"), "media": file("m", strings.Repeat("\x00", 8<<10)+strings.Repeat("precious", 8<<10)+strings.Repeat("\x00", 64<<20))}))},
		{"medium with foreign data where superblocks would be", 1, []string{"superblock", "wrong file or device"}, like(unit, anew(t.TempDir(), map[string]string{"id": id("unit"), "media": file("m", strings.Repeat("precious ", 5<<20))}))},
		{"bootstrap-expect of two", 2, []string{"bootstrap-expect", "2"}, fresh(station, map[string]string{"bootstrap-expect": "2"})},
		{"bad name", 2, []string{"a b"}, like(host, map[string]string{"id": "a b"})},
		{"typo in the config", 2, []string{"portal-lisen", "portal-listen"}, []string{"unit", "run", "--config", file("unit.yaml", "id: u\nportal-lisen: 127.0.0.1:0\n")}},
		{"no YAML", 2, []string{"unit.yaml"}, []string{"unit", "run", "--config", file("unit.yaml", "id: [u\n")}},
		{"config of the wrong kind", 2, []string{"bootstrap-expect"}, []string{"station", "run", "--config", file("station.yaml", "id: s\nbootstrap-expect: many\n")}},
		{"config that is not there", 2, []string{"/nonexistent/unit.yaml"}, []string{"unit", "run", "--config", "/nonexistent/unit.yaml"}},
		{"unknown flag", 2, []string{"frob"}, []string{"unit", "run", "--frob"}},
		{"expired join token", 4, []string{"expired", "join-token create"}, fresh(unit, map[string]string{"join-token-file": expired})},
	} {
		t.Run(r.name, func(t *testing.T) {
			p := spawn(t, "wrong", nil, r.args...)
			code, said := ends(t, p)
			if code != r.code {
				t.Errorf("exit code %d, want %d: %s", code, r.code, said)
			}
			if !strings.HasPrefix(said, "sandbar: ") {
				t.Errorf("the last line is %q, want what is wrong", said)
			}
			checkWords(t, r.name, said, r.words...)
		})
	}
	if !theirStation.Alive() || !station.Alive() || !unit.Alive() || !host.Alive() {
		t.Error("one of those that ran has ended")
	}
	if err := open(t, cfg).Flush(t.Context()); err != nil {
		t.Errorf("the volume of the unit whose folder was tried: %v", err)
	}
	var list struct {
		Units []struct{ ID string } `json:"units"`
	}
	if err := ours.CLI(t.Context(), "unit", "list", "-o", "json").JSON(&list); err != nil {
		t.Error(err)
	}
	for _, u := range list.Units {
		if u.ID == "unit-2" {
			t.Error("unit-2 is in the tables though it never started")
		}
	}
	// The folder of the other cluster was only looked at.
	theirs.restart(theirUnit)
	if err := theirs.AwaitState(t.Context(), "unit", "unit-1", "Online", patience); err != nil {
		t.Error(err)
	}
}

// TestPending: a unit whose token does not approve it is shown and given nothing until somebody does.
func TestPending(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "1", "--units", "1", "--hosts", "0", "--medium-size", "64MiB")
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(c.ok("join-token", "create", "more", "--role", "unit")), 0o600); err != nil {
		t.Fatal(err)
	}
	args := like(c.Process("unit-1"), anew(filepath.Join(dir, "data"), map[string]string{
		"id": "unit-2", "media": filepath.Join(dir, "m"), "medium-size": "256MiB", "join-token-file": token,
	}))
	p := spawn(t, "unit-2", nil, args...)
	c.await("the unit is shown as pending", patience, func(ctx context.Context) error {
		r := c.CLI(ctx, "unit", "show", "unit-2")
		if r.Err() != nil {
			return r.Err()
		}
		return nil
	})
	// Only the new unit has room for this.
	c.refused(4, []string{"unit-1: full", "unit-2"}, "volume", "create", "big", "--size", "128MiB")
	c.ok("unit", "approve", "unit-2")
	if err := c.AwaitState(t.Context(), "unit", "unit-2", "Online", patience); err != nil {
		t.Fatal(err)
	}
	c.await("it is given a volume", patience, func(ctx context.Context) error {
		return c.CLI(ctx, "volume", "create", "big", "--size", "128MiB", "--wait").Err()
	})
	if err := p.Terminate(); err != nil {
		t.Error(err)
	}
	if code, said := ends(t, p); code != 0 {
		t.Errorf("SIGTERM: exit code %d: %s", code, said)
	}
}
