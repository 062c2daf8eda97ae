package codec

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/sandbar-san/sandbar/san"
)

// MaxRecordBytes bounds one record of a snapshot. A row grows out of commands, each of which
// is bounded far lower.
const MaxRecordBytes = 8 << 20

// A snapshot is snapshotMagic, format version u16, then records: tag u8, length u32, payload.
// The first record is the header; each table is a table record with its count followed by as many
// row records; the end record has the number of rows and the SHA-256 of every byte before it.
// Nothing may follow. All integers are big-endian, all payloads CBOR as in commands.
const snapshotMagic = "SANDBARSNAP"

const (
	tagHeader = 1
	tagTable  = 2
	tagRow    = 3
	tagEnd    = 4
)

// ErrIncomplete is a snapshot that ended before its end marker, or whose content doesn't
// match what its marker says.
var ErrIncomplete = errors.New("snapshot is incomplete or damaged")

// SnapshotHeader says what a snapshot is of.
type SnapshotHeader struct {
	Index  san.Index `cbor:"1,keyasint"` // last log entry that is in it
	Tables uint32    `cbor:"2,keyasint"` // how many tables follow
}

type tableRecord struct {
	Table uint8  `cbor:"1,keyasint"`
	Rows  uint64 `cbor:"2,keyasint"`
}

type endRecord struct {
	Rows     uint64 `cbor:"1,keyasint"`
	Checksum []byte `cbor:"2,keyasint"`
}

// SnapshotWriter writes one snapshot.
type SnapshotWriter struct {
	w     *bufio.Writer
	sum   hash.Hash
	bytes int64
	rows  uint64
	err   error
}

// NewSnapshotWriter begins a snapshot on w.
func NewSnapshotWriter(w io.Writer, h SnapshotHeader) *SnapshotWriter {
	s := &SnapshotWriter{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()}
	s.write([]byte(snapshotMagic))
	s.write(binary.BigEndian.AppendUint16(nil, Format))
	s.record(tagHeader, h)
	return s
}

func (s *SnapshotWriter) write(b []byte) {
	if s.err != nil {
		return
	}
	n, err := s.w.Write(b)
	s.bytes += int64(n)
	s.sum.Write(b)
	s.err = err
}

func (s *SnapshotWriter) record(tag byte, v any) {
	if s.err != nil {
		return
	}
	body, err := Marshal(v)
	if err == nil && len(body) > MaxRecordBytes {
		err = fmt.Errorf("record of %d bytes, %d are allowed", len(body), MaxRecordBytes)
	}
	if err != nil {
		s.err = err
		return
	}
	var head [5]byte
	head[0] = tag
	binary.BigEndian.PutUint32(head[1:], uint32(len(body)))
	s.write(head[:])
	s.write(body)
}

// Table begins a table of so many rows.
func (s *SnapshotWriter) Table(table uint8, rows uint64) {
	s.record(tagTable, tableRecord{Table: table, Rows: rows})
}

// Row writes one row of the table begun last.
func (s *SnapshotWriter) Row(row any) {
	s.rows++
	s.record(tagRow, row)
}

// Close writes the end marker and returns the bytes written and the first error of all calls.
// It does not close the writer beneath.
func (s *SnapshotWriter) Close() (int64, error) {
	s.record(tagEnd, endRecord{Rows: s.rows, Checksum: s.sum.Sum(nil)})
	if s.err == nil {
		s.err = s.w.Flush()
	}
	return s.bytes, s.err
}

// SnapshotReader reads one snapshot.
type SnapshotReader struct {
	r    *bufio.Reader
	sum  hash.Hash
	rows uint64
	buf  []byte
}

// NewSnapshotReader reads the beginning of a snapshot. ErrNewer: this program is too old for it.
func NewSnapshotReader(r io.Reader) (*SnapshotReader, SnapshotHeader, error) {
	s := &SnapshotReader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	var h SnapshotHeader
	start, err := s.read(len(snapshotMagic) + 2)
	if err != nil {
		return nil, h, err
	}
	if string(start[:len(snapshotMagic)]) != snapshotMagic {
		return nil, h, fmt.Errorf("not a snapshot of sandbar's stations: %w", ErrIncomplete)
	}
	switch f := binary.BigEndian.Uint16(start[len(snapshotMagic):]); {
	case f > Format:
		return nil, h, fmt.Errorf("snapshot has format version %d, this program reads up to %d: %w", f, Format, ErrNewer)
	case f == 0:
		return nil, h, fmt.Errorf("format version 0: %w", ErrIncomplete)
	}
	return s, h, s.record(tagHeader, &h)
}

// read returns the next n bytes, valid until the next read, and counts them into the checksum.
// The buffer grows with what truly arrives, not with what a length field claims.
func (s *SnapshotReader) read(n int) ([]byte, error) {
	s.buf = s.buf[:0]
	for len(s.buf) < n {
		chunk := min(n-len(s.buf), 64<<10)
		at := len(s.buf)
		s.buf = append(s.buf, make([]byte, chunk)...)
		if _, err := io.ReadFull(s.r, s.buf[at:]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrIncomplete, err)
		}
	}
	s.sum.Write(s.buf)
	return s.buf, nil
}

func (s *SnapshotReader) record(tag byte, v any) error {
	head, err := s.read(5)
	if err != nil {
		return err
	}
	got, n := head[0], binary.BigEndian.Uint32(head[1:])
	if got != tag || n > MaxRecordBytes {
		return fmt.Errorf("record of type %d with %d bytes where type %d was due: %w", got, n, tag, ErrIncomplete)
	}
	body, err := s.read(int(n))
	if err != nil {
		return err
	}
	if err := Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return nil
}

// Table reads the next table's number and count of rows.
func (s *SnapshotReader) Table() (table uint8, rows uint64, err error) {
	var t tableRecord
	err = s.record(tagTable, &t)
	return t.Table, t.Rows, err
}

// Row reads the next row into row. A field that this program doesn't know is an error.
func (s *SnapshotReader) Row(row any) error {
	s.rows++
	return s.record(tagRow, row)
}

// Close reads the end marker and checks counts, checksum and that nothing follows.
func (s *SnapshotReader) Close() error {
	want := s.sum.Sum(nil)
	var e endRecord
	if err := s.record(tagEnd, &e); err != nil {
		return err
	}
	if e.Rows != s.rows {
		return fmt.Errorf("%d rows read, the end marker says %d: %w", s.rows, e.Rows, ErrIncomplete)
	}
	if !bytes.Equal(e.Checksum, want) {
		return fmt.Errorf("checksum does not match: %w", ErrIncomplete)
	}
	switch _, err := s.r.ReadByte(); {
	case err == nil:
		return fmt.Errorf("bytes after the end marker: %w", ErrIncomplete)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}
