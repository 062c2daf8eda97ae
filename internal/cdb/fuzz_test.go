package cdb

import (
	"bytes"
	"reflect"
	"testing"
)

// FuzzCDB runs every CDB decoder over arbitrary bytes: none may panic, and what
// DecodeBlock accepts encodes to a CDB that means the same.
func FuzzCDB(f *testing.F) {
	for _, o := range blockOps {
		c := Block{Op: o.op, LBA: o.lba, Blocks: uint32(o.blocks), FUA: o.fua, Unmap: o.same}.Encode()
		f.Add(c.Bytes())
	}
	for _, c := range []CDB{InquiryVPD(0x83, 255), ModeSense10(0x3f, 0xff, true, 512), ReportLUNs(16), Unmap(24),
		ReportSupportedOpcode(1, 0x88, 0, true, 512), PersistentReserveOut(1, 3, 24), PersistentReserveOut(7, 0, 1<<32-1), PersistentReserveIn(3, 0xffff), StartStopUnit(true, true, true), {0x7f}, {0xff}} {
		f.Add(c[:])
	}
	f.Fuzz(func(t *testing.T, c []byte) {
		if b, err := DecodeBlock(c); err == nil {
			again := b.Encode()
			if got, err := DecodeBlock(again[:]); err != nil || got != b {
				t.Fatalf("% x means %+v, but encodes to % x, which means %+v, %v", c, b, again, got, err)
			}
		}
		for _, decode := range []func([]byte) error{
			func(c []byte) error { _, err := DecodeInquiry(c); return err },
			func(c []byte) error { _, err := DecodeMode(c); return err },
			func(c []byte) error { _, err := DecodeReportLUNs(c); return err },
			func(c []byte) error { _, err := DecodeReportOpcodes(c); return err },
			func(c []byte) error { _, err := DecodeUnmap(c); return err },
			func(c []byte) error { _, err := DecodePersistentReserve(c); return err },
			func(c []byte) error { _, err := DecodeStartStop(c); return err },
		} {
			if err := decode(c); err == nil && len(c) < 6 {
				t.Fatalf("% x was decoded, but no CDB is that short", c)
			}
		}
		if Allocation(c) < 0 {
			t.Fatalf("negative allocation length in % x", c)
		}
	})
}

// FuzzParameterData runs every parser of parameter data and of sense over arbitrary
// bytes: none may panic, hang, or return more than its bound.
func FuzzParameterData(f *testing.F) {
	f.Add(Sense{Key: KeyMiscompare, ASC: ASCMiscompareDuringVerify, Information: 5, InformationValid: true}.Fixed())
	f.Add(Sense{Key: KeyMediumError, Information: 1 << 40, InformationValid: true, CommandSpecific: 1}.FieldPointer(1, 2, true).Descriptor())
	list, err := AppendUnmapList(nil, []LBARange{{1, 2}, {3, 4}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(list)
	f.Add(AppendLUNs(nil, []uint64{0, 1 << 48}))
	f.Add(VPDPage(0, VPDDeviceIdentification, AppendDesignator(nil, Designator{CodeSet: 1, Type: 3, Value: make([]byte, 16)})))
	f.Add(Capacity{LastLBA: 9, BlockSizeBytes: 512}.Encode16())
	f.Add(AppendTargetPortGroups(nil, []TargetPortGroup{{Group: 1, Ports: []uint16{1}}}))
	f.Add(AppendLBAStatus(nil, []LBAStatus{{LBARange{1, 2}, 1}}))
	copyList := CopyList{ListID: 7, Targets: []CopyTarget{{Designator: Designator{CodeSet: 1, Type: 3, Value: make([]byte, 16)}, BlockSizeBytes: 512}},
		Segments: []CopySegment{{Source: 0, Destination: CopyThisUnit, Blocks: 9, SourceLBA: 1, DestinationLBA: 1 << 40}}}
	f.Add(copyList.Encode())
	f.Add([]byte{0x17, 0, 0x10, 0, 0x4a, 1, 0, 1, 7, 8, 1, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ParseSense(b)
		if r, err := ParseUnmapList(b, 16); err == nil && len(r) > 16 {
			t.Fatalf("%d UNMAP descriptors", len(r))
		}
		if l, _, err := ParseLUNs(b); err == nil && len(l) > MaxReportedLUNs {
			t.Fatalf("%d LUNs", len(l))
		}
		if d := ParseDesignators(b); len(d) > MaxDesignators {
			t.Fatalf("%d designators", len(d))
		}
		for _, long := range []bool{false, true} {
			if m, err := ParseMode(b, long); err == nil && len(m.Pages) > maxModePages {
				t.Fatalf("%d mode pages", len(m.Pages))
			}
		}
		if g, err := ParseTargetPortGroups(b); err == nil && len(g) > maxPortGroups {
			t.Fatalf("%d target port groups", len(g))
		}
		if s, err := ParseLBAStatus(b); err == nil && len(s) > maxLBAStatus {
			t.Fatalf("%d LBA status descriptors", len(s))
		}
		if body, err := ParseVPD(b, VPDBlockLimits); err == nil {
			_ = ParseBlockLimits(body)
			_, _ = ParseProvisioning(body)
		}
		_, _ = ParseCapacity10(b)
		_, _ = ParseCapacity16(b)
		_, _ = ParseStandardInquiry(b)
		_, _ = DecodePROutList(b)
		if l, err := ParseCopyList(b, CopyLimits{Targets: 3, Segments: 5, Bytes: 400}); err == nil {
			if len(l.Targets) > 3 || len(l.Segments) > 5 {
				t.Fatalf("%d targets and %d segments", len(l.Targets), len(l.Segments))
			}
			again, err := ParseCopyList(l.Encode(), CopyLimits{Targets: 3, Segments: 5, Bytes: 400})
			if err != nil || !reflect.DeepEqual(again, l) {
				t.Fatalf("%+v is written as %+v, %v", l, again, err)
			}
		}
	})
}

// FuzzReservationLists runs the parsers of PERSISTENT RESERVE OUT's parameter lists over arbitrary
// bytes: none may panic, and what they accept is written again as it was.
func FuzzReservationLists(f *testing.F) {
	f.Add(PROutList{Key: 1, ActionKey: 2, APTPL: true}.Encode())                                      // PREEMPT, REGISTER
	f.Add(PROutList{Key: 1, ActionKey: 1<<64 - 1, SpecIPT: true, AllTargetPorts: true}.Encode()[:20]) // too short
	move := PROutList{Key: 3, ActionKey: 4}.Encode()
	move[17], move[19] = 3, 2
	id := appendTransportID(nil, "iqn.2004-10.com.example:a,i,0x800102030405")
	be.PutUint32(move[20:], uint32(len(id)))
	f.Add(append(move, id...))
	f.Add(append(bytes.Clone(move), id[:8]...)) // the length promises more
	be.PutUint32(move[20:], 1<<32-1)
	f.Add(append(bytes.Clone(move), id...))
	be.PutUint32(move[20:], 0)
	f.Add(move)
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := DecodePROutList(b); err == nil {
			if again, err := DecodePROutList(l.Encode()); err != nil || again != l {
				t.Fatalf("%+v came back as %+v, %v", l, again, err)
			}
		}
		l, err := DecodePRMoveList(b)
		if err != nil {
			return
		}
		if len(l.InitiatorPort) == 0 || len(l.InitiatorPort) > maxPortName || bytes.IndexByte([]byte(l.InitiatorPort), 0) >= 0 {
			t.Fatalf("initiator port %q", l.InitiatorPort)
		}
		if got := b[prMoveHeader+4:][:len(l.InitiatorPort)]; string(got) != l.InitiatorPort {
			t.Fatalf("initiator port %q, the list has %q", l.InitiatorPort, got)
		}
		again := append(bytes.Clone(b[:20]), 0, 0, 0, 0)
		id := appendTransportID(nil, l.InitiatorPort)
		be.PutUint32(again[20:], uint32(len(id)))
		if back, err := DecodePRMoveList(append(again, id...)); err != nil || back != l {
			t.Fatalf("%+v came back as %+v, %v", l, back, err)
		}
	})
}
