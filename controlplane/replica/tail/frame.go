package tail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

const (
	magic      = 0x31546253 // "SbT1"
	headerSize = 40
	alignment  = 8
	// movedSize is what a segment keeps free for the mark that the one before was moved.
	movedSize = headerSize + 8

	kindEntries = 1
	kindRemoval = 2
	kindMoved   = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is what a frame begins with, except what can be computed.
type header struct {
	segment  uint64
	frame    uint32
	kind     byte
	previous uint32
	at       int64
}

// seal completes buf, whose first headerSize bytes are free and whose rest is the body, to a frame.
func seal(buf []byte, h header) []byte {
	body := len(buf) - headerSize
	le := binary.LittleEndian
	le.PutUint32(buf[0:], magic)
	le.PutUint64(buf[8:], h.segment)
	le.PutUint32(buf[16:], h.frame)
	le.PutUint32(buf[20:], uint32(body))
	le.PutUint32(buf[24:], uint32(h.kind))
	le.PutUint32(buf[28:], h.previous)
	le.PutUint64(buf[32:], uint64(h.at))
	for len(buf)%alignment != 0 {
		buf = append(buf, 0)
	}
	le.PutUint32(buf[4:], crc32.Checksum(buf[8:headerSize+body], castagnoli))
	return buf
}

// aligned is the room that a frame with n bytes of body takes.
func aligned(n int) int64 { return (int64(headerSize+n) + alignment - 1) / alignment * alignment }

// unseal reads the frame at position at of file; ok says whether there is one.
func unseal(file []byte, at int64) (h header, body []byte, ok bool) {
	le := binary.LittleEndian
	if at+headerSize > int64(len(file)) || le.Uint32(file[at:]) != magic {
		return header{}, nil, false
	}
	b := file[at:]
	n := int64(le.Uint32(b[20:]))
	if n > int64(len(b))-headerSize || le.Uint32(b[4:]) != crc32.Checksum(b[8:headerSize+n], castagnoli) {
		return header{}, nil, false
	}
	h = header{segment: le.Uint64(b[8:]), frame: le.Uint32(b[16:]), kind: b[24], previous: le.Uint32(b[28:]), at: int64(le.Uint64(b[32:]))}
	return h, b[headerSize : headerSize+n], h.at == at
}

// entryHeader is index, term, time of appending (ns since 1970, 0 for none), length of data, length of
// extensions, type.
const entryHeader = 8 + 8 + 8 + 4 + 4 + 1

// appendEntries appends the body of an entries frame.
func appendEntries(buf []byte, logs []*raft.Log) []byte {
	le := binary.LittleEndian
	for _, l := range logs {
		var appended uint64
		if !l.AppendedAt.IsZero() {
			appended = uint64(l.AppendedAt.UnixNano())
		}
		buf = le.AppendUint64(buf, l.Index)
		buf = le.AppendUint64(buf, l.Term)
		buf = le.AppendUint64(buf, appended)
		buf = le.AppendUint32(buf, uint32(len(l.Data)))
		buf = le.AppendUint32(buf, uint32(len(l.Extensions)))
		buf = append(buf, byte(l.Type))
		buf = append(append(buf, l.Data...), l.Extensions...)
	}
	return buf
}

func bodySize(logs []*raft.Log) int {
	n := 0
	for _, l := range logs {
		n += entryHeader + len(l.Data) + len(l.Extensions)
	}
	return n
}

var errShort = errors.New("an entry is longer than its frame")

// readEntries takes the body of an entries frame apart. The entries hold copies.
func readEntries(body []byte) ([]*raft.Log, error) {
	le := binary.LittleEndian
	var logs []*raft.Log
	for len(body) > 0 {
		if len(body) < entryHeader {
			return nil, errShort
		}
		l := &raft.Log{Index: le.Uint64(body), Term: le.Uint64(body[8:]), Type: raft.LogType(body[32])}
		if appended := le.Uint64(body[16:]); appended != 0 {
			l.AppendedAt = time.Unix(0, int64(appended))
		}
		data, ext := uint64(le.Uint32(body[24:])), uint64(le.Uint32(body[28:]))
		if data+ext > uint64(len(body)-entryHeader) {
			return nil, errShort
		}
		body = body[entryHeader:]
		l.Data = append([]byte(nil), body[:data]...)
		if ext > 0 {
			l.Extensions = append([]byte(nil), body[data:data+ext]...)
		}
		body = body[data+ext:]
		logs = append(logs, l)
	}
	return logs, nil
}

// numbers reads a body of n numbers.
func numbers(body []byte, n int) ([]uint64, error) {
	if len(body) != 8*n {
		return nil, fmt.Errorf("a frame of %d bytes where %d are due", len(body), 8*n)
	}
	v := make([]uint64, n)
	for i := range v {
		v[i] = binary.LittleEndian.Uint64(body[8*i:])
	}
	return v, nil
}
