package cdb

import "bytes"

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

// PRMoveList is the parameter list of REGISTER AND MOVE (SPC-4 §6.16.4).
type PRMoveList struct {
	Key, ActionKey uint64
	// Unregister takes the sender's registration away.
	Unregister, APTPL bool
	// TargetPort is the relative target port, InitiatorPort the initiator port "name,i,0xISID", of
	// the nexus that the reservation goes to.
	TargetPort    uint16
	InitiatorPort string
}

// prMoveHeader is the length of a PRMoveList without its TransportID.
const prMoveHeader = 24

// DecodePRMoveList reads the parameter list. Its TransportID must be of an iSCSI initiator port.
func DecodePRMoveList(b []byte) (PRMoveList, error) {
	if err := need("REGISTER AND MOVE parameter list", b, prMoveHeader); err != nil {
		return PRMoveList{}, err
	}
	l := PRMoveList{Key: be.Uint64(b), ActionKey: be.Uint64(b[8:]), Unregister: b[17]&2 != 0, APTPL: b[17]&1 != 0, TargetPort: be.Uint16(b[18:])}
	n := be.Uint32(b[20:])
	if uint64(n) != uint64(len(b)-prMoveHeader) {
		return l, &LengthError{What: "REGISTER AND MOVE TransportID", Have: len(b) - prMoveHeader, Need: int(min(n, 1<<30))}
	}
	id := b[prMoveHeader:]
	if err := need("TransportID", id, 4); err != nil {
		return l, err
	}
	if id[0] != transportIDPort {
		return l, badData(prMoveHeader, "not the TransportID of an iSCSI initiator port")
	}
	name := bytes.TrimRight(id[4:], "\x00")
	if int(be.Uint16(id[2:])) != len(id)-4 || len(name) == 0 || len(name) == len(id)-4 || len(name) > maxPortName || bytes.IndexByte(name, 0) >= 0 {
		return l, badData(prMoveHeader+2, "the TransportID is no name that ends with NUL")
	}
	l.InitiatorPort = string(name)
	return l, nil
}

const (
	// transportIDPort is byte 0 of the TransportID of an iSCSI initiator port: format 01b, protocol 5 (SPC-4 §7.6.4.6).
	transportIDPort = 0x40 | protocolISCSI
	// maxPortName bounds an initiator port's name: an iSCSI name, ",i,0x" and 12 digits.
	maxPortName = 223 + 5 + 12
)

// appendTransportID appends the TransportID of an initiator port "name,i,0xISID".
func appendTransportID(dst []byte, port string) []byte {
	length := max(20, (len(port)+4)&^3) // NUL, and padded to 4 bytes
	dst = append(dst, transportIDPort, 0)
	dst = be.AppendUint16(dst, uint16(length))
	dst = append(dst, port...)
	return append(dst, make([]byte, length-len(port))...)
}

// EncodePRKeys builds the data of READ KEYS (SPC-4 §6.15.2).
func EncodePRKeys(generation uint32, keys []uint64) []byte {
	b := prHeader(generation, 8*len(keys))
	for _, k := range keys {
		b = be.AppendUint64(b, k)
	}
	return b
}

func prHeader(generation uint32, length int) []byte {
	b := be.AppendUint32(make([]byte, 0, 8+length), generation)
	return be.AppendUint32(b, uint32(length))
}

// EncodePRReservation builds the data of READ RESERVATION (SPC-4 §6.15.3); type 0 is no reservation.
func EncodePRReservation(generation uint32, key uint64, kind PRType) []byte {
	if kind == 0 {
		return prHeader(generation, 0)
	}
	b := prHeader(generation, 16)
	b = be.AppendUint64(b, key)
	return append(b, 0, 0, 0, 0, 0, byte(kind), 0, 0)
}

// PRCapabilities is the data of REPORT CAPABILITIES (SPC-4 §6.15.4). All six types are supported; SPEC_I_PT and
// the compatible handling of RESERVE (6) are not.
type PRCapabilities struct {
	// AllTargetPorts is ATP_C, PersistCapable PTPL_C, PersistActive PTPL_A.
	AllTargetPorts, PersistCapable, PersistActive bool
}

// Encode builds the data.
func (c PRCapabilities) Encode() []byte {
	// TMV: the type mask is valid. ALLOW COMMANDS 0 says nothing (SPC-4 table 212).
	return []byte{0, 8, flag(c.AllTargetPorts, 0x04) | flag(c.PersistCapable, 0x01), 0x80 | flag(c.PersistActive, 0x01), 0xea, 0x01, 0, 0}
}

// PRStatus is a registration in READ FULL STATUS (SPC-4 §6.15.5).
type PRStatus struct {
	Key                    uint64
	Holder, AllTargetPorts bool
	// Type is the reservation's, told for its holders.
	Type          PRType
	TargetPort    uint16
	InitiatorPort string
}

// EncodePRFullStatus builds the data of READ FULL STATUS.
func EncodePRFullStatus(generation uint32, list []PRStatus) []byte {
	b := prHeader(generation, 0)
	for _, s := range list {
		b = be.AppendUint64(b, s.Key)
		kind := s.Type
		if !s.Holder {
			kind = 0
		}
		port := s.TargetPort
		if s.AllTargetPorts {
			port = 0
		}
		b = append(b, 0, 0, 0, 0, flag(s.AllTargetPorts, 2)|flag(s.Holder, 1), byte(kind), 0, 0, 0, 0)
		b = be.AppendUint16(b, port)
		id := appendTransportID(nil, s.InitiatorPort)
		b = be.AppendUint32(b, uint32(len(id)))
		b = append(b, id...)
	}
	be.PutUint32(b[4:], uint32(len(b)-8))
	return b
}
