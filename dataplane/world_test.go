package dataplane_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane"
	"github.com/sandbar-san/sandbar/internal/freeport"
	"github.com/sandbar-san/sandbar/internal/initiator"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	volumeA = "6f0a1c9e-55d0-4a58-8a7b-0b7d3f3e0a01"
	volumeB = "6f0a1c9e-55d0-4a58-8a7b-0b7d3f3e0b02"
	hostA   = "iqn.2004-10.com.example:a"
	hostB   = "iqn.2004-10.com.example:b"
	mib     = 1 << 20
)

// world is a unit with its station.
type world struct {
	t       *testing.T
	station *station
	cfg     dataplane.Config
	states  *fullFolder // in place of the data folder's files, if not nil
	stop    context.CancelFunc
	done    chan error
}

// freePort returns an address that nobody has right now, and that nobody else who asks gets.
func freePort(t *testing.T) string {
	t.Helper()
	addrs, err := freeport.Loopback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0]
}

func unitConfig(t *testing.T, s *station) dataplane.Config {
	t.Helper()
	dir := t.TempDir()
	log := io.Writer(io.Discard)
	if testing.Verbose() {
		log = t.Output()
	}
	return dataplane.Config{
		Data: filepath.Join(dir, "data"), ID: "u1", Media: []string{filepath.Join(dir, "m1")}, MediumSizeBytes: 256 * mib,
		Join: []string{s.endpoint()}, JoinToken: s.token.Reveal(),
		PortalListen: freePort(t), APIListen: freePort(t), GossipListen: "127.0.0.1:0", FastGossip: true,
		Version: "test", Log: slog.New(slog.NewTextHandler(log, nil)),
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s := newStation(t, clusterID)
	w := &world{t: t, station: s, cfg: unitConfig(t, s)}
	w.start()
	return w
}

// start starts the unit and returns once it has its iSCSI port; logins wait there until it serves.
func (w *world) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.done = cancel, make(chan error, 1)
	done := w.done
	run := dataplane.Run
	if states := w.states; states != nil {
		run = func(ctx context.Context, cfg dataplane.Config) error { return dataplane.RunWithState(ctx, cfg, states) }
	}
	go func() { done <- run(ctx, w.cfg) }()
	w.t.Cleanup(func() { cancel() })
	limit := time.After(patience)
	for {
		if conn, err := net.Dial("tcp", w.cfg.PortalListen); err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-done:
			w.t.Fatalf("the unit ended: %v", err)
		case <-limit:
			w.t.Fatal("the unit does not come up")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// shutdown stops the unit in order.
func (w *world) shutdown() {
	w.t.Helper()
	began := time.Now()
	w.stop()
	select {
	case err := <-w.done:
		if err != nil {
			w.t.Errorf("the unit ended with: %v", err)
		}
	case <-time.After(patience):
		w.t.Fatal("the unit does not end")
	}
	if took := time.Since(began); took > 5*time.Second {
		w.t.Errorf("the shutdown took %v", took)
	}
}

// medium waits for the storage info of the newest start and returns the medium's id.
func (w *world) medium() string {
	w.t.Helper()
	var id string
	w.station.wait("storage info", func() bool {
		if n := len(w.station.storage); n > 0 {
			id = w.station.storage[n-1].Media[0].Id
		}
		return id != ""
	})
	return id
}

func (w *world) replica(volume string, sizeBytes int64) []*pb.DesiredReplica {
	return []*pb.DesiredReplica{{
		VolumeId: volume, Name: "v", SizeBytes: sizeBytes, BlockSizeBytes: 512,
		Slices: []*pb.DesiredSlice{{MediumId: w.medium(), Extents: san.ExtentsFor(sizeBytes)}},
	}}
}

// secretOf is the CHAP secret in these tests.
func secretOf(volume, host string) string { return fmt.Sprintf("%.8s%.8ssecret", volume, host) }

func access(volume, host string, generation uint64, initiators ...string) *pb.DesiredAssignment {
	return &pb.DesiredAssignment{
		VolumeId: volume, HostId: host, Generation: generation, Initiators: initiators, ChapUser: host, ChapSecret: secretOf(volume, host),
	}
}

// give makes a volume and assigns it.
func (w *world) give(volume, host, name string, sizeBytes int64) {
	w.t.Helper()
	w.station.want(w.replica(volume, sizeBytes), access(volume, host, 1, name))
	w.station.reported(pb.ReportKind_REPORT_KIND_REPLICA_READY, volume, "", 0)
	w.station.reported(pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, volume, host, 1)
}

func (w *world) initiator(volume, host, name string) initiator.Config {
	return initiator.Config{
		Portal: w.cfg.PortalListen, Target: san.TargetName(w.cfg.ID, san.VolumeID(volume)), InitiatorName: name,
		CHAP: initiator.CHAP{User: host, Secret: secretOf(volume, host)},
	}
}

// login opens the volume as a host does.
func (w *world) login(volume, host, name string) (*initiator.Device, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	s, err := initiator.Dial(ctx, w.initiator(volume, host, name))
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { s.Close() })
	return initiator.OpenDevice(ctx, s, 0)
}

func (w *world) mustLogin(volume, host, name string) *initiator.Device {
	w.t.Helper()
	d, err := w.login(volume, host, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}
