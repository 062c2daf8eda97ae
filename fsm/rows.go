package fsm

import (
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// Rows of the replicated tables. A row is immutable once it is in a table: Apply copies it, changes the
// copy and inserts that. Field numbers are part of the snapshot format: never reuse one.

// Meta is on every row: the log indexes that made and last changed it.
type Meta struct {
	CreateIndex san.Index `cbor:"1,keyasint"`
	ModifyIndex san.Index `cbor:"2,keyasint"`
}

// Cluster is the one row of the cluster table.
type Cluster struct {
	Meta          Meta          `cbor:"1,keyasint"`
	ID            san.ClusterID `cbor:"2,keyasint"`
	Generation    uint64        `cbor:"3,keyasint"` // raised when stations are restored from a backup
	FormatVersion uint32        `cbor:"4,keyasint"` // highest command format that may be proposed
	CACertPEM     []byte        `cbor:"5,keyasint"`
	CAKeySealed   []byte        `cbor:"6,keyasint"` // envelope under the cluster key
	CreatedAt     time.Time     `cbor:"7,keyasint"`
}

// Station is a control station that enrolled.
type Station struct {
	Meta          Meta          `cbor:"1,keyasint"`
	ID            san.StationID `cbor:"2,keyasint"`
	APIAddress    string        `cbor:"3,keyasint"`
	RaftAddress   string        `cbor:"4,keyasint"`
	GossipAddress string        `cbor:"5,keyasint"`
	CertSerial    string        `cbor:"6,keyasint"`
	Version       string        `cbor:"7,keyasint"`
	At            time.Time     `cbor:"8,keyasint"`
	Format        uint32        `cbor:"9,keyasint"`  // highest log format that its program reads; 0 counts as 1
	PublicKey     []byte        `cbor:"10,keyasint"` // SHA-256 of the key that it enrolled with
	JoinToken     san.TokenID   `cbor:"11,keyasint"` // that it enrolled with
}

// UnitState is where a unit stands in the start-up sequence of Fig. 3.
type UnitState string

// The states of a unit.
const (
	UnitPending     UnitState = "Pending"     // enrolled, not approved: given nothing
	UnitEnrolled    UnitState = "Enrolled"    // approved, has not started yet
	UnitStarting    UnitState = "Starting"    // started; the stations need its storage info
	UnitOnline      UnitState = "Online"      // its storage info is in the pool
	UnitStopped     UnitState = "Stopped"     // said that it shuts down
	UnitUnreachable UnitState = "Unreachable" // lost; a probe agreed
)

// Unit is a storage node.
type Unit struct {
	Meta        Meta              `cbor:"1,keyasint"`
	ID          san.UnitID        `cbor:"2,keyasint"`
	Approved    bool              `cbor:"3,keyasint"`
	CertSerial  string            `cbor:"4,keyasint"`
	State       UnitState         `cbor:"5,keyasint"`
	Reason      string            `cbor:"6,keyasint"` // of the state, for people
	Incarnation san.Incarnation   `cbor:"7,keyasint"`
	APIAddress  string            `cbor:"8,keyasint"` // where stations probe it
	Portal      string            `cbor:"9,keyasint"` // iSCSI portal, ip:port
	StateAt     time.Time         `cbor:"10,keyasint"`
	Version     string            `cbor:"11,keyasint"`
	Spare       bool              `cbor:"12,keyasint"` // kept free of volumes, for replacing a lost unit
	Labels      map[string]string `cbor:"13,keyasint"`
	Orphans     []san.VolumeID    `cbor:"14,keyasint"` // replicas that the unit holds and no row knows
	PublicKey   []byte            `cbor:"15,keyasint"` // SHA-256 of the key that it enrolled with
	JoinToken   san.TokenID       `cbor:"16,keyasint"` // that it enrolled with
}

// MediumState says whether a medium takes part in allocation.
type MediumState string

// The states of a medium.
const (
	MediumOnline  MediumState = "Online"
	MediumMissing MediumState = "Missing" // known, not in the unit's last storage info
)

// Medium is a file or block device on a unit.
type Medium struct {
	Meta            Meta         `cbor:"1,keyasint"`
	ID              san.MediumID `cbor:"2,keyasint"`
	Unit            san.UnitID   `cbor:"3,keyasint"`
	Path            string       `cbor:"4,keyasint"`
	State           MediumState  `cbor:"5,keyasint"`
	CapacityExtents uint32       `cbor:"6,keyasint"`
	ReservedExtents uint32       `cbor:"7,keyasint"` // sum of the slices of volumes placed here; kept by Apply
	UsedExtents     uint32       `cbor:"8,keyasint"` // what the unit last reported
}

// VolumeState is a volume's life.
type VolumeState string

// The states of a volume.
const (
	VolumeCreating VolumeState = "Creating" // placed; not every copy has confirmed
	VolumeReady    VolumeState = "Ready"    // every copy exists and is stable
	VolumeGrowing  VolumeState = "Growing"  // in use as before; not every copy has its new size
	VolumeDeleting VolumeState = "Deleting" // units are freeing its extents
)

// CopyState is one copy's life.
type CopyState string

// The states of a copy.
const (
	CopyCreating CopyState = "Creating"
	CopyInSync   CopyState = "InSync"
	CopyGrowing  CopyState = "Growing" // in use; its unit has not confirmed the volume's size
	CopyDeleting CopyState = "Deleting"
)

// CopyRole is a copy's part in its volume.
type CopyRole string

// RolePrimary serves the hosts.
const RolePrimary CopyRole = "primary"

// Slice is a reservation of extents on one medium.
type Slice struct {
	Medium  san.MediumID `cbor:"1,keyasint"`
	Extents uint32       `cbor:"2,keyasint"`
}

// Copy is one copy of a volume, on one unit.
type Copy struct {
	Unit   san.UnitID `cbor:"1,keyasint"`
	Role   CopyRole   `cbor:"2,keyasint"`
	State  CopyState  `cbor:"3,keyasint"`
	Slices []Slice    `cbor:"4,keyasint"`
	Error  string     `cbor:"5,keyasint"` // last failure that the unit reported for it
	// SizeBytes is what the unit has confirmed of a copy that is Growing; 0 of all others.
	SizeBytes int64 `cbor:"6,keyasint,omitempty"`
}

// Volume is a logical unit.
type Volume struct {
	Meta           Meta              `cbor:"1,keyasint"`
	ID             san.VolumeID      `cbor:"2,keyasint"`
	Name           string            `cbor:"3,keyasint"`
	SizeBytes      int64             `cbor:"4,keyasint"`
	BlockSizeBytes uint32            `cbor:"5,keyasint"`
	Labels         map[string]string `cbor:"6,keyasint"`
	Owner          san.HostID        `cbor:"7,keyasint"` // host whose provisioner made it; "" = an operator
	State          VolumeState       `cbor:"8,keyasint"`
	Epoch          san.Epoch         `cbor:"9,keyasint"`
	Copies         []Copy            `cbor:"10,keyasint"`
	LastGeneration san.Generation    `cbor:"11,keyasint"` // highest generation that any of its assignments had
	CreatedAt      time.Time         `cbor:"12,keyasint"`
}

// HostState says what the stations know of a host's agent.
type HostState string

// The states of a host.
const (
	HostRegistered HostState = "Registered" // no agent: known by name alone
	HostEnrolled   HostState = "Enrolled"   // has an agent, which never reported
	HostOnline     HostState = "Online"
	HostStopped    HostState = "Stopped"
	HostOffline    HostState = "Offline" // its stream was lost
)

// Host is a consumer of volumes, with an agent or without.
type Host struct {
	Meta        Meta            `cbor:"1,keyasint"`
	ID          san.HostID      `cbor:"2,keyasint"`
	Agent       bool            `cbor:"3,keyasint"`
	CertSerial  string          `cbor:"4,keyasint"`
	Initiators  []string        `cbor:"5,keyasint"` // normalized; each belongs to one host
	AllowFrom   []string        `cbor:"6,keyasint"` // CIDR prefixes; empty = from anywhere
	Addresses   []string        `cbor:"7,keyasint"` // as its agent reported them
	State       HostState       `cbor:"8,keyasint"`
	Incarnation san.Incarnation `cbor:"9,keyasint"`
	StateAt     time.Time       `cbor:"10,keyasint"`
	Version     string          `cbor:"11,keyasint"`
	PublicKey   []byte          `cbor:"12,keyasint"` // SHA-256 of the key that its agent enrolled with
	JoinToken   san.TokenID     `cbor:"13,keyasint"` // that it enrolled with
}

// AssignmentState is an assignment's life.
type AssignmentState string

// The states of an assignment.
const (
	AssignmentPending   AssignmentState = "Pending"   // committed; not all parties confirmed the generation
	AssignmentAssigned  AssignmentState = "Assigned"  // every unit, and the host's agent if any, confirmed
	AssignmentReleasing AssignmentState = "Releasing" // units are closing its sessions
)

// UnitConfirmation says which generation of an assignment a unit has persisted.
type UnitConfirmation struct {
	Unit       san.UnitID     `cbor:"1,keyasint"`
	Generation san.Generation `cbor:"2,keyasint"`
	Error      string         `cbor:"3,keyasint"`
}

// Assignment gives one host one volume.
type Assignment struct {
	Meta             Meta               `cbor:"1,keyasint"`
	Volume           san.VolumeID       `cbor:"2,keyasint"`
	Host             san.HostID         `cbor:"3,keyasint"`
	Generation       san.Generation     `cbor:"4,keyasint"`
	State            AssignmentState    `cbor:"5,keyasint"`
	CHAPUser         string             `cbor:"6,keyasint"`
	CHAPSecretSealed []byte             `cbor:"7,keyasint"`
	Units            []UnitConfirmation `cbor:"8,keyasint"`
	HostGeneration   san.Generation     `cbor:"9,keyasint"` // what the host's agent confirmed
	At               time.Time          `cbor:"10,keyasint"`
	HostError        string             `cbor:"11,keyasint"` // last failure that the host's agent reported for it
}

// Token is an operator's or program's bearer token.
type Token struct {
	Meta       Meta        `cbor:"1,keyasint"`
	ID         san.TokenID `cbor:"2,keyasint"`
	Name       string      `cbor:"3,keyasint"`
	Role       string      `cbor:"4,keyasint"` // admin, operator, viewer, provisioner
	Host       san.HostID  `cbor:"5,keyasint"` // the provisioner's host
	SecretHash []byte      `cbor:"6,keyasint"`
	ExpiresAt  time.Time   `cbor:"7,keyasint"` // zero: never
	CreatedAt  time.Time   `cbor:"8,keyasint"`
}

// JoinToken lets its bearer enrol.
type JoinToken struct {
	Meta       Meta        `cbor:"1,keyasint"`
	ID         san.TokenID `cbor:"2,keyasint"`
	Name       string      `cbor:"3,keyasint"`
	Role       san.Role    `cbor:"4,keyasint"`
	SecretHash []byte      `cbor:"5,keyasint"`
	ExpiresAt  time.Time   `cbor:"6,keyasint"`
	CreatedAt  time.Time   `cbor:"7,keyasint"`
	Approve    bool        `cbor:"8,keyasint"` // units that use it are approved at once
	MaxUses    uint32      `cbor:"9,keyasint"` // 0: no limit
	Uses       uint32      `cbor:"10,keyasint"`
}

// Request remembers an answered mutation, so that a retry gets the same answer.
type Request struct {
	Index       san.Index     `cbor:"1,keyasint"`
	Principal   string        `cbor:"2,keyasint"`
	ID          san.RequestID `cbor:"3,keyasint"`
	Fingerprint []byte        `cbor:"4,keyasint"` // of method and content
	Object      string        `cbor:"5,keyasint"` // id of what was made or changed
}

// Audit is one accepted command.
type Audit struct {
	Index     san.Index `cbor:"1,keyasint"`
	At        time.Time `cbor:"2,keyasint"`
	Principal string    `cbor:"3,keyasint"`
	Action    string    `cbor:"4,keyasint"`
	Object    string    `cbor:"5,keyasint"`
}
