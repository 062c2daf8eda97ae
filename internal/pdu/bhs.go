package pdu

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of the fixed parts of a PDU.
const (
	// BHSLength is the size of the basic header segment (RFC 7143 §11.2.1).
	BHSLength = 48
	// DigestLength is the size of one CRC32C digest (RFC 7143 §11.2.3).
	DigestLength = 4
	// MaxAHSLength is the most that TotalAHSLength can say: 255 words.
	MaxAHSLength = 255 * 4
	// MaxDataSegmentLength is the most that the 24-bit DataSegmentLength can say.
	MaxDataSegmentLength = 1<<24 - 1
)

// NoTag is the reserved value of an initiator or target task tag (RFC 7143 §11.2.1.8).
const NoTag uint32 = 0xffffffff

// Opcode is a PDU's type, without the immediate bit (RFC 7143 §11.2.1.2).
type Opcode uint8

// Opcodes sent by initiators.
const (
	OpNOPOut      Opcode = 0x00
	OpSCSICommand Opcode = 0x01
	OpTaskRequest Opcode = 0x02
	OpLoginReq    Opcode = 0x03
	OpTextReq     Opcode = 0x04
	OpDataOut     Opcode = 0x05
	OpLogoutReq   Opcode = 0x06
	OpSNACK       Opcode = 0x10
)

// Opcodes sent by targets.
const (
	OpNOPIn        Opcode = 0x20
	OpSCSIResponse Opcode = 0x21
	OpTaskResponse Opcode = 0x22
	OpLoginResp    Opcode = 0x23
	OpTextResp     Opcode = 0x24
	OpDataIn       Opcode = 0x25
	OpLogoutResp   Opcode = 0x26
	OpR2T          Opcode = 0x31
	OpAsync        Opcode = 0x32
	OpReject       Opcode = 0x3f
)

// String names the opcode as the RFC does.
func (o Opcode) String() string {
	switch o {
	case OpNOPOut:
		return "NOP-Out"
	case OpSCSICommand:
		return "SCSI Command"
	case OpTaskRequest:
		return "Task Management Function Request"
	case OpLoginReq:
		return "Login Request"
	case OpTextReq:
		return "Text Request"
	case OpDataOut:
		return "SCSI Data-Out"
	case OpLogoutReq:
		return "Logout Request"
	case OpSNACK:
		return "SNACK Request"
	case OpNOPIn:
		return "NOP-In"
	case OpSCSIResponse:
		return "SCSI Response"
	case OpTaskResponse:
		return "Task Management Function Response"
	case OpLoginResp:
		return "Login Response"
	case OpTextResp:
		return "Text Response"
	case OpDataIn:
		return "SCSI Data-In"
	case OpLogoutResp:
		return "Logout Response"
	case OpR2T:
		return "Ready To Transfer"
	case OpAsync:
		return "Asynchronous Message"
	case OpReject:
		return "Reject"
	}
	return fmt.Sprintf("opcode 0x%02x", uint8(o))
}

// ErrOpcode is the error of Parse for an opcode that RFC 7143 does not define.
var ErrOpcode = errors.New("pdu: unknown opcode")

const (
	bitImmediate = 0x40
	bitFinal     = 0x80
	bitContinue  = 0x40
)

// BHS is a basic header segment as it is on the wire.
type BHS [BHSLength]byte

// Opcode returns the PDU's type.
func (b *BHS) Opcode() Opcode { return Opcode(b[0] & 0x3f) }

// Immediate reports the I bit: to be acted on at once, outside of CmdSN order.
func (b *BHS) Immediate() bool { return b[0]&bitImmediate != 0 }

// Final reports the F bit.
func (b *BHS) Final() bool { return b[1]&bitFinal != 0 }

// AHSLength is the size of all additional header segments in bytes, padding included.
func (b *BHS) AHSLength() int { return int(b[4]) * 4 }

// DataLength is the size of the data segment in bytes, without padding.
func (b *BHS) DataLength() int { return int(b[5])<<16 | int(b[6])<<8 | int(b[7]) }

// SetLengths writes both length fields. ahs is a multiple of 4 up to MaxAHSLength and
// data is up to MaxDataSegmentLength; excess bits are cut off.
func (b *BHS) SetLengths(ahs, data int) {
	b[4] = byte(ahs / 4)
	b[5], b[6], b[7] = byte(data>>16), byte(data>>8), byte(data)
}

// LUN is the raw 8-byte LUN field as a big-endian number; see EncodeLUN.
func (b *BHS) LUN() uint64 { return binary.BigEndian.Uint64(b[8:]) }

// ITT is the initiator task tag.
func (b *BHS) ITT() uint32 { return b.u32(16) }

// CmdSN is the command's number in initiator PDUs that carry one, StatSN in target PDUs.
func (b *BHS) CmdSN() uint32 { return b.u32(24) }

// ExpStatSN is the initiator's acknowledgement of statuses, in initiator PDUs.
func (b *BHS) ExpStatSN() uint32 { return b.u32(28) }

func (b *BHS) u16(off int) uint16        { return binary.BigEndian.Uint16(b[off:]) }
func (b *BHS) u32(off int) uint32        { return binary.BigEndian.Uint32(b[off:]) }
func (b *BHS) put16(off int, v uint16)   { binary.BigEndian.PutUint16(b[off:], v) }
func (b *BHS) put32(off int, v uint32)   { binary.BigEndian.PutUint32(b[off:], v) }
func (b *BHS) putLUN(v uint64)           { binary.BigEndian.PutUint64(b[8:], v) }
func (b *BHS) flag(off int, m byte) bool { return b[off]&m != 0 }

func (b *BHS) start(op Opcode, immediate bool) {
	*b = BHS{}
	b[0] = byte(op)
	if immediate {
		b[0] |= bitImmediate
	}
}

func (b *BHS) setIf(on bool, off int, m byte) {
	if on {
		b[off] |= m
	}
}

// Header is a decoded basic header segment.
type Header interface {
	// Op is the type's opcode.
	Op() Opcode
	// Encode overwrites all of b; both length fields become zero.
	Encode(b *BHS)
	// Decode fills the header from b, whose opcode the caller has looked at.
	Decode(b *BHS)
}

// Parse decodes b into a new header of the type that its opcode names, or fails with
// ErrOpcode. Code on a hot path switches on b.Opcode() and decodes into its own variable.
func Parse(b *BHS) (Header, error) {
	h := newHeader(b.Opcode())
	if h == nil {
		return nil, fmt.Errorf("%w 0x%02x", ErrOpcode, uint8(b.Opcode()))
	}
	h.Decode(b)
	return h, nil
}

func newHeader(o Opcode) Header {
	switch o {
	case OpNOPOut:
		return new(NOPOut)
	case OpSCSICommand:
		return new(SCSICommand)
	case OpTaskRequest:
		return new(TaskRequest)
	case OpLoginReq:
		return new(LoginRequest)
	case OpTextReq:
		return new(TextRequest)
	case OpDataOut:
		return new(DataOut)
	case OpLogoutReq:
		return new(LogoutRequest)
	case OpSNACK:
		return new(SNACK)
	case OpNOPIn:
		return new(NOPIn)
	case OpSCSIResponse:
		return new(SCSIResponse)
	case OpTaskResponse:
		return new(TaskResponse)
	case OpLoginResp:
		return new(LoginResponse)
	case OpTextResp:
		return new(TextResponse)
	case OpDataIn:
		return new(DataIn)
	case OpLogoutResp:
		return new(LogoutResponse)
	case OpR2T:
		return new(R2T)
	case OpAsync:
		return new(Async)
	case OpReject:
		return new(Reject)
	}
	return nil
}

// EncodeLUN returns the LUN field for logical unit number n: peripheral device addressing
// below 256, flat space addressing up to 16383 (SAM-5 §4.7).
func EncodeLUN(n uint16) uint64 {
	if n < 256 {
		return uint64(n) << 48
	}
	return uint64(n&0x3fff|0x4000) << 48
}

// DecodeLUN returns the logical unit number that a raw LUN field means; ok is false for forms
// other than single-level peripheral (bus 0) and flat space addressing.
func DecodeLUN(raw uint64) (n uint16, ok bool) {
	if raw&(1<<48-1) != 0 {
		return 0, false
	}
	switch top := uint16(raw >> 48); top >> 14 {
	case 0:
		return top & 0xff, top>>8 == 0
	case 1:
		return top & 0x3fff, true
	}
	return 0, false
}

// SerialLess reports whether serial number a comes before b (RFC 1982, 32 bits), as
// CmdSN, StatSN, DataSN and R2TSN compare (RFC 7143 §4.2.2). For numbers exactly
// 2^31 apart it is false both ways.
func SerialLess(a, b uint32) bool { return int32(a-b) < 0 && a-b != 1<<31 }

// SerialLessEq reports whether a is b or comes before it.
func SerialLessEq(a, b uint32) bool { return a == b || SerialLess(a, b) }
