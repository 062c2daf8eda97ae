package fsm

import (
	"time"

	"github.com/sandbar-san/sandbar/fsm/codec"
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
	KindSetFormat       Kind = 23
	KindGrowVolume      Kind = 24
)

// FormatVersion is the highest log format that this program reads: what a station states of
// itself in PutStation.
const FormatVersion = uint32(codec.Format)

// Command is one change. Who proposes it fixes every id, time and random value in it. The commands are
// the pointer types of this package (*CreateVolume …) and no others.
type Command interface {
	Kind() Kind
	Header() *Header
	// apply changes x and returns the id of what it made or changed; an error is a refusal and
	// undoes all of it.
	apply(x *tx) (string, error)
	// action names the command in the audit; "" keeps it out, as what agents and stations say
	// of themselves is not somebody's act.
	action() string
}

// Header is in every command: who asked, when, and under which request id.
type Header struct {
	At          time.Time     `cbor:"1,keyasint"`
	Principal   string        `cbor:"2,keyasint"`
	RequestID   san.RequestID `cbor:"3,keyasint"` // empty for the stations' own commands
	Fingerprint []byte        `cbor:"4,keyasint"`
}

// Bounds of a header's parts, in bytes.
const (
	maxPrincipal   = 256
	maxRequestID   = 64
	maxFingerprint = 64
)

func (h *Header) check() error {
	switch {
	case len(h.Principal) > maxPrincipal:
		return refuse(san.KindInvalid, "caller's name has %d bytes, %d are allowed; use a shorter one", len(h.Principal), maxPrincipal)
	case len(h.RequestID) > maxRequestID:
		return refuse(san.KindInvalid, "request id has %d characters, %d are allowed; a UUID will do", len(h.RequestID), maxRequestID)
	case len(h.Fingerprint) > maxFingerprint:
		return refuse(san.KindInvalid, "request's fingerprint has %d bytes, %d are allowed", len(h.Fingerprint), maxFingerprint)
	}
	for i := range len(h.RequestID) {
		if c := h.RequestID[i]; c < '!' || c > '~' {
			return refuse(san.KindInvalid, "request id %q has a character that is not printable ASCII; a UUID will do", h.RequestID)
		}
	}
	return nil
}

// newCommand returns an empty command of kind k, nil if this program doesn't know k.
func newCommand(k Kind) Command {
	switch k {
	case KindInitCluster:
		return &InitCluster{}
	case KindPutStation:
		return &PutStation{}
	case KindEnrol:
		return &Enrol{}
	case KindCreateToken:
		return &CreateToken{}
	case KindDeleteToken:
		return &DeleteToken{}
	case KindCreateJoinToken:
		return &CreateJoinToken{}
	case KindDeleteJoinToken:
		return &DeleteJoinToken{}
	case KindApproveUnit:
		return &ApproveUnit{}
	case KindUnitStarted:
		return &UnitStarted{}
	case KindUnitStorage:
		return &UnitStorage{}
	case KindUnitState:
		return &SetUnitState{}
	case KindAddHost:
		return &AddHost{}
	case KindRemoveHost:
		return &RemoveHost{}
	case KindHostState:
		return &SetHostState{}
	case KindCreateVolume:
		return &CreateVolume{}
	case KindDeleteVolume:
		return &DeleteVolume{}
	case KindAssign:
		return &Assign{}
	case KindUnassign:
		return &Unassign{}
	case KindReports:
		return &Reports{}
	case KindSetUnit:
		return &SetUnit{}
	case KindRemoveStation:
		return &RemoveStation{}
	case KindAuditRead:
		return &AuditRead{}
	case KindSetFormat:
		return &SetFormat{}
	case KindGrowVolume:
		return &GrowVolume{}
	}
	return nil
}

// formatOf returns the format version that brought kind k, or its present content.
func formatOf(Kind) uint16 { return 1 }

// Allows refuses, KindUnavailable, a command that not every station may understand yet. Whoever proposes asks it
// first: a station with an older program would stop at such an entry. Apply asks again.
func (v View) Allows(c Command) error {
	have := uint32(1)
	if row := v.Cluster(); row != nil {
		have = row.FormatVersion
	}
	if need := uint32(formatOf(c.Kind())); need > have {
		return refuse(san.KindUnavailable, "this needs log format %d and the cluster is still at %d; update every station first", need, have)
	}
	return nil
}
