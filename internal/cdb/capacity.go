package cdb

// Capacity is what READ CAPACITY (16) tells (SBC-3 §5.16.2).
type Capacity struct {
	// LastLBA is the last logical block; the capacity is one more.
	LastLBA uint64
	// BlockSizeBytes is the logical block length.
	BlockSizeBytes uint32
	// PhysicalExponent is log2 of logical blocks per physical block.
	PhysicalExponent uint8
	// LowestAligned is the first LBA that begins a physical block.
	LowestAligned uint16
	// Provisioned is LBPME: blocks can be unmapped. ReadZeros is LBPRZ: unmapped blocks read as zeros.
	Provisioned, ReadZeros bool
}

// Lengths of capacity data in bytes.
const (
	Capacity10Length = 8
	Capacity16Length = 32
)

// Encode16 builds READ CAPACITY (16) data, Capacity16Length bytes.
func (c Capacity) Encode16() []byte {
	b := make([]byte, Capacity16Length)
	be.PutUint64(b, c.LastLBA)
	be.PutUint32(b[8:], c.BlockSizeBytes)
	b[13] = c.PhysicalExponent & 0x0f
	be.PutUint16(b[14:], c.LowestAligned&0x3fff)
	b[14] |= flag(c.Provisioned, 0x80) | flag(c.ReadZeros, 0x40)
	return b
}

// ParseCapacity16 reads READ CAPACITY (16) data; targets that return only the 12
// bytes of capacity and block length are accepted.
func ParseCapacity16(b []byte) (Capacity, error) {
	if err := need("READ CAPACITY (16) data", b, 12); err != nil {
		return Capacity{}, err
	}
	c := Capacity{LastLBA: be.Uint64(b), BlockSizeBytes: be.Uint32(b[8:])}
	if len(b) >= 16 {
		c.PhysicalExponent = b[13] & 0x0f
		c.LowestAligned = be.Uint16(b[14:]) & 0x3fff
		c.Provisioned, c.ReadZeros = b[14]&0x80 != 0, b[14]&0x40 != 0
	}
	return c, nil
}

// ParseCapacity10 reads READ CAPACITY (10) data. A LastLBA of FFFFFFFFh means that
// only READ CAPACITY (16) can tell (SBC-3 §5.15.2).
func ParseCapacity10(b []byte) (Capacity, error) {
	if err := need("READ CAPACITY (10) data", b, Capacity10Length); err != nil {
		return Capacity{}, err
	}
	return Capacity{LastLBA: uint64(be.Uint32(b)), BlockSizeBytes: be.Uint32(b[4:])}, nil
}

// MaxReportedLUNs bounds what ParseLUNs reads.
const MaxReportedLUNs = 4096

// AppendLUNs appends a REPORT LUNS parameter list of luns, each as 8 bytes in SAM-5
// §4.7 form (SPC-4 §6.33.2).
func AppendLUNs(dst []byte, luns []uint64) []byte {
	dst = be.AppendUint32(dst, uint32(len(luns)*8))
	dst = append(dst, 0, 0, 0, 0)
	for _, l := range luns {
		dst = be.AppendUint64(dst, l)
	}
	return dst
}

// ParseLUNs reads a REPORT LUNS parameter list. total is how many the target has,
// which is more than returned when the list was cut by the allocation length or MaxReportedLUNs.
func ParseLUNs(b []byte) (luns []uint64, total int, err error) {
	if err := need("REPORT LUNS data", b, 8); err != nil {
		return nil, 0, err
	}
	total = int(be.Uint32(b) / 8)
	n := min(total, (len(b)-8)/8, MaxReportedLUNs)
	luns = make([]uint64, n)
	for i := range luns {
		luns[i] = be.Uint64(b[8+8*i:])
	}
	return luns, total, nil
}

// EncodeLUN turns a small LUN number into its 8-byte form: peripheral device
// addressing below 256, flat space addressing below 16384 (SAM-5 §4.7.7).
func EncodeLUN(number uint16) uint64 {
	if number < 256 {
		return uint64(number) << 48
	}
	return uint64(0x4000|number&0x3fff) << 48
}

// DecodeLUN is EncodeLUN backwards; ok is false for other addressing methods and for
// buses or levels that Sandbar has not.
func DecodeLUN(lun uint64) (number uint16, ok bool) {
	first := uint16(lun >> 48)
	if lun<<16 != 0 {
		return 0, false
	}
	switch first >> 14 {
	case 0:
		return first & 0xff, first < 256
	case 1:
		return first & 0x3fff, true
	}
	return 0, false
}
