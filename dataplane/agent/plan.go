package agent

import (
	"maps"
	"slices"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

// op is a kind of step.
type op uint8

const (
	opHide   op = iota // refuse new logins of a host
	opClose            // close a host's sessions that the grant does not cover; all of them if it is nil
	opKeep             // make the record stable
	opDelete           // close all sessions, then delete the replica
	opCreate           // make the replica, or find it made
	opGrow             // extend the replica, or find it extended, and tell the stations; if it fails the rest is done all the same
	opShow             // let a host in by the grant
	opReport           // tell the stations
)

// step is one thing to do to a volume.
type step struct {
	op     op
	host   san.HostID
	grant  *Grant
	record Record
	report *pb.Report
	// shown is the grant by which the host is let in, and no longer by a former one, once the step is done.
	shown *Grant
}

// situation is one volume as it was told and as it stands.
type situation struct {
	told
	kept  Record                // on disk
	shown map[san.HostID]*Grant // who is let in, perhaps with sessions by it still
}

// plan works out what makes a volume what was told, in the order in which it must be done.
// Nobody is let in before the terms are on disk; a release is reported after new logins are
// refused, the sessions are gone and that is on disk; a deletion is on disk from before it begins
// until it is done, whatever was told since, so that a restart goes on with it. Where nothing is to be done, reports alone are left.
func plan(s situation) []step {
	var steps []step
	hosts := slices.Sorted(maps.Keys(union(s)))
	for _, h := range hosts {
		if s.shown[h] != nil && (s.Purge != nil || s.grant(h) == nil) {
			steps = append(steps, step{op: opHide, host: h})
		}
	}
	for _, h := range hosts {
		a := s.Hosts[h]
		if s.grant(h) == nil && (s.shown[h] != nil || s.kept.grant(h) != nil || a != nil && a.State == Released) {
			steps = append(steps, step{op: opClose, host: h})
		}
	}
	kept := s.Record
	if s.Purge != nil {
		kept = s.doomed(s.Purge)
	}
	if !kept.same(s.kept) {
		steps = append(steps, step{op: opKeep, record: kept})
	}
	for _, h := range hosts {
		if a := s.Hosts[h]; a != nil && a.State == Released {
			steps = append(steps, report(pb.ReportKind_REPORT_KIND_RELEASED, s.Volume, h, a.Generation))
		}
	}
	steps = append(steps, planReplica(s)...)
	for _, h := range hosts {
		if g := s.grant(h); g != nil {
			steps = append(steps, planGrant(s, g)...)
		}
	}
	return steps
}

func union(s situation) map[san.HostID]bool {
	all := map[san.HostID]bool{}
	for h := range s.Hosts {
		all[h] = true
	}
	for h := range s.kept.Hosts {
		all[h] = true
	}
	for h := range s.shown {
		all[h] = true
	}
	return all
}

func planReplica(s situation) []step {
	var steps []step
	if s.Purge != nil {
		steps = append(steps, step{op: opDelete})
		if !s.same(s.doomed(s.Purge)) {
			steps = append(steps, step{op: opKeep, record: s.Record})
		}
	}
	switch {
	case s.Replica != nil && s.Replica.Deleted:
		steps = append(steps, report(pb.ReportKind_REPORT_KIND_REPLICA_DELETED, s.Volume, "", 0))
	case s.Spec != nil:
		done := report(pb.ReportKind_REPORT_KIND_REPLICA_READY, s.Volume, "", 0)
		done.report.SizeBytes = s.Spec.SizeBytes
		if s.Grow {
			done.op = opGrow
			return append(steps, done)
		}
		steps = append(steps, step{op: opCreate}, done)
	}
	return steps
}

func planGrant(s situation, g *Grant) []step {
	var steps []step
	switch was := s.shown[g.Host]; {
	case was == nil || s.Purge != nil:
		steps = append(steps, step{op: opShow, host: g.Host, grant: g, shown: g})
	case !was.equal(g):
		covers := g
		if was.CHAPUser != g.CHAPUser || was.CHAPSecret != g.CHAPSecret {
			covers = nil // a session does not tell by which secret it came in
		}
		steps = append(steps, step{op: opShow, host: g.Host, grant: g}, step{op: opClose, host: g.Host, grant: covers, shown: g})
	}
	return append(steps, report(pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, g.Volume, g.Host, g.Generation))
}

func report(kind pb.ReportKind, v san.VolumeID, h san.HostID, g san.Generation) step {
	return step{op: opReport, host: h, report: &pb.Report{Kind: kind, VolumeId: string(v), HostId: string(h), Generation: uint64(g)}}
}
