package agents

import (
	"log/slog"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/secrets"
	"github.com/sandbar-san/sandbar/controlplane/wire"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// chunkObjects bounds one message of a full state: about 1 MiB.
const chunkObjects = 1000

// desired works out what one agent shall have. It is pure but for opening envelopes.
type desired struct {
	role   san.Role
	id     string
	sealer *identity.Sealer
	log    *slog.Logger
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
func (d *desired) full(v fsm.View) []*pb.DesiredState {
	all := &pb.DesiredState{}
	if d.approved(v) {
		if d.role == san.RoleUnit {
			for _, vol := range v.VolumesOn(san.UnitID(d.id)) {
				d.addVolume(v, vol, all)
			}
		} else {
			for _, a := range v.AssignmentsTo(san.HostID(d.id)) {
				d.addAssignment(v, a, all)
			}
		}
	}
	return chunk(all, v)
}

func chunk(all *pb.DesiredState, v fsm.View) []*pb.DesiredState {
	var out []*pb.DesiredState
	r, a := all.Replicas, all.Assignments
	for {
		m := &pb.DesiredState{Full: true, Stamp: convert.StampProto(v.Stamp(v.Index()))}
		n := min(len(r), chunkObjects)
		m.Replicas, r = r[:n], r[n:]
		n = min(len(a), chunkObjects-n)
		m.Assignments, a = a[:n], a[n:]
		m.More = len(r)+len(a) > 0
		if out = append(out, m); !m.More {
			return out
		}
	}
}

// changes is what a batch of changes means for the agent: nil if nothing. again asks for a
// full state, because what the agent may have changed as a whole.
func (d *desired) changes(v fsm.View, batch []fsm.Change) (out *pb.DesiredState, again bool) {
	out = &pb.DesiredState{Stamp: convert.StampProto(v.Stamp(v.Index()))}
	seen := map[string]bool{}
	for _, ch := range batch {
		if d.changesApproval(ch) {
			return nil, true
		}
		d.change(v, ch, out, seen)
	}
	if len(out.Replicas)+len(out.Assignments) == 0 || !d.approved(v) {
		return nil, false
	}
	return out, false
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
func (d *desired) change(v fsm.View, ch fsm.Change, out *pb.DesiredState, seen map[string]bool) {
	once := func(key string, add func()) {
		if !seen[key] {
			seen[key] = true
			add()
		}
	}
	assignments := func(rows []*fsm.Assignment) {
		for _, a := range rows {
			if d.concerns(v, a) {
				once("a"+fsm.AssignmentKey(a.Volume, a.Host), func() { d.addAssignment(v, a, out) })
			}
		}
	}
	switch ch.Table {
	case fsm.TableVolumes:
		vol := v.Volume(san.VolumeID(ch.ID))
		if vol == nil {
			return
		}
		if d.role == san.RoleUnit && holds(vol, san.UnitID(d.id)) {
			once("v"+ch.ID, func() { d.addReplica(v, vol, out) })
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
}

func portalChanged(ch fsm.Change) bool {
	before, ok1 := ch.Old.(*fsm.Unit)
	after, ok2 := ch.New.(*fsm.Unit)
	return ok1 && ok2 && before.Portal != after.Portal
}

func (d *desired) assignmentChange(v fsm.View, ch fsm.Change, out *pb.DesiredState, once func(string, func())) {
	row, _ := ch.New.(*fsm.Assignment)
	if row == nil {
		row, _ = ch.Old.(*fsm.Assignment)
	}
	if row == nil || !d.concerns(v, row) {
		return
	}
	once("a"+ch.ID, func() {
		if now := v.Assignment(row.Volume, row.Host); now != nil {
			d.addAssignment(v, now, out)
			return
		}
		out.Assignments = append(out.Assignments, &pb.DesiredAssignment{
			Stamp: convert.StampProto(v.Stamp(ch.Index)), VolumeId: string(row.Volume), HostId: string(row.Host),
			Generation: uint64(row.Generation), Gone: true,
		})
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

func (d *desired) addVolume(v fsm.View, vol *fsm.Volume, out *pb.DesiredState) {
	d.addReplica(v, vol, out)
	for _, a := range v.AssignmentsOf(vol.ID) {
		d.addAssignment(v, a, out)
	}
}

func (d *desired) addReplica(v fsm.View, vol *fsm.Volume, out *pb.DesiredState) {
	for _, c := range vol.Copies {
		if string(c.Unit) != d.id {
			continue
		}
		m := &pb.DesiredReplica{
			Stamp: convert.StampProto(v.Stamp(vol.Meta.ModifyIndex)), VolumeId: string(vol.ID), Name: vol.Name,
			SizeBytes: vol.SizeBytes, BlockSizeBytes: vol.BlockSizeBytes, Epoch: uint64(vol.Epoch),
			Deleted: c.State == fsm.CopyDeleting || vol.State == fsm.VolumeDeleting,
		}
		for _, s := range c.Slices {
			m.Slices = append(m.Slices, &pb.DesiredSlice{MediumId: string(s.Medium), Extents: s.Extents})
		}
		out.Replicas = append(out.Replicas, m)
	}
}

// addAssignment is the seed's three-party sync: the unit learns host, initiator names,
// addresses, secret and size; the host learns portals, target names and LBAs.
func (d *desired) addAssignment(v fsm.View, a *fsm.Assignment, out *pb.DesiredState) {
	vol, host := v.Volume(a.Volume), v.Host(a.Host)
	if vol == nil || host == nil {
		return
	}
	index := max(a.Meta.ModifyIndex, host.Meta.ModifyIndex, vol.Meta.ModifyIndex)
	m := &pb.DesiredAssignment{
		VolumeId: string(a.Volume), HostId: string(a.Host), Generation: uint64(a.Generation),
		Release:    a.State == fsm.AssignmentReleasing,
		Initiators: host.Initiators, AllowFrom: host.AllowFrom, HostAddresses: host.Addresses,
		VolumeName: vol.Name, SizeBytes: vol.SizeBytes, BlockSizeBytes: vol.BlockSizeBytes, ChapUser: a.CHAPUser,
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
	secret, err := secrets.OpenCHAP(d.sealer, a)
	if err != nil {
		// Without its secret nobody could log in: leave the agent as it is and say so.
		d.log.Error("an assignment's secret can't be opened; its parties are not told", "volume", a.Volume, "host", a.Host, "err", err)
		return
	}
	m.ChapSecret = secret
	out.Assignments = append(out.Assignments, m)
}
