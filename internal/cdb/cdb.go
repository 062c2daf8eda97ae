package cdb

import (
	"encoding/binary"
	"fmt"
)

var be = binary.BigEndian

// CDB is a command descriptor block, padded with zeros to the 16 bytes that an iSCSI
// command PDU carries (RFC 7143 §11.3.5). No command that Sandbar uses is longer.
type CDB [16]byte

// Bytes returns the CDB at its own length, which its operation code fixes.
func (c *CDB) Bytes() []byte { return c[:Length(c[0])] }

// Length is the CDB length that an operation code's group fixes (SPC-4 §4.2.5.1).
// Groups without a fixed length (variable-length and vendor-specific) count as 16.
func Length(op byte) int {
	switch op >> 5 {
	case 0:
		return 6
	case 1, 2:
		return 10
	case 5:
		return 12
	}
	return 16
}

// FieldError says that a field of a CDB or of a parameter list can't be accepted.
// A device server answers it with ILLEGAL REQUEST and the field pointer of SPC-4
// §4.5.2.4.2.
type FieldError struct {
	// Byte is the offset of the field's first byte in the CDB or parameter list.
	Byte int
	// Bit is the number of the field's most significant bit in that byte, -1 when the
	// field is whole bytes.
	Bit int
	// InData says that the field is in the parameter list (05/26/00), not the CDB (05/24/00).
	InData bool
	// Reason is what is wrong with it.
	Reason string
}

// Error describes the field and what is wrong with it.
func (e *FieldError) Error() string {
	where := "CDB"
	if e.InData {
		where = "parameter list"
	}
	if e.Bit >= 0 {
		return fmt.Sprintf("%s byte %d bit %d: %s", where, e.Byte, e.Bit, e.Reason)
	}
	return fmt.Sprintf("%s byte %d: %s", where, e.Byte, e.Reason)
}

// badField makes the error for a field of the CDB.
func badField(byteNo, bit int, reason string) error {
	return &FieldError{Byte: byteNo, Bit: bit, Reason: reason}
}

// badData makes the error for a field of the parameter list.
func badData(byteNo int, reason string) error {
	return &FieldError{Byte: byteNo, Bit: -1, InData: true, Reason: reason}
}

// LengthError says that bytes are missing: the CDB, parameter list or response is
// shorter than its fields need (05/1A/00 for a parameter list).
type LengthError struct {
	// What was being decoded.
	What string
	// Have and Need are lengths in bytes.
	Have, Need int
}

// Error says what is too short and by how much.
func (e *LengthError) Error() string {
	return fmt.Sprintf("%s has %d bytes, needs %d", e.What, e.Have, e.Need)
}

// need checks that b holds n bytes of a what.
func need(what string, b []byte, n int) error {
	if len(b) < n {
		return &LengthError{What: what, Have: len(b), Need: n}
	}
	return nil
}

// needCDB checks that c holds a whole CDB of its own operation code's length.
func needCDB(c []byte) error {
	if len(c) == 0 {
		return &LengthError{What: "CDB", Have: 0, Need: 6}
	}
	return need("CDB", c, Length(c[0]))
}

// flag returns bit if set, for building a byte of flags.
func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}
