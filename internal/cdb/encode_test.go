package cdb

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestGoldenCDBs fixes the bytes of every builder, from the tables of SPC-4 and SBC-3.
func TestGoldenCDBs(t *testing.T) {
	for _, c := range []struct {
		name string
		got  CDB
		want string
	}{
		{"test unit ready", TestUnitReady(), "00 00 00 00 00 00"},
		{"request sense", RequestSense(252), "03 00 00 00 fc 00"},
		{"inquiry", Inquiry(0x1234), "12 00 00 12 34 00"},
		{"inquiry vpd", InquiryVPD(0x83, 255), "12 01 83 00 ff 00"},
		{"report luns", ReportLUNs(0x01020304), "a0 00 00 00 00 00 01 02 03 04 00 00"},
		{"read capacity 10", ReadCapacity10(), "25 00 00 00 00 00 00 00 00 00"},
		{"read capacity 16", ReadCapacity16(32), "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00"},
		{"get lba status", GetLBAStatus(0x0102, 24), "9e 12 00 00 00 00 00 00 01 02 00 00 00 18 00 00"},
		{"read 16", Read16(0x0102030405060708, 0x0a0b0c0d, true), "88 08 01 02 03 04 05 06 07 08 0a 0b 0c 0d 00 00"},
		{"write 16", Write16(7, 8, false), "8a 00 00 00 00 00 00 00 00 07 00 00 00 08 00 00"},
		{"read 6", Block{Op: OpRead6, LBA: 0x1f0203, Blocks: 256}.Encode(), "08 1f 02 03 00 00"},
		{"write 10", Block{Op: OpWrite10, LBA: 0x01020304, Blocks: 0x0506, FUA: true, DPO: true, Group: 9}.Encode(), "2a 18 01 02 03 04 09 05 06 00"},
		{"read 12", Block{Op: OpRead12, LBA: 0x01020304, Blocks: 0x05060708, Protect: 1}.Encode(), "a8 20 01 02 03 04 05 06 07 08 00 00"},
		{"verify 16", Block{Op: OpVerify16, LBA: 1, Blocks: 2, ByteCheck: 3}.Encode(), "8f 06 00 00 00 00 00 00 00 01 00 00 00 02 00 00"},
		{"sync cache 16", SynchronizeCache16(0, 0), "91 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"},
		{"sync cache 10", SynchronizeCache10(1, 2), "35 00 00 00 00 01 00 00 02 00"},
		{"write same 16", WriteSame16(1, 2, true, true), "93 09 00 00 00 00 00 00 00 01 00 00 00 02 00 00"},
		{"compare and write", CompareAndWrite(1, 2, true), "89 08 00 00 00 00 00 00 00 01 00 00 00 02 00 00"},
		{"write atomic", Block{Op: OpWriteAtomic16, LBA: 1, Blocks: 0x0203}.Encode(), "9c 00 00 00 00 00 00 00 00 01 00 00 02 03 00 00"},
		{"write atomic, boundary", Block{Op: OpWriteAtomic16, LBA: 1, Blocks: 1, Boundary: 0x0405, FUA: true}.Encode(), "9c 08 00 00 00 00 00 00 00 01 04 05 00 01 00 00"},
		{"unmap", Unmap(24), "42 00 00 00 00 00 00 00 18 00"},
		{"mode sense 6", ModeSense6(0x08, 0, true, 255), "1a 08 08 00 ff 00"},
		{"mode sense 10", ModeSense10(0x3f, 0xff, false, 512), "5a 00 3f ff 00 00 00 02 00 00"},
		{"rtpg", ReportTargetPortGroups(512), "a3 0a 00 00 00 00 00 00 02 00 00 00"},
		{"report opcodes", ReportSupportedOpcode(2, 0x9e, 0x10, true, 64), "a3 0c 82 9e 00 10 00 00 00 40 00 00"},
		{"start stop", StartStopUnit(true, false, true), "1b 01 00 00 01 00"},
		{"reserve 6", Reserve6(), "16 00 00 00 00 00"},
		{"release 6", Release6(), "17 00 00 00 00 00"},
		{"pr in", PersistentReserveIn(PRInReadKeys, 8192), "5e 00 00 00 00 00 00 20 00 00"},
		{"pr out", PersistentReserveOut(PROutReserve, PRWriteExclusiveRegistrantsOnly, 24), "5f 01 05 00 00 00 00 00 18 00"},
	} {
		want := mustHex(t, c.want)
		if got := c.got.Bytes(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: % x, want % x", c.name, got, want)
		}
	}
}

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// blockOps are all block commands with the widths of their LBA and length fields.
var blockOps = []struct {
	op             byte
	lba, blocks    uint64
	fua, same, bch bool
}{
	{op: OpRead6, lba: 1<<21 - 1, blocks: 256}, {op: OpWrite6, lba: 1<<21 - 1, blocks: 256},
	{op: OpRead10, lba: 1<<32 - 1, blocks: 1<<16 - 1, fua: true}, {op: OpWrite10, lba: 1<<32 - 1, blocks: 1<<16 - 1, fua: true},
	{op: OpVerify10, lba: 1<<32 - 1, blocks: 1<<16 - 1, bch: true}, {op: OpWriteSame10, lba: 1<<32 - 1, blocks: 1<<16 - 1, same: true},
	{op: OpRead12, lba: 1<<32 - 1, blocks: 1<<32 - 1, fua: true}, {op: OpWriteAndVerify12, lba: 1<<32 - 1, blocks: 1<<32 - 1, bch: true},
	{op: OpRead16, lba: 1<<64 - 1, blocks: 1<<32 - 1, fua: true}, {op: OpWrite16, lba: 1<<64 - 1, blocks: 1<<32 - 1, fua: true},
	{op: OpCompareAndWrite, lba: 1<<64 - 1, blocks: 255, fua: true}, {op: OpWriteAtomic16, lba: 1<<64 - 1, blocks: 1<<16 - 1, fua: true},
	{op: OpWriteSame16, lba: 1<<64 - 1, blocks: 1<<32 - 1, same: true}, {op: OpVerify16, lba: 1<<64 - 1, blocks: 1<<32 - 1, bch: true},
	{op: OpSynchronizeCache10, lba: 1<<32 - 1, blocks: 1<<16 - 1}, {op: OpSynchronizeCache16, lba: 1<<64 - 1, blocks: 1<<32 - 1},
	{op: OpPreFetch10, lba: 1<<32 - 1, blocks: 1<<16 - 1}, {op: OpOrWrite16, lba: 1<<64 - 1, blocks: 1<<32 - 1, fua: true},
}

func TestBlockRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := rapid.SampledFrom(blockOps).Draw(t, "op")
		b := Block{Op: o.op, LBA: rapid.Uint64Range(0, o.lba).Draw(t, "lba"), Blocks: uint32(rapid.Uint64Range(0, o.blocks).Draw(t, "blocks"))}
		six := Length(o.op) == 6
		if six && b.Blocks == 0 {
			b.Blocks = 256
		}
		if !six {
			b.Group = uint8(rapid.Uint8Range(0, 31).Draw(t, "group"))
		}
		yes := rapid.Bool()
		switch {
		case o.fua:
			b.DPO, b.FUA, b.Protect = yes.Draw(t, "dpo"), yes.Draw(t, "fua"), uint8(rapid.Uint8Range(0, 7).Draw(t, "protect"))
		case o.bch:
			b.DPO, b.ByteCheck = yes.Draw(t, "dpo"), uint8(rapid.Uint8Range(0, 3).Draw(t, "bytchk"))
		case o.same:
			b.Unmap, b.Anchor, b.NDOB = yes.Draw(t, "unmap"), yes.Draw(t, "anchor"), o.op == OpWriteSame16 && yes.Draw(t, "ndob")
		case !six:
			b.Immed = yes.Draw(t, "immed")
		}
		c := b.Encode()
		got, err := DecodeBlock(c.Bytes())
		if err != nil || got != b {
			t.Fatalf("%+v became % x became %+v, %v", b, c, got, err)
		}
	})
}

func TestDecodeBlockRefuses(t *testing.T) {
	var field *FieldError
	if _, err := DecodeBlock(make([]byte, 16)); !errors.As(err, &field) || field.Byte != 0 {
		t.Errorf("TEST UNIT READY as block command: %v, want a FieldError at byte 0", err)
	}
	var short *LengthError
	for _, c := range [][]byte{nil, {OpRead6}, {OpRead10, 0, 0, 0, 0, 0, 0, 0, 0}, make16(OpRead16)[:15], make16(OpRead12)[:11]} {
		if _, err := DecodeBlock(c); !errors.As(err, &short) {
			t.Errorf("CDB % x: %v, want a LengthError", c, err)
		}
	}
}

func make16(op byte) []byte { c := CDB{op}; return c[:] }

func TestDecodersReadWhatBuildersWrite(t *testing.T) {
	inq := InquiryVPD(0xb0, 300)
	if q, err := DecodeInquiry(inq[:]); err != nil || q != (InquiryRequest{EVPD: true, Page: 0xb0, Allocation: 300}) {
		t.Errorf("inquiry: %+v, %v", q, err)
	}
	bad := CDB{0: OpInquiry, 2: 1}
	if _, err := DecodeInquiry(bad[:]); err == nil {
		t.Error("a page code without EVPD was accepted")
	}
	ms := ModeSense10(0x0a, 1, true, 700)
	if q, err := DecodeMode(ms[:]); err != nil || q != (ModeRequest{Long: true, NoBlockDescriptors: true, Page: 0x0a, Subpage: 1, Length: 700}) {
		t.Errorf("mode sense: %+v, %v", q, err)
	}
	sel := CDB{0: OpModeSelect6, 1: 0x11, 4: 24}
	if q, err := DecodeMode(sel[:]); err != nil || q != (ModeRequest{PageFormat: true, Save: true, Length: 24}) {
		t.Errorf("mode select: %+v, %v", q, err)
	}
	rl := ReportLUNs(16)
	if q, err := DecodeReportLUNs(rl[:]); err != nil || q.Allocation != 16 {
		t.Errorf("report luns: %+v, %v", q, err)
	}
	rl = ReportLUNs(15)
	if _, err := DecodeReportLUNs(rl[:]); err == nil {
		t.Error("an allocation length of 15 was accepted by REPORT LUNS")
	}
	ro := ReportSupportedOpcode(3, 0x9e, 0x10, true, 64)
	if q, err := DecodeReportOpcodes(ro[:]); err != nil || q != (ReportOpcodesRequest{Options: 3, Timeouts: true, Op: 0x9e, ServiceAction: 0x10, Allocation: 64}) {
		t.Errorf("report opcodes: %+v, %v", q, err)
	}
	ss := CDB{0: OpStartStopUnit, 1: 1, 4: 0x37}
	if q, err := DecodeStartStop(ss[:]); err != nil || q != (StartStop{Immed: true, NoFlush: true, LoadEject: true, Start: true, PowerCondition: 3}) {
		t.Errorf("start stop: %+v, %v", q, err)
	}
	pr := PersistentReserveOut(PROutPreempt, PRExclusiveAccess, 24)
	if q, err := DecodePersistentReserve(pr[:]); err != nil || q != (PersistentReserve{Action: PROutPreempt, Type: PRExclusiveAccess, Length: 24}) {
		t.Errorf("persistent reserve out: %+v, %v", q, err)
	}
	list := PROutList{Key: 1 << 63, ActionKey: 2, SpecIPT: true, APTPL: true}
	if got, err := DecodePROutList(list.Encode()); err != nil || got != list {
		t.Errorf("persistent reserve out list: %+v, %v", got, err)
	}
	if got := Allocation(ro[:]); got != 64 {
		t.Errorf("allocation of a MAINTENANCE IN: %d, want 64", got)
	}
}
