package disk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// CellHeaderBytes is the length of a cell's header. A cell is a sealed piece of metadata. It is kept in two places (slots) and each
// change goes to the slot that was not written last, so that a torn write leaves the
// other one whole. Layout, little-endian:
//
//	 0  magic    uint32  what kind of cell
//	 4  crc32c   uint32  over all other bytes up to the payload's end
//	 8  sequence uint64  the higher of two valid slots is the newer
//	16  tag      uint64  which cell of that kind
//	24  length   uint32  of the payload
//	28  reserved uint32  zero
//	32  payload
const CellHeaderBytes = 32

// Checksum is CRC-32C (Castagnoli) of b, the checksum of everything on a medium.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// AppendCell appends a sealed cell to dst.
func AppendCell(dst []byte, magic uint32, tag, sequence uint64, payload []byte) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint64(dst, sequence)
	dst = binary.LittleEndian.AppendUint64(dst, tag)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = append(dst, payload...)
	binary.LittleEndian.PutUint32(dst[start+4:], cellChecksum(dst[start:]))
	return dst
}

func cellChecksum(cell []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(cell[:4], table), table, cell[8:])
}

// ParseCell checks the cell at the beginning of b and returns its sequence and its
// payload, which shares b's memory. The error matches ErrBlank for a header of zeros
// and ErrDamaged for anything else that is not a whole cell of this magic and tag.
func ParseCell(b []byte, magic uint32, tag uint64) (sequence uint64, payload []byte, err error) {
	length, err := parseCellHeader(b, magic, tag)
	if err != nil {
		return 0, nil, err
	}
	if uint64(length) > uint64(len(b)-CellHeaderBytes) {
		return 0, nil, fmt.Errorf("%w: length %d is over the slot's %d", ErrDamaged, length, len(b)-CellHeaderBytes)
	}
	cell := b[:CellHeaderBytes+int(length)]
	if got, want := cellChecksum(cell), binary.LittleEndian.Uint32(b[4:]); got != want {
		return 0, nil, fmt.Errorf("%w: checksum %08x, expected %08x", ErrDamaged, got, want)
	}
	return binary.LittleEndian.Uint64(b[8:]), cell[CellHeaderBytes:], nil
}

// parseCellHeader checks what a header says of itself and returns the payload's length.
func parseCellHeader(b []byte, magic uint32, tag uint64) (length uint32, err error) {
	if len(b) < CellHeaderBytes {
		return 0, fmt.Errorf("%w: %d bytes are too few for a header", ErrDamaged, len(b))
	}
	if allZero(b[:CellHeaderBytes]) {
		return 0, ErrBlank
	}
	if got := binary.LittleEndian.Uint32(b); got != magic {
		return 0, fmt.Errorf("%w: magic %08x, expected %08x", ErrDamaged, got, magic)
	}
	if got := binary.LittleEndian.Uint64(b[16:]); got != tag {
		return 0, fmt.Errorf("%w: it belongs elsewhere (tag %016x, expected %016x)", ErrDamaged, got, tag)
	}
	return binary.LittleEndian.Uint32(b[24:]), nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
