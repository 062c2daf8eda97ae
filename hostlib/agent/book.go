package agent

import (
	"slices"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// maxTextBytes bounds each text of an assignment.
	maxTextBytes = 512
)

// verdict is what a desired state comes to.
type verdict struct {
	next    state.State // what to keep
	changed bool        // next differs from what is kept
	reports []*pb.Report
	stale   int // assignments whose stamp was lower than the one kept
}

// judge works out what m, told by a station, makes of now. It is pure. It fails, and nothing of m counts,
// if the station is behind what this host has seen.
func judge(now state.State, m *pb.DesiredState) (verdict, error) {
	asOf := convert.Stamp(m.Stamp)
	if asOf.Less(now.Floor) {
		return verdict{}, san.Errorf(san.KindConflict, "the station is at state %v, behind %v, which this host has seen already", asOf, now.Floor)
	}
	j := judgement{verdict: verdict{next: now}, listed: map[san.VolumeID]bool{}, kept: map[san.VolumeID]state.Assignment{}}
	for _, a := range now.Assignments {
		j.kept[a.Volume] = a
	}
	for _, d := range m.Assignments {
		j.assignment(d)
	}
	if m.Full {
		for id := range j.kept {
			if !j.listed[id] {
				delete(j.kept, id)
				j.changed = true
			}
		}
		j.confirmAll()
	}
	if j.next.Floor.Less(asOf) {
		j.next.Floor, j.changed = asOf, true
	}
	if j.changed {
		j.next.Assignments = make([]state.Assignment, 0, len(j.kept))
		for _, a := range j.kept {
			j.next.Assignments = append(j.next.Assignments, a)
		}
	}
	return j.verdict, nil
}

// judgement is one call of judge.
type judgement struct {
	verdict
	kept   map[san.VolumeID]state.Assignment
	listed map[san.VolumeID]bool
}

func (j *judgement) assignment(d *pb.DesiredAssignment) {
	id := san.VolumeID(d.VolumeId)
	j.listed[id] = true
	stamp := convert.Stamp(d.Stamp)
	old, known := j.kept[id]
	if known && (stamp.Less(old.Stamp) || san.Generation(d.Generation) < old.Generation) {
		j.stale++
		return
	}
	if d.Release || d.Gone {
		if known {
			delete(j.kept, id)
			j.changed = true
		}
		return
	}
	a, err := assignmentOf(j.next.Host, d)
	if err == nil && !known && len(j.kept) >= state.MaxAssignments {
		err = san.Errorf(san.KindConflict, "this host has %d assignments, its limit; unassign some", len(j.kept))
	}
	if err != nil {
		// What is kept stays: an order that makes no sense is none.
		j.reports = append(j.reports, &pb.Report{
			Kind: pb.ReportKind_REPORT_KIND_ASSIGNMENT_ERROR, VolumeId: d.VolumeId, HostId: d.HostId, Generation: d.Generation, Error: err.Error(),
		})
		return
	}
	if !known || !a.Equal(old) {
		j.kept[id] = a
		j.changed = true
	}
	j.reports = append(j.reports, confirmation(j.next.Host, a))
}

// confirmAll reports everything kept anew: what was reported on an earlier stream may be lost.
func (j *judgement) confirmAll() {
	reports := slices.DeleteFunc(j.reports, func(r *pb.Report) bool { return r.Kind == pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY })
	refused := map[string]bool{}
	for _, r := range reports {
		refused[r.VolumeId] = true
	}
	for id, a := range j.kept {
		if !refused[string(id)] {
			reports = append(reports, confirmation(j.next.Host, a))
		}
	}
	j.reports = reports
}

func confirmation(h san.HostID, a state.Assignment) *pb.Report {
	return &pb.Report{
		Kind: pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, VolumeId: string(a.Volume), HostId: string(h), Generation: uint64(a.Generation),
	}
}

// assignmentOf reads what a station says of an assignment and refuses what can't be one of host's.
func assignmentOf(host san.HostID, d *pb.DesiredAssignment) (state.Assignment, error) {
	a := state.Assignment{
		Stamp: convert.Stamp(d.Stamp), Volume: san.VolumeID(d.VolumeId), Name: d.VolumeName, Generation: san.Generation(d.Generation),
		SizeBytes: d.SizeBytes, BlockSizeBytes: d.BlockSizeBytes, CHAPUser: d.ChapUser, CHAPSecret: d.ChapSecret,
	}
	switch {
	case san.HostID(d.HostId) != host:
		return a, san.Errorf(san.KindInvalid, "the assignment is of host %.64q, this is host %s", d.HostId, host)
	case d.VolumeId == "" || tooLong(d.VolumeId, d.VolumeName, d.ChapUser, d.ChapSecret):
		return a, san.Errorf(san.KindInvalid, "a volume without id or with a text longer than %d bytes", maxTextBytes)
	case len(d.Paths) == 0 || len(d.Paths) > state.MaxPaths:
		return a, san.Errorf(san.KindInvalid, "volume %s has %d paths; 1 to %d can be used", d.VolumeName, len(d.Paths), state.MaxPaths)
	}
	if err := san.CheckVolumeSize(d.SizeBytes, d.BlockSizeBytes); err != nil {
		return a, err
	}
	for _, p := range d.Paths {
		if tooLong(p.UnitId, p.Portal) || san.CheckInitiatorName(p.TargetIqn) != nil || p.EndLba < p.StartLba {
			return a, san.Errorf(san.KindInvalid, "volume %s has a path that is none: target %.64q, LBA %d to %d", d.VolumeName, p.TargetIqn, p.StartLba, p.EndLba)
		}
		a.Paths = append(a.Paths, state.Path{
			Unit: san.UnitID(p.UnitId), Portal: p.Portal, Target: p.TargetIqn, LUN: p.Lun, StartLBA: san.LBA(p.StartLba), EndLBA: san.LBA(p.EndLba),
		})
	}
	return a, nil
}

func tooLong(texts ...string) bool {
	return slices.ContainsFunc(texts, func(s string) bool { return len(s) > maxTextBytes })
}
