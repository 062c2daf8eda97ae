package cdb

// Service actions of PERSISTENT RESERVE IN (SPC-4 §6.15.1).
const (
	PRInReadKeys           byte = 0
	PRInReadReservation    byte = 1
	PRInReportCapabilities byte = 2
	PRInReadFullStatus     byte = 3
)

// Service actions of PERSISTENT RESERVE OUT (SPC-4 §6.16.2).
const (
	PROutRegister          byte = 0
	PROutReserve           byte = 1
	PROutRelease           byte = 2
	PROutClear             byte = 3
	PROutPreempt           byte = 4
	PROutPreemptAndAbort   byte = 5
	PROutRegisterAndIgnore byte = 6
	PROutRegisterAndMove   byte = 7
)

// PRType is a persistent reservation's type (SPC-4 §6.15.3.3).
type PRType uint8

// The types of persistent reservation.
const (
	PRWriteExclusive                 PRType = 1
	PRExclusiveAccess                PRType = 3
	PRWriteExclusiveRegistrantsOnly  PRType = 5
	PRExclusiveAccessRegistrantsOnly PRType = 6
	PRWriteExclusiveAllRegistrants   PRType = 7
	PRExclusiveAccessAllRegistrants  PRType = 8
)

// PersistentReserve is a decoded PERSISTENT RESERVE IN or OUT CDB.
type PersistentReserve struct {
	// Action is the service action.
	Action byte
	// Scope and Type are OUT's; scope 0 is the logical unit.
	Scope uint8
	Type  PRType
	// Length is IN's allocation length or OUT's parameter list length, in bytes.
	Length uint32
}

// DecodePersistentReserve reads either CDB.
func DecodePersistentReserve(c []byte) (PersistentReserve, error) {
	if err := need("PERSISTENT RESERVE CDB", c, 10); err != nil {
		return PersistentReserve{}, err
	}
	p := PersistentReserve{Action: c[1] & 0x1f}
	switch c[0] {
	case OpPersistentReserveIn:
		p.Length = uint32(be.Uint16(c[7:]))
	case OpPersistentReserveOut:
		p.Scope, p.Type, p.Length = c[2]>>4, PRType(c[2]&0x0f), be.Uint32(c[5:])
	default:
		return PersistentReserve{}, badField(0, -1, "operation code is not PERSISTENT RESERVE")
	}
	return p, nil
}

// PROutList is the basic parameter list of PERSISTENT RESERVE OUT, 24 bytes (SPC-4
// §6.16.3).
type PROutList struct {
	// Key is the reservation key; ActionKey the service action reservation key.
	Key, ActionKey uint64
	// SpecIPT says that transport ids follow; AllTargetPorts and APTPL as in the standard.
	SpecIPT, AllTargetPorts, APTPL bool
}

// PROutListLength is the length of the basic parameter list in bytes.
const PROutListLength = 24

// Encode builds the parameter list.
func (p PROutList) Encode() []byte {
	b := make([]byte, PROutListLength)
	be.PutUint64(b, p.Key)
	be.PutUint64(b[8:], p.ActionKey)
	b[20] = flag(p.SpecIPT, 0x08) | flag(p.AllTargetPorts, 0x04) | flag(p.APTPL, 0x01)
	return b
}

// DecodePROutList reads the first 24 bytes of a parameter list.
func DecodePROutList(b []byte) (PROutList, error) {
	if err := need("PERSISTENT RESERVE OUT parameter list", b, PROutListLength); err != nil {
		return PROutList{}, err
	}
	return PROutList{
		Key: be.Uint64(b), ActionKey: be.Uint64(b[8:]),
		SpecIPT: b[20]&0x08 != 0, AllTargetPorts: b[20]&0x04 != 0, APTPL: b[20]&0x01 != 0,
	}, nil
}
