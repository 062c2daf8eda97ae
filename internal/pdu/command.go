package pdu

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Task attributes of a SCSI command (RFC 7143 §11.3.1).
const (
	AttrUntagged    uint8 = 0
	AttrSimple      uint8 = 1
	AttrOrdered     uint8 = 2
	AttrHeadOfQueue uint8 = 3
	AttrACA         uint8 = 4
)

// SCSICommand carries a CDB to a logical unit (RFC 7143 §11.3).
type SCSICommand struct {
	Immediate bool
	// Final: no unsolicited Data-Out PDUs follow.
	Final       bool
	Read, Write bool
	Attr        uint8
	LUN         uint64
	ITT         uint32
	// ExpectedLength is the expected data transfer length in bytes; of the write where
	// the command is bidirectional.
	ExpectedLength uint32
	CmdSN          uint32
	ExpStatSN      uint32
	CDB            [16]byte
}

// Op returns OpSCSICommand.
func (*SCSICommand) Op() Opcode { return OpSCSICommand }

// Encode writes the header to b.
func (h *SCSICommand) Encode(b *BHS) {
	b.start(OpSCSICommand, h.Immediate)
	b.setIf(h.Final, 1, bitFinal)
	b.setIf(h.Read, 1, 0x40)
	b.setIf(h.Write, 1, 0x20)
	b[1] |= h.Attr & 7
	b.putLUN(h.LUN)
	b.put32(16, h.ITT)
	b.put32(20, h.ExpectedLength)
	b.put32(24, h.CmdSN)
	b.put32(28, h.ExpStatSN)
	copy(b[32:], h.CDB[:])
}

// Decode reads the header from b.
func (h *SCSICommand) Decode(b *BHS) {
	h.Immediate, h.Final = b.Immediate(), b.Final()
	h.Read, h.Write, h.Attr = b.flag(1, 0x40), b.flag(1, 0x20), b[1]&7
	h.LUN, h.ITT, h.ExpectedLength = b.LUN(), b.u32(16), b.u32(20)
	h.CmdSN, h.ExpStatSN = b.u32(24), b.u32(28)
	copy(h.CDB[:], b[32:])
}

// SCSI response codes (RFC 7143 §11.4.3).
const (
	ResponseCompleted     uint8 = 0x00
	ResponseTargetFailure uint8 = 0x01
)

// SCSIResponse ends a task (RFC 7143 §11.4). Sense travels in the data segment; see
// AppendSense and ParseSense.
type SCSIResponse struct {
	// Overflow and Underflow say what Residual counts (at most one is set).
	Overflow, Underflow         bool
	BidiOverflow, BidiUnderflow bool
	// Response is ResponseCompleted when Status holds a SCSI status.
	Response     uint8
	Status       uint8
	ITT          uint32
	SNACKTag     uint32
	StatSN       uint32
	ExpCmdSN     uint32
	MaxCmdSN     uint32
	ExpDataSN    uint32
	BidiResidual uint32
	Residual     uint32
}

// Op returns OpSCSIResponse.
func (*SCSIResponse) Op() Opcode { return OpSCSIResponse }

// Encode writes the header to b.
func (h *SCSIResponse) Encode(b *BHS) {
	b.start(OpSCSIResponse, false)
	b[1] = bitFinal
	b.setIf(h.BidiOverflow, 1, 0x10)
	b.setIf(h.BidiUnderflow, 1, 0x08)
	b.setIf(h.Overflow, 1, 0x04)
	b.setIf(h.Underflow, 1, 0x02)
	b[2], b[3] = h.Response, h.Status
	b.put32(16, h.ITT)
	b.put32(20, h.SNACKTag)
	b.put32(24, h.StatSN)
	b.put32(28, h.ExpCmdSN)
	b.put32(32, h.MaxCmdSN)
	b.put32(36, h.ExpDataSN)
	b.put32(40, h.BidiResidual)
	b.put32(44, h.Residual)
}

// Decode reads the header from b.
func (h *SCSIResponse) Decode(b *BHS) {
	h.BidiOverflow, h.BidiUnderflow = b.flag(1, 0x10), b.flag(1, 0x08)
	h.Overflow, h.Underflow = b.flag(1, 0x04), b.flag(1, 0x02)
	h.Response, h.Status = b[2], b[3]
	h.ITT, h.SNACKTag, h.StatSN = b.u32(16), b.u32(20), b.u32(24)
	h.ExpCmdSN, h.MaxCmdSN, h.ExpDataSN = b.u32(28), b.u32(32), b.u32(36)
	h.BidiResidual, h.Residual = b.u32(40), b.u32(44)
}

// AppendSense appends the data segment of a SCSI response that carries sense: its
// 2-byte length, then sense (RFC 7143 §11.4.7.2). Sense beyond 65535 bytes is cut.
func AppendSense(dst, sense []byte) []byte {
	sense = sense[:min(len(sense), 0xffff)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(sense)))
	return append(dst, sense...)
}

// ParseSense returns the sense in a SCSI response's data segment, nil where there is none. It
// fails if the length says more than there is.
func ParseSense(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data) < 2 {
		return nil, errors.New("pdu: SCSI response data of one byte")
	}
	n := int(binary.BigEndian.Uint16(data))
	if n > len(data)-2 {
		return nil, fmt.Errorf("pdu: sense length %d is more than the %d bytes that follow", n, len(data)-2)
	}
	return data[2 : 2+n], nil
}

// AHS types (RFC 7143 §11.2.2.2).
const (
	AHSExtendedCDB    uint8 = 1
	AHSBidiReadLength uint8 = 2
)

// AHS is one additional header segment; Data is what follows AHSType and its specific
// byte, without padding.
type AHS struct {
	Type     uint8
	Specific uint8
	Data     []byte
}

// AppendAHS appends a with padding to dst. Data beyond what a BHS can announce is
// the caller's mistake; the framer refuses it.
func AppendAHS(dst []byte, a AHS) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(a.Data)+1))
	dst = append(dst, a.Type, a.Specific)
	dst = append(dst, a.Data...)
	return append(dst, zeros[:Pad(len(a.Data))]...)
}

// ParseAHS splits the additional header segments of a PDU; their Data alias b. It fails
// if a segment reaches beyond b.
func ParseAHS(b []byte) ([]AHS, error) {
	var list []AHS
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, fmt.Errorf("pdu: %d stray bytes after the additional headers", len(b))
		}
		n := int(binary.BigEndian.Uint16(b)) // the specific byte counts, type and length do not
		if n < 1 || 3+n > len(b) {
			return nil, fmt.Errorf("pdu: additional header of length %d in %d bytes", n, len(b))
		}
		list = append(list, AHS{Type: b[2], Specific: b[3], Data: b[4 : 3+n]})
		b = b[min(len(b), 3+n+Pad(3+n)):]
	}
	return list, nil
}

// Pad returns how many bytes pad n to a multiple of four: 0 to 3.
func Pad(n int) int { return -n & 3 }

var zeros [4]byte
