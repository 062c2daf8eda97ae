package controlplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// runFails runs a station that must give up, and returns why it did.
func runFails(t *testing.T, cfg Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := Run(ctx, cfg)
	if ctx.Err() != nil {
		t.Error("the station ran on")
	}
	return err
}

// lone is the configuration of a station that founds a cluster by itself.
func lone(t *testing.T) Config {
	return Config{
		Data: filepath.Join(t.TempDir(), "data"), ID: "s1", APIListen: freeAddr(t), RaftListen: freeAddr(t), GossipListen: freeAddr(t),
		BootstrapExpect: 1, RaftTiming: replica.LAN(), FastGossip: true, Version: "test", Log: testLog(t),
	}
}

// testFolders: data folders that are in use, or somebody else's.
func testFolders(t *testing.T, c *cluster) {
	cfg := lone(t)
	cfg.Data = c.stations[0].cfg.Data
	wantErr(t, runFails(t, cfg), san.KindConflict, cfg.Data, "in use by another process")
	for _, x := range []struct{ key, addr string }{
		{"api-listen", c.stations[0].cfg.APIListen}, {"raft-listen", c.stations[0].cfg.RaftListen}, {"gossip-listen", c.stations[0].cfg.GossipListen},
	} {
		cfg := lone(t)
		switch x.key {
		case "api-listen":
			cfg.APIListen = x.addr
		case "raft-listen":
			cfg.RaftListen = x.addr
		case "gossip-listen":
			cfg.GossipListen = x.addr
		}
		wantErr(t, runFails(t, cfg), san.KindConflict, x.key, x.addr)
	}
}

func TestBadConfig(t *testing.T) {
	for _, x := range []struct {
		name   string
		change func(*Config)
		says   string
	}{
		{"even", func(c *Config) { c.BootstrapExpect = 2 }, "bootstrap-expect 2"},
		{"negative", func(c *Config) { c.BootstrapExpect = -1 }, "bootstrap-expect -1"},
		{"no id", func(c *Config) { c.ID = "" }, "empty"},
		{"no port", func(c *Config) { c.RaftListen = "localhost" }, "raft-listen"},
		{"any address", func(c *Config) { c.APIListen = "0.0.0.0:1" }, "api-advertise"},
		{"bad advertise", func(c *Config) { c.GossipAdvertise = "x" }, "gossip-advertise"},
		{"no such address", func(c *Config) { c.APIListen = "192.0.2.1:1" }, "api-listen"},
		{"no identity", func(c *Config) { c.BootstrapExpect = 0 }, "join-token-file"},
		{"bad token", func(c *Config) { c.JoinToken = "x" }, "malformed"},
		{"no folder", func(c *Config) { c.Data = "" }, "data"},
		{"folder is a file", func(c *Config) { c.Data = filepath.Join("/proc/self/status", "x") }, "data folder"},
	} {
		t.Run(x.name, func(t *testing.T) {
			cfg := lone(t)
			x.change(&cfg)
			if err := runFails(t, cfg); err == nil {
				t.Error("no error")
			} else {
				wantErr(t, err, san.KindOf(err), x.says)
			}
		})
	}
}

// TestFounderCrash: a founder that is started again after a crash between any two of its steps
// goes on with the same cluster and the same tokens.
func TestFounderCrash(t *testing.T) {
	cfg := lone(t)
	c := &cluster{t: t, stations: []*testStation{{cfg: cfg}}}
	t.Cleanup(c.stopAll)
	path := func(name string) string { return filepath.Join(cfg.Data, name) }
	// Held up by a founder that waits for two more, so that each step's files can be had.
	c.stations[0].cfg.BootstrapExpect = 3
	c.start(0)
	c.await("the first tokens", func() error { _, err := os.Stat(path("ca.pem")); return err })
	if err := c.halt(0); err != nil {
		t.Fatal(err)
	}
	admin, ca := c.read("admin.token"), c.read("ca.pem")
	same := func(when string) {
		t.Helper()
		if c.read("admin.token") != admin || c.read("ca.pem") != ca {
			t.Errorf("%s: another cluster was founded", when)
		}
	}
	for _, lost := range [][]string{
		{"ca.pem"}, {"admin.token", "ca.pem", "host.join-token"},
		{"identity/cert.pem", "identity/key.pem", "identity/meta.json", "identity/ca.pem", "raft", "admin.token", "ca.pem"},
		{"identity/cert.pem", "raft", "ca.pem"},
	} {
		for _, name := range lost {
			if err := os.RemoveAll(path(name)); err != nil {
				t.Fatal(err)
			}
		}
		c.start(0)
		c.await("the tokens again", func() error { _, err := os.Stat(path("ca.pem")); return err })
		if err := c.halt(0); err != nil {
			t.Fatal(err)
		}
		same(fmt.Sprintf("without %v", lost))
	}
	c.stations[0].cfg.BootstrapExpect = 1
	record, err := os.ReadFile(path("founding.json"))
	if err != nil {
		t.Fatal(err)
	}
	c.start(0)
	c.awaitStations(1)
	recordGoes := func() {
		t.Helper()
		c.await("the founding record to go", func() error {
			if _, err := os.Stat(path("founding.json")); err == nil {
				return os.ErrExist
			}
			return nil
		})
	}
	recordGoes()
	// A crash after the first entry, before the record went.
	if err := c.halt(0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path("founding.json"), record, 0o600); err != nil {
		t.Fatal(err)
	}
	c.start(0)
	c.awaitStations(1)
	recordGoes()
	same("after the bootstrap")
	_, err = c.enrolIn(t.TempDir(), san.RoleHost, "h", c.read("host.join-token"))
	if err != nil {
		t.Error(err)
	}
	if err := c.halt(0); err != nil {
		t.Fatal(err)
	}
	testWrongFolder(t, cfg, record)
}

// testWrongFolder starts the folder of a station that ran, under wrong circumstances. record is its founding
// record, which it has no more.
func testWrongFolder(t *testing.T, cfg Config, record []byte) {
	other := cfg
	other.ID = "s2"
	wantErr(t, runFails(t, other), san.KindConflict, "s1", "s2")
	foreign, err := identity.NewCA(san.ClusterID(uuid.NewString()), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other = cfg
	other.JoinToken, other.Join = identity.NewJoinToken(foreign.Fingerprint()).Reveal(), []string{"127.0.0.1:1"}
	wantErr(t, runFails(t, other), san.KindConflict, cfg.Data, "of another cluster")
	id := filepath.Join(cfg.Data, "identity")
	if err := os.Rename(id, id+".away"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, runFails(t, cfg), san.KindConflict, "Raft log but no identity")
	// The log of one cluster with the identity of another.
	mixed := lone(t)
	c := &cluster{t: t, stations: []*testStation{{cfg: mixed}}}
	c.start(0)
	c.await("a second cluster", func() error { _, err := os.Stat(c.file("ca.pem")); return err })
	c.awaitStations(1)
	if err := c.halt(0); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(id); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(mixed.Data, "identity"), id); err != nil {
		t.Fatal(err)
	}
	cfg.RaftListen, cfg.APIListen, cfg.GossipListen = mixed.RaftListen, mixed.APIListen, mixed.GossipListen
	cfg.RaftAdvertise = ""
	wantErr(t, runFails(t, cfg), san.KindConflict, "its log is of cluster")
	// Likewise of a founder that crashed before its record went, whichever of the two is the wrong one.
	if err := os.WriteFile(filepath.Join(cfg.Data, "founding.json"), record, 0o600); err != nil {
		t.Fatal(err)
	}
	wantErr(t, runFails(t, cfg), san.KindConflict, cfg.Data, "its founding.json is of cluster")
}

// TestExpectDiffers: stations that disagree on how many found the cluster don't found one, and the
// founder says why; once they agree they do.
func TestExpectDiffers(t *testing.T) {
	said := newSaid()
	c := &cluster{t: t, dir: t.TempDir()}
	for range 3 {
		c.plan(3)
	}
	c.stations[0].cfg.Log = said.logger()
	c.stations[2].cfg.BootstrapExpect = 5
	t.Cleanup(c.stopAll)
	c.start(0)
	c.await("the founder's tokens", func() error { _, err := os.Stat(c.file("ca.pem")); return err })
	_, err := c.enrolIn(t.TempDir(), san.RoleStation, "station-1", c.read("station.join-token"))
	wantErr(t, err, san.KindExists, "enrolled already")
	cl := c.at(0, "")
	_, err = once(cl.Enrol(cl.Endpoint()).Enrol, &pb.EnrolRequest{JoinToken: c.read("unit.join-token"), Role: "unit", Id: "u"})
	wantErr(t, err, san.KindUnavailable, "not bootstrapped yet")
	_, err = once(cl.Enrol(cl.Endpoint()).Enrol, &pb.EnrolRequest{JoinToken: c.read("unit.join-token"), Role: "station", Id: "station-9"})
	wantErr(t, err, san.KindDenied, "for a unit")
	c.join(1)
	c.join(2)
	c.await("the founder's complaint", func() error {
		return said.has("station station-3 has bootstrap-expect 5 and this one, station-1, has 3")
	})
	if err := c.halt(2); err != nil {
		t.Fatal(err)
	}
	c.stations[2].cfg.BootstrapExpect = 3
	c.start(2)
	c.awaitStations(3)
}
