package cdb

import "fmt"

// Service actions of EXTENDED COPY and RECEIVE COPY RESULTS (SPC-4 §6.4, §6.20 to §6.24).
const (
	XCopyLID1 byte = 0x00

	RCRCopyStatus          byte = 0x00
	RCROperatingParameters byte = 0x03
)

// Descriptor type codes (SPC-4 tables 116 and 133).
const (
	CopyBlockToBlock   byte = 0x02
	CopyIdentification byte = 0xe4
)

// Lengths in an EXTENDED COPY parameter list, in bytes (SPC-4 §6.4.2 to §6.4.6).
const (
	CopyHeaderLength  = 16
	CopyTargetLength  = 32
	CopySegmentLength = 28
	// maxCopyDesignator is the room for a designator in a CSCD descriptor.
	maxCopyDesignator = 20
)

// CopyThisUnit is the index of a CSCD that stands for the logical unit itself (SPC-4 table 117).
const CopyThisUnit = 0xffff

// CopyTarget is an identification CSCD descriptor: a source or destination of a copy (SPC-4 §6.4.5.4).
type CopyTarget struct {
	Designator
	// DeviceType is 0 for a disk, whose logical blocks have BlockSizeBytes.
	DeviceType     uint8
	BlockSizeBytes uint32
}

// CopySegment is a block to block segment descriptor (SPC-4 §6.4.6.2).
type CopySegment struct {
	// Source and Destination are indexes of targets.
	Source, Destination uint16
	// Blocks is how many; 0 copies nothing.
	Blocks                    uint16
	SourceLBA, DestinationLBA uint64
}

// CopyList is the parameter list of EXTENDED COPY (LID1).
type CopyList struct {
	ListID byte
	// Usage is LIST ID USAGE: 0 and 2 make the list id a name for the copy, 3 does not.
	Usage    uint8
	Targets  []CopyTarget
	Segments []CopySegment
}

// CopyLimits bound a CopyList; Bytes is for its descriptors together.
type CopyLimits struct{ Targets, Segments, Bytes int }

// DescriptorError says that there are too many descriptors, or one of an unknown type.
type DescriptorError struct {
	ASC ASC
	// Byte is the offset of the field in the parameter list.
	Byte   int
	Reason string
}

// Error describes the descriptor and what is wrong with it.
func (e *DescriptorError) Error() string {
	return fmt.Sprintf("parameter list byte %d: %s: %s", e.Byte, e.ASC, e.Reason)
}

// Encode builds the parameter list.
func (l *CopyList) Encode() []byte {
	b := make([]byte, CopyHeaderLength, CopyHeaderLength+len(l.Targets)*CopyTargetLength+len(l.Segments)*CopySegmentLength)
	b[0], b[1] = l.ListID, l.Usage&3<<3
	be.PutUint16(b[2:], uint16(len(l.Targets)*CopyTargetLength))
	be.PutUint32(b[8:], uint32(len(l.Segments)*CopySegmentLength))
	for _, t := range l.Targets {
		var d [CopyTargetLength]byte
		v := t.Value[:min(len(t.Value), maxCopyDesignator)]
		d[0], d[1] = CopyIdentification, t.DeviceType&0x1f
		d[4], d[5], d[7] = t.CodeSet&0x0f, t.Association&3<<4|t.Type&0x0f, byte(len(v))
		copy(d[8:], v)
		be.PutUint32(d[28:], t.BlockSizeBytes&0xffffff)
		b = append(b, d[:]...)
	}
	for _, s := range l.Segments {
		b = append(b, CopyBlockToBlock, 0, 0, CopySegmentLength-4)
		b = be.AppendUint16(b, s.Source)
		b = be.AppendUint16(b, s.Destination)
		b = append(b, 0, 0)
		b = be.AppendUint16(b, s.Blocks)
		b = be.AppendUint64(b, s.SourceLBA)
		b = be.AppendUint64(b, s.DestinationLBA)
	}
	return b
}

// ParseCopyList reads the parameter list. Too many descriptors and types other than the two that are
// known are a DescriptorError; lists that are cut off or longer than the limits a LengthError.
// Designators alias b.
func ParseCopyList(b []byte, limits CopyLimits) (CopyList, error) {
	if err := need("EXTENDED COPY parameter list", b, CopyHeaderLength); err != nil {
		return CopyList{}, err
	}
	l := CopyList{ListID: b[0], Usage: b[1] >> 3 & 3}
	targets, segments := uint64(be.Uint16(b[2:])), uint64(be.Uint32(b[8:]))
	if have := uint64(len(b) - CopyHeaderLength); targets+segments > have || targets+segments > uint64(limits.Bytes) {
		return CopyList{}, &LengthError{What: "EXTENDED COPY descriptors", Have: int(min(have, uint64(limits.Bytes))), Need: int(min(targets+segments, 1<<30))}
	}
	switch {
	case l.Usage == 1:
		return CopyList{}, badData(1, "LIST ID USAGE 01b is reserved")
	case l.Usage == 3 && l.ListID != 0:
		return CopyList{}, badData(0, "the list id is not used, so it must be 0")
	case be.Uint32(b[12:]) != 0:
		return CopyList{}, badData(12, "inline data is not supported")
	}
	at := CopyHeaderLength
	for end := at + int(targets); at < end; at += CopyTargetLength {
		t, err := parseCopyTarget(b[at:end], at)
		if err != nil {
			return CopyList{}, err
		}
		if l.Targets = append(l.Targets, t); len(l.Targets) > limits.Targets {
			return CopyList{}, &DescriptorError{ASCTooManyTargetDescriptors, 2, fmt.Sprintf("at most %d are supported", limits.Targets)}
		}
	}
	for end := at + int(segments); at < end; at += CopySegmentLength {
		s, err := parseCopySegment(b[at:end], at)
		if err != nil {
			return CopyList{}, err
		}
		if l.Segments = append(l.Segments, s); len(l.Segments) > limits.Segments {
			return CopyList{}, &DescriptorError{ASCTooManySegmentDescriptors, 8, fmt.Sprintf("at most %d are supported", limits.Segments)}
		}
	}
	return l, nil
}

// parseCopyTarget reads the CSCD descriptor that is at byte at of the list.
func parseCopyTarget(d []byte, at int) (CopyTarget, error) {
	if d[0] != CopyIdentification {
		return CopyTarget{}, &DescriptorError{ASCUnsupportedTargetDescriptor, at, fmt.Sprintf("type %02Xh", d[0])}
	}
	if err := need("CSCD descriptor", d, CopyTargetLength); err != nil {
		return CopyTarget{}, err
	}
	t := CopyTarget{Designator: Designator{CodeSet: d[4] & 0x0f, Association: d[5] >> 4 & 3, Type: d[5] & 0x0f},
		DeviceType: d[1] & 0x1f, BlockSizeBytes: be.Uint32(d[28:]) & 0xffffff}
	n := int(d[7])
	if n > maxCopyDesignator {
		return CopyTarget{}, badData(at+7, "the designator is longer than the room for it")
	}
	t.Value = d[8 : 8+n]
	return t, nil
}

// parseCopySegment reads the segment descriptor that is at byte at of the list.
func parseCopySegment(d []byte, at int) (CopySegment, error) {
	if d[0] != CopyBlockToBlock {
		return CopySegment{}, &DescriptorError{ASCUnsupportedSegmentDescriptor, at, fmt.Sprintf("type %02Xh", d[0])}
	}
	if err := need("segment descriptor", d, CopySegmentLength); err != nil {
		return CopySegment{}, err
	}
	if be.Uint16(d[2:]) != CopySegmentLength-4 {
		return CopySegment{}, badData(at+2, "the descriptor has another length than its type")
	}
	return CopySegment{Source: be.Uint16(d[4:]), Destination: be.Uint16(d[6:]), Blocks: be.Uint16(d[10:]),
		SourceLBA: be.Uint64(d[12:]), DestinationLBA: be.Uint64(d[20:])}, nil
}

// ExtendedCopy announces a parameter list of listBytes bytes (SPC-4 §6.4).
func ExtendedCopy(listBytes uint32) CDB {
	c := CDB{0: OpExtendedCopy, 1: XCopyLID1}
	be.PutUint32(c[10:], listBytes)
	return c
}

// ReceiveCopyResults asks for what action names, of the copy with that list id (SPC-4 §6.20 to §6.24).
func ReceiveCopyResults(action, listID byte, allocation uint32) CDB {
	c := CDB{0: OpReceiveCopyResults, 1: action & 0x1f, 2: listID}
	be.PutUint32(c[10:], allocation)
	return c
}

// CopyStatus is the data of RECEIVE COPY RESULTS, COPY STATUS (SPC-4 §6.20).
type CopyStatus struct {
	// Manager is COPY MANAGER STATUS: 0 under way, 1 done, 2 done with an error.
	Manager uint8
	// Segments counts those that were carried out, Transferred the KiB that were copied.
	Segments    uint16
	Transferred uint32
}

// transferKiB is TRANSFER COUNT UNITS for kibibytes.
const transferKiB = 1

// Encode builds the data.
func (s CopyStatus) Encode() []byte {
	b := []byte{3: 8, 4: s.Manager & 0x7f, 7: transferKiB, 11: 0}
	be.PutUint16(b[5:], s.Segments)
	be.PutUint32(b[8:], s.Transferred)
	return b
}

// CopyParameters is what a copy manager can do (SPC-4 §6.24, §7.8.17).
type CopyParameters struct {
	CopyLimits
	// SegmentBytes is the longest segment, Concurrent how many copies may run at a time, Granularity log2 of what
	// lengths are multiples of.
	SegmentBytes uint32
	Concurrent   uint8
	Granularity  uint8
}

// copyTypes are the descriptor types that ParseCopyList knows, in order.
var copyTypes = [...]byte{CopyBlockToBlock, CopyIdentification}

// Encode builds the data of RECEIVE COPY RESULTS, OPERATING PARAMETERS.
func (p CopyParameters) Encode() []byte {
	b := make([]byte, 44, 44+len(copyTypes))
	be.PutUint32(b, uint32(cap(b)-4))
	b[4] = 1 // SNLID: copies without a list id
	be.PutUint16(b[8:], uint16(p.Targets))
	be.PutUint16(b[10:], uint16(p.Segments))
	be.PutUint32(b[12:], uint32(p.Bytes))
	be.PutUint32(b[16:], p.SegmentBytes)
	be.PutUint16(b[34:], uint16(p.Concurrent))
	b[36], b[37] = p.Concurrent, p.Granularity
	b[43] = byte(len(copyTypes))
	return append(b, copyTypes[:]...)
}

// EncodeVPD builds the body of the third-party copy VPD page (SPC-4 §7.8.17): the commands, the
// parameter data, the descriptors, the CSCD ids beside indexes, and the general copy operations.
func (p CopyParameters) EncodeVPD() []byte {
	var b []byte
	add := func(kind uint16, body ...byte) {
		b = be.AppendUint16(b, kind)
		padded := (len(body) + 3) &^ 3
		b = be.AppendUint16(b, uint16(padded))
		b = append(append(b, body...), make([]byte, padded-len(body))...)
	}
	add(0x0001, 7, OpExtendedCopy, 1, XCopyLID1, OpReceiveCopyResults, 2, RCRCopyStatus, RCROperatingParameters)
	data := make([]byte, 28)
	be.PutUint16(data[4:], uint16(p.Targets))
	be.PutUint16(data[6:], uint16(p.Segments))
	be.PutUint32(data[8:], uint32(p.Bytes))
	add(0x0004, data...)
	add(0x0008, append([]byte{byte(len(copyTypes))}, copyTypes[:]...)...)
	add(0x000c, 0, 2, CopyThisUnit>>8, CopyThisUnit&0xff)
	general := make([]byte, 32)
	be.PutUint32(general, uint32(p.Concurrent))
	be.PutUint32(general[4:], uint32(p.Concurrent))
	be.PutUint32(general[8:], p.SegmentBytes)
	general[12] = p.Granularity
	add(0x8001, general...)
	return b
}
