package cdb

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func TestSenseRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Sense{Key: SenseKey(rapid.Uint8Range(0, 15).Draw(t, "key")), ASC: ASC(rapid.Uint16().Draw(t, "asc")),
			Deferred: rapid.Bool().Draw(t, "deferred"), CommandSpecific: uint64(rapid.Uint32().Draw(t, "specific"))}
		if s.InformationValid = rapid.Bool().Draw(t, "valid"); s.InformationValid {
			s.Information = uint64(rapid.Uint32().Draw(t, "information"))
		}
		if rapid.Bool().Draw(t, "pointer") {
			s = s.FieldPointer(int(rapid.Uint16().Draw(t, "byte")), rapid.IntRange(-1, 7).Draw(t, "bit"), rapid.Bool().Draw(t, "data"))
		}
		for _, b := range [][]byte{s.Fixed(), s.Descriptor()} {
			got, err := ParseSense(b)
			if err != nil || got != s {
				t.Fatalf("%+v became % x became %+v, %v", s, b, got, err)
			}
		}
	})
}

func TestSenseGolden(t *testing.T) {
	s := Sense{Key: KeyIllegalRequest, ASC: ASCInvalidFieldInCDB}.FieldPointer(2, 5, false)
	if got, want := s.Fixed(), mustHex(t, "70 00 05 00 00 00 00 0a 00 00 00 00 24 00 00 cd 00 02"); !bytes.Equal(got, want) {
		t.Errorf("fixed: % x, want % x", got, want)
	}
	s = Sense{Key: KeyMediumError, ASC: ASCUnrecoveredReadError, Information: 1 << 40, InformationValid: true}
	if got, want := s.Descriptor(), mustHex(t, "72 03 11 00 00 00 00 0c 00 0a 80 00 00 00 01 00 00 00 00 00"); !bytes.Equal(got, want) {
		t.Errorf("descriptor: % x, want % x", got, want)
	}
	if b := s.Fixed(); b[0]&0x80 != 0 {
		t.Error("fixed sense claims an INFORMATION that does not fit it")
	}
	if got := (Sense{Key: KeyUnitAttention, ASC: ASCCapacityChanged}).String(); got != "UNIT ATTENTION: CAPACITY DATA HAS CHANGED (06/2A/09)" {
		t.Errorf("String: %s", got)
	}
}

func TestParseSenseHostile(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Sense
		bad      bool
	}{
		{name: "empty", in: "", bad: true},
		{name: "two bytes", in: "70 00", bad: true},
		{name: "unknown response code", in: "7f 00 05 00 00 00 00 00", bad: true},
		{name: "fixed, key only", in: "70 00 02", want: Sense{Key: KeyNotReady}},
		{name: "fixed, information cut off", in: "f0 00 03 00 00", want: Sense{Key: KeyMediumError}},
		{name: "descriptor cut off", in: "72 03 11 00 00 00 00 0c 00 0a 80 00 00", want: Sense{Key: KeyMediumError, ASC: ASCUnrecoveredReadError}},
		{name: "descriptor of length 0", in: "72 05 24 00 00 00 00 ff 00 00 00 00", want: Sense{Key: KeyIllegalRequest, ASC: ASCInvalidFieldInCDB}},
		{name: "unknown descriptor first", in: "72 03 11 00 00 00 00 10 80 02 aa bb 00 0a 80 00 00 00 00 00 00 00 00 07",
			want: Sense{Key: KeyMediumError, ASC: ASCUnrecoveredReadError, Information: 7, InformationValid: true}},
	} {
		got, err := ParseSense(mustHex(t, c.in))
		if (err != nil) != c.bad || got != c.want {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestUnmapList(t *testing.T) {
	ranges := []LBARange{{LBA: 1 << 40, Blocks: 8}, {LBA: 0, Blocks: 1<<32 - 1}}
	b, err := AppendUnmapList(nil, ranges)
	if err != nil || len(b) != UnmapHeaderLength+2*UnmapDescriptorLength || b[1] != byte(len(b)-2) {
		t.Fatalf("% x, %v", b, err)
	}
	got, err := ParseUnmapList(b, 2)
	if err != nil || !reflect.DeepEqual(got, ranges) {
		t.Errorf("came back as %v, %v", got, err)
	}
	var field *FieldError
	if _, err := ParseUnmapList(b, 1); !errors.As(err, &field) || !field.InData {
		t.Errorf("two descriptors with a limit of one: %v", err)
	}
	var short *LengthError
	for _, n := range []int{0, 7, len(b) - 1} {
		if _, err := ParseUnmapList(b[:n], 2); !errors.As(err, &short) {
			t.Errorf("list cut to %d bytes: %v, want a LengthError", n, err)
		}
	}
	if _, err := AppendUnmapList(nil, make([]LBARange, MaxUnmapDescriptors+1)); err == nil {
		t.Error("a list too long for the CDB was built")
	}
}

func TestCapacityRoundTrip(t *testing.T) {
	c := Capacity{LastLBA: 1 << 33, BlockSizeBytes: 512, PhysicalExponent: 3, LowestAligned: 7, Provisioned: true, ReadZeros: true}
	b := c.Encode16()
	if got, err := ParseCapacity16(b); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseCapacity16(b[:12]); err != nil || got != (Capacity{LastLBA: 1 << 33, BlockSizeBytes: 512}) {
		t.Errorf("short answer: %+v, %v", got, err)
	}
	if _, err := ParseCapacity16(b[:11]); err == nil {
		t.Error("11 bytes were accepted")
	}
	if got, err := ParseCapacity10(mustHex(t, "ff ff ff ff 00 00 10 00")); err != nil || got.LastLBA != 1<<32-1 || got.BlockSizeBytes != 4096 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestLUNs(t *testing.T) {
	b := AppendLUNs(nil, []uint64{EncodeLUN(0), EncodeLUN(255), EncodeLUN(300)})
	luns, total, err := ParseLUNs(b)
	if err != nil || total != 3 || len(luns) != 3 {
		t.Fatalf("%v, %d, %v", luns, total, err)
	}
	for i, want := range []uint16{0, 255, 300} {
		if got, ok := DecodeLUN(luns[i]); !ok || got != want {
			t.Errorf("LUN %d came back as %d, %v", want, got, ok)
		}
	}
	if luns, total, err = ParseLUNs(b[:16]); err != nil || total != 3 || len(luns) != 1 {
		t.Errorf("cut list: %v of %d, %v", luns, total, err)
	}
	for _, lun := range []uint64{0x0001000100000000, 0x8001000000000000, 0xc101000000000000, 0x0100000000000000} {
		if n, ok := DecodeLUN(lun); ok {
			t.Errorf("LUN %016x was taken for %d", lun, n)
		}
	}
}

func TestVPDCodecs(t *testing.T) {
	limits := BlockLimits{WriteSameNonZero: true, MaxCompareAndWrite: 255, OptimalGranularity: 8, MaxTransfer: 65536, OptimalTransfer: 2048,
		MaxUnmap: 1 << 20, MaxUnmapDescriptors: 256, UnmapGranularity: 8, UnmapAlignment: 3, UnmapAlignmentValid: true, MaxWriteSame: 1 << 40}
	page := VPDPage(0, VPDBlockLimits, limits.Encode())
	body, err := ParseVPD(page, VPDBlockLimits)
	if err != nil || len(body) != 0x3c || ParseBlockLimits(body) != limits {
		t.Errorf("block limits: %+v, %v", ParseBlockLimits(body), err)
	}
	if got := ParseBlockLimits(body[:12]); got.MaxTransfer != 65536 || got.MaxUnmap != 0 {
		t.Errorf("page of SBC-2 length: %+v", got)
	}
	if _, err := ParseVPD(page, VPDProvisioning); err == nil {
		t.Error("another page than the one asked for was accepted")
	}
	if _, err := ParseVPD(page[:3], VPDBlockLimits); err == nil {
		t.Error("a page of 3 bytes was accepted")
	}
	prov := Provisioning{Unmap: true, WriteSame10: true, ReadZeros: true, Type: 2}
	if got, err := ParseProvisioning(prov.Encode()); err != nil || got != prov {
		t.Errorf("provisioning: %+v, %v", got, err)
	}
	want := []Designator{{CodeSet: CodeSetBinary, Type: DesignatorNAA, Value: []byte{0x60, 1}},
		{CodeSet: CodeSetUTF8, Association: AssociationTargetPort, Type: DesignatorSCSIName, Value: []byte("iqn\x00")}}
	var b []byte
	for _, d := range want {
		b = AppendDesignator(b, d)
	}
	if got := ParseDesignators(b); !reflect.DeepEqual(got, want) {
		t.Errorf("designators: %+v", got)
	}
	if got := ParseDesignators(b[:len(b)-1]); len(got) != 1 {
		t.Errorf("cut off: %d designators, want 1", len(got))
	}
}

func TestStandardInquiry(t *testing.T) {
	b := append(mustHex(t, "7f 80 06 12 1f 10 00 02"), []byte("SANDBAR VOLUME          0001")...)
	got, err := ParseStandardInquiry(b)
	want := StandardInquiry{Qualifier: 3, DeviceType: 0x1f, Removable: true, Version: 6, TPGS: 1, Vendor: "SANDBAR", Product: "VOLUME", Revision: "0001"}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ParseStandardInquiry(b[:35]); err == nil {
		t.Error("35 bytes were accepted")
	}
}

func TestParseMode(t *testing.T) {
	six := mustHex(t, "17 00 10 08 00 00 10 00 00 00 02 00 08 03 04 00 00 4a 01 00 01 77")
	m, err := ParseMode(six, false)
	if err != nil || m.DeviceSpecific != ModeDPOFUA || len(m.BlockDescriptor) != 8 || len(m.Pages) != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	if p := m.Pages[0]; p.Page != PageCaching || p.Subpage != 0 || p.Offset != 12 || !bytes.Equal(p.Data, []byte{4, 0, 0}) {
		t.Errorf("page: %+v", p)
	}
	if p := m.Pages[1]; p.Page != PageControl || p.Subpage != 1 || !bytes.Equal(p.Data, []byte{0x77}) {
		t.Errorf("subpage: %+v", p)
	}
	for n := range six {
		if n == 12 || n == 17 {
			continue // whole headers and pages
		}
		if _, err := ParseMode(six[:n], false); err == nil {
			t.Errorf("data cut to %d bytes were accepted", n)
		}
	}
	ten := mustHex(t, "00 0a 00 80 00 00 00 00 08 02 04 00")
	if m, err := ParseMode(ten, true); err != nil || m.DeviceSpecific != ModeWriteProtected || len(m.Pages) != 1 {
		t.Errorf("10-byte header: %+v, %v", m, err)
	}
}

func TestReportCodecs(t *testing.T) {
	runs := []LBAStatus{{LBARange{LBA: 1 << 40, Blocks: 9}, 1}, {LBARange{LBA: 1<<40 + 9, Blocks: 1}, 0}}
	b := AppendLBAStatus(nil, runs)
	if got, err := ParseLBAStatus(b); err != nil || !reflect.DeepEqual(got, runs) {
		t.Errorf("LBA status: %v, %v", got, err)
	}
	if got, err := ParseLBAStatus(b[:24]); err != nil || len(got) != 1 {
		t.Errorf("cut LBA status: %v, %v", got, err)
	}
	groups := []TargetPortGroup{{Preferred: true, State: ALUAActiveOptimized, Supported: 0x0b, Group: 1, Ports: []uint16{1, 2}}, {State: ALUAStandby, Group: 2, Ports: []uint16{3}}}
	b = AppendTargetPortGroups(nil, groups)
	if got, err := ParseTargetPortGroups(b); err != nil || !reflect.DeepEqual(got, groups) {
		t.Errorf("target port groups: %+v, %v", got, err)
	}
	if got, err := ParseTargetPortGroups(b[:len(b)-1]); err != nil || len(got) != 1 {
		t.Errorf("cut target port groups: %+v, %v", got, err)
	}
	one := AppendOneCommand(nil, []byte{0x12, 1, 0xff, 0xff, 0xff, 4}, false)
	if want := mustHex(t, "00 03 00 06 12 01 ff ff ff 04"); !bytes.Equal(one, want) {
		t.Errorf("one command: % x, want % x", one, want)
	}
	if none := AppendOneCommand(nil, nil, true); !bytes.Equal(none, []byte{0, 1, 0, 0}) {
		t.Errorf("no such command: % x", none)
	}
	all := AppendAllCommands(nil, []CommandDescriptor{{Op: 0x9e, HasServiceAction: true, ServiceAction: 0x10, Length: 16}}, true)
	if want := mustHex(t, "00 00 00 14 9e 00 00 10 00 03 00 10 00 0a 00 00 00 00 00 00 00 00 00 00"); !bytes.Equal(all, want) {
		t.Errorf("all commands: % x, want % x", all, want)
	}
}
