package scsi

import (
	"bytes"
	"context"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

// unhex reads hexadecimal digits; quoted parts are ASCII, for legible goldens.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var out []byte
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			out = append(out, part...)
			continue
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

func zeros(n int) string { return strings.Repeat("00", n) }

func TestGoldenAnswers(t *testing.T) {
	naa := "6025342"
	for _, c := range []struct {
		name string
		size uint32
		cdb  cdb.CDB
		want string
	}{
		{"standard INQUIRY", 512, cdb.Inquiry(255),
			"00 00 06 12 45 08 00 02 'SANDBAR ' 'VOLUME          ' '0001'" + zeros(22) + "00a0 0460 04c0 0960" + zeros(8)},
		{"VPD 00", 512, cdb.InquiryVPD(0x00, 255), "00 00 0008 00 80 83 86 8f b0 b1 b2"},
		{"VPD 86", 512, cdb.InquiryVPD(0x86, 255), "00 86 003c 00 07 01" + zeros(57)},
		{"VPD 80", 512, cdb.InquiryVPD(0x80, 255), "00 80 0020 '5f0c2f5e7a9b4f0e9a530d1f8c1f6a01'"},
		{"VPD 83", 512, cdb.InquiryVPD(0x83, 1024), "00 83 00ec" +
			"01030010" + naa + testNAA +
			"02 01 00 2c 'SANDBAR 5f0c2f5e-7a9b-4f0e-9a53-0d1f8c1f6a01'" +
			"51 94 00 04 00000003" + "51 95 00 04 00000002" +
			"53 98 00 4c 'iqn.2026-11.io.sandbar:5f0c2f5e-7a9b-4f0e-9a53-0d1f8c1f6a01:unit1,t,0x0002' 0000" +
			"53 a8 00 44 'iqn.2026-11.io.sandbar:5f0c2f5e-7a9b-4f0e-9a53-0d1f8c1f6a01:unit1' 000000"},
		{"VPD B0, 512", 512, cdb.InquiryVPD(0xb0, 255), "00 b0 003c 01 ff 0008 00010000 00000800 00000000 00100000 00000100 00000008 80000000 0000000000010000 00000020" + zeros(16)},
		{"VPD B0, 4096", 4096, cdb.InquiryVPD(0xb0, 255), "00 b0 003c 01 ff 0001 00002000 00000100 00000000 00100000 00000100 00000001 80000000 0000000000002000 00000004" + zeros(16)},
		{"VPD B1", 512, cdb.InquiryVPD(0xb1, 255), "00 b1 003c 0001" + zeros(58)},
		{"VPD B2", 512, cdb.InquiryVPD(0xb2, 255), "00 b2 0004 00 e4 02 00"},
		{"READ CAPACITY (10)", 512, cdb.ReadCapacity10(), "0000003f 00000200"},
		{"READ CAPACITY (10), 4096", 4096, cdb.ReadCapacity10(), "0000003f 00001000"},
		{"READ CAPACITY (16)", 512, cdb.ReadCapacity16(32), "000000000000003f 00000200 00 00 c000" + zeros(16)},
		{"READ CAPACITY (16), 4096", 4096, cdb.ReadCapacity16(32), "000000000000003f 00001000 00 00 c000" + zeros(16)},
		{"MODE SENSE (6) all", 512, cdb.ModeSense6(0x3f, 0, false, 255), "37 00 10 08 00000040 00000200" + goldenPages},
		{"MODE SENSE (6) all, no descriptors", 512, cdb.ModeSense6(0x3f, 0, true, 255), "2f 00 10 00" + goldenPages},
		{"MODE SENSE (10) all and subpages, 4096", 4096, cdb.ModeSense10(0x3f, 0xff, false, 512), "003a 00 10 00 00 0008 00000040 00001000" + goldenPages},
		{"MODE SENSE (6) caching", 512, cdb.ModeSense6(0x08, 0, true, 255), "17 00 10 00 08 12 04" + zeros(17)},
		{"GET LBA STATUS", 512, cdb.GetLBAStatus(60, 512), "00000014 00000000 000000000000003c 00000004 00 000000"},
		{"REPORT LUNS", 512, cdb.ReportLUNs(4096), "00000008 00000000 0000000000000000"},
		{"REQUEST SENSE", 512, cdb.RequestSense(252), "70 00 00 00000000 0a" + zeros(10)},
		{"opcodes, READ (16)", 512, cdb.ReportSupportedOpcode(1, 0x88, 0, false, 512), "00 03 0010 88 f8 ffffffffffffffff ffffffff 1f 04"},
		{"opcodes, COMPARE AND WRITE", 512, cdb.ReportSupportedOpcode(1, 0x89, 0, false, 512), "00 03 0010 89 f8 ffffffffffffffff 000000ff 1f 04"},
		{"opcodes, WRITE ATOMIC (16)", 512, cdb.ReportSupportedOpcode(1, 0x9c, 0, false, 512), "00 03 0010 9c f8 ffffffffffffffff ffff ffff 1f 04"},
		{"opcodes, READ CAPACITY (16)", 512, cdb.ReportSupportedOpcode(2, 0x9e, 0x10, false, 512), "00 03 0010 9e 10 0000000000000000 ffffffff 00 04"},
		{"opcodes, PERSISTENT RESERVE OUT", 512, cdb.ReportSupportedOpcode(2, 0x5f, 1, false, 512), "00 03 000a 5f 01 ff 0000 ffffffff 04"},
		{"opcodes, EXTENDED COPY (LID4)", 512, cdb.ReportSupportedOpcode(3, 0x83, 1, false, 512), "00 01 0000"},
		{"opcodes, EXTENDED COPY (LID1)", 512, cdb.ReportSupportedOpcode(2, 0x83, 0, false, 512), "00 03 0010 83 00 0000000000000000 ffffffff 00 04"},
		{"OPERATING PARAMETERS", 512, cdb.ReceiveCopyResults(3, 0, 255), "0000002a 01 000000 0002 0010 00000400 01fffe00" + zeros(12) + "0000 0010 10 09 00 00 000000 02 02 e4"},
		{"VPD 8F", 4096, cdb.InquiryVPD(0x8f, 255), "00 8f 0060" + "0001 0008 07 83 01 00 84 02 00 03" +
			"0004 001c" + "00000000 0002 0010 00000400" + zeros(16) + "0008 0004 02 02 e4 00" + "000c 0004 0002 ffff" +
			"8001 0020 00000010 00000010 0ffff000 0c" + zeros(19)},
		{"task management functions", 512, cdb.CDB{0: cdb.OpMaintenanceIn, 1: 0x0d, 9: 4}, "da 000000"},
		{"task management functions, extended", 512, cdb.CDB{0: cdb.OpMaintenanceIn, 1: 0x0d, 2: 0x80, 9: 64}, "da 00000c" + zeros(12)},
		{"READ DEFECT DATA (10)", 512, cdb.CDB{0: cdb.OpReadDefectData10, 2: 0x1d, 8: 255}, "00 1d 0000"},
		{"READ DEFECT DATA (12)", 512, cdb.CDB{0: cdb.OpReadDefectData12, 1: 0x0b, 9: 255}, "00 0b 0000 00000000"},
		{"REPORT CAPABILITIES", 512, cdb.CDB{0: cdb.OpPersistentReserveIn, 1: 2, 8: 255}, "0008 04 80 ea01 0000"},
	} {
		r := newRig(t, 64, c.size)
		res := r.do(c.cdb, nil, 4096)
		want(t, c.name, res, 0, 0)
		if w := unhex(t, c.want); !bytes.Equal(res.DataIn, w) {
			t.Errorf("%s:\n got % x\nwant % x", c.name, res.DataIn, w)
		}
		if res.DataInTotal != len(res.DataIn) {
			t.Errorf("%s: DataInTotal is %d with %d bytes", c.name, res.DataInTotal, len(res.DataIn))
		}
	}
}

// testNAA is the tail of testVolume's NAA designator. It is on hosts' disks (multipath
// bindings, /dev/disk/by-id), so it may never change.
const testNAA = "5682ec36a2b09b8571680ced9"

const goldenPages = "08 12 04" + "0000000000000000000000000000000000" + "0a 0a 22 10 00 00 00 00 ffff 0000" + "1c 0a 08 000000000000000000"

// TestTrimming walks the allocation length and the expected data transfer length over
// an answer: what comes is always its beginning.
func TestTrimming(t *testing.T) {
	r := newRig(t, 64, 512)
	for name, c := range map[string]struct {
		build func(n int) cdb.CDB
		full  int
		from  int
	}{
		"INQUIRY":             {func(n int) cdb.CDB { return cdb.Inquiry(uint16(n)) }, 74, 0},
		"VPD 83":              {func(n int) cdb.CDB { return cdb.InquiryVPD(0x83, uint16(n)) }, 240, 0},
		"MODE SENSE (6)":      {func(n int) cdb.CDB { return cdb.ModeSense6(0x3f, 0, false, uint8(n)) }, 56, 0},
		"MODE SENSE (10)":     {func(n int) cdb.CDB { return cdb.ModeSense10(0x3f, 0, false, uint16(n)) }, 60, 0},
		"READ CAPACITY (16)":  {func(n int) cdb.CDB { return cdb.ReadCapacity16(uint32(n)) }, 32, 0},
		"REPORT LUNS":         {func(n int) cdb.CDB { return cdb.ReportLUNs(uint32(n)) }, 16, 16},
		"REQUEST SENSE":       {func(n int) cdb.CDB { return cdb.RequestSense(uint8(n)) }, 18, 0},
		"opcodes, one":        {func(n int) cdb.CDB { return cdb.ReportSupportedOpcode(1, 0x12, 0, false, uint32(n)) }, 10, 0},
		"opcodes, all":        {func(n int) cdb.CDB { return cdb.ReportSupportedOpcode(0, 0, 0, true, uint32(n)) }, 4 + 20*37, 0},
		"INQUIRY absent LUN":  {func(n int) cdb.CDB { return cdb.Inquiry(uint16(n)) }, 74, 0},
		"READ CAPACITY (10) ": {func(int) cdb.CDB { return cdb.ReadCapacity10() }, 8, 8},
	} {
		limit := 1 << 20
		whole := r.do(c.build(c.full), nil, limit)
		if len(whole.DataIn) != c.full {
			t.Errorf("%s: %d bytes, want %d", name, len(whole.DataIn), c.full)
			continue
		}
		for n := c.from; n <= min(c.full+3, 255); n++ {
			res := r.do(c.build(n), nil, limit)
			length := min(max(n, c.from), c.full)
			if res.Status != cdb.StatusGood || !bytes.Equal(res.DataIn, whole.DataIn[:length]) || res.DataInTotal != length {
				t.Fatalf("%s, allocation length %d: %s, %d bytes, total %d", name, n, describe(res), len(res.DataIn), res.DataInTotal)
			}
		}
		for _, edtl := range []int{-1, 0, 1, c.full - 1} {
			res := r.do(c.build(c.full), nil, edtl)
			if len(res.DataIn) != max(0, edtl) || res.DataInTotal != c.full {
				t.Errorf("%s, EDTL %d: %d bytes, total %d", name, edtl, len(res.DataIn), res.DataInTotal)
			}
		}
	}
}

// TestIdentityIsTheVolumes: every copy of a volume has the same NAA, another volume another.
func TestIdentityIsTheVolumes(t *testing.T) {
	r := newRig(t, 64, 512)
	cfg := r.lu.cfg
	cfg.TargetName, cfg.RelativePort, cfg.PortGroup, cfg.Store = san.TargetName("unit2", testVolume), 9, 8, newMemStore(1<<20)
	other, err := NewLU(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if other.NAA() != r.lu.NAA() {
		t.Error("two copies of a volume have two NAA designators")
	}
	cfg.ID = "5f0c2f5e-7a9b-4f0e-9a53-0d1f8c1f6a02"
	if other, err = NewLU(cfg); err != nil {
		t.Fatal(err)
	}
	if other.NAA() == r.lu.NAA() {
		t.Error("two volumes have one NAA designator")
	}
	if naa := r.lu.NAA(); naa[0]>>4 != 6 {
		t.Errorf("NAA type %d, want 6", naa[0]>>4)
	}
}

// TestCapacityFollowsTheStore: a volume that grew is told, and shows, its new size.
func TestCapacityFollowsTheStore(t *testing.T) {
	r := newRig(t, 64, 512)
	r.store.grow(128 * 512)
	r.lu.Grown()
	want(t, "after growing", r.do(cdb.TestUnitReady(), nil, 0), cdb.KeyUnitAttention, cdb.ASCCapacityChanged)
	res := r.do(cdb.ReadCapacity16(32), nil, 32)
	c, err := cdb.ParseCapacity16(res.DataIn)
	if err != nil || c.LastLBA != 127 {
		t.Errorf("READ CAPACITY (16): %+v, %v", c, err)
	}
	if res = r.do(cdb.ReadCapacity10(), nil, 8); !bytes.Equal(res.DataIn[:4], []byte{0, 0, 0, 127}) {
		t.Errorf("READ CAPACITY (10): % x", res.DataIn)
	}
	if res = r.do(cdb.ModeSense6(0x3f, 0, false, 12), nil, 12); !bytes.Equal(res.DataIn[4:8], []byte{0, 0, 0, 128}) {
		t.Errorf("MODE SENSE: % x", res.DataIn)
	}
	want(t, "read beyond the old end", r.do(cdb.Read16(127, 1, false), nil, 512), 0, 0)
}

// TestHugeCapacity: what 32 bits can't hold is FFFFFFFFh (SBC-3 §5.15.2).
func TestHugeCapacity(t *testing.T) {
	r := newRig(t, 64, 512)
	lu, err := NewLU(Config{ID: testVolume, BlockSizeBytes: 512, Store: sizedStore{Store: r.store, size: 4 << 40},
		TargetName: r.lu.cfg.TargetName, RelativePort: 1, PortGroup: 1, Logger: r.lu.cfg.Logger})
	if err != nil {
		t.Fatal(err)
	}
	r.lu = lu
	if res := r.do(cdb.ReadCapacity10(), nil, 8); !bytes.Equal(res.DataIn, unhex(t, "ffffffff 00000200")) {
		t.Errorf("READ CAPACITY (10): % x", res.DataIn)
	}
	if res := r.do(cdb.ReadCapacity16(12), nil, 12); !bytes.Equal(res.DataIn, unhex(t, "00000001ffffffff 00000200")) {
		t.Errorf("READ CAPACITY (16): % x", res.DataIn)
	}
	if res := r.do(cdb.GetLBAStatus(1, 24), nil, 24); !bytes.Equal(res.DataIn[8:20], unhex(t, "0000000000000001 ffffffff")) {
		t.Errorf("GET LBA STATUS: % x", res.DataIn)
	}
	if res := r.do(cdb.ModeSense6(0x3f, 0, false, 12), nil, 12); !bytes.Equal(res.DataIn[4:], unhex(t, "ffffffff 00000200")) {
		t.Errorf("MODE SENSE: % x", res.DataIn)
	}
}

// sizedStore claims a size that its memory has not.
type sizedStore struct {
	Store
	size int64
}

func (s sizedStore) SizeBytes() int64 { return s.size }

func (s sizedStore) Mapped(_ context.Context, _, length int64) (run int64, mapped bool, err error) {
	return length, true, nil
}
