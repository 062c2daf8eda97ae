package san

import "fmt"

// Identifiers. A station's, unit's and host's id is the name that its operator
// chose; it is unique in its cluster for its role and is what its certificate
// says. A volume's and a medium's id is a lower-case UUID, because a volume's name may be
// used again after the volume is gone but its id never is.
type (
	// ClusterID is the UUID made when the cluster's CA is created.
	ClusterID string
	// StationID names a control station.
	StationID string
	// UnitID names a storage node.
	UnitID string
	// HostID names a host, with an agent or without.
	HostID string
	// VolumeID is a volume's UUID.
	VolumeID string
	// MediumID is the UUID in a medium's superblock.
	MediumID string
	// TokenID is the public half of an operator's or join token.
	TokenID string
	// RequestID is a mutation's client-chosen idempotency key: 1 to 64 printable
	// ASCII characters.
	RequestID string
)

// Counters.
type (
	// Generation counts the versions of one assignment; it only grows. A unit and a
	// host that confirm generation g have persisted exactly what g says.
	Generation uint64
	// Epoch counts the configurations of one volume (mirror.md). "Term" is raft's.
	Epoch uint64
	// Incarnation counts the starts of one unit or host agent.
	Incarnation uint64
	// Index is a position in the replicated log: the row's modify index.
	Index uint64
	// LBA is a logical block address, in blocks of the volume's block size.
	LBA uint64
)

// Stamp orders the desired states of one object. The receiver remembers the highest
// stamp that it acted on, per object, and refuses lower ones.
type Stamp struct {
	ClusterGeneration uint64 `json:"clusterGeneration"`
	Index             Index  `json:"index"`
}

// Less reports whether s is older than o.
func (s Stamp) Less(o Stamp) bool {
	if s.ClusterGeneration != o.ClusterGeneration {
		return s.ClusterGeneration < o.ClusterGeneration
	}
	return s.Index < o.Index
}

// String renders the stamp as generation.index.
func (s Stamp) String() string { return fmt.Sprintf("%d.%d", s.ClusterGeneration, s.Index) }

// Role says what a certificate's holder is.
type Role string

// The roles of the parts of a cluster.
const (
	RoleStation Role = "station"
	RoleUnit    Role = "unit"
	RoleHost    Role = "host"
)

// Valid reports whether r is one of the known roles.
func (r Role) Valid() bool { return r == RoleStation || r == RoleUnit || r == RoleHost }
