package scsi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

const blocks = 64 // of every rig here

// blockCase is a block command that succeeds on a fresh rig.
type blockCase struct {
	name string
	b    cdb.Block
	// out is the data out in blocks.
	out int
}

var blockCases = []blockCase{
	{"READ (6)", cdb.Block{Op: cdb.OpRead6, Blocks: 1}, 0},
	{"READ (10)", cdb.Block{Op: cdb.OpRead10, Blocks: 1}, 0},
	{"READ (12)", cdb.Block{Op: cdb.OpRead12, Blocks: 1}, 0},
	{"READ (16)", cdb.Block{Op: cdb.OpRead16, Blocks: 1}, 0},
	{"WRITE (6)", cdb.Block{Op: cdb.OpWrite6, Blocks: 1}, 1},
	{"WRITE (10)", cdb.Block{Op: cdb.OpWrite10, Blocks: 1}, 1},
	{"WRITE (12)", cdb.Block{Op: cdb.OpWrite12, Blocks: 1}, 1},
	{"WRITE (16)", cdb.Block{Op: cdb.OpWrite16, Blocks: 1}, 1},
	{"WRITE AND VERIFY (10)", cdb.Block{Op: cdb.OpWriteAndVerify10, Blocks: 1, ByteCheck: 1}, 1},
	{"WRITE AND VERIFY (12)", cdb.Block{Op: cdb.OpWriteAndVerify12, Blocks: 1}, 1},
	{"WRITE AND VERIFY (16)", cdb.Block{Op: cdb.OpWriteAndVerify16, Blocks: 1, ByteCheck: 1}, 1},
	{"VERIFY (10)", cdb.Block{Op: cdb.OpVerify10, Blocks: 1}, 0},
	{"VERIFY (12) with data", cdb.Block{Op: cdb.OpVerify12, Blocks: 1, ByteCheck: 1}, 1},
	{"VERIFY (16) with one block", cdb.Block{Op: cdb.OpVerify16, Blocks: 1, ByteCheck: 3}, 1},
	{"WRITE ATOMIC (16)", cdb.Block{Op: cdb.OpWriteAtomic16, Blocks: 1}, 1},
	{"ORWRITE (16)", cdb.Block{Op: cdb.OpOrWrite16, Blocks: 1}, 1},
	{"COMPARE AND WRITE", cdb.Block{Op: cdb.OpCompareAndWrite, Blocks: 1}, 2},
	{"WRITE SAME (10)", cdb.Block{Op: cdb.OpWriteSame10, Blocks: 1}, 1},
	{"WRITE SAME (16)", cdb.Block{Op: cdb.OpWriteSame16, Blocks: 1}, 1},
	{"PRE-FETCH (10)", cdb.Block{Op: cdb.OpPreFetch10, Blocks: 1}, 0},
	{"PRE-FETCH (16)", cdb.Block{Op: cdb.OpPreFetch16, Blocks: 1}, 0},
	{"SYNCHRONIZE CACHE (10)", cdb.Block{Op: cdb.OpSynchronizeCache10, Blocks: 1}, 0},
	{"SYNCHRONIZE CACHE (16)", cdb.Block{Op: cdb.OpSynchronizeCache16, Blocks: 1}, 0},
}

// TestRanges: each block command knows where the volume ends (SBC-3 §4.5).
func TestRanges(t *testing.T) {
	r := newRig(t, blocks, 512)
	for _, c := range blockCases {
		wide := cdb.Length(c.b.Op) == 16
		for _, p := range []struct {
			lba    uint64
			length uint32
			ok     bool
		}{
			{0, 1, true}, {blocks - 1, 1, true}, {blocks, 1, false}, {blocks - 1, 2, false}, {blocks - 2, 2, true},
			{0, 0, true}, {blocks, 0, true}, {blocks + 1, 0, false}, {1 << 31, 1, false}, {1<<32 - 1, 1, false},
			{1 << 63, 1, false}, {1<<64 - 1, 1, false}, {1<<64 - 1, 0, false},
		} {
			if p.lba > blocks+1 && !wide && (p.lba >= 1<<32 || cdb.Length(c.b.Op) == 6) || p.length == 0 && cdb.Length(c.b.Op) == 6 {
				continue
			}
			b := c.b
			b.LBA, b.Blocks = p.lba, p.length
			if p.ok && p.length == 0 && (b.Op == cdb.OpWriteSame10 || b.Op == cdb.OpWriteSame16) {
				continue // WSNZ: see TestWriteSame
			}
			out := make([]byte, c.out*512*int(max(1, p.length)))
			switch {
			case b.Op == cdb.OpWriteSame10 || b.Op == cdb.OpWriteSame16 || b.ByteCheck == 3:
				out = out[:min(len(out), 512)]
			case p.length == 0:
				out = nil
			}
			res := r.do(b.Encode(), out, 1024)
			name := fmt.Sprintf("%s, LBA %d, %d blocks", c.name, p.lba, p.length)
			if p.ok {
				want(t, name, res, 0, 0)
			} else {
				want(t, name, res, cdb.KeyIllegalRequest, cdb.ASCLBAOutOfRange)
			}
		}
	}
}

// TestProtectionIsRefused: there is no protection information, so no command may ask for it.
func TestProtectionIsRefused(t *testing.T) {
	r := newRig(t, blocks, 512)
	for _, c := range blockCases {
		for protect := uint8(1); protect < 8; protect++ {
			b := c.b
			b.Protect = protect
			if e := b.Encode(); cdb.Length(b.Op) == 6 || e[1]>>5 == 0 {
				continue // has no such field
			}
			want(t, c.name, r.do(b.Encode(), make([]byte, 512*c.out), 512), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
		}
	}
	if r.store.writes+r.store.reads+r.store.zeros != 0 {
		t.Error("a refused command reached the store")
	}
}

// TestStoreErrors: what the Store says becomes the right sense data, never GOOD.
func TestStoreErrors(t *testing.T) {
	type answer struct {
		key cdb.SenseKey
		asc cdb.ASC
	}
	writing := answer{cdb.KeyMediumError, cdb.ASCWriteError}
	reading := answer{cdb.KeyMediumError, cdb.ASCUnrecoveredReadError}
	for _, e := range []struct {
		err           error
		reads, writes answer
	}{
		{errStore, reading, writing},
		{fmt.Errorf("volume x: %w", disk.ErrNoSpace), answer{cdb.KeyDataProtect, cdb.ASCSpaceAllocationFailed}, answer{cdb.KeyDataProtect, cdb.ASCSpaceAllocationFailed}},
		{fmt.Errorf("volume x: %w", disk.ErrReadOnly), answer{cdb.KeyDataProtect, cdb.ASCWriteProtected}, answer{cdb.KeyDataProtect, cdb.ASCWriteProtected}},
		{san.Errorf(san.KindNoSpace, "pool is full"), answer{cdb.KeyDataProtect, cdb.ASCSpaceAllocationFailed}, answer{cdb.KeyDataProtect, cdb.ASCSpaceAllocationFailed}},
	} {
		fail := func() error { return e.err }
		for _, c := range append(blockCases, blockCase{"UNMAP", cdb.Block{}, 0}) {
			r := newRig(t, blocks, 512)
			r.store.failRead, r.store.failWrite, r.store.failFlush, r.store.failZero = fail, fail, fail, fail
			command, out := c.b.Encode(), make([]byte, 512*c.out)
			expect := e.writes
			switch {
			case c.name == "UNMAP":
				command, out = unmapOf(t, cdb.LBARange{LBA: 0, Blocks: 1})
			case strings.HasPrefix(c.name, "READ"), strings.HasPrefix(c.name, "VERIFY"), c.name == "ORWRITE (16)", c.name == "COMPARE AND WRITE":
				expect = e.reads
			case strings.HasPrefix(c.name, "PRE-FETCH"):
				continue // a hint, which reaches no store
			}
			res := r.do(command, out, 512)
			want(t, fmt.Sprintf("%s with %v", c.name, e.err), res, expect.key, expect.asc)
			if len(res.DataIn) != 0 {
				t.Errorf("%s: %d bytes of data in with an error", c.name, len(res.DataIn))
			}
		}
	}
	// The second half of a command that reads and then writes fails too.
	for _, c := range blockCases {
		if c.name != "ORWRITE (16)" && c.name != "COMPARE AND WRITE" {
			continue
		}
		r := newRig(t, blocks, 512)
		r.store.failWrite = func() error { return errStore }
		want(t, c.name, r.do(c.b.Encode(), make([]byte, 512*c.out), 0), writing.key, writing.asc)
	}
}

func unmapOf(t interface{ Fatal(...any) }, ranges ...cdb.LBARange) (cdb.CDB, []byte) {
	list, err := cdb.AppendUnmapList(nil, ranges)
	if err != nil {
		t.Fatal(err)
	}
	return cdb.Unmap(uint16(len(list))), list
}

// TestReadResiduals: a transport that expects less gets less and is told, never an error.
func TestReadResiduals(t *testing.T) {
	r := newRig(t, blocks, 512)
	for i := range r.store.data {
		r.store.data[i] = byte(i / 3)
	}
	for _, edtl := range []int{0, 1, 200, 511, 512, 513, 1023, 1024, 10000} {
		res := r.do(cdb.Read16(1, 2, false), nil, edtl)
		want(t, "read", res, 0, 0)
		if res.DataInTotal != 1024 || !bytes.Equal(res.DataIn, r.store.data[512:512+min(edtl, 1024)]) {
			t.Errorf("EDTL %d: %d bytes, total %d", edtl, len(res.DataIn), res.DataInTotal)
		}
	}
}

// TestWriteResiduals: data beyond what the CDB asks for are ignored; of a write whose data
// did not all come, the whole blocks that did are written. A part of a block changes nothing.
func TestWriteResiduals(t *testing.T) {
	for _, op := range []byte{cdb.OpWrite10, cdb.OpWrite12, cdb.OpWrite16, cdb.OpWriteAndVerify10, cdb.OpOrWrite16} {
		for _, n := range []int{0, 1, 511, 512, 1023, 1024, 1025, 4096} {
			r := newRig(t, blocks, 512)
			res := r.do(cdb.Block{Op: op, Blocks: 2, ByteCheck: 1}.Encode(), bytes.Repeat([]byte{0xbb}, n), 0)
			if res.DataOutTotal != 1024 {
				t.Errorf("op %02Xh, %d bytes: DataOutTotal %d, want 1024", op, n, res.DataOutTotal)
			}
			written := min(n, 1024)
			if n < 1024 && (n%512 != 0 || op == cdb.OpOrWrite16) {
				want(t, "part of a block", res, cdb.KeyIllegalRequest, ascInvalidFieldInUnit)
				written = 0
			} else {
				want(t, "whole blocks", res, 0, 0)
			}
			if got := bytes.Count(r.store.data, []byte{0xbb}); got != written {
				t.Errorf("op %02Xh, %d bytes: %d bytes were written, want %d", op, n, got, written)
			}
		}
	}
	r := newRig(t, blocks, 512)
	want(t, "a write carried as a read", r.do(cdb.Write16(0, 1, false), nil, 512), cdb.KeyIllegalRequest, ascInvalidFieldInUnit)
}

// TestTransferLimits: more blocks than the block limits page allows are refused before
// a buffer is made for them.
func TestTransferLimits(t *testing.T) {
	r := newRig(t, 2*MaxTransferBytes/4096, 4096)
	limit := uint32(MaxTransferBytes / 4096)
	for _, c := range blockCases {
		b := c.b
		if b.Blocks = limit + 1; cdb.Length(b.Op) == 6 {
			continue
		}
		if b.Op == cdb.OpCompareAndWrite || b.Op == cdb.OpPreFetch10 || b.Op == cdb.OpPreFetch16 || b.Op == cdb.OpSynchronizeCache10 || b.Op == cdb.OpSynchronizeCache16 {
			continue // its field is below the limit, or it moves no data
		}
		out := make([]byte, min(c.out, 1)*4096)
		want(t, c.name, r.do(b.Encode(), out, 0), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
	}
	if r.store.reads+r.store.writes+r.store.zeros != 0 {
		t.Error("a refused command reached the store")
	}
	res := r.do(cdb.Read16(0, limit, false), nil, MaxTransferBytes)
	if want(t, "largest read", res, 0, 0); len(res.DataIn) != MaxTransferBytes {
		t.Errorf("largest read: %d bytes", len(res.DataIn))
	}
}

func TestFUAAndFlush(t *testing.T) {
	r := newRig(t, blocks, 512)
	block := make([]byte, 512)
	for _, fua := range []bool{true, false} {
		want(t, "write", r.do(cdb.Write16(0, 1, fua), block, 0), 0, 0)
		if r.store.fua != fua {
			t.Errorf("FUA %v reached the store as %v", fua, r.store.fua)
		}
	}
	want(t, "write and verify", r.do(cdb.Block{Op: cdb.OpWriteAndVerify10, Blocks: 1}.Encode(), block, 0), 0, 0)
	if !r.store.fua {
		t.Error("WRITE AND VERIFY verified what was not on the medium")
	}
	for i, c := range []cdb.CDB{cdb.SynchronizeCache10(0, 0), cdb.SynchronizeCache16(1, 2),
		{0: cdb.OpSynchronizeCache16, 1: 2}, cdb.StartStopUnit(false, false, false)} {
		want(t, "flush", r.do(c, nil, 0), 0, 0)
		if r.store.flushes != i+1 {
			t.Errorf("command %d: %d flushes, want %d", i, r.store.flushes, i+1)
		}
	}
	want(t, "start", r.do(cdb.StartStopUnit(false, false, true), nil, 0), 0, 0)
	want(t, "eject", r.do(cdb.StartStopUnit(false, true, false), nil, 0), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
	if r.store.flushes != 4 {
		t.Error("starting, or ejecting what can't be, flushed")
	}
}

func TestCompareAndWrite(t *testing.T) {
	r := newRig(t, blocks, 512)
	old, next := bytes.Repeat([]byte{'A'}, 1024), bytes.Repeat([]byte{'B'}, 1024)
	copy(r.store.data[512:], old)
	wrong := bytes.Clone(old)
	wrong[700] = 'C'
	res := r.do(cdb.CompareAndWrite(1, 2, false), append(wrong, next...), 0)
	want(t, "miscompare", res, cdb.KeyMiscompare, cdb.ASCMiscompareDuringVerify)
	if s, err := cdb.ParseSense(res.Sense); err != nil || !s.InformationValid || s.Information != 700 {
		t.Errorf("miscompare at byte 700 is told as %+v, %v", s, err)
	}
	if !bytes.Equal(r.store.data[512:1536], old) {
		t.Error("a miscompare wrote")
	}
	want(t, "match", r.do(cdb.CompareAndWrite(1, 2, true), append(old, next...), 0), 0, 0)
	if !bytes.Equal(r.store.data[512:1536], next) || !r.store.fua {
		t.Error("a match did not write with FUA")
	}
	for _, n := range []int{0, 1024, 2047, 2049, 4096} {
		want(t, fmt.Sprintf("%d bytes for 2 blocks", n), r.do(cdb.CompareAndWrite(1, 2, false), make([]byte, n), 0), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
	}
	if !bytes.Equal(r.store.data[512:1536], next) {
		t.Error("a refused COMPARE AND WRITE wrote")
	}
}

func TestVerify(t *testing.T) {
	r := newRig(t, 4096, 512)
	data := bytes.Repeat([]byte{7}, 3<<19)
	copy(r.store.data, data)
	verify := func(check uint8, out []byte) Result {
		return r.do(cdb.Block{Op: cdb.OpVerify16, Blocks: 3 << 10, ByteCheck: check}.Encode(), out, 0)
	}
	want(t, "no check, data ignored", verify(0, []byte("whatever")), 0, 0)
	want(t, "same", verify(1, data), 0, 0)
	want(t, "one block repeated", verify(3, data[:512]), 0, 0)
	want(t, "reserved check", verify(2, data), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
	r.store.data[1<<20+5] ^= 1
	for check, out := range map[uint8][]byte{1: data, 3: data[:512]} {
		res := verify(check, out)
		want(t, "one bit off", res, cdb.KeyMiscompare, cdb.ASCMiscompareDuringVerify)
		if s, err := cdb.ParseSense(res.Sense); err != nil || s.Information != 1<<20+5 {
			t.Errorf("BYTCHK %d: the difference is told at %d", check, s.Information)
		}
	}
	want(t, "no data", verify(1, nil), cdb.KeyIllegalRequest, ascInvalidFieldInUnit)
}

func TestWriteSame(t *testing.T) {
	block := bytes.Repeat([]byte("same"), 128)
	for _, c := range []struct {
		name   string
		b      cdb.Block
		out    []byte
		key    cdb.SenseKey
		asc    cdb.ASC
		filled int
		zeros  int
	}{
		{name: "pattern", b: cdb.Block{LBA: 3, Blocks: 5}, out: block, filled: 5},
		{name: "pattern with UNMAP is not zeros", b: cdb.Block{LBA: 3, Blocks: 5, Unmap: true}, out: block, filled: 5},
		{name: "no blocks", b: cdb.Block{LBA: 60}, out: block, key: cdb.KeyIllegalRequest, asc: cdb.ASCInvalidFieldInCDB},
		{name: "zeros", b: cdb.Block{LBA: 3, Blocks: 5, Unmap: true}, out: make([]byte, 512), zeros: 1},
		{name: "zeros without UNMAP", b: cdb.Block{LBA: 3, Blocks: 5}, out: make([]byte, 512), zeros: 1},
		{name: "no data out buffer", b: cdb.Block{LBA: 3, Blocks: 5, NDOB: true}, zeros: 1},
		{name: "half a block", b: cdb.Block{Blocks: 1}, out: block[:256], key: cdb.KeyIllegalRequest, asc: ascInvalidFieldInUnit},
		{name: "two blocks", b: cdb.Block{Blocks: 1}, out: append(block, block...), key: cdb.KeyIllegalRequest, asc: ascInvalidFieldInUnit},
		{name: "anchor", b: cdb.Block{Blocks: 1, Anchor: true}, out: block, key: cdb.KeyIllegalRequest, asc: cdb.ASCInvalidFieldInCDB},
		{name: "anchor and unmap", b: cdb.Block{Blocks: 1, Anchor: true, Unmap: true}, out: block, key: cdb.KeyIllegalRequest, asc: cdb.ASCInvalidFieldInCDB},
		{name: "LBDATA", b: cdb.Block{Blocks: 1, LBData: true}, out: block, key: cdb.KeyIllegalRequest, asc: cdb.ASCInvalidFieldInCDB},
		{name: "PBDATA", b: cdb.Block{Blocks: 1, PBData: true}, out: block, key: cdb.KeyIllegalRequest, asc: cdb.ASCInvalidFieldInCDB},
	} {
		for _, op := range []byte{cdb.OpWriteSame10, cdb.OpWriteSame16} {
			if c.b.NDOB && op == cdb.OpWriteSame10 {
				continue
			}
			r := newRig(t, blocks, 512)
			for i := range r.store.data {
				r.store.data[i] = 0xee
			}
			b := c.b
			b.Op = op
			want(t, c.name, r.do(b.Encode(), c.out, 0), c.key, c.asc)
			expect := bytes.Repeat([]byte{0xee}, blocks*512)
			copy(expect[b.LBA*512:], bytes.Repeat(block, c.filled))
			if c.zeros > 0 {
				clear(expect[b.LBA*512 : (b.LBA+uint64(b.Blocks))*512])
			}
			if !bytes.Equal(r.store.data, expect) || r.store.zeros != c.zeros {
				t.Errorf("%s, op %02Xh: the volume has other content than it should", c.name, op)
			}
		}
	}
	// More than one chunk.
	r := newRig(t, 5000, 512)
	want(t, "long pattern", r.do(cdb.WriteSame16(1, 4990, false, false), block, 0), 0, 0)
	if !bytes.Equal(r.store.data[512:4991*512], bytes.Repeat(block, 4990)) || bytes.Count(r.store.data, []byte{0}) != 10*512 {
		t.Error("a long pattern was written wrongly")
	}
}

func TestUnmap(t *testing.T) {
	r := newRig(t, blocks, 512)
	fill := func() {
		for i := range r.store.data {
			r.store.data[i] = 0xee
		}
	}
	zeroed := func() int { return bytes.Count(r.store.data, []byte{0}) / 512 }
	fill()
	c, list := unmapOf(t, cdb.LBARange{LBA: 0, Blocks: 2}, cdb.LBARange{LBA: 9, Blocks: 0}, cdb.LBARange{LBA: 63, Blocks: 1}, cdb.LBARange{LBA: blocks, Blocks: 0})
	if want(t, "two ranges", r.do(c, list, 0), 0, 0); zeroed() != 3 {
		t.Errorf("%d blocks read as zeros, want 3", zeroed())
	}
	fill()
	many := make([]cdb.LBARange, maxUnmapDescriptors)
	for i := range many {
		many[i] = cdb.LBARange{LBA: uint64(i % blocks), Blocks: 1}
	}
	c, list = unmapOf(t, many...)
	if want(t, "as many as allowed", r.do(c, list, 0), 0, 0); zeroed() != blocks {
		t.Errorf("%d blocks read as zeros, want all", zeroed())
	}
	fill()
	want(t, "empty list", r.do(cdb.Unmap(0), nil, 0), 0, 0)
	c, list = unmapOf(t)
	want(t, "no descriptors", r.do(c, list, 0), 0, 0)
	c, list = unmapOf(t, append(many, cdb.LBARange{})...)
	want(t, "one too many", r.do(c, list, 0), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInParameterList)
	c, list = unmapOf(t, cdb.LBARange{LBA: 0, Blocks: 1}, cdb.LBARange{LBA: 63, Blocks: 2})
	want(t, "beyond the end", r.do(c, list, 0), cdb.KeyIllegalRequest, cdb.ASCLBAOutOfRange)
	c, list = unmapOf(t, cdb.LBARange{LBA: 1<<64 - 1, Blocks: 1})
	want(t, "far beyond the end", r.do(c, list, 0), cdb.KeyIllegalRequest, cdb.ASCLBAOutOfRange)
	c, list = unmapOf(t, cdb.LBARange{LBA: 0, Blocks: 1})
	want(t, "list cut off", r.do(c, list[:len(list)-1], 0), cdb.KeyIllegalRequest, cdb.ASCParameterListLength)
	want(t, "header cut off", r.do(cdb.Unmap(7), list, 0), cdb.KeyIllegalRequest, cdb.ASCParameterListLength)
	c[1] = 1
	want(t, "anchor", r.do(c, list, 0), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
	if zeroed() != 0 {
		t.Error("a refused UNMAP unmapped")
	}
}

// TestAborted: a context that ended before the command began means that it has no effect.
func TestAborted(t *testing.T) {
	r := newRig(t, blocks, 512)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range blockCases {
		if res := r.exec(ctx, c.b.Encode(), make([]byte, 512*c.out), 512); res.Status != cdb.StatusTaskAborted {
			t.Errorf("%s: %s, want TASK ABORTED", c.name, describe(res))
		}
	}
	if r.store.reads+r.store.writes+r.store.zeros+r.store.flushes != 0 {
		t.Error("an aborted command reached the store")
	}
	// The store says itself that it did not start.
	r.store.failWrite = func() error { return errors.Join(context.Canceled) }
	if res := r.do(cdb.Write16(0, 1, false), make([]byte, 512), 0); res.Status != cdb.StatusTaskAborted {
		t.Errorf("a write that was not started: %s, want TASK ABORTED", describe(res))
	}
}

// TestBegunIsNotAborted: once a part of a command has taken effect, it runs to its end.
func TestBegunIsNotAborted(t *testing.T) {
	pattern := bytes.Repeat([]byte{1}, 512)
	list, unmapData := unmapOf(t, cdb.LBARange{LBA: 0, Blocks: 1}, cdb.LBARange{LBA: 2, Blocks: 1})
	for name, c := range map[string]struct {
		cdb cdb.CDB
		out []byte
	}{
		"WRITE SAME":       {cdb.WriteSame16(0, 4096, false, false), pattern},
		"UNMAP":            {list, unmapData},
		"WRITE AND VERIFY": {cdb.Block{Op: cdb.OpWriteAndVerify16, Blocks: 1, ByteCheck: 1}.Encode(), pattern},
	} {
		r := newRig(t, 4096, 512)
		ctx, cancel := context.WithCancel(context.Background())
		stop := func() error { cancel(); return nil }
		r.store.failWrite, r.store.failZero = stop, stop
		want(t, name, r.exec(ctx, c.cdb, c.out, 0), 0, 0)
	}
}
