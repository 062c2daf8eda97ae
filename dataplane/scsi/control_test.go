package scsi

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

func TestConfigIsChecked(t *testing.T) {
	ok := Config{ID: testVolume, BlockSizeBytes: 512, Store: newMemStore(512), TargetName: san.TargetName("u", testVolume),
		RelativePort: 1, PortGroup: 1, Logger: slog.New(slog.DiscardHandler)}
	if _, err := NewLU(ok); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no id":            func(c *Config) { c.ID = "" },
		"long id":          func(c *Config) { c.ID = san.VolumeID(strings.Repeat("x", 64)) },
		"block size":       func(c *Config) { c.BlockSizeBytes = 520 },
		"block size 0":     func(c *Config) { c.BlockSizeBytes = 0 },
		"no store":         func(c *Config) { c.Store = nil },
		"no logger":        func(c *Config) { c.Logger = nil },
		"empty store":      func(c *Config) { c.Store = newMemStore(0) },
		"part of a block":  func(c *Config) { c.Store = newMemStore(700) },
		"no target name":   func(c *Config) { c.TargetName = "" },
		"no relative port": func(c *Config) { c.RelativePort = 0 },
		"no port group":    func(c *Config) { c.PortGroup = 0 },
	} {
		c := ok
		spoil(&c)
		if _, err := NewLU(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestOnlyTheTableExists: every operation code and service action that the device server
// does not have is refused; of PERSISTENT RESERVE and copies it is the service action that is wrong.
func TestOnlyTheTableExists(t *testing.T) {
	r := newRig(t, 64, 512)
	defer func() { want(t, "RELEASE (6)", r.do(cdb.CDB{cdb.OpRelease6}, nil, 0), 0, 0) }()
	for op := range 256 {
		for action := range 32 {
			c := cdb.CDB{0: byte(op), 1: byte(action)}
			res := r.do(c, nil, 1024)
			s, err := cdb.ParseSense(res.Sense)
			exists := err != nil || s.ASC != cdb.ASCInvalidOpcode
			if slices.Contains([]byte{cdb.OpPersistentReserveIn, cdb.OpPersistentReserveOut, cdb.OpExtendedCopy, cdb.OpReceiveCopyResults}, byte(op)) {
				exists = err != nil || s.ASC != cdb.ASCInvalidFieldInCDB || s.Specific[2] != 1 // byte 1 of the CDB
			}
			if exists != (r.lu.commands.lookup(byte(op), byte(action)) != nil) {
				t.Errorf("operation code %02Xh, service action %02Xh: %s", op, action, describe(res))
			}
		}
	}
	for _, op := range []byte{cdb.OpSanitize, 0x04, 0x7f} {
		want(t, "not supported", r.do(cdb.CDB{op}, nil, 1024), cdb.KeyIllegalRequest, cdb.ASCInvalidOpcode)
	}
	if r.log.Len() != 0 {
		t.Errorf("logged: %s", r.log)
	}
}

// TestOpcodeReport asks for each command in each way (SPC-4 §6.35.1).
func TestOpcodeReport(t *testing.T) {
	r := newRig(t, 64, 512)
	for _, c := range r.lu.commands.list {
		for options := byte(1); options <= 3; options++ {
			action := uint16(c.action)
			res := r.do(cdb.ReportSupportedOpcode(options, c.op, action, true, 512), nil, 512)
			if options != 3 && c.hasAction == (options == 1) {
				want(t, "asked in the wrong way", res, cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
				continue
			}
			n := cdb.Length(c.op)
			if want(t, "asked", res, 0, 0); len(res.DataIn) != 4+n+12 || res.DataIn[1] != 0x83 || res.DataIn[4] != c.op {
				t.Errorf("operation code %02Xh: % x", c.op, res.DataIn)
			}
		}
	}
	for _, c := range []cdb.CDB{cdb.ReportSupportedOpcode(2, 0x9e, 0x110, false, 512), cdb.ReportSupportedOpcode(3, 0x88, 1, false, 512),
		cdb.ReportSupportedOpcode(2, 0x9e, 0x1f, false, 512), cdb.ReportSupportedOpcode(1, 0xff, 0, false, 512)} {
		if res := r.do(c, nil, 512); !bytes.Equal(res.DataIn, []byte{0, 1, 0, 0}) {
			t.Errorf("% x: % x, want not supported", c, res.DataIn)
		}
	}
	want(t, "options 7", r.do(cdb.ReportSupportedOpcode(7, 0, 0, false, 512), nil, 512), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
}

func TestRefusedFields(t *testing.T) {
	r := newRig(t, 64, 512)
	for name, c := range map[string]cdb.CDB{
		"page without EVPD":            {0: cdb.OpInquiry, 2: 0x83, 4: 255},
		"CMDDT":                        {0: cdb.OpInquiry, 1: 2, 4: 255},
		"unknown VPD page":             cdb.InquiryVPD(0x84, 255),
		"unknown mode page":            cdb.ModeSense6(0x3e, 0, false, 255),
		"unknown subpage":              cdb.ModeSense6(0x08, 3, false, 255),
		"SELECT REPORT":                {0: cdb.OpReportLUNs, 2: 3, 9: 64},
		"REPORT LUNS allocation of 15": cdb.ReportLUNs(15),
		"LBA without PMI":              {0: cdb.OpReadCapacity10, 5: 1},
		"NACA, 6 bytes":                {0: cdb.OpTestUnitReady, 5: 4},
		"NACA, 16 bytes":               {0: cdb.OpRead16, 13: 1, 15: 4},
		"self-test code":               {0: cdb.OpSendDiagnostic, 1: 0x20},
		"diagnostic list":              {0: cdb.OpSendDiagnostic, 1: 0x10, 4: 8},
		"MODE SELECT without PF":       {0: cdb.OpModeSelect6, 4: 4},
		"MODE SELECT with SP":          {0: cdb.OpModeSelect6, 1: 0x11, 4: 4},
	} {
		want(t, name, r.do(c, make([]byte, 64), 1024), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
	}
	for _, lba := range []uint64{64, 65, math.MaxUint64} {
		want(t, "GET LBA STATUS", r.do(cdb.GetLBAStatus(lba, 24), nil, 24), cdb.KeyIllegalRequest, cdb.ASCLBAOutOfRange)
	}
	saved := cdb.ModeSense6(0x3f, 0, false, 255)
	saved[2] |= 0xc0
	want(t, "saved mode pages", r.do(saved, nil, 255), cdb.KeyIllegalRequest, cdb.ASCSavingParametersNotSupported)
	want(t, "self-test", r.do(cdb.CDB{0: cdb.OpSendDiagnostic, 1: 4}, nil, 0), 0, 0)
	want(t, "power condition", r.do(cdb.CDB{0: cdb.OpStartStopUnit, 4: 0x32}, nil, 0), 0, 0)
	for _, short := range [][]byte{nil, {cdb.OpRead10}, {cdb.OpRead16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}} {
		res := r.lu.Execute(context.Background(), &Task{Nexus: r.nexus, CDB: short})
		want(t, "short CDB", res, cdb.KeyIllegalRequest, cdb.ASCInvalidOpcode)
	}
}

func TestModeSelect(t *testing.T) {
	r := newRig(t, 64, 512)
	sense6 := r.do(cdb.ModeSense6(0x3f, 0, false, 255), nil, 255).DataIn
	sense10 := r.do(cdb.ModeSense10(0x3f, 0, false, 512), nil, 512).DataIn
	select6 := func(list []byte) Result {
		return r.do(cdb.CDB{0: cdb.OpModeSelect6, 1: 0x10, 4: byte(len(list))}, list, 0)
	}
	want(t, "what MODE SENSE (6) said", select6(sense6), 0, 0)
	want(t, "what MODE SENSE (10) said", r.do(cdb.CDB{0: cdb.OpModeSelect10, 1: 0x10, 8: byte(len(sense10))}, sense10, 0), 0, 0)
	want(t, "nothing", select6(nil), 0, 0)
	change := func(at int, v byte) []byte {
		b := bytes.Clone(sense6)
		b[at] ^= v
		return b
	}
	want(t, "WCE off", select6(change(14, 4)), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInParameterList)
	want(t, "another block size", select6(change(10, 0x10)), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInParameterList)
	want(t, "another size", select6(change(7, 1)), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInParameterList)
	want(t, "size left as it is", select6(change(7, 64)), 0, 0)
	want(t, "another page", select6(change(12, 1)), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInParameterList)
	want(t, "page cut off", select6(sense6[:20]), cdb.KeyIllegalRequest, cdb.ASCParameterListLength)
	c := cdb.CDB{0: cdb.OpModeSelect6, 1: 0x10, 4: 200}
	want(t, "less data than told", r.do(c, sense6, 0), cdb.KeyIllegalRequest, cdb.ASCParameterListLength)
	mask := cdb.ModeSense6(0x3f, 0, true, 255)
	mask[2] |= 0x40
	if got := r.do(mask, nil, 255).DataIn; bytes.ContainsFunc(got[6:24], func(b rune) bool { return b != 0 }) {
		t.Errorf("changeable values: % x", got)
	}
}

// TestUnitAttentions: one is told once to each nexus, not on INQUIRY, REPORT LUNS and
// REQUEST SENSE (SAM-5 §5.14).
func TestUnitAttentions(t *testing.T) {
	r := newRig(t, 64, 512)
	second := r.lu.OpenNexus("iqn.2026-11.example:h2,i,0x000000000002")
	third := r.lu.OpenNexus("iqn.2026-11.example:h3,i,0x000000000003")
	on := func(n *Nexus, c cdb.CDB) Result {
		res := r.lu.Execute(context.Background(), &Task{Nexus: n, CDB: c[:], DataInLimit: 255, DataOut: make([]byte, 512)})
		res.Release()
		return res
	}
	for _, c := range []cdb.CDB{cdb.Inquiry(255), cdb.ReportLUNs(255)} {
		want(t, "exempt", on(second, c), 0, 0)
	}
	want(t, "write", on(second, cdb.Write16(0, 1, false)), cdb.KeyUnitAttention, cdb.ASCPowerOnOrReset)
	if r.store.writes != 0 {
		t.Error("a write that told a unit attention wrote")
	}
	want(t, "again", on(second, cdb.Write16(0, 1, false)), 0, 0)
	res := on(third, cdb.RequestSense(252))
	want(t, "REQUEST SENSE", res, 0, 0)
	if s, err := cdb.ParseSense(res.DataIn); err != nil || s.Key != cdb.KeyUnitAttention || s.ASC != cdb.ASCPowerOnOrReset {
		t.Errorf("REQUEST SENSE told %v, %v", s, err)
	}
	want(t, "told already", on(third, cdb.TestUnitReady()), 0, 0)

	r.lu.Grown()
	r.lu.Grown()
	r.lu.attention(cdb.ASCReservationsReleased, r.nexus)
	want(t, "grown", on(second, cdb.TestUnitReady()), cdb.KeyUnitAttention, cdb.ASCCapacityChanged)
	want(t, "released", on(second, cdb.TestUnitReady()), cdb.KeyUnitAttention, cdb.ASCReservationsReleased)
	want(t, "all told", on(second, cdb.TestUnitReady()), 0, 0)
	want(t, "the one that released", on(r.nexus, cdb.TestUnitReady()), cdb.KeyUnitAttention, cdb.ASCCapacityChanged)
	want(t, "the one that released, all told", on(r.nexus, cdb.TestUnitReady()), 0, 0)

	// third still has two waiting, which the reset replaces.
	r.lu.Reset(ResetLogicalUnit, r.nexus)
	want(t, "reset by another", on(third, cdb.TestUnitReady()), cdb.KeyUnitAttention, cdb.ASCDeviceReset)
	want(t, "replaced", on(third, cdb.TestUnitReady()), 0, 0)
	want(t, "reset by itself", on(r.nexus, cdb.TestUnitReady()), 0, 0)
	r.lu.CloseNexus(third)
	r.lu.Reset(ResetTarget, nil)
	want(t, "target reset", on(r.nexus, cdb.TestUnitReady()), cdb.KeyUnitAttention, cdb.ASCBusReset)
	want(t, "closed nexus", on(third, cdb.TestUnitReady()), 0, 0)
	r.lu.Reset(ResetInternal, nil)
	// An unknown operation code tells a unit attention first.
	want(t, "unknown command", on(r.nexus, cdb.CDB{0xff}), cdb.KeyUnitAttention, cdb.ASCInternalReset)
	if r.nexus.Name() != "iqn.2026-11.example:h1,i,0x000000000001" {
		t.Errorf("nexus is named %q", r.nexus.Name())
	}
}

// TestWrongLUN: only LUN 0 is there, in peripheral or flat addressing.
func TestWrongLUN(t *testing.T) {
	r := newRig(t, 64, 512)
	on := func(lun uint64, c cdb.CDB) Result {
		return r.lu.Execute(context.Background(), &Task{Nexus: r.nexus, LUN: lun, CDB: c[:], DataInLimit: math.MaxInt, DataOut: make([]byte, 512)})
	}
	want(t, "flat LUN 0", on(0x4000<<48, cdb.TestUnitReady()), 0, 0)
	for _, lun := range []uint64{1 << 48, 0x4001 << 48, 1, 0xc101 << 48, math.MaxUint64} {
		want(t, "TEST UNIT READY", on(lun, cdb.TestUnitReady()), cdb.KeyIllegalRequest, cdb.ASCLUNNotSupported)
		want(t, "WRITE", on(lun, cdb.Write16(0, 1, false)), cdb.KeyIllegalRequest, cdb.ASCLUNNotSupported)
		want(t, "unknown", on(lun, cdb.CDB{0xff}), cdb.KeyIllegalRequest, cdb.ASCLUNNotSupported)
		res := on(lun, cdb.Inquiry(255))
		if want(t, "INQUIRY", res, 0, 0); len(res.DataIn) != 74 || res.DataIn[0] != 0x7f {
			t.Errorf("INQUIRY: % x", res.DataIn)
		}
		if res = on(lun, cdb.InquiryVPD(0, 255)); !bytes.Equal(res.DataIn, []byte{0x7f, 0, 0, 1, 0}) {
			t.Errorf("VPD 00: % x", res.DataIn)
		}
		want(t, "VPD 83", on(lun, cdb.InquiryVPD(0x83, 255)), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
		c := cdb.RequestSense(252)
		c[1] = 1
		res = on(lun, c)
		if s, err := cdb.ParseSense(res.DataIn); err != nil || res.DataIn[0] != 0x72 || s.ASC != cdb.ASCLUNNotSupported {
			t.Errorf("REQUEST SENSE: % x", res.DataIn)
		}
	}
	if r.store.writes != 0 {
		t.Error("a write to another LUN wrote")
	}
}

// TestDefectIsContained: a panic fails its command alone, is logged, and leaves no
// range locked.
func TestDefectIsContained(t *testing.T) {
	r := newRig(t, 64, 512)
	r.store.failWrite = func() error { panic("defect under test") }
	for range 2 {
		want(t, "compare and write", r.do(cdb.CompareAndWrite(0, 1, false), make([]byte, 1024), 0), cdb.KeyHardwareError, cdb.ASCInternalTargetFailure)
	}
	if log := r.log.String(); !strings.Contains(log, "defect under test") || !strings.Contains(log, string(testVolume)) {
		t.Errorf("the log does not tell of the defect: %s", log)
	}
	r.store.failWrite = nil
	want(t, "afterwards", r.do(cdb.Write16(0, 1, false), make([]byte, 512), 0), 0, 0)
}
