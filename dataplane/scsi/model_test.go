package scsi

import (
	"bytes"
	"context"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// TestModel runs random commands and compares all that is read, and in the end the
// whole volume, with an array that does the same.
func TestModel(t *testing.T) {
	const n = 40
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.SampledFrom([]int{512, 4096}).Draw(rt, "block size")
		r := newRig(t, n, uint32(size))
		model := make([]byte, n*size)
		span := func() (lba, blocks int) {
			lba = rapid.IntRange(0, n-1).Draw(rt, "lba")
			return lba, rapid.IntRange(1, n-lba).Draw(rt, "blocks")
		}
		data := func(blocks int) []byte {
			seed := rapid.Byte().Draw(rt, "seed")
			b := make([]byte, blocks*size)
			for i := range b {
				b[i] = seed * byte(1+i/7)
			}
			return b
		}
		expect := func(what string, res Result, status byte) {
			if res.Status != status {
				rt.Fatalf("%s: %s, want %s", what, describe(res), cdb.StatusName(status))
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"read": func(*rapid.T) {
				lba, blocks := span()
				op := rapid.SampledFrom([]byte{cdb.OpRead6, cdb.OpRead10, cdb.OpRead12, cdb.OpRead16}).Draw(rt, "op")
				res := r.do(cdb.Block{Op: op, LBA: uint64(lba), Blocks: uint32(blocks)}.Encode(), nil, blocks*size)
				expect("read", res, cdb.StatusGood)
				if !bytes.Equal(res.DataIn, model[lba*size:(lba+blocks)*size]) {
					rt.Fatalf("%d blocks at LBA %d differ from what was written", blocks, lba)
				}
			},
			"write": func(*rapid.T) {
				lba, blocks := span()
				op := rapid.SampledFrom([]byte{cdb.OpWrite6, cdb.OpWrite10, cdb.OpWrite12, cdb.OpWrite16, cdb.OpWriteAndVerify16}).Draw(rt, "op")
				d := data(blocks)
				expect("write", r.do(cdb.Block{Op: op, LBA: uint64(lba), Blocks: uint32(blocks)}.Encode(), d, 0), cdb.StatusGood)
				copy(model[lba*size:], d)
			},
			"orwrite": func(*rapid.T) {
				lba, blocks := span()
				d := data(blocks)
				expect("orwrite", r.do(cdb.Block{Op: cdb.OpOrWrite16, LBA: uint64(lba), Blocks: uint32(blocks)}.Encode(), d, 0), cdb.StatusGood)
				for i, v := range d {
					model[lba*size+i] |= v
				}
			},
			"write same": func(*rapid.T) {
				lba, blocks := span()
				d, ndob := data(1), rapid.Bool().Draw(rt, "ndob")
				if ndob {
					d = nil
				}
				expect("write same", r.do(cdb.WriteSame16(uint64(lba), uint32(blocks), rapid.Bool().Draw(rt, "unmap"), ndob), d, 0), cdb.StatusGood)
				if ndob {
					d = make([]byte, size)
				}
				copy(model[lba*size:], bytes.Repeat(d, blocks))
			},
			"unmap": func(*rapid.T) {
				lba, blocks := span()
				lba2, blocks2 := span()
				c, list := unmapOf(t, cdb.LBARange{LBA: uint64(lba), Blocks: uint32(blocks)}, cdb.LBARange{LBA: uint64(lba2), Blocks: uint32(blocks2)})
				expect("unmap", r.do(c, list, 0), cdb.StatusGood)
				clear(model[lba*size : (lba+blocks)*size])
				clear(model[lba2*size : (lba2+blocks2)*size])
			},
			"compare and write": func(*rapid.T) {
				lba, blocks := span()
				old, next := bytes.Clone(model[lba*size:(lba+blocks)*size]), data(blocks)
				status := cdb.StatusGood
				if rapid.Bool().Draw(rt, "miscompare") {
					old[rapid.IntRange(0, len(old)-1).Draw(rt, "at")] ^= 0x40
					status = cdb.StatusCheckCondition
				} else {
					copy(model[lba*size:], next)
				}
				expect("compare and write", r.do(cdb.CompareAndWrite(uint64(lba), uint8(blocks), false), append(old, next...), 0), status)
			},
			"verify": func(*rapid.T) {
				lba, blocks := span()
				d := bytes.Clone(model[lba*size : (lba+blocks)*size])
				c := cdb.Block{Op: cdb.OpVerify16, LBA: uint64(lba), Blocks: uint32(blocks), ByteCheck: 1}.Encode()
				expect("verify", r.do(c, d, 0), cdb.StatusGood)
				d[0] ^= 1
				expect("verify of other data", r.do(c, d, 0), cdb.StatusCheckCondition)
			},
		})
		if !bytes.Equal(r.store.data, model) {
			rt.Fatal("the volume differs from the model")
		}
	})
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
