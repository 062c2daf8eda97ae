package dataplane

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane/iscsi/meter"
	"github.com/sandbar-san/sandbar/internal/histogram"
	"github.com/sandbar-san/sandbar/internal/iostats"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// rateInterval is what the rates of the statistics are averaged over.
	rateInterval = time.Second
	// maxSessionsTold bounds the sessions that one answer lists.
	maxSessionsTold = 256
	// maxVolumesTold bounds the volumes that one answer lists.
	maxVolumesTold = 256
)

// measure samples all targets' counters once an interval, for their rates, until ctx ends.
func (g *gate) measure(ctx context.Context) error {
	tick := time.NewTicker(rateInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		for _, m := range g.meters() {
			m.Sample()
		}
	}
}

func (g *gate) meters() []*meter.Target {
	g.mu.RLock()
	defer g.mu.RUnlock()
	out := make([]*meter.Target, 0, len(g.targets))
	for _, t := range g.targets {
		out = append(out, t.meter)
	}
	return out
}

// answer answers a station's question, nil if it is not one that this unit knows.
func (g *gate) answer(q *pb.Question) *pb.Answer {
	switch x := q.Question.(type) {
	case *pb.Question_VolumeStats:
		stats := g.volumeStats(san.VolumeID(x.VolumeStats.GetVolumeId()))
		return &pb.Answer{Id: q.Id, Answer: &pb.Answer_VolumeStats{VolumeStats: &pb.VolumeStatsAnswer{Stats: stats}}}
	case *pb.Question_UnitStats:
		return &pb.Answer{Id: q.Id, Answer: &pb.Answer_UnitStats{UnitStats: &pb.UnitStatsAnswer{Stats: g.unitStats()}}}
	}
	return nil
}

// unitStats is what was counted of all volumes' sessions.
func (g *gate) unitStats() *pb.UnitStats {
	g.mu.RLock()
	targets := slices.Collect(maps.Values(g.targets))
	g.mu.RUnlock()
	sum := meter.IO{Reads: &histogram.Counts{}, Writes: &histogram.Counts{}}
	out := &pb.UnitStats{UnitId: string(g.unit), At: timestamppb.Now()}
	for _, t := range targets {
		st := t.meter.Stats()
		sum.Add(st.IO)
		out.Volumes = append(out.Volumes, &pb.UnitVolumeStats{VolumeId: string(t.volume), SessionCount: uint32(len(st.Sessions)), Io: wireIO(st.IO)})
	}
	out.Io = wireIO(sum)
	slices.SortFunc(out.Volumes, func(a, b *pb.UnitVolumeStats) int {
		return cmp.Or(cmp.Compare(iostats.Rate(b.Io), iostats.Rate(a.Io)), cmp.Compare(a.VolumeId, b.VolumeId))
	})
	if n := len(out.Volumes); n > maxVolumesTold {
		out.Volumes, out.VolumesOmitted = out.Volumes[:maxVolumesTold], uint32(n-maxVolumesTold)
	}
	return out
}

// volumeStats is what was counted of a volume's sessions, nil if it is not exposed.
func (g *gate) volumeStats(v san.VolumeID) *pb.VolumeStats {
	g.mu.RLock()
	t := g.targets[g.name(v)]
	g.mu.RUnlock()
	if t == nil {
		return nil
	}
	st := t.meter.Stats()
	out := &pb.VolumeStats{VolumeId: string(v), At: timestamppb.New(st.At), Since: timestamppb.New(st.Since), Io: wireIO(st.IO)}
	out.Io.Reads.Histogram, out.Io.Writes.Histogram = iostats.Histogram(st.Reads), iostats.Histogram(st.Writes)
	for i, s := range st.Sessions {
		if i == maxSessionsTold {
			out.SessionsOmitted = uint32(len(st.Sessions) - i)
			break
		}
		out.Sessions = append(out.Sessions, &pb.SessionStats{
			UnitId: string(g.unit), Initiator: s.Initiator, Address: s.Address.String(), HostId: string(s.Host),
			Since: timestamppb.New(s.Since), Io: wireIO(s.IO),
		})
	}
	return out
}

func wireIO(io meter.IO) *pb.IOStats {
	class := func(c meter.Class) *pb.IOFigures {
		f := io.Class[c]
		return &pb.IOFigures{Commands: f.Commands, Bytes: f.Bytes, Errors: f.Errors, Iops: f.CommandsPerSecond, BytesPerSecond: f.BytesPerSecond}
	}
	out := &pb.IOStats{
		Reads: class(meter.Read), Writes: class(meter.Write), Other: class(meter.Other), Aborted: io.Aborted,
		QueueDepth: uint32(io.Depth), QueueDepthMax: uint32(io.DepthMax), IntervalMillis: uint32(io.Interval.Milliseconds()),
	}
	out.Reads.Latency, out.Writes.Latency = iostats.Latency(io.Reads), iostats.Latency(io.Writes)
	return out
}
