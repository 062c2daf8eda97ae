package agents

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/secrets"
	"github.com/sandbar-san/sandbar/controlplane/wire"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// chunkObjects and chunkBytes bound one message.
const (
	chunkObjects = 1000
	chunkBytes   = 1 << 20
)

// errSecret marks a secret that can't be opened under this station's cluster key.
var errSecret = errors.New("its secret can't be opened")

// desired works out what one agent shall have. It is pure but for opening envelopes.
type desired struct {
	role   san.Role
	id     string
	sealer *identity.Sealer
}

// approved tells whether the agent may be given anything.
func (d *desired) approved(v fsm.View) bool {
	if d.role == san.RoleUnit {
		u := v.Unit(san.UnitID(d.id))
		return u != nil && u.Approved
	}
	h := v.Host(san.HostID(d.id))
	return h != nil && h.Agent
}

// full is all that v has for the agent, in messages of bounded size.
func (d *desired) full(v fsm.View) ([]*pb.DesiredState, error) {
	all := &pb.DesiredState{Full: true, Stamp: convert.StampProto(v.Stamp(v.Index()))}
	var err error
	switch {
	case !d.approved(v):
	case d.role == san.RoleUnit:
		for _, vol := range v.VolumesOn(san.UnitID(d.id)) {
			err = errors.Join(err, d.addVolume(v, vol, all))
		}
	default:
		for _, a := range v.AssignmentsTo(san.HostID(d.id)) {
			err = errors.Join(err, d.addAssignment(v, a, all))
		}
	}
	return chunk(all), err
}

// chunk splits a state into messages of bounded size, at least one.
func chunk(all *pb.DesiredState) []*pb.DesiredState {
	var out []*pb.DesiredState
	var m *pb.DesiredState
	size, n := 0, 0
	next := func(add int) {
		if m == nil || n == chunkObjects || n > 0 && size+add > chunkBytes {
			m = &pb.DesiredState{Full: all.Full, Stamp: all.Stamp}
			out, size, n = append(out, m), 0, 0
		}
		size, n = size+add, n+1
	}
	for _, r := range all.Replicas {
		next(proto.Size(r))
		m.Replicas = append(m.Replicas, r)
	}
	for _, a := range all.Assignments {
		next(proto.Size(a))
		m.Assignments = append(m.Assignments, a)
	}
	if m == nil {
		return []*pb.DesiredState{all}
	}
	for i := range out[:len(out)-1] {
		out[i].More = all.Full
	}
	return out
}

// changes is what a batch of changes means for the agent, in messages of bounded size: none if
// nothing. again asks for a full state, because what the agent may have changed as a whole.
func (d *desired) changes(v fsm.View, batch []fsm.Change) (out []*pb.DesiredState, again bool, err error) {
	all := &pb.DesiredState{Stamp: convert.StampProto(v.Stamp(v.Index()))}
	seen := map[string]bool{}
	for _, ch := range batch {
		if d.changesApproval(ch) {
			return nil, true, nil
		}
		err = errors.Join(err, d.change(v, ch, all, seen))
	}
	if len(all.Replicas)+len(all.Assignments) == 0 || !d.approved(v) {
		return nil, false, nil
	}
	return chunk(all), false, err
}

func (d *desired) changesApproval(ch fsm.Change) bool {
	if d.role != san.RoleUnit || ch.Table != fsm.TableUnits || ch.ID != d.id {
		return false
	}
	before, _ := ch.Old.(*fsm.Unit)
	after, _ := ch.New.(*fsm.Unit)
	return (before != nil && before.Approved) != (after != nil && after.Approved)
}

// change adds the objects that one change touches, each once, as v has them now.
func (d *desired) change(v fsm.View, ch fsm.Change, out *pb.DesiredState, seen map[string]bool) (err error) {
	once := func(key string, add func() error) {
		if !seen[key] {
			seen[key] = true
			err = errors.Join(err, add())
		}
	}
	assignments := func(rows []*fsm.Assignment) {
		for _, a := range rows {
			if d.concerns(v, a) {
				once("a"+fsm.AssignmentKey(a.Volume, a.Host), func() error { return d.addAssignment(v, a, out) })
			}
		}
	}
	switch ch.Table {
	case fsm.TableVolumes:
		vol := v.Volume(san.VolumeID(ch.ID))
		if vol == nil {
			return nil
		}
		if d.role == san.RoleUnit && holds(vol, san.UnitID(d.id)) {
			once("v"+ch.ID, func() error { d.addReplica(v, vol, out); return nil })
		}
		assignments(v.AssignmentsOf(vol.ID))
	case fsm.TableAssignments:
		d.assignmentChange(v, ch, out, once)
	case fsm.TableHosts:
		if d.role == san.RoleUnit {
			assignments(v.AssignmentsTo(san.HostID(ch.ID)))
		}
	case fsm.TableUnits:
		if d.role == san.RoleHost && portalChanged(ch) {
			assignments(v.AssignmentsTo(san.HostID(d.id)))
		}
	}
	return err
}

func portalChanged(ch fsm.Change) bool {
	before, ok1 := ch.Old.(*fsm.Unit)
	after, ok2 := ch.New.(*fsm.Unit)
	return ok1 && ok2 && before.Portal != after.Portal
}

func (d *desired) assignmentChange(v fsm.View, ch fsm.Change, out *pb.DesiredState, once func(string, func() error)) {
	row, _ := ch.New.(*fsm.Assignment)
	if row == nil {
		row, _ = ch.Old.(*fsm.Assignment)
	}
	if row == nil || !d.concerns(v, row) {
		return
	}
	once("a"+ch.ID, func() error {
		if now := v.Assignment(row.Volume, row.Host); now != nil {
			return d.addAssignment(v, now, out)
		}
		out.Assignments = append(out.Assignments, &pb.DesiredAssignment{
			Stamp: convert.StampProto(v.Stamp(ch.Index)), VolumeId: string(row.Volume), HostId: string(row.Host),
			Generation: uint64(row.Generation), Gone: true,
		})
		return nil
	})
}

// concerns tells whether an assignment is the agent's: its own, or of a volume that it holds.
func (d *desired) concerns(v fsm.View, a *fsm.Assignment) bool {
	if d.role == san.RoleHost {
		return string(a.Host) == d.id
	}
	vol := v.Volume(a.Volume)
	return vol != nil && holds(vol, san.UnitID(d.id))
}

func holds(vol *fsm.Volume, u san.UnitID) bool {
	for _, c := range vol.Copies {
		if c.Unit == u {
			return true
		}
	}
	return false
}

func (d *desired) addVolume(v fsm.View, vol *fsm.Volume, out *pb.DesiredState) error {
	d.addReplica(v, vol, out)
	var err error
	for _, a := range v.AssignmentsOf(vol.ID) {
		err = errors.Join(err, d.addAssignment(v, a, out))
	}
	return err
}

func (d *desired) addReplica(v fsm.View, vol *fsm.Volume, out *pb.DesiredState) {
	for _, c := range vol.Copies {
		if string(c.Unit) != d.id {
			continue
		}
		m := &pb.DesiredReplica{
			Stamp: convert.StampProto(v.Stamp(vol.Meta.ModifyIndex)), VolumeId: string(vol.ID), Name: vol.Name,
			SizeBytes: vol.SizeBytes, BlockSizeBytes: vol.BlockSizeBytes, Epoch: uint64(vol.Epoch),
			Deleted: c.State == fsm.CopyDeleting || vol.State == fsm.VolumeDeleting, Grow: c.State == fsm.CopyGrowing,
		}
		for _, s := range c.Slices {
			m.Slices = append(m.Slices, &pb.DesiredSlice{MediumId: string(s.Medium), Extents: s.Extents})
		}
		out.Replicas = append(out.Replicas, m)
	}
}

// addAssignment is the seed's three-party sync: the unit learns host, initiator names,
// addresses, secret and size; the host learns portals, target names and LBAs. A secret that this
// station can't open is an error: a state without that assignment would take it from the agent.
func (d *desired) addAssignment(v fsm.View, a *fsm.Assignment, out *pb.DesiredState) error {
	vol, host := v.Volume(a.Volume), v.Host(a.Host)
	if vol == nil || host == nil {
		return nil
	}
	secret, err := secrets.OpenCHAP(d.sealer, a)
	if err != nil {
		return fmt.Errorf("assignment of volume %s to host %s: %w: %w", a.Volume, a.Host, errSecret, err)
	}
	index := max(a.Meta.ModifyIndex, host.Meta.ModifyIndex, vol.Meta.ModifyIndex)
	m := &pb.DesiredAssignment{
		VolumeId: string(a.Volume), HostId: string(a.Host), Generation: uint64(a.Generation),
		Release:    a.State == fsm.AssignmentReleasing,
		Initiators: host.Initiators, AllowFrom: host.AllowFrom, HostAddresses: host.Addresses,
		VolumeName: vol.Name, SizeBytes: vol.ServedBytes(), BlockSizeBytes: vol.BlockSizeBytes, ChapUser: a.CHAPUser,
	}
	start, end := wire.LBARange(vol)
	for _, c := range vol.Copies {
		p := &pb.DesiredPath{
			UnitId: string(c.Unit), TargetIqn: san.TargetName(c.Unit, vol.ID), Lun: 0,
			StartLba: uint64(start), EndLba: uint64(end),
		}
		if u := v.Unit(c.Unit); u != nil {
			p.Portal = u.Portal
			if d.role == san.RoleHost {
				index = max(index, u.Meta.ModifyIndex)
			}
		}
		m.Paths = append(m.Paths, p)
	}
	m.Stamp = convert.StampProto(v.Stamp(index))
	m.ChapSecret = secret
	out.Assignments = append(out.Assignments, m)
	return nil
}
