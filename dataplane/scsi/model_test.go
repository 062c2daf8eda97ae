package scsi

import (
	"bytes"
	"context"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// modelBlocks is the size of the model's volume.
const modelBlocks = 40

// model is a logical unit and an array that shall hold the same.
type model struct {
	*rig
	rt   *rapid.T
	size int
	want []byte
}

// TestModel runs random commands and compares all that is read, and in the end the
// whole volume, with an array that does the same.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.SampledFrom([]int{512, 4096}).Draw(rt, "block size")
		m := &model{rig: newRig(t, modelBlocks, uint32(size)), rt: rt, size: size, want: make([]byte, modelBlocks*size)}
		rt.Repeat(map[string]func(*rapid.T){
			"read": m.read, "write": m.write, "orwrite": m.orWrite, "write same": m.writeSame,
			"unmap": m.unmap, "compare and write": m.compareAndWrite, "verify": m.verify,
		})
		if !bytes.Equal(m.store.data, m.want) {
			rt.Fatal("the volume differs from the model")
		}
	})
}

// span draws a range and gives the model's bytes of it.
func (m *model) span() (b cdb.Block, held []byte) {
	lba := rapid.IntRange(0, modelBlocks-1).Draw(m.rt, "lba")
	n := rapid.IntRange(1, modelBlocks-lba).Draw(m.rt, "blocks")
	return cdb.Block{LBA: uint64(lba), Blocks: uint32(n)}, m.want[lba*m.size : (lba+n)*m.size]
}

func (m *model) data(n int) []byte {
	seed := rapid.Byte().Draw(m.rt, "seed")
	b := make([]byte, n)
	for i := range b {
		b[i] = seed * byte(1+i/7)
	}
	return b
}

func (m *model) run(c cdb.CDB, out []byte, limit int, status byte) []byte {
	var res Result
	if m.store.cold = !rapid.Bool().Draw(m.rt, "now"); m.store.cold {
		res = m.do(c, out, limit)
	} else {
		res = m.doNow(c, out, limit)
	}
	if res.Status != status {
		m.rt.Fatalf("% x: %s, want %s", c, describe(res), cdb.StatusName(status))
	}
	return res.DataIn
}

func (m *model) read(*rapid.T) {
	b, held := m.span()
	b.Op = rapid.SampledFrom([]byte{cdb.OpRead6, cdb.OpRead10, cdb.OpRead12, cdb.OpRead16}).Draw(m.rt, "op")
	if !bytes.Equal(m.run(b.Encode(), nil, len(held), cdb.StatusGood), held) {
		m.rt.Fatalf("%+v: other data than were written", b)
	}
}

func (m *model) write(*rapid.T) {
	b, held := m.span()
	b.Op = rapid.SampledFrom([]byte{cdb.OpWrite6, cdb.OpWrite10, cdb.OpWrite12, cdb.OpWrite16, cdb.OpWriteAndVerify16}).Draw(m.rt, "op")
	d := m.data(len(held))
	m.run(b.Encode(), d, 0, cdb.StatusGood)
	copy(held, d)
}

func (m *model) orWrite(*rapid.T) {
	b, held := m.span()
	b.Op = cdb.OpOrWrite16
	d := m.data(len(held))
	m.run(b.Encode(), d, 0, cdb.StatusGood)
	for i, v := range d {
		held[i] |= v
	}
}

func (m *model) writeSame(*rapid.T) {
	b, held := m.span()
	b.Op, b.NDOB, b.Unmap = cdb.OpWriteSame16, rapid.Bool().Draw(m.rt, "ndob"), rapid.Bool().Draw(m.rt, "unmap")
	if b.NDOB {
		m.run(b.Encode(), nil, 0, cdb.StatusGood)
		clear(held)
		return
	}
	d := m.data(m.size)
	m.run(b.Encode(), d, 0, cdb.StatusGood)
	copy(held, bytes.Repeat(d, int(b.Blocks)))
}

func (m *model) unmap(*rapid.T) {
	one, held := m.span()
	two, also := m.span()
	c, list := unmapOf(m.rt, cdb.LBARange{LBA: one.LBA, Blocks: one.Blocks}, cdb.LBARange{LBA: two.LBA, Blocks: two.Blocks})
	m.run(c, list, 0, cdb.StatusGood)
	clear(held)
	clear(also)
}

func (m *model) compareAndWrite(*rapid.T) {
	b, held := m.span()
	b.Op = cdb.OpCompareAndWrite
	old, next := bytes.Clone(held), m.data(len(held))
	if rapid.Bool().Draw(m.rt, "miscompare") {
		old[rapid.IntRange(0, len(old)-1).Draw(m.rt, "at")] ^= 0x40
		m.run(b.Encode(), append(old, next...), 0, cdb.StatusCheckCondition)
		return
	}
	m.run(b.Encode(), append(old, next...), 0, cdb.StatusGood)
	copy(held, next)
}

func (m *model) verify(*rapid.T) {
	b, held := m.span()
	b.Op, b.ByteCheck = cdb.OpVerify16, 1
	d := bytes.Clone(held)
	m.run(b.Encode(), d, 0, cdb.StatusGood)
	d[0] ^= 1
	m.run(b.Encode(), d, 0, cdb.StatusCheckCondition)
}

// FuzzExecute throws arbitrary CDBs and data at a logical unit: nothing may panic (which
// would be logged), no answer may be longer than its limits, and only commands that
// write may change a byte.
func FuzzExecute(f *testing.F) {
	for _, c := range blockCases {
		command := c.b.Encode()
		f.Add(command[:], make([]byte, 512*c.out), 512, uint64(0))
	}
	for _, c := range []cdb.CDB{cdb.InquiryVPD(0x83, 255), cdb.ModeSense6(0x3f, 0, false, 255), cdb.ReportLUNs(64), cdb.RequestSense(18),
		cdb.ReportSupportedOpcode(0, 0, 0, true, 4096), {0: cdb.OpModeSelect6, 1: 0x10, 4: 24}, cdb.ReadCapacity16(32), {0xff}} {
		f.Add(c[:], []byte{0, 0, 0x10, 8, 0, 0, 0, 64, 0, 0, 2, 0}, 255, uint64(0))
	}
	command, list := unmapOf(f, cdb.LBARange{LBA: 1, Blocks: 2})
	f.Add(command[:], list, 0, uint64(1)<<48)
	f.Add(command[:], list, 0, uint64(0))
	for _, out := range [][]byte{{0, 0, 0, 8, 0, 0, 0, 64, 0, 0, 2, 0}, {0, 0, 0, 0, 0x8a, 10, 2, 0x10, 0, 0, 0, 0, 255, 255, 0, 0}, {0, 0, 0, 255}} {
		f.Add([]byte{cdb.OpModeSelect6, 0x10, 0, 0, byte(len(out)), 0}, out, 0, uint64(0))
		f.Add([]byte{cdb.OpModeSelect10, 0x10, 0, 0, 0, 0, 0, 0, byte(len(out)), 0}, append(make([]byte, 4), out...), 0, uint64(0))
	}
	for action := range byte(8) {
		c := prOut(action, cdb.PRExclusiveAccess, cdb.PROutListLength)
		f.Add(c[:], cdb.PROutList{Key: 1, ActionKey: 2}.Encode(), 0, uint64(0))
	}
	copyList := cdb.CopyList{Segments: []cdb.CopySegment{{Source: cdb.CopyThisUnit, Destination: cdb.CopyThisUnit, Blocks: 3, DestinationLBA: 61}}}
	out := copyList.Encode()
	copies := cdb.ExtendedCopy(uint32(len(out)))
	f.Add(copies[:], out, 0, uint64(0))
	for action := range byte(5) {
		c := cdb.ReceiveCopyResults(action, 0, 255)
		f.Add(c[:], []byte{}, 255, uint64(0))
	}
	same := cdb.WriteSame16(0, 64, true, true)
	f.Add(same[:], []byte{}, 0, uint64(0))
	compare := cdb.CompareAndWrite(63, 255, true)
	f.Add(compare[:], make([]byte, 1024), 0, uint64(0))
	f.Fuzz(func(t *testing.T, c, out []byte, limit int, lun uint64) {
		r := newRig(t, 64, 512)
		res := r.lu.Execute(context.Background(), &Task{Nexus: r.nexus, LUN: lun, CDB: c, DataOut: out, DataInLimit: limit})
		if r.log.Len() != 0 {
			t.Fatalf("defect: %s", r.log)
		}
		if len(res.DataIn) > max(0, limit) || len(res.DataIn) > res.DataInTotal || res.DataInTotal > MaxTransferBytes {
			t.Fatalf("%d bytes of %d with a limit of %d", len(res.DataIn), res.DataInTotal, limit)
		}
		if (res.Status == cdb.StatusCheckCondition) != (len(res.Sense) == cdb.FixedSenseLength) {
			t.Fatalf("%s with %d bytes of sense", cdb.StatusName(res.Status), len(res.Sense))
		}
		if len(out) == 0 && bytes.ContainsFunc(r.store.data, func(b rune) bool { return b != 0 }) {
			t.Fatal("the volume changed without data out")
		}
		res.Release()
	})
}

// BenchmarkExecute measures the device server alone, above memory.
func BenchmarkExecute(b *testing.B) {
	for _, c := range []struct {
		name  string
		cdb   cdb.CDB
		bytes int
		write bool
	}{
		{"read4k", cdb.Read16(8, 8, false), 4096, false},
		{"write4k", cdb.Write16(8, 8, false), 4096, true},
		{"read1m", cdb.Read16(8, 2048, false), 1 << 20, false},
		{"write1m", cdb.Write16(8, 2048, false), 1 << 20, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, 1<<14, 512)
			t := &Task{Nexus: r.nexus, CDB: c.cdb[:], DataInLimit: c.bytes}
			if c.write {
				t.DataInLimit, t.DataOut = 0, make([]byte, c.bytes)
			}
			ctx := context.Background()
			b.SetBytes(int64(c.bytes))
			b.ReportAllocs()
			for b.Loop() {
				res := r.lu.Execute(ctx, t)
				if res.Status != cdb.StatusGood {
					b.Fatal(describe(res))
				}
				res.Release()
			}
		})
	}
}
