package rpc

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/access"
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
	if !newsToMe(req, err) {
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

// volumeStatsOf asks one unit; nil means that it does not expose the volume.
func (s *Server) volumeStatsOf(ctx context.Context, v fsm.View, unit san.UnitID, volume san.VolumeID) (*pb.VolumeStats, error) {
	a, err := s.askUnit(ctx, v, unit, &pb.Question{Question: &pb.Question_VolumeStats{VolumeStats: &pb.VolumeStatsQuestion{VolumeId: string(volume)}}})
	if err == nil && a.GetVolumeStats() == nil {
		err = answeredAnother(unit)
	}
	return a.GetVolumeStats().GetStats(), err
}

func answeredAnother(unit san.UnitID) error {
	return san.Errorf(san.KindInternal, "unit %s answered another question than the one that it was asked; upgrade it", unit)
}

// askUnit asks a unit. One that is online and holds no stream is about to dial another station.
func (s *Server) askUnit(ctx context.Context, v fsm.View, unit san.UnitID, q *pb.Question) (*pb.Answer, error) {
	row := v.Unit(unit)
	var last error
	for {
		a, err := s.units.Ask(ctx, unit, q)
		if last != nil && ctx.Err() != nil {
			err = last // a try that was cut short says less than the one before it
		}
		last = err
		switch {
		case err == nil:
			return a, nil
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

// newsToMe tells whether a refusal may come of this station's tables being behind, so that the leader is to be asked.
func newsToMe(req connect.AnyRequest, err error) bool {
	code := connect.CodeOf(err)
	return err != nil && (code == connect.CodeNotFound || code == connect.CodeUnauthenticated) && req.Header().Get(forwardedHeader) == ""
}

// GetUnitStats implements UnitService, like GetVolumeStats.
func (s *Server) GetUnitStats(ctx context.Context, req *connect.Request[pb.GetUnitStatsRequest]) (*connect.Response[pb.GetUnitStatsResponse], error) {
	resp, err := local(ctx, &s.router, req, s.unitStats)
	if !newsToMe(req, err) {
		return resp, err
	}
	return read(ctx, &s.router, req, false, func(ctx context.Context, ep string, r *connect.Request[pb.GetUnitStatsRequest]) (*connect.Response[pb.GetUnitStatsResponse], error) {
		return s.peers.Client().Units(ep).GetUnitStats(ctx, r)
	}, s.unitStats)
}

func (s *Server) unitStats(ctx context.Context, c Caller, v fsm.View, m *pb.GetUnitStatsRequest) (*pb.GetUnitStatsResponse, error) {
	if err := access.Authorize(c.Principal, access.ActionRead, unitObject(m.Id)); err != nil {
		return nil, err
	}
	row, err := findUnit(v, m.Id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statsWait)
	defer cancel()
	a, err := s.askUnit(ctx, v, row.ID, &pb.Question{Question: &pb.Question_UnitStats{UnitStats: &pb.UnitStatsQuestion{}}})
	switch {
	case err != nil:
		return nil, convert.Final(san.Errorf(san.KindUnavailable, "unit %s can't be measured: %w", row.ID, err))
	case a.GetUnitStats().GetStats() == nil:
		return nil, answeredAnother(row.ID)
	}
	st := a.GetUnitStats().Stats
	for _, vol := range st.Volumes {
		if known := v.Volume(san.VolumeID(vol.VolumeId)); known != nil {
			vol.VolumeName = known.Name
		}
	}
	return &pb.GetUnitStatsResponse{Stats: st}, nil
}
