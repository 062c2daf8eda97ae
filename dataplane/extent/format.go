package extent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

// Params is what Format writes into the superblock.
type Params struct {
	Medium      san.MediumID // a fresh lower-case UUID
	Cluster     san.ClusterID
	Unit        san.UnitID
	Incarnation san.Incarnation
	Created     time.Time
	// ExtentSizeBytes is san.ExtentSizeBytes if zero.
	ExtentSizeBytes int64
	// Force gives up whatever is on the medium.
	Force bool
}

// Format makes a medium this unit's. Without Force it refuses one that has a
// superblock (ErrFormatted) or anything but zeros in its first MiB (ErrForeign). Cut by
// a power failure, it leaves a medium that can be formatted again or is formatted.
func Format(f disk.File, p Params) error {
	if p.ExtentSizeBytes == 0 {
		p.ExtentSizeBytes = san.ExtentSizeBytes
	}
	sb := Superblock{Medium: p.Medium, Cluster: p.Cluster, Unit: p.Unit, Incarnation: p.Incarnation, Created: p.Created,
		MediumSizeBytes: f.SizeBytes(), ExtentSizeBytes: p.ExtentSizeBytes}
	var err error
	if _, err = parseUUID("medium", string(p.Medium)); err != nil {
		return err
	}
	if sb.Extents, sb.geometry, err = layout(sb.MediumSizeBytes, sb.ExtentSizeBytes); err != nil {
		return san.Wrap("format "+f.Name(), err)
	}
	for what, name := range map[string]string{"cluster": string(p.Cluster), "unit": string(p.Unit)} {
		if name == "" || len(name) > maxNameBytes {
			return san.Errorf(san.KindInvalid, "format %s: the %s id %q must have 1 to %d bytes", f.Name(), what, name, maxNameBytes)
		}
	}
	if p.Force {
		// Gone before anything new is written, so that no mix of two formats is ever there.
		if err := f.Zero(0, headBytes); err != nil {
			return err
		}
		if err := f.Datasync(); err != nil {
			return err
		}
	} else if err := checkUnused(f); err != nil {
		return err
	}
	return writeFormat(f, sb)
}

// Check reads what is on f and reports, without changing anything, whether it can be of use: Open would take it as
// want says, or, if it is not formatted, Format could. formatted says which.
func Check(f disk.File, want Expect) (formatted bool, err error) {
	_, err = Inspect(f)
	if errors.Is(err, ErrNotFormatted) {
		if _, _, err = layout(f.SizeBytes(), san.ExtentSizeBytes); err != nil {
			return false, san.Wrap("format "+f.Name(), err)
		}
		return false, checkUnused(f)
	}
	if err != nil {
		return false, err
	}
	m, err := read(f, want)
	if err != nil {
		return false, err
	}
	_, err = m.readOwners()
	return err == nil, err
}

// checkUnused refuses a medium on which there is anything that somebody could miss.
func checkUnused(f disk.File) error {
	c, err := readSuper(f)
	if err != nil {
		return err
	}
	if c.slot >= 0 {
		return san.Errorf(san.KindExists, "medium %s is formatted already: medium %s of unit %s in cluster %s; open it as that, or force the format to give up all that is on it: %w",
			f.Name(), c.sb.Medium, c.sb.Unit, c.sb.Cluster, ErrFormatted)
	}
	chunk, zeros := make([]byte, pageBytes), make([]byte, pageBytes)
	for at := int64(0); at < headBytes; at += pageBytes {
		if err := readFull(f, chunk, at); err != nil {
			return err
		}
		if !bytes.Equal(chunk, zeros) {
			return san.Errorf(san.KindConflict, "medium %s holds data that is not Sandbar's (bytes %d to %d are not all zero); give another medium, or force the format to give that data up: %w", f.Name(), at, at+pageBytes-1, ErrForeign)
		}
	}
	return nil
}

// writeFormat writes the empty table, makes it stable, and only then says by the
// superblock that it is there.
func writeFormat(f disk.File, sb Superblock) error {
	t, err := newTable(sb)
	if err != nil {
		return err
	}
	for slot := range sb.geometry.tableAt {
		const batch = 256
		for first := uint32(0); first < sb.geometry.pages; first += batch {
			var buf []byte
			for page := first; page < min(first+batch, sb.geometry.pages); page++ {
				buf = append(buf, t.encodePage(page, 1)...)
			}
			if err := writeFull(f, buf, t.pageAt(slot, first)); err != nil {
				return err
			}
		}
	}
	if err := f.Datasync(); err != nil {
		return err
	}
	for slot := range 2 {
		if err := writeSuper(f, sb, 1, slot); err != nil {
			return err
		}
		if err := f.Datasync(); err != nil {
			return err
		}
	}
	return nil
}

// Inspect reads whose medium f is, without changing anything.
func Inspect(f disk.File) (Superblock, error) {
	if f.SizeBytes() < headBytes {
		return Superblock{}, san.Errorf(san.KindNotFound, "medium %s has %d bytes, too few for a superblock: %w", f.Name(), f.SizeBytes(), ErrNotFormatted)
	}
	c, err := readSuper(f)
	if err != nil {
		return Superblock{}, err
	}
	if c.slot < 0 {
		return Superblock{}, c.problem(f.Name())
	}
	return c.sb, nil
}

func readFull(f disk.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return disk.Error("read", f.Name(), fmt.Errorf("%w: the medium ended at byte %d", disk.ErrIO, off+int64(n)))
	}
	return err
}

func writeFull(f disk.File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		return disk.Error("write", f.Name(), io.ErrShortWrite)
	}
	return err
}
