package cdb

import "fmt"

// LBARange is a range of logical blocks.
type LBARange struct {
	LBA    uint64
	Blocks uint32
}

// Lengths in an UNMAP parameter list, in bytes (SBC-3 §5.26.2).
const (
	UnmapHeaderLength     = 8
	UnmapDescriptorLength = 16
	// MaxUnmapDescriptors is how many descriptors fit UNMAP's 16-bit length fields.
	MaxUnmapDescriptors = (1<<16 - 1 - UnmapHeaderLength) / UnmapDescriptorLength
)

// AppendUnmapList appends the parameter list that unmaps ranges. It fails when there
// are more than MaxUnmapDescriptors.
func AppendUnmapList(dst []byte, ranges []LBARange) ([]byte, error) {
	if len(ranges) > MaxUnmapDescriptors {
		return nil, fmt.Errorf("unmap: %d ranges, at most %d fit one command", len(ranges), MaxUnmapDescriptors)
	}
	n := len(ranges) * UnmapDescriptorLength
	dst = be.AppendUint16(dst, uint16(n+UnmapHeaderLength-2))
	dst = be.AppendUint16(dst, uint16(n))
	dst = append(dst, 0, 0, 0, 0)
	for _, r := range ranges {
		dst = be.AppendUint64(dst, r.LBA)
		dst = be.AppendUint32(dst, r.Blocks)
		dst = append(dst, 0, 0, 0, 0)
	}
	return dst, nil
}

// UnmapRequest is a decoded UNMAP CDB.
type UnmapRequest struct {
	Anchor bool
	// ListLength is the parameter list length in bytes.
	ListLength uint16
}

// DecodeUnmap reads an UNMAP CDB.
func DecodeUnmap(c []byte) (UnmapRequest, error) {
	if err := need("UNMAP CDB", c, 10); err != nil {
		return UnmapRequest{}, err
	}
	return UnmapRequest{Anchor: c[1]&1 != 0, ListLength: be.Uint16(c[7:])}, nil
}

// ParseUnmapList reads an UNMAP parameter list. A list whose descriptors are cut off,
// or longer than maxDescriptors, is refused; an incomplete last descriptor is
// ignored (SBC-3 §5.26.2). A list shorter than its header is a LengthError.
func ParseUnmapList(b []byte, maxDescriptors int) ([]LBARange, error) {
	if err := need("UNMAP parameter list", b, UnmapHeaderLength); err != nil {
		return nil, err
	}
	n := int(be.Uint16(b[2:])) / UnmapDescriptorLength
	if n > maxDescriptors {
		return nil, badData(2, fmt.Sprintf("%d descriptors, at most %d are allowed", n, maxDescriptors))
	}
	if err := need("UNMAP block descriptors", b, UnmapHeaderLength+n*UnmapDescriptorLength); err != nil {
		return nil, err
	}
	ranges := make([]LBARange, n)
	for i := range ranges {
		d := b[UnmapHeaderLength+i*UnmapDescriptorLength:]
		ranges[i] = LBARange{LBA: be.Uint64(d), Blocks: be.Uint32(d[8:])}
	}
	return ranges, nil
}
