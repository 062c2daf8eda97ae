package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/hostlib"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

const (
	volumeName      = "demo-data"
	volumeSizeBytes = 80 << 20 // the seed's 80 GB, at a thousandth
	// maxGap is the longest that a host's I/O may stand still when a station dies: stations
	// are not in the data path.
	maxGap = 500 * time.Millisecond
)

// pool shows what the units' storage info has built.
func (s *story) pool(ctx context.Context) error {
	stations, err := s.stations(ctx)
	if err != nil {
		return err
	}
	for _, st := range stations {
		if st.Leader {
			s.say("%d stations agree through Raft; %s leads", len(stations), st.Id)
		}
	}
	units, err := call(ctx, s, func(ctx context.Context, ep string) (*connect.Response[pb.ListUnitsResponse], error) {
		return s.api.Units(ep).ListUnits(ctx, connect.NewRequest(&pb.ListUnitsRequest{}))
	})
	if err != nil {
		return err
	}
	for _, u := range units.Units {
		var capacity int64
		for _, m := range u.Media {
			capacity += m.CapacityBytes
		}
		s.say("%s: startup → storage info → %s, %d medium, %s, portal %s", u.Id, u.State, len(u.Media), san.FormatSize(capacity), u.Portal)
	}
	p, err := call(ctx, s, func(ctx context.Context, ep string) (*connect.Response[pb.GetPoolResponse], error) {
		return s.api.Units(ep).GetPool(ctx, connect.NewRequest(&pb.GetPoolRequest{}))
	})
	if err != nil {
		return err
	}
	s.say("virtual storage pool: %s free of %s on %d units", san.FormatSize(p.FreeBytes), san.FormatSize(p.CapacityBytes), p.UnitsOnline)
	return nil
}

func (s *story) stations(ctx context.Context) ([]*pb.Station, error) {
	out, err := call(ctx, s, func(ctx context.Context, ep string) (*connect.Response[pb.ListStationsResponse], error) {
		return s.api.Stations(ep).ListStations(ctx, connect.NewRequest(&pb.ListStationsRequest{}))
	})
	return out.GetStations(), err
}

// call asks the stations, within a time that a demo can wait.
func call[T any](ctx context.Context, s *story, fn func(context.Context, string) (*connect.Response[T], error)) (*T, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	resp, err := stationclient.Call(ctx, s.api, fn)
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// host is the first host's own library, with that host's certificate.
func (s *story) host() (*hostlib.Client, error) {
	return hostlib.New(hostlib.Config{DataDir: s.dataDir("host", "host-1")})
}

func (s *story) dataDir(role, id string) string {
	argv := s.lab.Find(role, id).Argv
	for i, a := range argv {
		if a == "--data" {
			return argv[i+1]
		}
	}
	return ""
}

// storage is the seed's example: host 1 needs 80 of storage.
func (s *story) storage(ctx context.Context) (err error) {
	host, err := s.host()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	rctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	began := time.Now()
	a, err := host.RequestStorage(rctx, hostlib.StorageRequest{Name: volumeName, SizeBytes: volumeSizeBytes})
	if err != nil {
		return err
	}
	s.say("host-1 asked for %s; all three parties confirmed generation %d after %v", san.FormatSize(volumeSizeBytes), a.Generation, time.Since(began).Round(time.Millisecond))
	for _, p := range a.Paths {
		s.say("host-1 → %s at %s, %s, LUN %d, LBA %d to %d", p.Unit, p.Portal, p.Target, p.LUN, p.StartLBA, p.EndLBA)
	}
	vol, err := host.Open(rctx, volumeName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vol.Close()) }()
	wrote, err := s.fill(vol)
	if err != nil {
		return err
	}
	return s.readBack(vol, wrote)
}

// fill writes the first 64 MiB with random bytes and flushes; the rest is for chapter 3.
const filledBytes = 64 << 20

func (s *story) fill(vol *hostlib.Volume) ([]byte, error) {
	buf, sum, began := make([]byte, 1<<20), sha256.New(), time.Now()
	for off := int64(0); off < filledBytes; off += int64(len(buf)) {
		if _, err := rand.Read(buf); err != nil {
			return nil, err
		}
		sum.Write(buf)
		if _, err := vol.WriteAt(buf, off); err != nil {
			return nil, err
		}
	}
	if err := vol.Flush(); err != nil {
		return nil, err
	}
	s.say("wrote and flushed %s in %v, SHA-256 %.16x…", san.FormatSize(filledBytes), time.Since(began).Round(time.Millisecond), sum.Sum(nil))
	s.wrote = sum.Sum(nil)
	return s.wrote, nil
}

func (s *story) readBack(vol *hostlib.Volume, want []byte) error {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(vol, 0, filledBytes)); err != nil {
		return err
	}
	if got := sum.Sum(nil); string(got) != string(want) {
		return san.Errorf(san.KindInternal, "what was read back has SHA-256 %x, what was written %x", got, want)
	}
	s.say("read back: SHA-256 %.16x…, the same", want)
	return nil
}

// failover kills the leader with SIGKILL while a host writes and reads.
func (s *story) failover(ctx context.Context) (err error) {
	host, err := s.host()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	vol, err := host.Open(ctx, volumeName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vol.Close()) }()
	io := startLoad(vol, filledBytes, volumeSizeBytes-filledBytes)
	defer func() { _, _, _ = io.stop() }() // what it found is said below
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	killed := time.Now()
	if err := s.lab.Kill(s.lab.Find("station", leader)); err != nil {
		return err
	}
	s.say("killed %s with SIGKILL; host-1 goes on writing and verifying", leader)
	if _, err := s.create(ctx, "demo-after-failover", 16<<20); err != nil {
		return err
	}
	took := time.Since(killed)
	next, err := s.leader(ctx)
	if err != nil {
		return err
	}
	s.say("%s leads now; the next volume was provisioned %v after the kill", next, took.Round(time.Millisecond))
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	n, gap, err := io.stop()
	if err != nil {
		return err
	}
	s.say("%d I/Os verified meanwhile; the longest gap was %v", n, gap.Round(100*time.Microsecond))
	if gap >= maxGap {
		return san.Errorf(san.KindInternal, "host-1's I/O stood still for %v; a station's death must not be felt", gap)
	}
	if err := s.lab.Restart(s.lab.Find("station", leader)); err != nil {
		return err
	}
	s.say("%s is started again and follows", leader)
	return nil
}

func (s *story) leader(ctx context.Context) (string, error) {
	stations, err := s.stations(ctx)
	if err != nil {
		return "", err
	}
	for _, st := range stations {
		if st.Leader {
			return st.Id, nil
		}
	}
	return "", san.Errorf(san.KindUnavailable, "no station leads")
}

func (s *story) create(ctx context.Context, name string, size int64) (*pb.Volume, error) {
	req := &pb.CreateVolumeRequest{RequestId: "demo-" + name, Name: name, SizeBytes: size}
	out, err := call(ctx, s, func(ctx context.Context, ep string) (*connect.Response[pb.CreateVolumeResponse], error) {
		return s.api.Volumes(ep).CreateVolume(ctx, connect.NewRequest(req))
	})
	return out.GetVolume(), err
}

// unitAway shuts down the unit that holds host 1's volume and brings it back.
func (s *story) unitAway(ctx context.Context) (err error) {
	host, err := s.host()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	a, err := host.Assignment(ctx, volumeName)
	if err != nil {
		return err
	}
	unit := a.Paths[0].Unit
	p := s.lab.Find("unit", unit)
	if err := s.lab.Terminate(p); err != nil {
		return err
	}
	if err := s.unitState(ctx, unit, "Stopped"); err != nil {
		return err
	}
	s.say("%s said goodbye; the pool shows it as Stopped", unit)
	if err := s.lab.Restart(p); err != nil {
		return err
	}
	if err := s.unitState(ctx, unit, "Online"); err != nil {
		return err
	}
	s.say("%s is back with all that it had", unit)
	octx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	vol, err := host.Open(octx, volumeName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vol.Close()) }()
	return s.readBack(vol, s.wrote)
}

// unitState waits until the pool shows a unit's state.
func (s *story) unitState(ctx context.Context, unit, state string) error {
	last := ""
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
		out, err := call(ctx, s, func(ctx context.Context, ep string) (*connect.Response[pb.GetUnitResponse], error) {
			return s.api.Units(ep).GetUnit(ctx, connect.NewRequest(&pb.GetUnitRequest{Id: unit}))
		})
		if err != nil {
			return err
		}
		if last = out.Unit.State; last == state {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return san.Errorf(san.KindUnavailable, "unit %s is %s, not %s", unit, last, state)
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
}
