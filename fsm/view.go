package fsm

import (
	"slices"
	"sort"

	"github.com/hashicorp/go-memdb"

	"github.com/sandbar-san/sandbar/san"
)

// View is the state as of one log index. It never changes, costs nothing to keep but the memory of
// rows replaced since, and is safe for concurrent use. Rows are shared: never modify one. Lists are in
// order of id. A method that finds nothing returns nil.
type View struct {
	txn      *memdb.Txn
	index    san.Index
	requests *memory
	answered []*Request // oldest first
	audit    []*Audit   // in the order of the log
}

func one[T any](v View, t Table, index, key string) *T {
	if v.txn == nil {
		return nil
	}
	// The schema is fixed and every key is a string: memdb has no other reason to fail.
	raw, err := v.txn.First(t.String(), index, key)
	if err != nil || raw == nil {
		return nil
	}
	r, _ := raw.(*T)
	return r
}

func list[T any](v View, t Table, index string, args ...any) []*T {
	if v.txn == nil {
		return nil
	}
	it, err := v.txn.Get(t.String(), index, args...)
	if err != nil {
		return nil
	}
	var out []*T
	for raw := it.Next(); raw != nil; raw = it.Next() {
		if r, ok := raw.(*T); ok {
			out = append(out, r)
		}
	}
	return out
}

// Index is the last log entry that the view contains.
func (v View) Index() san.Index { return v.index }

// Cluster is the cluster's row; nil before it is initialised.
func (v View) Cluster() *Cluster { return one[Cluster](v, TableCluster, byID, "cluster") }

// Stamp is the stamp of a row last changed at modify, for the desired state sent to agents.
func (v View) Stamp(modify san.Index) san.Stamp {
	s := san.Stamp{Index: modify}
	if c := v.Cluster(); c != nil {
		s.ClusterGeneration = c.Generation
	}
	return s
}

// Station returns one station.
func (v View) Station(id san.StationID) *Station {
	return one[Station](v, TableStations, byID, string(id))
}

// Stations returns all stations.
func (v View) Stations() []*Station { return list[Station](v, TableStations, byID) }

// Unit returns one unit.
func (v View) Unit(id san.UnitID) *Unit { return one[Unit](v, TableUnits, byID, string(id)) }

// Units returns all units.
func (v View) Units() []*Unit { return list[Unit](v, TableUnits, byID) }

// Medium returns one medium.
func (v View) Medium(id san.MediumID) *Medium { return one[Medium](v, TableMedia, byID, string(id)) }

// Media returns the media of all units.
func (v View) Media() []*Medium { return list[Medium](v, TableMedia, byID) }

// MediaOf returns the media of one unit.
func (v View) MediaOf(unit san.UnitID) []*Medium {
	return list[Medium](v, TableMedia, byUnit, string(unit))
}

// Volume returns one volume.
func (v View) Volume(id san.VolumeID) *Volume { return one[Volume](v, TableVolumes, byID, string(id)) }

// VolumeByName returns the volume of that name, whatever its state.
func (v View) VolumeByName(name string) *Volume { return one[Volume](v, TableVolumes, byName, name) }

// Volumes returns all volumes.
func (v View) Volumes() []*Volume { return list[Volume](v, TableVolumes, byID) }

// VolumesOn returns the volumes that have a copy on unit.
func (v View) VolumesOn(unit san.UnitID) []*Volume {
	return list[Volume](v, TableVolumes, byUnit, string(unit))
}

// Host returns one host.
func (v View) Host(id san.HostID) *Host { return one[Host](v, TableHosts, byID, string(id)) }

// Hosts returns all hosts.
func (v View) Hosts() []*Host { return list[Host](v, TableHosts, byID) }

// HostByInitiator returns the host that an initiator name belongs to, in whatever case it is written.
func (v View) HostByInitiator(name string) *Host {
	return one[Host](v, TableHosts, byInitiator, san.NormalizeInitiator(name))
}

// Assignment returns the assignment of volume to host.
func (v View) Assignment(volume san.VolumeID, host san.HostID) *Assignment {
	return one[Assignment](v, TableAssignments, byID, AssignmentKey(volume, host))
}

// AssignmentsOf returns the assignments of one volume.
func (v View) AssignmentsOf(volume san.VolumeID) []*Assignment {
	return list[Assignment](v, TableAssignments, byIDPrefix, AssignmentKey(volume, ""))
}

// AssignmentsTo returns the assignments that one host has.
func (v View) AssignmentsTo(host san.HostID) []*Assignment {
	return list[Assignment](v, TableAssignments, byHost, string(host))
}

// Assignments returns all assignments.
func (v View) Assignments() []*Assignment { return list[Assignment](v, TableAssignments, byID) }

// Token returns one operator token.
func (v View) Token(id san.TokenID) *Token { return one[Token](v, TableTokens, byID, string(id)) }

// Tokens returns all operator tokens.
func (v View) Tokens() []*Token { return list[Token](v, TableTokens, byID) }

// JoinToken returns one join token.
func (v View) JoinToken(id san.TokenID) *JoinToken {
	return one[JoinToken](v, TableJoinTokens, byID, string(id))
}

// JoinTokens returns all join tokens.
func (v View) JoinTokens() []*JoinToken { return list[JoinToken](v, TableJoinTokens, byID) }

// Request returns what is remembered of an answered request. Of a view that is old enough for its requests to be
// forgotten meanwhile, it may return nil.
func (v View) Request(principal string, id san.RequestID) *Request {
	if v.requests == nil {
		return nil
	}
	return v.requests.find(principal, id, v.index)
}

// Audit returns at most limit entries in the order of the log, beginning with the first whose index
// is from or more. The slice is the caller's, the rows are shared.
func (v View) Audit(from san.Index, limit int) []*Audit {
	first := sort.Search(len(v.audit), func(i int) bool { return v.audit[i].Index >= from })
	return slices.Clone(v.audit[first:min(len(v.audit), first+max(limit, 0))])
}
