package rpc

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/iostats"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// statsWait bounds how long a call for statistics waits for units.
	statsWait = 3 * time.Second
	// redialWait spaces the questions to a unit that is online and holds no stream just now.
	redialWait = 100 * time.Millisecond
)

// GetVolumeStats implements VolumeService. It needs no leader: this station's own tables say which units to
// ask. What they don't have yet, a volume or a token made a moment ago, the leader's may.
func (s *Server) GetVolumeStats(ctx context.Context, req *connect.Request[pb.GetVolumeStatsRequest]) (*connect.Response[pb.GetVolumeStatsResponse], error) {
	resp, err := local(ctx, &s.router, req, s.volumeStats)
	if code := connect.CodeOf(err); err == nil || code != connect.CodeNotFound && code != connect.CodeUnauthenticated || req.Header().Get(forwardedHeader) != "" {
		return resp, err
	}
	return read(ctx, &s.router, req, false, func(ctx context.Context, ep string, r *connect.Request[pb.GetVolumeStatsRequest]) (*connect.Response[pb.GetVolumeStatsResponse], error) {
		return s.peers.Client().Volumes(ep).GetVolumeStats(ctx, r)
	}, s.volumeStats)
}

func (s *Server) volumeStats(ctx context.Context, c Caller, v fsm.View, m *pb.GetVolumeStatsRequest) (*pb.GetVolumeStatsResponse, error) {
	row, err := s.visibleVolume(c, v, m.Volume)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statsWait)
	defer cancel()
	told := make([]*pb.VolumeStats, len(row.Copies))
	failed := make([]error, len(row.Copies))
	var asking sync.WaitGroup
	for i, cp := range row.Copies {
		asking.Go(func() { told[i], failed[i] = s.volumeStatsOf(ctx, v, cp.Unit, row.ID) })
	}
	asking.Wait()
	var parts []*pb.VolumeStats
	var away []string
	for i, cp := range row.Copies {
		switch {
		case failed[i] != nil:
			away, err = append(away, string(cp.Unit)), failed[i]
		case told[i] != nil:
			parts = append(parts, told[i])
		}
	}
	if len(away) > 0 && len(away) == len(row.Copies) {
		return nil, convert.Final(san.Errorf(san.KindUnavailable, "volume %s can't be measured: %w", row.Name, err))
	}
	out := iostats.Sum(parts)
	out.VolumeId, out.VolumeName, out.UnitsAway = string(row.ID), row.Name, away
	if !m.Histograms {
		iostats.Strip(out)
	}
	return &pb.GetVolumeStatsResponse{Stats: out}, nil
}

// volumeStatsOf asks one unit; nil means that it does not expose the volume. One that is online and
// holds no stream is about to dial another station.
func (s *Server) volumeStatsOf(ctx context.Context, v fsm.View, unit san.UnitID, volume san.VolumeID) (*pb.VolumeStats, error) {
	q := &pb.Question{Question: &pb.Question_VolumeStats{VolumeStats: &pb.VolumeStatsQuestion{VolumeId: string(volume)}}}
	row := v.Unit(unit)
	var last error
	for {
		a, err := s.units.Ask(ctx, unit, q)
		if last != nil && ctx.Err() != nil {
			err = last // a try that was cut short says less than the one before it
		}
		last = err
		switch {
		case err == nil && a.GetVolumeStats() == nil:
			return nil, san.Errorf(san.KindInternal, "unit %s answered another question than the one that it was asked; upgrade it", unit)
		case err == nil:
			return a.GetVolumeStats().Stats, nil
		case row != nil && row.State != fsm.UnitOnline:
			return nil, san.Errorf(san.KindUnavailable, "unit %s is %s: %w", unit, row.State, err)
		case san.KindOf(err) != san.KindNotFound || ctx.Err() != nil:
			return nil, err
		}
		select {
		case <-time.After(redialWait):
		case <-ctx.Done():
			return nil, err
		}
	}
}
