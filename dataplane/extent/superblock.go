package extent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

// Where things are on a medium, in bytes from its beginning.
const (
	superMagic = 0x444d4253 // "SBMD"
	// superVersion is the layout's version; another one is refused.
	superVersion = 1
	// headBytes is the first part, which holds the superblock's two copies and is
	// looked at for foreign data before a medium is formatted.
	headBytes      = 1 << 20
	superCopyBytes = pageBytes
	superTwinAt    = headBytes / 2
	// dataAlignBytes aligns the first extent.
	dataAlignBytes = 1 << 20

	maxExtents         = 1 << 26 // 256 TiB in extents of 4 MiB
	maxExtentSizeBytes = 1 << 30
	maxNameBytes       = 64
)

// BlockSizeBytes is the size of the blocks in which addresses on a medium are given
// (start and end LBA of extents), whatever the block size of the volumes on it.
const BlockSizeBytes = 512

// The reasons for which a medium is not formatted or not opened, for errors.Is; a
// damaged one matches disk.ErrDamaged.
var (
	// ErrNotFormatted is a medium with zeros where a superblock would be.
	ErrNotFormatted = errors.New("not formatted")
	// ErrFormatted is a medium that has a superblock already.
	ErrFormatted = errors.New("formatted already")
	// ErrForeign is a medium of another cluster or unit, or with other people's data.
	ErrForeign = errors.New("foreign")
)

// Superblock says what a medium is and whose.
type Superblock struct {
	Medium      san.MediumID
	Cluster     san.ClusterID
	Unit        san.UnitID
	Incarnation san.Incarnation // of the unit, when it last opened the medium
	Created     time.Time

	MediumSizeBytes int64 // at format
	ExtentSizeBytes int64
	Extents         uint32

	geometry geometry
}

// geometry is where a medium of a given size has its parts.
type geometry struct {
	pages   uint32
	tableAt [2]int64
	dataAt  int64
}

// layout computes how many extents fit on sizeBytes and where everything is.
func layout(sizeBytes, extentSizeBytes int64) (extents uint32, g geometry, err error) {
	if extentSizeBytes < pageBytes || extentSizeBytes > maxExtentSizeBytes || extentSizeBytes%pageBytes != 0 {
		return 0, geometry{}, san.Errorf(san.KindInvalid, "extent size %d is not supported; use a multiple of %d up to %d", extentSizeBytes, pageBytes, maxExtentSizeBytes)
	}
	n := min(max(0, sizeBytes-headBytes)/extentSizeBytes, maxExtents)
	for ; n > 0; n-- {
		g = geometryOf(uint32(n))
		over := g.dataAt + n*extentSizeBytes - sizeBytes
		if over <= 0 {
			return uint32(n), g, nil
		}
		n -= max(0, over/extentSizeBytes-1) // most of the way at once
	}
	return 0, geometry{}, san.Errorf(san.KindInvalid, "a medium of %s is too small for a single extent of %s; give it at least %s",
		san.FormatSize(sizeBytes), san.FormatSize(extentSizeBytes), san.FormatSize(geometryOf(1).dataAt+extentSizeBytes))
}

func geometryOf(extents uint32) geometry {
	g := geometry{pages: (extents + entriesPerPage - 1) / entriesPerPage}
	g.tableAt[0] = headBytes
	g.tableAt[1] = headBytes + int64(g.pages)*pageBytes
	end := g.tableAt[1] + int64(g.pages)*pageBytes
	g.dataAt = (end + dataAlignBytes - 1) / dataAlignBytes * dataAlignBytes
	return g
}

// encodeSuper lays out the superblock's payload. It fits one 512-byte sector together
// with its cell's header, so that no power cut tears it.
func encodeSuper(sb Superblock, medium uuid.UUID) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, superVersion)
	b = le.AppendUint32(b, sb.Extents)
	b = le.AppendUint64(b, uint64(sb.ExtentSizeBytes))
	b = le.AppendUint64(b, uint64(sb.MediumSizeBytes))
	b = le.AppendUint64(b, uint64(sb.geometry.tableAt[0]))
	b = le.AppendUint64(b, uint64(sb.geometry.tableAt[1]))
	b = le.AppendUint64(b, uint64(sb.geometry.dataAt))
	b = le.AppendUint64(b, uint64(sb.Incarnation))
	b = le.AppendUint64(b, uint64(sb.Created.UnixNano()))
	b = append(b, medium[:]...)
	for _, name := range []string{string(sb.Cluster), string(sb.Unit)} {
		var field [1 + maxNameBytes]byte
		field[0] = byte(copy(field[1:], name))
		b = append(b, field[:]...)
	}
	return b
}

const superPayloadBytes = 4 + 4 + 7*8 + 16 + 2*(1+maxNameBytes)

// parseSuper is encodeSuper's inverse. It believes nothing that it can compute: the
// geometry must be the one that follows from the sizes.
func parseSuper(b []byte) (Superblock, error) {
	le := binary.LittleEndian
	if len(b) < 4 {
		return Superblock{}, fmt.Errorf("%w: no version", disk.ErrDamaged)
	}
	if v := le.Uint32(b); v != superVersion {
		return Superblock{}, san.Errorf(san.KindInvalid, "layout version %d is not known to this release (it knows %d); use the release that wrote it", v, superVersion)
	}
	if len(b) != superPayloadBytes {
		return Superblock{}, fmt.Errorf("%w: superblock of %d bytes, expected %d", disk.ErrDamaged, len(b), superPayloadBytes)
	}
	sb := Superblock{
		Extents:         le.Uint32(b[4:]),
		ExtentSizeBytes: int64(le.Uint64(b[8:])),
		MediumSizeBytes: int64(le.Uint64(b[16:])),
		Incarnation:     san.Incarnation(le.Uint64(b[48:])),
		Created:         time.Unix(0, int64(le.Uint64(b[56:]))).UTC(),
		Medium:          san.MediumID(uuid.UUID(b[64:80]).String()),
	}
	var names [2]string
	for i := range names {
		field := b[80+i*(1+maxNameBytes):][:1+maxNameBytes]
		if field[0] > maxNameBytes {
			return Superblock{}, fmt.Errorf("%w: a name of %d bytes", disk.ErrDamaged, field[0])
		}
		names[i] = string(field[1 : 1+field[0]])
	}
	sb.Cluster, sb.Unit = san.ClusterID(names[0]), san.UnitID(names[1])
	extents, g, err := layout(sb.MediumSizeBytes, sb.ExtentSizeBytes)
	stored := geometry{pages: g.pages, tableAt: [2]int64{int64(le.Uint64(b[24:])), int64(le.Uint64(b[32:]))}, dataAt: int64(le.Uint64(b[40:]))}
	if err != nil || extents != sb.Extents || stored != g {
		return Superblock{}, fmt.Errorf("%w: its sizes contradict each other", disk.ErrDamaged)
	}
	sb.geometry = g
	return sb, nil
}

// parseUUID takes an id only in the one form in which it is written: lower case with dashes.
func parseUUID(what, s string) (uuid.UUID, error) {
	id, err := uuid.Parse(s)
	if err != nil || id.String() != s || id == uuid.Nil {
		return uuid.Nil, san.Errorf(san.KindInvalid, "%s id %q is not a lower-case UUID", what, s)
	}
	return id, nil
}

// superCopies is what the two places of a superblock hold.
type superCopies struct {
	sb    Superblock
	seq   uint64
	slot  int      // which copy sb is from
	errs  [2]error // why a copy can't be used; nil for a good one
	stale bool     // the other copy is damaged or older
}

func superAt(slot int) int64 { return int64(slot) * superTwinAt }

// readSuper reads both copies and takes the newer good one.
func readSuper(f disk.File) (superCopies, error) {
	var c superCopies
	var seqs [2]uint64
	c.slot = -1
	for slot := range c.errs {
		buf := make([]byte, superCopyBytes)
		if err := readFull(f, buf, superAt(slot)); err != nil {
			return c, err
		}
		seq, payload, err := disk.ParseCell(buf, superMagic, 0)
		var sb Superblock
		if err == nil {
			sb, err = parseSuper(payload)
		}
		if c.errs[slot] = err; err != nil {
			continue
		}
		if seqs[slot] = seq; c.slot < 0 || seq > c.seq {
			c.sb, c.seq, c.slot = sb, seq, slot
		}
	}
	if c.slot < 0 {
		return c, nil
	}
	c.stale = c.errs[1-c.slot] != nil || seqs[1-c.slot] != c.seq
	return c, nil
}

// blank reports whether neither place was ever written.
func (c superCopies) blank() bool {
	return errors.Is(c.errs[0], disk.ErrBlank) && errors.Is(c.errs[1], disk.ErrBlank)
}

// problem says why no copy can be used.
func (c superCopies) problem(name string) error {
	if c.blank() {
		return san.Errorf(san.KindNotFound, "medium %s has no superblock; format it to use it: %w", name, ErrNotFormatted)
	}
	for _, err := range c.errs {
		if err != nil && !errors.Is(err, disk.ErrDamaged) && !errors.Is(err, disk.ErrBlank) {
			return san.Wrap("medium "+name, err) // a version that this release does not know
		}
	}
	return san.Errorf(san.KindInternal, "medium %s: no copy of its superblock can be used (first: %v; second: %v). "+
		"If it is the wrong file or device, give the right one. If it was this unit's, take it out of the unit so that its volumes are rebuilt from their other copies, "+
		"or restore it from a backup; to give up all that is on it, format it anew by force: %w", name, c.errs[0], c.errs[1], disk.ErrDamaged)
}

func writeSuper(f disk.File, sb Superblock, seq uint64, slot int) error {
	medium, err := parseUUID("medium", string(sb.Medium))
	if err != nil {
		return err
	}
	cell := disk.AppendCell(make([]byte, 0, superCopyBytes), superMagic, 0, seq, encodeSuper(sb, medium))
	return writeFull(f, append(cell, make([]byte, superCopyBytes-len(cell))...), superAt(slot))
}

// fits reports whether the file is as long as the superblock promises.
func (sb Superblock) fits(f disk.File) error {
	need := sb.geometry.dataAt + int64(sb.Extents)*sb.ExtentSizeBytes
	if have := f.SizeBytes(); have < need {
		return san.Errorf(san.KindInternal, "medium %s has %d bytes but its superblock describes %d; it was cut short: restore its size and content, or take it out of the unit: %w",
			f.Name(), have, need, disk.ErrDamaged)
	}
	return nil
}

// CapacityBytes is what the extents hold together.
func (sb Superblock) CapacityBytes() int64 { return int64(sb.Extents) * sb.ExtentSizeBytes }

// OffsetBytes is where on the medium extent index begins.
func (sb Superblock) OffsetBytes(index uint32) int64 {
	return sb.geometry.dataAt + int64(index)*sb.ExtentSizeBytes
}

// StartLBA is OffsetBytes in blocks of BlockSizeBytes.
func (sb Superblock) StartLBA(index uint32) san.LBA {
	return san.LBA(sb.OffsetBytes(index) / BlockSizeBytes)
}

var _ = [1]struct{}{}[(superPayloadBytes+disk.CellHeaderBytes)/(BlockSizeBytes+1)] // one sector holds it
var _ = [1]struct{}{}[uint64(maxExtents)/(math.MaxUint32+1)]                       // an index is a uint32
