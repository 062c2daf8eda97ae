package pdu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Errors of framing. After any of them the stream is unusable, but for ErrDataDigest:
// then the PDU was read to its end and the next one can be read.
var (
	ErrHeaderDigest = errors.New("pdu: header digest does not match")
	ErrDataDigest   = errors.New("pdu: data digest does not match")
	// ErrTooLong is a PDU whose lengths are above what the reader's owner allows.
	ErrTooLong = errors.New("pdu: longer than allowed")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// PDU is one protocol data unit as read: raw header, additional headers, data without padding.
type PDU struct {
	BHS  BHS
	AHS  []byte
	Data []byte
}

// Digests says which digests are on for one direction of a connection.
type Digests struct{ Header, Data bool }

// AppendHeader appends b, ahs (padded, see AppendAHS) and, where on, the header digest.
// The caller has set b's lengths to len(ahs) and the length of the data that follows.
func (d Digests) AppendHeader(dst []byte, b *BHS, ahs []byte) []byte {
	start := len(dst)
	dst = append(append(dst, b[:]...), ahs...)
	if d.Header {
		dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
	}
	return dst
}

// AppendTrailer appends what follows the data segment made of data's parts: padding
// and, where on, the data digest. Without data there is no trailer.
func (d Digests) AppendTrailer(dst []byte, data ...[]byte) []byte {
	n := 0
	for _, p := range data {
		n += len(p)
	}
	if n == 0 {
		return dst
	}
	pad := zeros[:Pad(n)]
	dst = append(dst, pad...)
	if d.Data {
		sum := uint32(0)
		for _, p := range data {
			sum = crc32.Update(sum, castagnoli, p)
		}
		dst = binary.LittleEndian.AppendUint32(dst, crc32.Update(sum, castagnoli, pad))
	}
	return dst
}

// Append appends a whole PDU: h with its lengths set, ahs, data, padding, digests. It
// fails with ErrTooLong when a length does not fit its field, or when ahs is not padded.
func (d Digests) Append(dst []byte, h Header, ahs, data []byte) ([]byte, error) {
	if len(ahs) > MaxAHSLength || len(ahs)%4 != 0 || len(data) > MaxDataSegmentLength {
		return dst, fmt.Errorf("%w: %s with %d bytes of additional header and %d bytes of data", ErrTooLong, h.Op(), len(ahs), len(data))
	}
	var b BHS
	h.Encode(&b)
	b.SetLengths(len(ahs), len(data))
	dst = d.AppendHeader(dst, &b, ahs)
	return d.AppendTrailer(append(dst, data...), data), nil
}

// WritePDU writes one whole PDU with a single Write.
func (d Digests) WritePDU(w io.Writer, h Header, data []byte) error {
	buf, err := d.Append(make([]byte, 0, BHSLength+2*DigestLength+len(data)+3), h, nil, data)
	if err != nil {
		return err
	}
	_, err = w.Write(buf)
	return err
}

// Reader reads PDUs from a stream. It reads exactly a PDU's bytes and holds none back, so
// put a bufio.Reader under it. Digests and limits may change between PDUs, as they do at the end of login.
type Reader struct {
	src     io.Reader
	Digests Digests
	// MaxData bounds the data segment in bytes: the MaxRecvDataSegmentLength declared to the peer.
	MaxData int
	// MaxAHS bounds the additional headers in bytes; 0 allows none.
	MaxAHS int

	// scratch receives header digest, padding and data digest; a field because what is read
	// through an interface would otherwise be allocated for each PDU.
	scratch [8]byte
	ahs     []byte
}

// NewReader reads from src PDUs with at most maxData bytes of data and maxAHS bytes of additional headers.
func NewReader(src io.Reader, maxData, maxAHS int) *Reader {
	return &Reader{src: src, MaxData: maxData, MaxAHS: maxAHS}
}

// ReadHeader reads the header segments into b and checks their digest and lengths. The
// returned additional headers are valid until the next call. The caller then calls
// ReadData or Discard. The error is io.EOF when the stream ended before the first byte,
// io.ErrUnexpectedEOF when it ended within, ErrHeaderDigest or ErrTooLong.
func (r *Reader) ReadHeader(b *BHS) (ahs []byte, err error) {
	if _, err := io.ReadFull(r.src, b[:]); err != nil {
		return nil, err
	}
	if !r.Digests.Header { // else damage is told from a breach first
		if err := r.fits(b); err != nil {
			return nil, err
		}
	}
	n := b.AHSLength()
	if n > r.MaxAHS {
		return nil, fmt.Errorf("%w: %s with %d bytes of additional headers, %d allowed", ErrTooLong, b.Opcode(), n, r.MaxAHS)
	}
	if n > 0 {
		if cap(r.ahs) < n {
			r.ahs = make([]byte, MaxAHSLength)
		}
		ahs = r.ahs[:n]
		if err := r.full(ahs); err != nil {
			return nil, err
		}
	}
	if r.Digests.Header {
		if err := r.full(r.scratch[:4]); err != nil {
			return nil, err
		}
		sum := crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, ahs)
		if sum != binary.LittleEndian.Uint32(r.scratch[:4]) {
			return nil, ErrHeaderDigest
		}
	}
	return ahs, r.fits(b)
}

// fits checks the length of the data.
func (r *Reader) fits(b *BHS) error {
	if b.DataLength() > r.MaxData {
		return fmt.Errorf("%w: %s with %d bytes of data, %d allowed", ErrTooLong, b.Opcode(), b.DataLength(), r.MaxData)
	}
	return nil
}

// Length is how many bytes of the stream a PDU with that header takes, digests included.
func (r *Reader) Length(b *BHS) int {
	n := BHSLength + b.AHSLength()
	if r.Digests.Header {
		n += DigestLength
	}
	if data := b.DataLength(); data > 0 {
		n += data + Pad(data)
		if r.Digests.Data {
			n += DigestLength
		}
	}
	return n
}

// ReadData reads the data segment, whose length is len(dst), its padding and digest.
// With ErrDataDigest, dst holds the damaged data.
func (r *Reader) ReadData(dst []byte) error {
	if len(dst) == 0 {
		return nil
	}
	if err := r.full(dst); err != nil {
		return err
	}
	pad := Pad(len(dst))
	tail := r.scratch[:pad]
	if r.Digests.Data {
		tail = r.scratch[:pad+4]
	}
	if len(tail) == 0 {
		return nil
	}
	if err := r.full(tail); err != nil {
		return err
	}
	if !r.Digests.Data {
		return nil
	}
	sum := crc32.Update(crc32.Checksum(dst, castagnoli), castagnoli, tail[:pad])
	if sum != binary.LittleEndian.Uint32(tail[pad:]) {
		return ErrDataDigest
	}
	return nil
}

// Discard reads past a data segment of n bytes, its padding and its digest, which is not checked.
func (r *Reader) Discard(n int) error {
	if n == 0 {
		return nil
	}
	n += Pad(n)
	if r.Digests.Data {
		n += DigestLength
	}
	if _, err := io.CopyN(io.Discard, r.src, int64(n)); err != nil {
		return noEOF(err)
	}
	return nil
}

// ReadPDU reads a whole PDU with newly allocated data and additional headers. On ErrDataDigest the PDU is returned too.
func (r *Reader) ReadPDU() (*PDU, error) {
	p := new(PDU)
	ahs, err := r.ReadHeader(&p.BHS)
	if err != nil {
		return nil, err
	}
	if len(ahs) > 0 {
		p.AHS = append([]byte(nil), ahs...)
	}
	if n := p.BHS.DataLength(); n > 0 {
		p.Data = make([]byte, n)
	}
	if err := r.ReadData(p.Data); err != nil {
		if errors.Is(err, ErrDataDigest) {
			return p, err
		}
		return nil, err
	}
	return p, nil
}

func (r *Reader) full(p []byte) error {
	_, err := io.ReadFull(r.src, p)
	return noEOF(err)
}

// noEOF turns an end in the middle of a PDU into what it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
