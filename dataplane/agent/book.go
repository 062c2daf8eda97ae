package agent

import (
	"net/netip"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// maxRemembered bounds the assignments of a volume that are remembered, gone ones included.
	maxRemembered = 1024
	// maxGranted bounds those of them that let a host in. With what each may say at the most, they
	// and the others, of which next to nothing is kept, fit a record (disk.MaxRecordBytes).
	maxGranted = 64
)

// told is the newest word on one volume.
type told struct {
	Record
	// Spec is the replica that the unit shall have, nil if none was told by this process or
	// the last full state did not mention it: then what is there stays as it is.
	Spec *volume.Spec
	// Grow says that the replica was there in a smaller size: it is to be extended, never made.
	Grow bool
	// Purge is the word by which the replica was to be deleted, until it has been; nil if there is none. What
	// comes after must not find its bytes.
	Purge *Replica
}

// refusal is something told that can't be carried out.
type refusal struct {
	volume     san.VolumeID
	host       san.HostID // "" for a replica
	generation san.Generation
	err        error
}

// book is all that the unit was told. It judges stamps and does nothing else.
type book struct {
	floor   san.Stamp // the newest state that a station has shown
	kept    san.Stamp // as much of it as is on disk
	volumes map[san.VolumeID]told
}

// verdict is what became of a desired state.
type verdict struct {
	changed []san.VolumeID // volumes to look at; for a full state, all
	refused []refusal
	stale   int // objects whose stamp was lower than one seen
}

// apply takes note of a desired state. It fails, and nothing is taken, for a state older than one that was
// seen: the station is behind, and another one may not be.
func (b *book) apply(m *pb.DesiredState) (verdict, error) {
	asOf := convert.Stamp(m.Stamp)
	if asOf.Less(b.floor) {
		return verdict{}, san.Errorf(san.KindConflict, "the station is at state %v, behind %v, which this unit has seen already", asOf, b.floor)
	}
	b.floor = asOf
	j := judgement{book: b, asOf: asOf, touched: map[san.VolumeID]bool{}, listed: map[san.VolumeID]map[san.HostID]bool{}}
	for _, r := range m.Replicas {
		j.replica(r)
	}
	for _, a := range m.Assignments {
		j.assignment(a)
	}
	if m.Full {
		j.withdrawUnlisted(m.Replicas)
	}
	for id := range j.touched {
		j.changed = append(j.changed, id)
	}
	return j.verdict, nil
}

// judgement is one call of apply.
type judgement struct {
	verdict
	book    *book
	asOf    san.Stamp
	touched map[san.VolumeID]bool
	listed  map[san.VolumeID]map[san.HostID]bool
}

// volume returns the word on a volume so far, ready to be changed.
func (j *judgement) volume(id san.VolumeID) told {
	t := j.book.volumes[id]
	t.Record, _ = t.without(j.book.kept)
	t.Volume = id
	return t
}

func (j *judgement) put(t told) {
	j.book.volumes[t.Volume] = t
	j.touched[t.Volume] = true
}

func (j *judgement) refuse(volume string, host string, generation uint64, err error) {
	j.refused = append(j.refused, refusal{san.VolumeID(volume), san.HostID(host), san.Generation(generation), err})
}

func (j *judgement) replica(m *pb.DesiredReplica) {
	if err := checkVolumeID(san.VolumeID(m.VolumeId)); err != nil {
		j.refuse(m.VolumeId, "", 0, err)
		return
	}
	t := j.volume(san.VolumeID(m.VolumeId))
	seen := Seen{Stamp: convert.Stamp(m.Stamp), AsOf: j.asOf}
	if t.Replica != nil && !seen.supersedes(t.Replica.Seen) {
		j.stale++
		return
	}
	t.Replica = &Replica{Seen: seen, Deleted: m.Deleted}
	if m.Deleted {
		t.Spec, t.Grow, t.Purge = nil, false, t.Replica
	} else {
		t.Spec, t.Grow = specOf(m), m.Grow
	}
	j.put(t)
}

func specOf(m *pb.DesiredReplica) *volume.Spec {
	s := &volume.Spec{ID: san.VolumeID(m.VolumeId), SizeBytes: m.SizeBytes, BlockSizeBytes: m.BlockSizeBytes}
	for _, sl := range m.Slices {
		s.Slices = append(s.Slices, volume.Slice{Medium: san.MediumID(sl.MediumId), Extents: sl.Extents})
	}
	return s
}

func (j *judgement) assignment(m *pb.DesiredAssignment) {
	id, host := san.VolumeID(m.VolumeId), san.HostID(m.HostId)
	if j.listed[id] == nil {
		j.listed[id] = map[san.HostID]bool{}
	}
	j.listed[id][host] = true
	a, err := accessOf(m)
	if err == nil {
		err = checkVolumeID(id)
	}
	if err == nil {
		err = checkAccess(host, a)
	}
	if err != nil {
		// What was in force stays in force: an order that makes no sense is none.
		j.refuse(m.VolumeId, m.HostId, m.Generation, err)
		return
	}
	a.AsOf = j.asOf
	t := j.volume(id)
	known := t.Hosts[host]
	switch {
	case known != nil && (!a.supersedes(known.Seen) || a.precedes(known)):
		j.stale++
		return
	case known == nil && a.State == Gone:
		return
	case known == nil && len(t.Hosts) >= maxRemembered:
		j.refuse(m.VolumeId, m.HostId, m.Generation, san.Errorf(san.KindConflict, "the volume has %d assignments on this unit, its limit; unassign it from some hosts", len(t.Hosts)))
		return
	case a.State == Granted && t.granted(host) >= maxGranted:
		j.refuse(m.VolumeId, m.HostId, m.Generation, san.Errorf(san.KindConflict, "the volume is assigned to %d hosts on this unit, its limit; unassign it from some of them", maxGranted))
		return
	}
	t.Hosts[host] = a
	j.put(t)
}

func accessOf(m *pb.DesiredAssignment) (*Access, error) {
	a := &Access{Seen: Seen{Stamp: convert.Stamp(m.Stamp)}, Generation: san.Generation(m.Generation), State: Granted}
	switch {
	case m.Gone:
		a.State = Gone
	case m.Release:
		a.State = Released
	}
	if a.State != Granted {
		return a, nil // nothing secret stays behind
	}
	a.CHAPUser, a.CHAPSecret = m.ChapUser, m.ChapSecret
	for _, name := range m.Initiators {
		a.Initiators = append(a.Initiators, san.NormalizeInitiator(name))
	}
	for _, text := range m.AllowFrom {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, san.Errorf(san.KindInvalid, "address range %.64q of host %.64s is not a prefix like 192.0.2.0/24", text, m.HostId)
		}
		a.AllowFrom = append(a.AllowFrom, p.Masked())
	}
	return a, nil
}

// withdrawUnlisted takes access away that a full state does not mention. Replicas that it does not mention
// are left alone. Every volume is looked at again, so that all is reported anew.
func (j *judgement) withdrawUnlisted(replicas []*pb.DesiredReplica) {
	wanted := map[san.VolumeID]bool{}
	for _, r := range replicas {
		wanted[san.VolumeID(r.VolumeId)] = true
	}
	for id := range j.book.volumes {
		t := j.volume(id)
		if !wanted[id] {
			t.Spec = nil
		}
		for host, a := range t.Hosts {
			if a.State != Gone && !j.listed[id][host] {
				// The stamp stays: the same assignment may come back unchanged.
				t.Hosts[host] = &Access{Seen: Seen{Stamp: a.Stamp, AsOf: j.asOf}, State: Gone, Generation: a.Generation}
			}
		}
		j.put(t)
	}
}
