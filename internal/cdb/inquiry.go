package cdb

import (
	"bytes"
	"fmt"
)

// InquiryRequest is a decoded INQUIRY CDB (SPC-4 §6.6.1).
type InquiryRequest struct {
	// EVPD asks for the VPD page Page instead of the standard data.
	EVPD bool
	Page byte
	// Allocation is the most bytes to return.
	Allocation uint16
}

// DecodeInquiry reads an INQUIRY CDB. A page code without EVPD is refused, as the
// standard asks.
func DecodeInquiry(c []byte) (InquiryRequest, error) {
	if err := need("INQUIRY CDB", c, 6); err != nil {
		return InquiryRequest{}, err
	}
	r := InquiryRequest{EVPD: c[1]&1 != 0, Page: c[2], Allocation: be.Uint16(c[3:])}
	if c[1]&2 != 0 {
		return r, badField(1, 1, "CMDDT is obsolete")
	}
	if !r.EVPD && r.Page != 0 {
		return r, badField(2, 7, "a page code needs EVPD")
	}
	return r, nil
}

// StandardInquiry is the part of standard INQUIRY data that an initiator acts upon
// (SPC-4 §6.6.2).
type StandardInquiry struct {
	// Qualifier 0 means that the logical unit is there; 3 that it can't be.
	Qualifier uint8
	// DeviceType is 0 for a disk.
	DeviceType uint8
	Removable  bool
	// Version is 6 for SPC-4.
	Version uint8
	// TPGS is 0 without ALUA, 1 implicit, 2 explicit, 3 both.
	TPGS uint8
	// Vendor, Product and Revision without padding.
	Vendor, Product, Revision string
}

// ParseStandardInquiry reads standard INQUIRY data; it needs the 36 bytes that
// every device must return.
func ParseStandardInquiry(b []byte) (StandardInquiry, error) {
	if err := need("INQUIRY data", b, 36); err != nil {
		return StandardInquiry{}, err
	}
	return StandardInquiry{
		Qualifier: b[0] >> 5, DeviceType: b[0] & 0x1f, Removable: b[1]&0x80 != 0, Version: b[2], TPGS: b[5] >> 4 & 3,
		Vendor: padded(b[8:16]), Product: padded(b[16:32]), Revision: padded(b[32:36]),
	}, nil
}

// padded trims the blanks and NULs that fill an ASCII field (SPC-4 §4.4.1).
func padded(b []byte) string { return string(bytes.TrimRight(b, " \x00")) }

// Vital product data page codes (SPC-4 §7.8.1, SBC-3 §6.6.1).
const (
	VPDSupportedPages       byte = 0x00
	VPDSerialNumber         byte = 0x80
	VPDDeviceIdentification byte = 0x83
	VPDExtendedInquiry      byte = 0x86
	VPDThirdPartyCopy       byte = 0x8f
	VPDBlockLimits          byte = 0xb0
	VPDBlockCharacteristics byte = 0xb1
	VPDProvisioning         byte = 0xb2
)

// VPDPage builds a page: peripheral is the qualifier and device type byte.
func VPDPage(peripheral, page byte, body []byte) []byte {
	b := make([]byte, 4, 4+len(body))
	b[0], b[1] = peripheral, page
	be.PutUint16(b[2:], uint16(len(body)))
	return append(b, body...)
}

// ParseVPD checks that b is the page page and returns its body, cut to what is there.
func ParseVPD(b []byte, page byte) ([]byte, error) {
	if err := need("VPD page", b, 4); err != nil {
		return nil, err
	}
	if b[1] != page {
		return nil, badData(1, fmt.Sprintf("VPD page %02Xh was asked for, %02Xh came", page, b[1]))
	}
	return b[4:min(len(b), 4+int(be.Uint16(b[2:])))], nil
}

// Designator types, associations and code sets (SPC-4 §7.8.6).
const (
	DesignatorT10Vendor       uint8 = 1
	DesignatorEUI64           uint8 = 2
	DesignatorNAA             uint8 = 3
	DesignatorRelativePort    uint8 = 4
	DesignatorTargetPortGroup uint8 = 5
	DesignatorSCSIName        uint8 = 8

	AssociationLogicalUnit  uint8 = 0
	AssociationTargetPort   uint8 = 1
	AssociationTargetDevice uint8 = 2

	CodeSetBinary uint8 = 1
	CodeSetASCII  uint8 = 2
	CodeSetUTF8   uint8 = 3

	protocolISCSI = 5
)

// Designator is one descriptor of the device identification page.
type Designator struct {
	CodeSet, Association, Type uint8
	// Value is at most 255 bytes.
	Value []byte
}

// AppendDesignator appends a descriptor. Those of ports and devices carry the iSCSI
// protocol identifier. A value over 255 bytes is cut, which no iSCSI name reaches.
func AppendDesignator(dst []byte, d Designator) []byte {
	v := d.Value[:min(len(d.Value), 255)]
	head := d.CodeSet & 0x0f
	kind := d.Association&3<<4 | d.Type&0x0f
	if d.Association != AssociationLogicalUnit {
		head, kind = head|protocolISCSI<<4, kind|0x80
	}
	dst = append(dst, head, kind, 0, byte(len(v)))
	return append(dst, v...)
}

// MaxDesignators bounds what ParseDesignators reads.
const MaxDesignators = 64

// ParseDesignators reads the device identification page's body (see ParseVPD). It
// stops at the first descriptor that is cut off. Values alias b.
func ParseDesignators(b []byte) []Designator {
	var out []Designator
	for len(b) >= 4 && len(out) < MaxDesignators {
		n := 4 + int(b[3])
		if len(b) < n {
			break
		}
		out = append(out, Designator{CodeSet: b[0] & 0x0f, Association: b[1] >> 4 & 3, Type: b[1] & 0x0f, Value: b[4:n]})
		b = b[n:]
	}
	return out
}

// BlockLimits is the block limits VPD page (SBC-3 §6.6.3, SBC-4 §6.6.4); lengths are in blocks, 0 is no limit stated.
type BlockLimits struct {
	// WriteSameNonZero is WSNZ: WRITE SAME of 0 blocks is refused.
	WriteSameNonZero bool
	// MaxCompareAndWrite is 0 when COMPARE AND WRITE is unknown.
	MaxCompareAndWrite uint8
	// OptimalGranularity, MaxTransfer and OptimalTransfer are for READ, WRITE and their like.
	OptimalGranularity           uint16
	MaxTransfer, OptimalTransfer uint32
	// MaxUnmap is UNMAP's limit over all its descriptors, 0 when UNMAP is unknown.
	MaxUnmap, MaxUnmapDescriptors, UnmapGranularity uint32
	// UnmapAlignment holds when UnmapAlignmentValid.
	UnmapAlignment      uint32
	UnmapAlignmentValid bool
	MaxWriteSame        uint64
	// MaxAtomic is WRITE ATOMIC's limit without an atomic boundary, 0 when the command is unknown.
	// AtomicAlignment and AtomicGranularity are what its LBA and length must be multiples of, 0 for none.
	MaxAtomic, AtomicAlignment, AtomicGranularity uint32
}

// blockLimitsLength is the length of the page's body in SBC-3.
const blockLimitsLength = 0x3c

// Encode builds the page's body.
func (l BlockLimits) Encode() []byte {
	var b [4 + blockLimitsLength]byte
	b[4], b[5] = flag(l.WriteSameNonZero, 1), l.MaxCompareAndWrite
	be.PutUint16(b[6:], l.OptimalGranularity)
	be.PutUint32(b[8:], l.MaxTransfer)
	be.PutUint32(b[12:], l.OptimalTransfer)
	be.PutUint32(b[20:], l.MaxUnmap)
	be.PutUint32(b[24:], l.MaxUnmapDescriptors)
	be.PutUint32(b[28:], l.UnmapGranularity)
	be.PutUint32(b[32:], l.UnmapAlignment&0x7fffffff)
	b[32] |= flag(l.UnmapAlignmentValid, 0x80)
	be.PutUint64(b[36:], l.MaxWriteSame)
	be.PutUint32(b[44:], l.MaxAtomic)
	be.PutUint32(b[48:], l.AtomicAlignment)
	be.PutUint32(b[52:], l.AtomicGranularity)
	return b[4:]
}

// ParseBlockLimits reads the page's body (see ParseVPD); fields that an older, shorter
// page has not are zero.
func ParseBlockLimits(body []byte) BlockLimits {
	var b [4 + blockLimitsLength]byte
	copy(b[4:], body)
	return BlockLimits{
		WriteSameNonZero: b[4]&1 != 0, MaxCompareAndWrite: b[5], OptimalGranularity: be.Uint16(b[6:]),
		MaxTransfer: be.Uint32(b[8:]), OptimalTransfer: be.Uint32(b[12:]),
		MaxUnmap: be.Uint32(b[20:]), MaxUnmapDescriptors: be.Uint32(b[24:]), UnmapGranularity: be.Uint32(b[28:]),
		UnmapAlignment: be.Uint32(b[32:]) & 0x7fffffff, UnmapAlignmentValid: b[32]&0x80 != 0,
		MaxWriteSame: be.Uint64(b[36:]),
		MaxAtomic:    be.Uint32(b[44:]), AtomicAlignment: be.Uint32(b[48:]), AtomicGranularity: be.Uint32(b[52:]),
	}
}

// Provisioning is the logical block provisioning VPD page (SBC-3 §6.6.4).
type Provisioning struct {
	// Unmap, WriteSame16 and WriteSame10 tell which commands can unmap (LBPU, LBPWS, LBPWS10).
	Unmap, WriteSame16, WriteSame10 bool
	// ReadZeros is LBPRZ, Anchor ANC_SUP.
	ReadZeros, Anchor bool
	// Type is 0 not told, 1 resource provisioned, 2 thin.
	Type uint8
}

// Encode builds the page's body.
func (p Provisioning) Encode() []byte {
	return []byte{0, flag(p.Unmap, 0x80) | flag(p.WriteSame16, 0x40) | flag(p.WriteSame10, 0x20) |
		flag(p.ReadZeros, 0x04) | flag(p.Anchor, 0x02), p.Type & 7, 0}
}

// ParseProvisioning reads the page's body (see ParseVPD).
func ParseProvisioning(body []byte) (Provisioning, error) {
	if err := need("logical block provisioning page", body, 3); err != nil {
		return Provisioning{}, err
	}
	f := body[1]
	return Provisioning{
		Unmap: f&0x80 != 0, WriteSame16: f&0x40 != 0, WriteSame10: f&0x20 != 0,
		ReadZeros: f&0x04 != 0, Anchor: f&0x02 != 0, Type: body[2] & 7,
	}, nil
}
