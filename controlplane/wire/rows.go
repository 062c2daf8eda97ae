package wire

import (
	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// Host renders a host.
func Host(h *fsm.Host) *pb.Host {
	return &pb.Host{
		Id: string(h.ID), Agent: h.Agent, State: string(h.State), Initiators: h.Initiators,
		AllowFrom: h.AllowFrom, Addresses: h.Addresses, Incarnation: uint64(h.Incarnation),
		StateAt: convert.TimeProto(h.StateAt), Version: h.Version, ModifyIndex: uint64(h.Meta.ModifyIndex),
	}
}

// Medium renders a medium.
func Medium(m *fsm.Medium) *pb.Medium {
	return &pb.Medium{
		Id: string(m.ID), UnitId: string(m.Unit), Path: m.Path, State: string(m.State),
		CapacityBytes: int64(m.CapacityExtents) * san.ExtentSizeBytes,
		ReservedBytes: int64(m.ReservedExtents) * san.ExtentSizeBytes,
		UsedBytes:     int64(m.UsedExtents) * san.ExtentSizeBytes,
	}
}

// Unit renders a unit with its media and volumes (Fig. 5).
func Unit(v fsm.View, u *fsm.Unit) *pb.Unit {
	out := &pb.Unit{
		Id: string(u.ID), State: string(u.State), Reason: u.Reason, Approved: u.Approved, Spare: u.Spare,
		Incarnation: uint64(u.Incarnation), Portal: u.Portal, ApiAddress: u.APIAddress,
		StateAt: convert.TimeProto(u.StateAt), Version: u.Version, Labels: u.Labels,
		ModifyIndex: uint64(u.Meta.ModifyIndex),
	}
	for _, id := range u.Orphans {
		out.OrphanVolumeIds = append(out.OrphanVolumeIds, string(id))
	}
	for _, m := range v.MediaOf(u.ID) {
		out.Media = append(out.Media, Medium(m))
	}
	for _, row := range v.VolumesOn(u.ID) {
		start, end := LBARange(row)
		out.Volumes = append(out.Volumes, &pb.UnitVolume{
			VolumeId: string(row.ID), Name: row.Name,
			StartLba: uint64(start), EndLba: uint64(end), LengthBlocks: uint64(end-start) + 1,
		})
	}
	return out
}

// Token renders an operator token, without its secret.
func Token(t *fsm.Token) *pb.Token {
	return &pb.Token{
		Id: string(t.ID), Name: t.Name, Role: t.Role, HostId: string(t.Host),
		ExpiresAt: convert.TimeProto(t.ExpiresAt), CreatedAt: convert.TimeProto(t.CreatedAt),
	}
}

// JoinToken renders a join token, without its secret.
func JoinToken(t *fsm.JoinToken) *pb.Token {
	return &pb.Token{
		Id: string(t.ID), Name: t.Name, Role: string(t.Role), Join: true, Approve: t.Approve,
		Uses: t.Uses, MaxUses: t.MaxUses,
		ExpiresAt: convert.TimeProto(t.ExpiresAt), CreatedAt: convert.TimeProto(t.CreatedAt),
	}
}

// AuditEntry renders an audit row.
func AuditEntry(a *fsm.Audit) *pb.AuditEntry {
	return &pb.AuditEntry{
		Index: uint64(a.Index), At: convert.TimeProto(a.At),
		Principal: a.Principal, Action: a.Action, Object: a.Object,
	}
}

// Station renders a station's row; the Raft group's and gossip's parts are the caller's.
func Station(s *fsm.Station) *pb.Station {
	return &pb.Station{
		Id: string(s.ID), ApiAddress: s.APIAddress, RaftAddress: s.RaftAddress,
		GossipAddress: s.GossipAddress, Version: s.Version, StartedAt: convert.TimeProto(s.At),
	}
}

// Pool sums up the virtual storage pool (Fig. 2).
func Pool(v fsm.View) *pb.GetPoolResponse {
	out := &pb.GetPoolResponse{Index: uint64(v.Index()), Hosts: uint32(len(v.Hosts())),
		Volumes: uint32(len(v.Volumes())), Assignments: uint32(len(v.Assignments()))}
	for _, u := range v.Units() {
		out.Units++
		online := u.State == fsm.UnitOnline
		if online {
			out.UnitsOnline++
		}
		if u.Spare {
			out.SpareUnits++
		}
		for _, row := range v.MediaOf(u.ID) {
			m := Medium(row)
			out.Media++
			out.CapacityBytes += m.CapacityBytes
			out.ReservedBytes += m.ReservedBytes
			out.UsedBytes += m.UsedBytes
			if online && u.Approved && !u.Spare && row.State == fsm.MediumOnline {
				out.FreeBytes += int64(row.FreeExtents()) * san.ExtentSizeBytes
			}
		}
	}
	return out
}
