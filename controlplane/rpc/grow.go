package rpc

import (
	"context"
	"reflect"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/access"
	"github.com/sandbar-san/sandbar/controlplane/reconcile/place"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// GrowVolume implements VolumeService.
func (s *Server) GrowVolume(ctx context.Context, req *connect.Request[pb.GrowVolumeRequest]) (*connect.Response[pb.GrowVolumeResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.GrowVolumeRequest]) (*connect.Response[pb.GrowVolumeResponse], error) {
		return s.peers.Client().Volumes(ep).GrowVolume(ctx, r)
	}, func(ctx context.Context, c Caller, m *pb.GrowVolumeRequest) (*pb.GrowVolumeResponse, error) {
		h, replay, err := s.header(c, m)
		if err != nil {
			return nil, err
		}
		if replay != nil {
			return &pb.GrowVolumeResponse{Volume: s.volumeOrGone(san.VolumeID(replay.Object))}, nil
		}
		row, err := s.actOn(c, s.replica.View(), m.Volume, access.ActionVolumeGrow, "")
		if err != nil {
			return nil, err
		}
		if err := s.grow(ctx, &fsm.GrowVolume{H: h, ID: row.ID, SizeBytes: m.SizeBytes}); err != nil {
			return nil, err
		}
		return &pb.GrowVolumeResponse{Volume: s.volumeOrGone(row.ID)}, nil
	})
}

// grow plans where cmd's room comes from and commits it; as with a new volume, a plan that
// the state machine refuses is made anew as long as another one comes of it.
func (s *Server) grow(ctx context.Context, cmd *fsm.GrowVolume) error {
	var refused error
	for range placeTries {
		v := s.replica.View()
		vol := v.Volume(cmd.ID)
		if vol == nil {
			return san.Errorf(san.KindNotFound, "volume %s has been deleted meanwhile; 'sandbar volume list' shows those that exist", cmd.ID)
		}
		plan, err := place.GrowFromView(v, vol, cmd.SizeBytes)
		if err != nil {
			return err
		}
		if refused != nil && reflect.DeepEqual(plan, cmd.Copies) {
			return refused // the same again would be refused again: it is not about the place
		}
		cmd.Copies = plan
		if _, err = s.propose(ctx, cmd); err == nil {
			return nil
		}
		if k := san.KindOf(err); k != san.KindNoSpace && k != san.KindConflict {
			return err
		}
		refused = err
	}
	return refused
}
