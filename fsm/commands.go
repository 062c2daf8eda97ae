package fsm

import (
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// Kind numbers a command in the log. Numbers are never reused.
type Kind uint16

// The kinds of command, format version 1.
const (
	KindInitCluster     Kind = 1
	KindPutStation      Kind = 2
	KindEnrol           Kind = 3
	KindCreateToken     Kind = 4
	KindDeleteToken     Kind = 5
	KindCreateJoinToken Kind = 6
	KindDeleteJoinToken Kind = 7
	KindApproveUnit     Kind = 8
	KindUnitStarted     Kind = 9
	KindUnitStorage     Kind = 10
	KindUnitState       Kind = 11
	KindAddHost         Kind = 12
	KindRemoveHost      Kind = 13
	KindHostState       Kind = 14
	KindCreateVolume    Kind = 15
	KindDeleteVolume    Kind = 16
	KindAssign          Kind = 17
	KindUnassign        Kind = 18
	KindReports         Kind = 19
	KindSetUnit         Kind = 20
	KindRemoveStation   Kind = 21
	KindAuditRead       Kind = 22
)

// Command is one change. Who proposes it fixes every id, time and random value in it.
type Command interface {
	Kind() Kind
	Header() *Header
	// apply changes x and returns the id of what it made or changed; an error is a refusal and
	// undoes all of it.
	apply(x *tx) (string, error)
	// action names the command in the audit; "" keeps it out.
	action() string
}

// Header is in every command: who asked, when, and under which request id.
type Header struct {
	At          time.Time     `cbor:"1,keyasint"`
	Principal   string        `cbor:"2,keyasint"`
	RequestID   san.RequestID `cbor:"3,keyasint"` // empty for the stations' own commands
	Fingerprint []byte        `cbor:"4,keyasint"`
}

// InitCluster makes the cluster row and the first tokens; refused if there is one.
type InitCluster struct {
	H           Header        `cbor:"1,keyasint"`
	ID          san.ClusterID `cbor:"2,keyasint"`
	CACertPEM   []byte        `cbor:"3,keyasint"`
	CAKeySealed []byte        `cbor:"4,keyasint"`
	Tokens      []Token       `cbor:"5,keyasint"`
	JoinTokens  []JoinToken   `cbor:"6,keyasint"`
}

// PutStation records a station's addresses and version; also at each start of it.
type PutStation struct {
	H       Header  `cbor:"1,keyasint"`
	Station Station `cbor:"2,keyasint"`
}

// RemoveStation forgets a station that left.
type RemoveStation struct {
	H  Header        `cbor:"1,keyasint"`
	ID san.StationID `cbor:"2,keyasint"`
}

// Enrol records a certificate that is about to be handed out, counts the join token's
// use and makes the unit's or host's row. Refused: token unknown, expired at H.At, used up
// or of another role; id already enrolled unless the request proves the old key
// (Renewal) — with what to do next.
type Enrol struct {
	H          Header      `cbor:"1,keyasint"`
	Role       san.Role    `cbor:"2,keyasint"`
	ID         string      `cbor:"3,keyasint"`
	CertSerial string      `cbor:"4,keyasint"`
	JoinToken  san.TokenID `cbor:"5,keyasint"`
	Renewal    bool        `cbor:"6,keyasint"` // caller proved the present certificate; JoinToken empty
	Initiators []string    `cbor:"7,keyasint"` // of a host
	PublicKey  []byte      `cbor:"8,keyasint"` // SHA-256 of it: a lost reply may be asked for again with the same key
}

// CreateToken adds an operator token.
type CreateToken struct {
	H     Header `cbor:"1,keyasint"`
	Token Token  `cbor:"2,keyasint"`
}

// DeleteToken revokes one.
type DeleteToken struct {
	H  Header      `cbor:"1,keyasint"`
	ID san.TokenID `cbor:"2,keyasint"`
}

// CreateJoinToken adds a join token.
type CreateJoinToken struct {
	H     Header    `cbor:"1,keyasint"`
	Token JoinToken `cbor:"2,keyasint"`
}

// DeleteJoinToken revokes one.
type DeleteJoinToken struct {
	H  Header      `cbor:"1,keyasint"`
	ID san.TokenID `cbor:"2,keyasint"`
}

// ApproveUnit lets a pending unit into the pool.
type ApproveUnit struct {
	H  Header     `cbor:"1,keyasint"`
	ID san.UnitID `cbor:"2,keyasint"`
}

// SetUnit changes what an operator decides of a unit.
type SetUnit struct {
	H      Header            `cbor:"1,keyasint"`
	ID     san.UnitID        `cbor:"2,keyasint"`
	Spare  *bool             `cbor:"3,keyasint"`
	Labels map[string]string `cbor:"4,keyasint"` // merged; empty value removes
}

// UnitStarted is Fig. 3a/b: the unit's new incarnation and addresses are stored and it becomes
// Starting. A lower incarnation than the row's is refused; the same one is a reconnect: Starting only
// if it was not Online.
type UnitStarted struct {
	H           Header          `cbor:"1,keyasint"`
	ID          san.UnitID      `cbor:"2,keyasint"`
	CertSerial  string          `cbor:"3,keyasint"` // must be the row's
	Incarnation san.Incarnation `cbor:"4,keyasint"`
	APIAddress  string          `cbor:"5,keyasint"`
	Portal      string          `cbor:"6,keyasint"`
	Version     string          `cbor:"7,keyasint"`
}

// MediumInfo is one medium in a unit's storage info.
type MediumInfo struct {
	ID              san.MediumID `cbor:"1,keyasint"`
	Path            string       `cbor:"2,keyasint"`
	CapacityExtents uint32       `cbor:"3,keyasint"`
	UsedExtents     uint32       `cbor:"4,keyasint"`
}

// ReplicaInfo is one replica in a unit's storage info.
type ReplicaInfo struct {
	Volume    san.VolumeID `cbor:"1,keyasint"`
	SizeBytes int64        `cbor:"2,keyasint"`
	StartLBA  san.LBA      `cbor:"3,keyasint"`
	EndLBA    san.LBA      `cbor:"4,keyasint"` // inclusive
	Extents   uint32       `cbor:"5,keyasint"`
}

// UnitStorage is Fig. 3d/e: the unit's media and replicas enter the pool and it becomes Online. A
// medium that another unit's row holds, or of an older incarnation, is refused.
type UnitStorage struct {
	H           Header          `cbor:"1,keyasint"`
	ID          san.UnitID      `cbor:"2,keyasint"`
	CertSerial  string          `cbor:"3,keyasint"`
	Incarnation san.Incarnation `cbor:"4,keyasint"`
	Media       []MediumInfo    `cbor:"5,keyasint"`
	Replicas    []ReplicaInfo   `cbor:"6,keyasint"`
}

// SetUnitState sets Stopped (Fig. 3f/g) or Unreachable; only for the incarnation named.
type SetUnitState struct {
	H           Header          `cbor:"1,keyasint"`
	ID          san.UnitID      `cbor:"2,keyasint"`
	Incarnation san.Incarnation `cbor:"3,keyasint"`
	State       UnitState       `cbor:"4,keyasint"`
	Reason      string          `cbor:"5,keyasint"`
}

// AddHost registers a host without an agent.
type AddHost struct {
	H          Header     `cbor:"1,keyasint"`
	ID         san.HostID `cbor:"2,keyasint"`
	Initiators []string   `cbor:"3,keyasint"`
	AllowFrom  []string   `cbor:"4,keyasint"`
}

// RemoveHost forgets a host; refused while it has assignments, which it names.
type RemoveHost struct {
	H  Header     `cbor:"1,keyasint"`
	ID san.HostID `cbor:"2,keyasint"`
}

// SetHostState records what the agent's stream says.
type SetHostState struct {
	H           Header          `cbor:"1,keyasint"`
	ID          san.HostID      `cbor:"2,keyasint"`
	CertSerial  string          `cbor:"3,keyasint"`
	Incarnation san.Incarnation `cbor:"4,keyasint"`
	State       HostState       `cbor:"5,keyasint"`
	Addresses   []string        `cbor:"6,keyasint"`
	Version     string          `cbor:"7,keyasint"`
	Initiators  []string        `cbor:"8,keyasint"`
}

// CreateVolume makes a volume with its placement, and an assignment when Host is set.
// Apply re-checks names, units and room; it never places by itself.
type CreateVolume struct {
	H                Header            `cbor:"1,keyasint"`
	ID               san.VolumeID      `cbor:"2,keyasint"`
	Name             string            `cbor:"3,keyasint"`
	SizeBytes        int64             `cbor:"4,keyasint"`
	BlockSizeBytes   uint32            `cbor:"5,keyasint"`
	Labels           map[string]string `cbor:"6,keyasint"`
	Owner            san.HostID        `cbor:"7,keyasint"`
	Copies           []Copy            `cbor:"8,keyasint"`
	Host             san.HostID        `cbor:"9,keyasint"`
	CHAPUser         string            `cbor:"10,keyasint"`
	CHAPSecretSealed []byte            `cbor:"11,keyasint"`
}

// DeleteVolume starts a volume's deletion; refused while assigned.
type DeleteVolume struct {
	H  Header       `cbor:"1,keyasint"`
	ID san.VolumeID `cbor:"2,keyasint"`
}

// Assign gives a volume to a host; refused while any host has it.
type Assign struct {
	H                Header       `cbor:"1,keyasint"`
	Volume           san.VolumeID `cbor:"2,keyasint"`
	Host             san.HostID   `cbor:"3,keyasint"`
	CHAPUser         string       `cbor:"4,keyasint"`
	CHAPSecretSealed []byte       `cbor:"5,keyasint"`
}

// Unassign raises the generation and starts the release; the row goes once every unit confirmed.
type Unassign struct {
	H      Header       `cbor:"1,keyasint"`
	Volume san.VolumeID `cbor:"2,keyasint"`
	Host   san.HostID   `cbor:"3,keyasint"`
}

// ReportKind says what an agent reports done.
type ReportKind uint8

// The kinds of report.
const (
	ReportReplicaReady    ReportKind = 1 // unit: the copy exists, stable
	ReportReplicaDeleted  ReportKind = 2 // unit: the copy's extents are free
	ReportReplicaFailed   ReportKind = 3 // unit: Error says why
	ReportAssignmentReady ReportKind = 4 // unit or host: Generation is persisted and in force
	ReportReleased        ReportKind = 5 // unit: no command of generations below Generation takes effect any more
	ReportAssignmentError ReportKind = 6
)

// Report is one agent's word on one object. Apply ignores, per report, what is stale or no
// longer concerns the row: a report is at-least-once and may be late.
type Report struct {
	Role        san.Role        `cbor:"1,keyasint"`
	Agent       string          `cbor:"2,keyasint"`
	CertSerial  string          `cbor:"3,keyasint"`
	Incarnation san.Incarnation `cbor:"4,keyasint"`
	Kind        ReportKind      `cbor:"5,keyasint"`
	Volume      san.VolumeID    `cbor:"6,keyasint"`
	Host        san.HostID      `cbor:"7,keyasint"`
	Generation  san.Generation  `cbor:"8,keyasint"`
	Error       string          `cbor:"9,keyasint"`
}

// Reports commits a batch of transitions.
type Reports struct {
	H       Header   `cbor:"1,keyasint"`
	Reports []Report `cbor:"2,keyasint"`
}

// AuditRead records that somebody read a secret.
type AuditRead struct {
	H      Header `cbor:"1,keyasint"`
	Action string `cbor:"2,keyasint"`
	Object string `cbor:"3,keyasint"`
}
