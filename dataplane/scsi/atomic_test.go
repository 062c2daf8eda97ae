package scsi

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// TestWriteAtomic: whole or not at all, and never through the Store's ordinary write.
func TestWriteAtomic(t *testing.T) {
	data := bytes.Repeat([]byte("all or nothing. "), 96) // 3 blocks
	for _, c := range []struct {
		name    string
		b       cdb.Block
		out     []byte
		key     cdb.SenseKey
		asc     cdb.ASC
		pointer int // the byte of the CDB that is refused
	}{
		{name: "three blocks", b: cdb.Block{LBA: 5, Blocks: 3}, out: data},
		{name: "with DPO and FUA", b: cdb.Block{LBA: 61, Blocks: 3, DPO: true, FUA: true}, out: data},
		{name: "none", b: cdb.Block{LBA: 64}},
		{name: "as many as can be", b: cdb.Block{Blocks: 32}, out: make([]byte, 32*512)},
		{name: "one too many", b: cdb.Block{Blocks: 33}, out: make([]byte, 33*512), key: cdb.KeyIllegalRequest, asc: cdb.ASCInvalidFieldInCDB, pointer: 12},
		{name: "too many, beyond the end", b: cdb.Block{LBA: 60, Blocks: 33}, out: make([]byte, 33*512), key: cdb.KeyIllegalRequest, asc: cdb.ASCLBAOutOfRange},
		{name: "an atomic boundary", b: cdb.Block{Blocks: 2, Boundary: 1}, out: data[:1024], key: cdb.KeyIllegalRequest, asc: cdb.ASCInvalidFieldInCDB, pointer: 10},
		{name: "a block is missing", b: cdb.Block{Blocks: 3}, out: data[:1024], key: cdb.KeyIllegalRequest, asc: ascInvalidFieldInUnit},
		{name: "no data", b: cdb.Block{Blocks: 1}, key: cdb.KeyIllegalRequest, asc: ascInvalidFieldInUnit},
	} {
		r := newRig(t, blocks, 512)
		c.b.Op = cdb.OpWriteAtomic16
		res := r.do(c.b.Encode(), c.out, 0)
		want(t, c.name, res, c.key, c.asc)
		expect, writes := make([]byte, blocks*512), 0
		if c.key == 0 && c.b.Blocks > 0 {
			copy(expect[c.b.LBA*512:], c.out)
			writes = 1
		}
		if !bytes.Equal(r.store.data, expect) || r.store.atomics != writes || r.store.writes != writes {
			t.Errorf("%s: %d writes, %d of them atomic, want %d, or other content than it should be", c.name, r.store.writes, r.store.atomics, writes)
		}
		if s, _ := cdb.ParseSense(res.Sense); c.pointer != 0 && (!s.SpecificValid || s.Specific != [3]byte{0x40, 0, byte(c.pointer)}) {
			t.Errorf("%s: the field pointer is % x, want byte %d", c.name, s.Specific, c.pointer)
		}
	}
}

// TestMediumErrors: sense data of media that fail, with the first bad block of a read (SPC-4
// §4.5.2.2, SBC-3 §4.17.1).
func TestMediumErrors(t *testing.T) {
	const count = 512 // blocks: several of the steps in which the bad one is looked for
	for _, bad := range []uint64{0, 1, 127, 128, 300, 511} {
		r := newRig(t, count, 512)
		r.store.bad = int64(bad)
		for _, c := range []struct {
			name string
			cdb  cdb.CDB
			out  int
		}{
			{"READ (10)", cdb.Block{Op: cdb.OpRead10, Blocks: count}.Encode(), 0},
			{"READ (16)", cdb.Read16(bad, 1, false), 0},
			{"VERIFY (16)", cdb.Block{Op: cdb.OpVerify16, Blocks: count}.Encode(), 0},
			{"VERIFY (16) with data", cdb.Block{Op: cdb.OpVerify16, Blocks: count, ByteCheck: 1}.Encode(), count},
			{"ORWRITE (16)", cdb.Block{Op: cdb.OpOrWrite16, Blocks: count}.Encode(), count},
			{"COMPARE AND WRITE", cdb.CompareAndWrite(bad, 1, false), 2},
			{"WRITE AND VERIFY (16)", cdb.Block{Op: cdb.OpWriteAndVerify16, Blocks: count}.Encode(), count},
		} {
			res := r.do(c.cdb, make([]byte, c.out*512), count*512)
			want(t, c.name, res, cdb.KeyMediumError, cdb.ASCUnrecoveredReadError)
			if s, _ := cdb.ParseSense(res.Sense); !s.InformationValid || s.Information != bad {
				t.Errorf("%s with block %d bad: the sense data name block %d (valid %v)", c.name, bad, s.Information, s.InformationValid)
			}
			if len(res.DataIn) != 0 {
				t.Errorf("%s: %d bytes came with the error", c.name, len(res.DataIn))
			}
		}
		want(t, "the block before", r.do(cdb.Read16((bad+count-1)%count, 1, false), nil, 512), 0, 0)
	}
	// One that can be read when it is looked for is named by nobody.
	r := newRig(t, count, 512)
	once := errStore
	r.store.failRead = func() error { err := once; once = nil; return err }
	res := r.do(cdb.Read16(0, count, false), nil, count*512)
	want(t, "an error that passes", res, cdb.KeyMediumError, cdb.ASCUnrecoveredReadError)
	if s, _ := cdb.ParseSense(res.Sense); s.InformationValid {
		t.Errorf("an error that passed is told to be at block %d", s.Information)
	}
}

// TestLBAStatus: the runs are those of the Store, whole blocks, from where was asked to the end, and
// what is deallocated reads as zeros.
func TestLBAStatus(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.SampledFrom([]uint32{512, 4096}).Draw(rt, "block size")
		r := newRig(t, 40, size)
		per := int64(size / 512)
		for i := range r.store.data {
			r.store.data[i] = 0xee
		}
		for range rapid.IntRange(0, 8).Draw(rt, "holes") { // by 512 bytes: also parts of a block
			at := rapid.Int64Range(0, 40*per-1).Draw(rt, "at")
			n := rapid.Int64Range(1, min(40*per-at, 3*per)).Draw(rt, "length")
			r.store.dig(at*512, n*512, true)
			clear(r.store.data[at*512 : (at+n)*512])
		}
		lba := rapid.Uint64Range(0, 39).Draw(rt, "lba")
		allocation := rapid.SampledFrom([]uint32{0, 8, 24, 40, 41, 2000}).Draw(rt, "allocation")
		res := r.do(cdb.GetLBAStatus(lba, allocation), nil, 4096)
		want(t, "GET LBA STATUS", res, 0, 0)
		var expect []cdb.LBAStatus
		for b := lba; b < 40; b++ {
			state := uint8(1)
			for i := range per {
				if !r.store.holes[(int64(b)*per+i)*512] {
					state = 0
				}
			}
			if n := len(expect); n > 0 && expect[n-1].State == state {
				expect[n-1].Blocks++
			} else {
				expect = append(expect, cdb.LBAStatus{LBARange: cdb.LBARange{LBA: b, Blocks: 1}, State: state})
			}
			if state == 1 && bytes.Count(r.store.data[b*uint64(size):(b+1)*uint64(size)], []byte{0}) != int(size) {
				rt.Fatalf("block %d does not read as zeros", b)
			}
		}
		room := (int(allocation) - 8) / 16
		if room <= 0 {
			if len(res.DataIn) > int(allocation) {
				rt.Fatalf("%d bytes with an allocation length of %d", len(res.DataIn), allocation)
			}
			return
		}
		got, err := cdb.ParseLBAStatus(res.DataIn)
		if expect = expect[:min(room, len(expect))]; err != nil || !reflect.DeepEqual(got, expect) {
			rt.Fatalf("from %d:\n got %v (%v)\nwant %v", lba, got, err, expect)
		}
	})
	r := newRig(t, 64, 512)
	r.store.failMap = func() error { return errStore }
	want(t, "a Store that fails", r.do(cdb.GetLBAStatus(0, 24), nil, 24), cdb.KeyMediumError, cdb.ASCUnrecoveredReadError)
}

// TestUnmapIsToldByStatus: whatever unmaps is seen, and a write maps again.
func TestUnmapIsToldByStatus(t *testing.T) {
	unmap, list := unmapOf(t, cdb.LBARange{LBA: 4, Blocks: 2})
	for name, c := range map[string]struct {
		cdb cdb.CDB
		out []byte
	}{
		"UNMAP":                 {unmap, list},
		"WRITE SAME (16), NDOB": {cdb.WriteSame16(4, 2, true, true), nil},
		"WRITE SAME (10)":       {cdb.Block{Op: cdb.OpWriteSame10, LBA: 4, Blocks: 2, Unmap: true}.Encode(), make([]byte, 512)},
	} {
		r := newRig(t, 64, 512)
		states := func() string {
			runs, err := cdb.ParseLBAStatus(r.do(cdb.GetLBAStatus(0, 512), nil, 512).DataIn)
			if err != nil {
				t.Fatal(err)
			}
			said := ""
			for _, run := range runs {
				said += fmt.Sprintf("%d+%d:%d ", run.LBA, run.Blocks, run.State)
			}
			return said
		}
		want(t, name, r.do(c.cdb, c.out, 0), 0, 0)
		if got := states(); got != "0+4:0 4+2:1 6+58:0 " {
			t.Errorf("after %s: %s", name, got)
		}
		want(t, "write", r.do(cdb.Write16(4, 1, false), make([]byte, 512), 0), 0, 0)
		if got := states(); got != "0+5:0 5+1:1 6+58:0 " {
			t.Errorf("after %s and a write: %s", name, got)
		}
	}
}
