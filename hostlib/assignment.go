package hostlib

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// The states of an assignment.
const (
	// StatePending: not every party has confirmed it yet.
	StatePending = "Pending"
	// StateAssigned: units and host have it; the volume can be opened.
	StateAssigned = "Assigned"
	// StateReleasing: it is being taken away.
	StateReleasing = "Releasing"
)

const (
	pollMin  = 10 * time.Millisecond
	pollMax  = 500 * time.Millisecond
	listPage = 500
)

// Path is one way from the host to a volume.
type Path struct {
	Unit   string
	Portal string // ip:port
	Target string // the target's iSCSI name
	LUN    uint32
	// StartLBA and EndLBA are the first and last block, in blocks of the volume.
	StartLBA uint64
	EndLBA   uint64
	// State is Pending, Ready or Unavailable, and Reason why it is not Ready; both are empty in
	// an assignment that comes from the agent.
	State  string
	Reason string
}

// Assignment is a volume that this host has.
type Assignment struct {
	Volume         string // id
	Name           string
	State          string // StatePending, StateAssigned or StateReleasing
	Generation     uint64
	SizeBytes      int64
	BlockSizeBytes uint32
	Paths          []Path
	// FromAgent says that this is what the host's agent has kept, since no station was asked or answered.
	FromAgent bool
}

func (a *Assignment) equal(o *Assignment) bool {
	return a.Volume == o.Volume && a.Name == o.Name && a.State == o.State && a.Generation == o.Generation &&
		a.SizeBytes == o.SizeBytes && a.BlockSizeBytes == o.BlockSizeBytes && slices.Equal(a.Paths, o.Paths)
}

// StorageRequest asks for a volume.
type StorageRequest struct {
	Name string
	// SizeBytes is a multiple of the block size; san.ParseSize reads 80MiB and the like.
	SizeBytes int64
	// BlockSizeBytes is 512 or 4096; 0 is 512.
	BlockSizeBytes uint32
	Labels         map[string]string
	// RequestID makes asking again, by another process too, get the same volume: 1 to 64 printable
	// characters that no other request ever has. Left out, each call of RequestStorage is a request of its own.
	RequestID string
}

// RequestStorage creates a volume for this host and waits until it is assigned, which is when units and host have
// confirmed it (Fig. 6). Stations that die meanwhile are no reason to fail: the request is sent
// again under the same id until ctx ends. A volume that was created but not assigned in time stays; Wait
// goes on waiting for it, Delete gives it up.
func (c *Client) RequestStorage(ctx context.Context, r StorageRequest) (*Assignment, error) {
	if err := san.CheckName("volume", r.Name); err != nil {
		return nil, err
	}
	if r.RequestID == "" {
		r.RequestID = uuid.NewString()
	}
	req := &pb.CreateVolumeRequest{
		RequestId: r.RequestID, Name: r.Name, SizeBytes: r.SizeBytes, BlockSizeBytes: r.BlockSizeBytes, HostId: string(c.host), Labels: r.Labels,
	}
	m, err := call(ctx, c, func(ctx context.Context, api *stationclient.Client, ep string) (*connect.Response[pb.CreateVolumeResponse], error) {
		return api.Volumes(ep).CreateVolume(ctx, connect.NewRequest(req))
	})
	if err != nil {
		return nil, san.Wrap("request storage "+r.Name, err)
	}
	return c.Wait(ctx, m.Volume.GetId())
}

// Wait waits until a volume, named by id or name, is assigned to this host and confirmed by all.
func (c *Client) Wait(ctx context.Context, volume string) (*Assignment, error) {
	why := "no station answered"
	for wait := pollMin; ; wait = min(2*wait, pollMax) {
		v, err := c.volume(ctx, volume)
		var a *Assignment
		if err == nil {
			a, err = c.assignmentOf(v)
		}
		switch {
		case ctx.Err() != nil: // err, if any, says no more than that
		case err != nil:
			return nil, err
		case a.State == StateAssigned:
			return a, nil
		case a.State == StateReleasing:
			return nil, san.Errorf(san.KindConflict, "volume %s is being taken away from host %s; assign it again once that is done", v.Name, c.host)
		default:
			why = missing(v, a)
		}
		if !pause(ctx, wait/2+rand.N(wait)) {
			return nil, san.Errorf(san.KindUnavailable, "volume %s is not assigned to host %s yet (%s): %w", volume, c.host, why, context.Cause(ctx))
		}
	}
}

// missing tells who has not confirmed an assignment.
func missing(v *pb.Volume, a *Assignment) string {
	for _, cp := range v.Copies {
		if cp.Error != "" {
			return "unit " + cp.UnitId + ": " + cp.Error
		}
	}
	for _, p := range a.Paths {
		if p.State != "Ready" {
			why := p.Reason
			if why == "" {
				why = "has not confirmed"
			}
			return "unit " + p.Unit + ": " + why
		}
	}
	return "the host's own agent has not confirmed; see that 'sandbar host run' runs"
}

// volume asks the stations for a volume by id or name.
func (c *Client) volume(ctx context.Context, volume string) (*pb.Volume, error) {
	m, err := call(ctx, c, func(ctx context.Context, api *stationclient.Client, ep string) (*connect.Response[pb.GetVolumeResponse], error) {
		return api.Volumes(ep).GetVolume(ctx, connect.NewRequest(&pb.GetVolumeRequest{Volume: volume}))
	})
	if err != nil {
		return nil, err
	}
	return m.Volume, nil
}

// assignmentOf finds this host's assignment of v.
func (c *Client) assignmentOf(v *pb.Volume) (*Assignment, error) {
	for _, a := range v.GetAssignments() {
		if a.HostId != string(c.host) {
			continue
		}
		out := &Assignment{
			Volume: v.Id, Name: v.Name, State: a.State, Generation: a.Generation, SizeBytes: v.SizeBytes, BlockSizeBytes: v.BlockSizeBytes,
		}
		for _, p := range a.Paths {
			out.Paths = append(out.Paths, Path{
				Unit: p.UnitId, Portal: p.Portal, Target: p.TargetIqn, LUN: p.Lun, StartLBA: p.StartLba, EndLBA: p.EndLba, State: p.State, Reason: p.Reason,
			})
		}
		return out, nil
	}
	return nil, san.Errorf(san.KindNotFound, "volume %s is not assigned to host %s; assign it first: sandbar volume assign %s --host %s", v.GetName(), c.host, v.GetName(), c.host)
}

// Assignment returns this host's assignment of a volume, named by id or name. With DataDir, what the
// agent has kept is returned when no station answers in some seconds.
func (c *Client) Assignment(ctx context.Context, volume string) (*Assignment, error) {
	var out *Assignment
	err := c.orAgent(ctx, func(ctx context.Context) error {
		v, err := c.volume(ctx, volume)
		if err == nil {
			out, err = c.assignmentOf(v)
		}
		return err
	}, func(s *state.State) error {
		a := s.Find(volume)
		if a == nil {
			return san.Errorf(san.KindNotFound, "no station answers, and the agent of host %s knows no volume %s", c.host, volume)
		}
		out = kept(a)
		return nil
	})
	return out, err
}

// Assignments returns all volumes that this host has, by name. With DataDir, what the agent has kept is
// returned when no station answers in some seconds.
func (c *Client) Assignments(ctx context.Context) ([]*Assignment, error) {
	var out []*Assignment
	err := c.orAgent(ctx, func(ctx context.Context) (err error) {
		out, err = c.list(ctx)
		return err
	}, func(s *state.State) error {
		out = keptAll(s)
		return nil
	})
	return out, err
}

// list asks the stations for all assignments.
func (c *Client) list(ctx context.Context) ([]*Assignment, error) {
	var out []*Assignment
	for token := ""; ; {
		m, err := call(ctx, c, func(ctx context.Context, api *stationclient.Client, ep string) (*connect.Response[pb.ListVolumesResponse], error) {
			return api.Volumes(ep).ListVolumes(ctx, connect.NewRequest(&pb.ListVolumesRequest{PageSize: listPage, PageToken: token, HostId: string(c.host)}))
		})
		if err != nil {
			return nil, err
		}
		for _, v := range m.Volumes {
			if a, err := c.assignmentOf(v); err == nil {
				out = append(out, a)
			}
		}
		if token = m.NextPageToken; token == "" || len(out) > state.MaxAssignments {
			return out, nil
		}
	}
}

// orAgent asks the stations or, with DataDir and if they are not to be reached, the agent's folder.
func (c *Client) orAgent(ctx context.Context, stations func(context.Context) error, agent func(*state.State) error) error {
	if c.cfg.DataDir == "" {
		return stations(ctx)
	}
	sctx, cancel := context.WithTimeout(ctx, c.timing.agent)
	defer cancel()
	err := stations(sctx)
	if err == nil || san.KindOf(err) != san.KindUnavailable || ctx.Err() != nil {
		return err
	}
	s, rerr := state.Read(c.cfg.DataDir)
	if rerr != nil {
		return rerr
	}
	return agent(&s)
}

// kept makes an Assignment of what the agent has.
func kept(a *state.Assignment) *Assignment {
	out := &Assignment{
		Volume: string(a.Volume), Name: a.Name, State: StateAssigned, Generation: uint64(a.Generation),
		SizeBytes: a.SizeBytes, BlockSizeBytes: a.BlockSizeBytes, FromAgent: true,
	}
	for _, p := range a.Paths {
		out.Paths = append(out.Paths, Path{
			Unit: string(p.Unit), Portal: p.Portal, Target: p.Target, LUN: p.LUN, StartLBA: uint64(p.StartLBA), EndLBA: uint64(p.EndLBA),
		})
	}
	return out
}

func keptAll(s *state.State) []*Assignment {
	var out []*Assignment
	for i := range s.Assignments {
		out = append(out, kept(&s.Assignments[i]))
	}
	slices.SortFunc(out, func(a, b *Assignment) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// Release takes a volume away from this host and waits until no unit lets it in any more. Close it
// before: requests in flight may or may not take effect. A volume that is not assigned to this host is
// no error. What is on it stays.
func (c *Client) Release(ctx context.Context, volume string) error {
	req := &pb.UnassignVolumeRequest{RequestId: uuid.NewString(), Volume: volume, HostId: string(c.host)}
	m, err := call(ctx, c, func(ctx context.Context, api *stationclient.Client, ep string) (*connect.Response[pb.UnassignVolumeResponse], error) {
		return api.Volumes(ep).UnassignVolume(ctx, connect.NewRequest(req))
	})
	if err != nil && san.KindOf(err) != san.KindNotFound {
		return san.Wrap("release volume "+volume, err)
	}
	id := m.GetVolume().GetId()
	if id == "" {
		id = volume
	}
	for wait := pollMin; ; wait = min(2*wait, pollMax) {
		v, err := c.volume(ctx, id)
		if k := san.KindOf(err); err != nil && (k == san.KindDenied || m != nil && k == san.KindNotFound) {
			return nil // it is none of this host's any more
		} else if err != nil {
			return san.Wrap("release volume "+volume, err)
		}
		a, err := c.assignmentOf(v)
		if err != nil {
			return nil
		}
		if !pause(ctx, wait/2+rand.N(wait)) {
			return san.Errorf(san.KindUnavailable, "volume %s is not released by host %s yet (%s): %w", v.Name, c.host, missing(v, a), context.Cause(ctx))
		}
	}
}

// Delete starts the deletion of a volume that no host has. What is on it is gone for good.
func (c *Client) Delete(ctx context.Context, volume string) error {
	req := &pb.DeleteVolumeRequest{RequestId: uuid.NewString(), Volume: volume}
	_, err := call(ctx, c, func(ctx context.Context, api *stationclient.Client, ep string) (*connect.Response[pb.DeleteVolumeResponse], error) {
		return api.Volumes(ep).DeleteVolume(ctx, connect.NewRequest(req))
	})
	if err != nil {
		return san.Wrap("delete volume "+volume, err)
	}
	return nil
}
