package rpc

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/access"
	"github.com/sandbar-san/sandbar/controlplane/reconcile/place"
	"github.com/sandbar-san/sandbar/controlplane/secrets"
	"github.com/sandbar-san/sandbar/controlplane/wire"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// placeTries bounds how often a placement that lost a race for room is planned anew. Each time it
	// lost, another volume won: so many creations at once are more than the stations carry.
	placeTries = 1024
)

// volumeObject is what access judges of a volume: whose it is.
func volumeObject(v fsm.View, row *fsm.Volume) access.Object {
	o := access.Object{Kind: access.ObjectVolume, Name: row.Name, Owner: row.Owner}
	for _, a := range v.AssignmentsOf(row.ID) {
		o.Assigned = append(o.Assigned, a.Host)
	}
	return o
}

// CreateVolume implements VolumeService.
func (s *Server) CreateVolume(ctx context.Context, req *connect.Request[pb.CreateVolumeRequest]) (*connect.Response[pb.CreateVolumeResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.CreateVolumeRequest]) (*connect.Response[pb.CreateVolumeResponse], error) {
		return s.peers.Client().Volumes(ep).CreateVolume(ctx, r)
	}, s.createVolume)
}

func (s *Server) createVolume(ctx context.Context, c Caller, m *pb.CreateVolumeRequest) (*pb.CreateVolumeResponse, error) {
	obj := access.Object{Kind: access.ObjectVolume, Name: clip(m.Name), Owner: c.OwnerHost(), Target: san.HostID(m.HostId)}
	if err := access.Authorize(c.Principal, access.ActionVolumeCreate, obj); err != nil {
		return nil, err
	}
	h, replay, err := s.header(c, m)
	if err != nil {
		return nil, err
	}
	if replay != nil {
		return s.created(san.VolumeID(replay.Object))
	}
	cmd, err := s.newVolume(c, h, m)
	if err != nil {
		return nil, err
	}
	id, err := s.placed(ctx, cmd, int(max(m.Copies, 1)))
	if err != nil {
		return nil, err
	}
	return s.created(id)
}

// placed plans where cmd's volume goes and commits it. The state machine refuses a plan whose
// room another volume took meanwhile, or whose unit went away: then it plans anew.
func (s *Server) placed(ctx context.Context, cmd *fsm.CreateVolume, copies int) (san.VolumeID, error) {
	var refused error
	for range placeTries {
		v := s.replica.View()
		plan, err := place.FromView(v, place.Request{SizeBytes: cmd.SizeBytes, Copies: copies})
		if err != nil && v.VolumeByName(cmd.Name) != nil {
			return "", san.Errorf(san.KindExists, "there is a volume %q already; choose another name", cmd.Name)
		}
		if err != nil {
			return "", err
		}
		if refused != nil && reflect.DeepEqual(plan, cmd.Copies) {
			return "", refused // the same again would be refused again: it is not about the place
		}
		cmd.Copies = plan
		res, err := s.propose(ctx, cmd)
		if err == nil {
			return san.VolumeID(res.Object), nil
		}
		if k := san.KindOf(err); k != san.KindNoSpace && k != san.KindConflict {
			return "", err
		}
		refused = err
	}
	return "", refused
}

// created answers a creation with the volume as it stands.
func (s *Server) created(id san.VolumeID) (*pb.CreateVolumeResponse, error) {
	v := s.replica.View()
	row := v.Volume(id)
	if row == nil {
		return nil, san.Errorf(san.KindNotFound, "volume %s was made by this request and has been deleted since; use a new request id to make another", id)
	}
	return &pb.CreateVolumeResponse{Volume: wire.Volume(v, row)}, nil
}

// newVolume checks what a request alone can show and fixes ids and secrets.
func (s *Server) newVolume(c Caller, h fsm.Header, m *pb.CreateVolumeRequest) (*fsm.CreateVolume, error) {
	cmd := &fsm.CreateVolume{
		H: h, ID: san.VolumeID(uuid.NewString()), Name: m.Name, SizeBytes: m.SizeBytes,
		BlockSizeBytes: m.BlockSizeBytes, Labels: m.Labels, Host: san.HostID(m.HostId),
	}
	if cmd.BlockSizeBytes == 0 {
		cmd.BlockSizeBytes = san.DefaultBlockSizeBytes
	}
	if err := san.CheckName("volume", m.Name); err != nil {
		return nil, err
	}
	if err := san.CheckVolumeSize(cmd.SizeBytes, cmd.BlockSizeBytes); err != nil {
		return nil, err
	}
	if m.Copies > 1 {
		return nil, san.Errorf(san.KindInvalid, "%d copies were asked for, but mirrored volumes are not available yet; ask for 1", m.Copies)
	}
	cmd.Owner = c.OwnerHost()
	if m.HostId == "" {
		return cmd, nil
	}
	if _, err := findHost(s.replica.View(), m.HostId); err != nil {
		return nil, err
	}
	var err error
	cmd.CHAPUser, cmd.CHAPSecretSealed, err = s.newCHAP(cmd.ID, cmd.Host)
	return cmd, err
}

func (s *Server) newCHAP(v san.VolumeID, h san.HostID) (user string, sealed []byte, err error) {
	return secrets.NewCHAP(s.sealer, v, h)
}

// GetVolume implements VolumeService.
func (s *Server) GetVolume(ctx context.Context, req *connect.Request[pb.GetVolumeRequest]) (*connect.Response[pb.GetVolumeResponse], error) {
	return read(ctx, &s.router, req, req.Msg.Stale, func(ctx context.Context, ep string, r *connect.Request[pb.GetVolumeRequest]) (*connect.Response[pb.GetVolumeResponse], error) {
		return s.peers.Client().Volumes(ep).GetVolume(ctx, r)
	}, func(_ context.Context, c Caller, v fsm.View, m *pb.GetVolumeRequest) (*pb.GetVolumeResponse, error) {
		row, err := s.visibleVolume(c, v, m.Volume)
		if err != nil {
			return nil, err
		}
		return &pb.GetVolumeResponse{Volume: wire.Volume(v, row)}, nil
	})
}

// visibleVolume finds a volume that the caller may act on. To a caller that is bound
// to a host, another's volume does not exist.
func (s *Server) visibleVolume(c Caller, v fsm.View, name string) (*fsm.Volume, error) {
	if err := mayList(c); err != nil {
		return nil, err
	}
	row, err := findVolume(v, name)
	if err != nil {
		return nil, err
	}
	if access.Authorize(c.Principal, access.ActionRead, volumeObject(v, row)) != nil {
		return nil, san.Errorf(san.KindNotFound, "volume %q does not exist; 'sandbar volume list' shows those that do", clip(name))
	}
	return row, nil
}

// mayList refuses callers that can see no volume at all, so that they learn nothing from
// which names are found.
func mayList(c Caller) error {
	return access.Authorize(c.Principal, access.ActionRead, access.Object{Kind: access.ObjectVolume, Owner: c.OwnerHost()})
}

// actOn finds a volume and refuses what the caller may not do with it; target is the
// host that the action names, if it names one.
func (s *Server) actOn(c Caller, v fsm.View, name string, action access.Action, target san.HostID) (*fsm.Volume, error) {
	row, err := s.visibleVolume(c, v, name)
	if err != nil {
		return nil, err
	}
	obj := volumeObject(v, row)
	obj.Target = target
	return row, access.Authorize(c.Principal, action, obj)
}

// ListVolumes implements VolumeService.
func (s *Server) ListVolumes(ctx context.Context, req *connect.Request[pb.ListVolumesRequest]) (*connect.Response[pb.ListVolumesResponse], error) {
	return read(ctx, &s.router, req, req.Msg.Stale, func(ctx context.Context, ep string, r *connect.Request[pb.ListVolumesRequest]) (*connect.Response[pb.ListVolumesResponse], error) {
		return s.peers.Client().Volumes(ep).ListVolumes(ctx, r)
	}, s.listVolumes)
}

func (s *Server) listVolumes(_ context.Context, c Caller, v fsm.View, m *pb.ListVolumesRequest) (*pb.ListVolumesResponse, error) {
	if err := mayList(c); err != nil {
		return nil, err
	}
	rows := v.Volumes()
	if m.HostId != "" {
		rows = rows[:0:0]
		for _, a := range v.AssignmentsTo(san.HostID(m.HostId)) {
			if row := v.Volume(a.Volume); row != nil {
				rows = append(rows, row)
			}
		}
	}
	slices.SortFunc(rows, func(a, b *fsm.Volume) int { return strings.Compare(a.Name, b.Name) })
	out := &pb.ListVolumesResponse{}
	out.Volumes, out.NextPageToken = pageOf(rows, m.PageSize, m.PageToken, func(row *fsm.Volume) string { return row.Name }, func(row *fsm.Volume) *pb.Volume {
		if access.Authorize(c.Principal, access.ActionRead, volumeObject(v, row)) != nil {
			return nil
		}
		return wire.Volume(v, row)
	})
	return out, nil
}

// DeleteVolume implements VolumeService.
func (s *Server) DeleteVolume(ctx context.Context, req *connect.Request[pb.DeleteVolumeRequest]) (*connect.Response[pb.DeleteVolumeResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.DeleteVolumeRequest]) (*connect.Response[pb.DeleteVolumeResponse], error) {
		return s.peers.Client().Volumes(ep).DeleteVolume(ctx, r)
	}, func(ctx context.Context, c Caller, m *pb.DeleteVolumeRequest) (*pb.DeleteVolumeResponse, error) {
		h, replay, err := s.header(c, m)
		if err != nil {
			return nil, err
		}
		if replay != nil {
			return &pb.DeleteVolumeResponse{Volume: s.volumeOrGone(san.VolumeID(replay.Object))}, nil
		}
		row, err := s.actOn(c, s.replica.View(), m.Volume, access.ActionVolumeDelete, "")
		if err != nil {
			return nil, err
		}
		if _, err := s.propose(ctx, &fsm.DeleteVolume{H: h, ID: row.ID}); err != nil {
			return nil, err
		}
		return &pb.DeleteVolumeResponse{Volume: s.volumeOrGone(row.ID)}, nil
	})
}

// volumeOrGone renders a volume in deletion; once it is gone, what is left is its id.
func (s *Server) volumeOrGone(id san.VolumeID) *pb.Volume {
	v := s.replica.View()
	if row := v.Volume(id); row != nil {
		return wire.Volume(v, row)
	}
	return &pb.Volume{Id: string(id), State: string(fsm.VolumeDeleting)}
}

// AssignVolume implements VolumeService.
func (s *Server) AssignVolume(ctx context.Context, req *connect.Request[pb.AssignVolumeRequest]) (*connect.Response[pb.AssignVolumeResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.AssignVolumeRequest]) (*connect.Response[pb.AssignVolumeResponse], error) {
		return s.peers.Client().Volumes(ep).AssignVolume(ctx, r)
	}, func(ctx context.Context, c Caller, m *pb.AssignVolumeRequest) (*pb.AssignVolumeResponse, error) {
		row, err := s.changeAssignment(ctx, c, m, access.ActionVolumeAssign, func(h fsm.Header, row *fsm.Volume, host *fsm.Host) (fsm.Command, error) {
			user, sealed, err := s.newCHAP(row.ID, host.ID)
			return &fsm.Assign{H: h, Volume: row.ID, Host: host.ID, CHAPUser: user, CHAPSecretSealed: sealed}, err
		})
		return &pb.AssignVolumeResponse{Volume: row}, err
	})
}

// UnassignVolume implements VolumeService.
func (s *Server) UnassignVolume(ctx context.Context, req *connect.Request[pb.UnassignVolumeRequest]) (*connect.Response[pb.UnassignVolumeResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.UnassignVolumeRequest]) (*connect.Response[pb.UnassignVolumeResponse], error) {
		return s.peers.Client().Volumes(ep).UnassignVolume(ctx, r)
	}, func(ctx context.Context, c Caller, m *pb.UnassignVolumeRequest) (*pb.UnassignVolumeResponse, error) {
		row, err := s.changeAssignment(ctx, c, m, access.ActionVolumeUnassign, func(h fsm.Header, row *fsm.Volume, host *fsm.Host) (fsm.Command, error) {
			return &fsm.Unassign{H: h, Volume: row.ID, Host: host.ID}, nil
		})
		return &pb.UnassignVolumeResponse{Volume: row}, err
	})
}

// assignmentRequest is what AssignVolume's and UnassignVolume's requests share.
type assignmentRequest interface {
	proto.Message
	GetVolume() string
	GetHostId() string
}

func (s *Server) changeAssignment(ctx context.Context, c Caller, m assignmentRequest, action access.Action, command func(fsm.Header, *fsm.Volume, *fsm.Host) (fsm.Command, error)) (*pb.Volume, error) {
	h, replay, err := s.header(c, m)
	if err != nil {
		return nil, err
	}
	if replay != nil {
		// Not by name: another volume may have it by now.
		id, _, _ := strings.Cut(replay.Object, "/")
		return s.volumeOrGone(san.VolumeID(id)), nil
	}
	v := s.replica.View()
	row, err := s.actOn(c, v, m.GetVolume(), action, san.HostID(m.GetHostId()))
	if err != nil {
		return nil, err
	}
	host, err := findHost(v, m.GetHostId())
	if err != nil {
		return nil, err
	}
	cmd, err := command(h, row, host)
	if err != nil {
		return nil, err
	}
	if _, err := s.propose(ctx, cmd); err != nil {
		return nil, err
	}
	return s.volumeOrGone(row.ID), nil
}

// GetCredentials implements VolumeService.
func (s *Server) GetCredentials(ctx context.Context, req *connect.Request[pb.GetCredentialsRequest]) (*connect.Response[pb.GetCredentialsResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.GetCredentialsRequest]) (*connect.Response[pb.GetCredentialsResponse], error) {
		return s.peers.Client().Volumes(ep).GetCredentials(ctx, r)
	}, s.getCredentials)
}

func (s *Server) getCredentials(ctx context.Context, c Caller, m *pb.GetCredentialsRequest) (*pb.GetCredentialsResponse, error) {
	v, err := s.replica.ReadIndex(ctx)
	if err != nil {
		return nil, err
	}
	row, err := s.actOn(c, v, m.Volume, access.ActionCredentialsRead, san.HostID(m.HostId))
	if err != nil {
		return nil, err
	}
	host, err := findHost(v, m.HostId)
	if err != nil {
		return nil, err
	}
	a := v.Assignment(row.ID, host.ID)
	if a == nil {
		return nil, san.Errorf(san.KindNotFound, "volume %s is not assigned to host %s; assign it first", row.Name, host.ID)
	}
	secret, err := secrets.OpenCHAP(s.sealer, a)
	if err != nil {
		return nil, err
	}
	// Nobody reads a secret unrecorded: the entry is committed before the answer.
	audit := &fsm.AuditRead{H: fsm.Header{At: s.now(), Principal: c.name()}, Action: "read credentials", Object: row.Name + "/" + string(host.ID)}
	if _, err := s.propose(ctx, audit); err != nil {
		return nil, err
	}
	return &pb.GetCredentialsResponse{ChapUser: a.CHAPUser, ChapSecret: secret}, nil
}
