package wire

import (
	"fmt"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// The states of a path.
const (
	PathPending     = "Pending"
	PathReady       = "Ready"
	PathUnavailable = "Unavailable"
)

// Volume renders a volume with its assignments as v knows them.
func Volume(v fsm.View, row *fsm.Volume) *pb.Volume {
	out := &pb.Volume{
		Id: string(row.ID), Name: row.Name, State: string(row.State),
		SizeBytes: row.SizeBytes, BlockSizeBytes: row.BlockSizeBytes, Epoch: uint64(row.Epoch),
		Labels: row.Labels, OwnerHostId: string(row.Owner),
		CreatedAt: convert.TimeProto(row.CreatedAt), ModifyIndex: uint64(row.Meta.ModifyIndex),
	}
	for _, c := range row.Copies {
		pc := &pb.Copy{UnitId: string(c.Unit), Role: string(c.Role), State: string(c.State), Error: c.Error, SizeBytes: c.SizeBytes}
		if c.State == fsm.CopyInSync {
			pc.SizeBytes = row.SizeBytes
		}
		for _, s := range c.Slices {
			pc.Slices = append(pc.Slices, &pb.Slice{MediumId: string(s.Medium), Extents: s.Extents})
		}
		out.Copies = append(out.Copies, pc)
	}
	for _, a := range v.AssignmentsOf(row.ID) {
		out.Assignments = append(out.Assignments, Assignment(v, row, a))
	}
	return out
}

// Assignment renders an assignment of volume row, with a path per copy.
func Assignment(v fsm.View, row *fsm.Volume, a *fsm.Assignment) *pb.Assignment {
	out := &pb.Assignment{
		VolumeId: string(a.Volume), HostId: string(a.Host), State: string(a.State),
		Generation: uint64(a.Generation), HostGeneration: uint64(a.HostGeneration),
	}
	if row == nil {
		return out
	}
	for _, c := range row.Copies {
		out.Paths = append(out.Paths, path(v, row, a, c))
	}
	return out
}

func path(v fsm.View, row *fsm.Volume, a *fsm.Assignment, c fsm.Copy) *pb.Path {
	start, end := LBARange(row)
	p := &pb.Path{
		UnitId: string(c.Unit), TargetIqn: san.TargetName(c.Unit, row.ID), Lun: 0,
		StartLba: uint64(start), EndLba: uint64(end), State: PathPending,
	}
	u := v.Unit(c.Unit)
	if u == nil || u.State != fsm.UnitOnline {
		p.State = PathUnavailable
		p.Reason = "its unit is unknown"
		if u != nil {
			p.Reason = fmt.Sprintf("unit %s is %s", u.ID, u.State)
		}
	}
	if u != nil {
		p.Portal = u.Portal
	}
	for _, uc := range a.Units {
		if uc.Unit != c.Unit || p.State == PathUnavailable {
			continue
		}
		if uc.Error != "" {
			p.Reason = uc.Error
		} else if uc.Generation == a.Generation && a.State != fsm.AssignmentReleasing {
			p.State = PathReady
		}
	}
	return p
}

// LBARange is a volume's first and last logical block address that hosts may use. A whole volume begins at 0.
func LBARange(row *fsm.Volume) (start, end san.LBA) {
	return 0, san.LBA(row.ServedBytes()/int64(row.BlockSizeBytes) - 1)
}
