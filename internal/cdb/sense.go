package cdb

import "fmt"

// SenseKey is the class of a sense (SPC-4 table 48).
type SenseKey uint8

// Sense keys.
const (
	KeyNoSense        SenseKey = 0x0
	KeyRecoveredError SenseKey = 0x1
	KeyNotReady       SenseKey = 0x2
	KeyMediumError    SenseKey = 0x3
	KeyHardwareError  SenseKey = 0x4
	KeyIllegalRequest SenseKey = 0x5
	KeyUnitAttention  SenseKey = 0x6
	KeyDataProtect    SenseKey = 0x7
	KeyBlankCheck     SenseKey = 0x8
	KeyVendor         SenseKey = 0x9
	KeyCopyAborted    SenseKey = 0xa
	KeyAbortedCommand SenseKey = 0xb
	KeyVolumeOverflow SenseKey = 0xd
	KeyMiscompare     SenseKey = 0xe
	KeyCompleted      SenseKey = 0xf
)

var keyNames = [16]string{"NO SENSE", "RECOVERED ERROR", "NOT READY", "MEDIUM ERROR", "HARDWARE ERROR",
	"ILLEGAL REQUEST", "UNIT ATTENTION", "DATA PROTECT", "BLANK CHECK", "VENDOR SPECIFIC", "COPY ABORTED",
	"ABORTED COMMAND", "SENSE KEY 0Ch", "VOLUME OVERFLOW", "MISCOMPARE", "COMPLETED"}

// String names the key as SPC-4 does.
func (k SenseKey) String() string { return keyNames[k&0x0f] }

// Sense is sense data (SPC-4 §4.5) in the fields that Sandbar uses; it stands for both
// wire formats.
type Sense struct {
	Key SenseKey
	ASC ASC
	// Deferred says that an earlier command failed, not this one.
	Deferred bool
	// Information is the INFORMATION field when InformationValid: the first LBA that
	// could not be read, or the offset in bytes of a miscompare.
	Information      uint64
	InformationValid bool
	// CommandSpecific is the COMMAND-SPECIFIC INFORMATION field.
	CommandSpecific uint64
	// Specific are the three bytes of sense key specific data when SpecificValid, without
	// the SKSV bit; FieldPointer builds them for ILLEGAL REQUEST.
	Specific      [3]byte
	SpecificValid bool
}

// Lengths of sense data that Sandbar builds, in bytes.
const (
	// FixedSenseLength is the length of fixed-format sense data.
	FixedSenseLength = 18
	// MaxSenseLength is the most sense data that may exist (SPC-4 §4.5.1).
	MaxSenseLength = 252
)

// Response codes (SPC-4 table 27).
const (
	senseFixed              byte = 0x70
	senseFixedDeferred      byte = 0x71
	senseDescriptor         byte = 0x72
	senseDescriptorDeferred byte = 0x73
)

// String renders the sense as key/ASC/ASCQ with their names.
func (s Sense) String() string {
	t := fmt.Sprintf("%s: %s (%02X/%02X/%02X)", s.Key, s.ASC, uint8(s.Key), uint8(s.ASC>>8), uint8(s.ASC))
	if s.Deferred {
		t = "deferred " + t
	}
	return t
}

// FieldPointer says which field of the CDB, or of the parameter list with inData, was
// refused (SPC-4 §4.5.2.4.2). bit is -1 when the field is whole bytes.
func (s Sense) FieldPointer(byteNo, bit int, inData bool) Sense {
	s.SpecificValid = true
	s.Specific[0] = flag(!inData, 0x40)
	if bit >= 0 {
		s.Specific[0] |= 0x08 | byte(bit&7)
	}
	be.PutUint16(s.Specific[1:], uint16(byteNo))
	return s
}

// Fixed builds fixed-format sense data, FixedSenseLength bytes (SPC-4 §4.5.3). An
// INFORMATION value over 32 bits does not fit and is left out, as the standard asks.
func (s Sense) Fixed() []byte {
	b := make([]byte, FixedSenseLength)
	b[0] = senseFixed
	if s.Deferred {
		b[0] = senseFixedDeferred
	}
	b[2] = byte(s.Key & 0x0f)
	if s.InformationValid && s.Information>>32 == 0 {
		b[0] |= 0x80
		be.PutUint32(b[3:], uint32(s.Information))
	}
	b[7] = FixedSenseLength - 8
	if s.CommandSpecific>>32 == 0 {
		be.PutUint32(b[8:], uint32(s.CommandSpecific))
	}
	be.PutUint16(b[12:], uint16(s.ASC))
	if s.SpecificValid {
		copy(b[15:], s.Specific[:])
		b[15] |= 0x80
	}
	return b
}

// Descriptor builds descriptor-format sense data (SPC-4 §4.5.2).
func (s Sense) Descriptor() []byte {
	b := make([]byte, 8, 8+12+12+8)
	b[0] = senseDescriptor
	if s.Deferred {
		b[0] = senseDescriptorDeferred
	}
	b[1] = byte(s.Key & 0x0f)
	be.PutUint16(b[2:], uint16(s.ASC))
	if s.InformationValid {
		b = append(b, 0x00, 10, 0x80, 0)
		b = be.AppendUint64(b, s.Information)
	}
	if s.CommandSpecific != 0 {
		b = append(b, 0x01, 10, 0, 0)
		b = be.AppendUint64(b, s.CommandSpecific)
	}
	if s.SpecificValid {
		b = append(b, 0x02, 6, 0, 0, s.Specific[0]|0x80, s.Specific[1], s.Specific[2], 0)
	}
	b[7] = byte(len(b) - 8)
	return b
}

// ParseSense reads sense data of either format, without the two length bytes that
// iSCSI puts before it. Truncated sense keeps what is there; it fails only when not
// even the key is.
func ParseSense(b []byte) (Sense, error) {
	if len(b) > MaxSenseLength {
		b = b[:MaxSenseLength]
	}
	if err := need("sense data", b, 3); err != nil {
		return Sense{}, err
	}
	switch code := b[0] & 0x7f; code {
	case senseFixed, senseFixedDeferred:
		return parseFixed(b, code == senseFixedDeferred), nil
	case senseDescriptor, senseDescriptorDeferred:
		return parseDescriptors(b, code == senseDescriptorDeferred), nil
	default:
		return Sense{}, badData(0, fmt.Sprintf("sense response code %02Xh is not known", code))
	}
}

func parseFixed(b []byte, deferred bool) Sense {
	// Reading from a zero-padded copy gives absent fields their default.
	var f [FixedSenseLength]byte
	copy(f[:], b)
	s := Sense{Key: SenseKey(f[2] & 0x0f), ASC: ASC(be.Uint16(f[12:])), Deferred: deferred}
	if len(b) >= 7 && f[0]&0x80 != 0 {
		s.InformationValid, s.Information = true, uint64(be.Uint32(f[3:]))
	}
	s.CommandSpecific = uint64(be.Uint32(f[8:]))
	if f[15]&0x80 != 0 && len(b) >= FixedSenseLength {
		s.SpecificValid = true
		copy(s.Specific[:], f[15:18])
		s.Specific[0] &^= 0x80
	}
	return s
}

func parseDescriptors(b []byte, deferred bool) Sense {
	s := Sense{Key: SenseKey(b[1] & 0x0f), Deferred: deferred}
	if len(b) >= 4 {
		s.ASC = ASC(be.Uint16(b[2:]))
	}
	if len(b) < 8 {
		return s
	}
	for d := b[8:min(len(b), 8+int(b[7]))]; len(d) >= 2 && len(d) >= 2+int(d[1]); d = d[2+int(d[1]):] {
		body := d[2 : 2+int(d[1])]
		switch {
		case d[0] == 0x00 && len(body) >= 10 && body[0]&0x80 != 0:
			s.InformationValid, s.Information = true, be.Uint64(body[2:])
		case d[0] == 0x01 && len(body) >= 10:
			s.CommandSpecific = be.Uint64(body[2:])
		case d[0] == 0x02 && len(body) >= 6 && body[2]&0x80 != 0:
			s.SpecificValid = true
			copy(s.Specific[:], body[2:5])
			s.Specific[0] &^= 0x80
		}
	}
	return s
}
