package dataplane_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

func TestARestartKeepsAllWithoutAStation(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 8*mib)
	release := access(volumeB, "a", 2, hostA)
	release.Release = true
	w.give(volumeB, "a", hostA, 4*mib)
	w.station.want(nil, release)
	w.station.reported(pb.ReportKind_REPORT_KIND_RELEASED, volumeB, "a", 2)
	d := w.mustLogin(volumeA, "a", hostA)
	data := bytes.Repeat([]byte{0xA5}, 1*mib)
	if err := d.WriteThroughAt(t.Context(), data, 3*mib); err != nil {
		t.Fatal(err)
	}
	address := w.station.address
	w.station.stop()
	w.shutdown()

	w.cfg.JoinToken = "" // needed only once
	w.start()
	d = w.mustLogin(volumeA, "a", hostA)
	got := make([]byte, len(data))
	if err := d.ReadAt(t.Context(), got, 3*mib); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after the restart: %v, equal: %v", err, bytes.Equal(got, data))
	}
	if _, err := w.login(volumeB, "a", hostA); err == nil {
		t.Error("a restart let in a host whose release was confirmed")
	}

	w.station.forgetReports()
	w.station.start(address)
	w.station.reported(pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, volumeA, "a", 1)
	w.station.reported(pb.ReportKind_REPORT_KIND_RELEASED, volumeB, "a", 2)
	w.station.mu.Lock()
	last := w.station.hellos[len(w.station.hellos)-1]
	w.station.mu.Unlock()
	if last.Incarnation != 2 || last.Portal != w.cfg.PortalListen || last.ApiAddress != w.cfg.APIListen {
		t.Errorf("the hello of the second start: %v", last)
	}
	w.station.wait("storage info of the restart", func() bool {
		info := w.station.storage[len(w.station.storage)-1]
		return len(w.station.storage) > 1 && len(info.Replicas) == 2 && info.Replicas[0].SizeBytes == 8*mib &&
			info.Replicas[0].EndLba == 8*mib/512-1 && info.Replicas[0].Extents == 2 && info.Media[0].UsedExtents == 3
	})
	if err := d.ReadAt(t.Context(), got, 3*mib); err != nil {
		t.Errorf("the station's return disturbed a session: %v", err)
	}
	w.shutdown()
}

func TestProbesAreForStations(t *testing.T) {
	w := newWorld(t)
	w.medium()
	m, err := w.station.probe(san.RoleStation, w.cfg.APIListen)
	if err != nil || m.UnitId != "u1" || m.Incarnation != 1 {
		t.Errorf("a station's probe: %v, %v", m, err)
	}
	if _, err := w.station.probe(san.RoleHost, w.cfg.APIListen); err == nil {
		t.Error("a host's probe was answered")
	}
	other := newStation(t, "0b7c9a52-6a0e-4a5b-9a52-2f6a4d1b8c99")
	if _, err := other.probe(san.RoleStation, w.cfg.APIListen); err == nil {
		t.Error("another cluster's station's probe was answered")
	}
	w.shutdown()
}

func TestARenewedCertificateIsShownOnANewConnection(t *testing.T) {
	s := newStation(t, clusterID)
	s.lifetime = time.Minute // due at once, since certificates are dated back
	w := &world{t: t, station: s, cfg: unitConfig(t, s)}
	w.start()
	w.give(volumeA, "a", hostA, 4*mib)
	d := w.mustLogin(volumeA, "a", hostA)
	s.wait("stream with the new certificate", func() bool {
		return s.issued == 2 && len(s.serials) > 1 && s.serials[len(s.serials)-1] != s.serials[0]
	})
	if err := d.Flush(t.Context()); err != nil {
		t.Errorf("the renewal disturbed a session: %v", err)
	}
	w.shutdown()
}

// run runs a unit that is to fail, and returns how.
func run(t *testing.T, cfg dataplane.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := dataplane.Run(ctx, cfg)
	if err == nil {
		t.Fatal("the unit started")
	}
	return err
}

func wantError(t *testing.T, err error, kind san.Kind, words ...string) {
	t.Helper()
	if san.KindOf(err) != kind {
		t.Errorf("the error is %v, want %v: %v", san.KindOf(err), kind, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not name %q: %v", word, err)
		}
	}
}

func TestOneFolderAndOnePortForOneUnit(t *testing.T) {
	w := newWorld(t)
	w.medium()
	wantError(t, run(t, w.cfg), san.KindConflict, w.cfg.Data, "in use")

	other := unitConfig(t, w.station)
	other.ID, other.PortalListen = "u2", w.cfg.PortalListen
	wantError(t, run(t, other), san.KindConflict, w.cfg.PortalListen, "portal-listen")

	other.PortalListen = freePort(t)
	gossip, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer gossip.Close()
	other.GossipListen = gossip.Addr().String()
	wantError(t, run(t, other), san.KindConflict, other.GossipListen)

	other.GossipListen, other.Media = "127.0.0.1:0", w.cfg.Media
	wantError(t, run(t, other), san.KindConflict, w.cfg.Media[0])
	w.shutdown()
}

func TestMediaOfOthersAreRefused(t *testing.T) {
	w := newWorld(t)
	w.medium()
	w.shutdown()

	other := unitConfig(t, w.station)
	other.ID, other.Media = "u2", w.cfg.Media
	err := run(t, other)
	wantError(t, err, san.KindConflict, w.cfg.Media[0], "u1")
	if !errors.Is(err, extent.ErrForeign) {
		t.Errorf("another unit's medium: %v", err)
	}

	elsewhere := newStation(t, "0b7c9a52-6a0e-4a5b-9a52-2f6a4d1b8c99")
	other = unitConfig(t, elsewhere)
	other.Media = w.cfg.Media
	wantError(t, run(t, other), san.KindConflict, w.cfg.Media[0], string(clusterID))

	data := unitConfig(t, w.station)
	if err := os.WriteFile(data.Media[0], bytes.Repeat([]byte("mine"), 16*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, run(t, data), san.KindInternal, data.Media[0], "give the right one")

	again := w.cfg
	again.JoinToken, again.Join = elsewhere.token.Reveal(), []string{elsewhere.endpoint()}
	wantError(t, run(t, again), san.KindConflict, again.Data, string(clusterID))

	renamed := w.cfg
	renamed.ID = "u7"
	if err := run(t, renamed); !strings.Contains(err.Error(), "u1") {
		t.Errorf("a folder of unit u1 as u7: %v", err)
	}
}

func TestMediaThatWentAwayAreMissed(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 4*mib)
	w.shutdown()
	path := w.cfg.Media[0]
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	wantError(t, run(t, w.cfg), san.KindNotFound, path, "bring it back")
	if _, err := os.Stat(path); err == nil {
		t.Error("a medium was made in the place of one that is missed")
	}
	if err := os.WriteFile(path, make([]byte, 64*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, run(t, w.cfg), san.KindConflict, path, "blank")
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 1*mib)
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xFF}, 1*mib), 0); err != nil {
		t.Fatal(err)
	}
	if err := run(t, w.cfg); !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged superblock: %v", err)
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	w.start()
	w.mustLogin(volumeA, "a", hostA)
	w.shutdown()
}

func TestConfigurationsThatCannotBe(t *testing.T) {
	s := newStation(t, clusterID)
	other := newStation(t, "0b7c9a52-6a0e-4a5b-9a52-2f6a4d1b8c99")
	for name, c := range map[string]struct {
		change func(*dataplane.Config)
		kind   san.Kind
		words  []string
	}{
		"no id":            {func(c *dataplane.Config) { c.ID = "" }, san.KindInvalid, []string{"unit name"}},
		"no media":         {func(c *dataplane.Config) { c.Media = nil }, san.KindInvalid, []string{"media"}},
		"a medium twice":   {func(c *dataplane.Config) { c.Media = append(c.Media, c.Media[0]) }, san.KindInvalid, []string{"twice"}},
		"no such medium":   {func(c *dataplane.Config) { c.MediumSizeBytes = 0 }, san.KindNotFound, []string{"medium-size", "m1"}},
		"a folder as one":  {func(c *dataplane.Config) { c.Media = []string{filepath.Dir(c.Data)} }, san.KindInvalid, []string{"neither"}},
		"a tiny medium":    {func(c *dataplane.Config) { c.MediumSizeBytes = 4096 }, san.KindInvalid, []string{"m1"}},
		"no port":          {func(c *dataplane.Config) { c.PortalListen = "127.0.0.1" }, san.KindInvalid, []string{"portal-listen"}},
		"any address":      {func(c *dataplane.Config) { c.APIListen = "0.0.0.0:0" }, san.KindInvalid, []string{"api-advertise"}},
		"a bad advertise":  {func(c *dataplane.Config) { c.GossipAdvertise = "here" }, san.KindInvalid, []string{"gossip-advertise"}},
		"no token":         {func(c *dataplane.Config) { c.JoinToken = "" }, san.KindInvalid, []string{"join-token-file"}},
		"no token at all":  {func(c *dataplane.Config) { c.JoinToken = "secret" }, san.KindUnauthenticated, []string{"malformed"}},
		"a revoked token":  {func(c *dataplane.Config) { c.JoinToken = identity.NewJoinToken(s.ca.Fingerprint()).Reveal() }, san.KindUnauthenticated, []string{"revoked"}},
		"nobody's address": {func(c *dataplane.Config) { c.PortalListen = "192.0.2.1:3260" }, san.KindInvalid, []string{"192.0.2.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := unitConfig(t, s)
			c.change(&cfg)
			wantError(t, run(t, cfg), c.kind, c.words...)
		})
	}
	t.Run("a foreign token", func(t *testing.T) {
		cfg := unitConfig(t, s)
		cfg.JoinToken = other.token.Reveal()
		wantError(t, run(t, cfg), san.KindUnauthenticated, "join token")
	})
	t.Run("no station yet", func(t *testing.T) {
		cfg := unitConfig(t, s)
		cfg.Join = []string{freePort(t)}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := dataplane.Run(ctx, cfg); err != nil {
			t.Errorf("told to stop while it waited: %v", err)
		}
	})
}
