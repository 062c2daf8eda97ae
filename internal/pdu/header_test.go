package pdu

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// everyHeader is one filled header of each type.
func everyHeader() []Header {
	return []Header{
		&SCSICommand{true, true, true, false, AttrSimple, 1 << 48, 2, 4096, 3, 4, [16]byte{0x28, 15: 9}},
		&SCSIResponse{true, false, false, true, ResponseTargetFailure, 2, 3, 4, 5, 6, 7, 8, 9, 10},
		&DataOut{true, 1 << 48, 2, 3, 4, 5, 6},
		&DataIn{true, true, false, true, true, 2, 1 << 48, 3, 4, 5, 6, 7, 8, 9, 10},
		&R2T{1 << 48, 2, 3, 4, 5, 6, 7, 8, 9},
		&SNACK{SNACKStatus, 1 << 48, 2, 3, 4, 5, 6},
		&TaskRequest{true, TaskAbort, 1 << 48, 2, 3, 4, 5, 6, 7},
		&TaskResponse{TaskUnsupported, 2, 3, 4, 5},
		&LoginRequest{true, true, StageOperational, StageFullFeature, 1, 2, ISID{1, 2, 3, 4, 5, 6}, 7, 8, 9, 10, 11},
		&LoginResponse{true, true, StageSecurity, StageOperational, 1, 2, ISID{1, 2, 3, 4, 5, 6}, 7, 8, 9, 10, 11, LoginNotFound},
		&TextRequest{true, true, false, 1 << 48, 2, 3, 4, 5},
		&TextResponse{true, false, 1 << 48, 2, 3, 4, 5, 6},
		&NOPOut{true, 1 << 48, 2, 3, 4, 5},
		&NOPIn{1 << 48, 2, 3, 4, 5, 6},
		&LogoutRequest{true, LogoutCloseConnection, 2, 3, 4, 5},
		&LogoutResponse{LogoutCIDNotFound, 2, 3, 4, 5, 6, 7},
		&Async{1 << 48, 2, 3, 4, AsyncDropSession, 6, 7, 8, 9},
		&Reject{RejectProtocolError, 2, 3, 4, 5},
	}
}

func TestHeadersRoundTrip(t *testing.T) {
	seen := map[Opcode]bool{}
	for _, h := range everyHeader() {
		b := BHS{4: 1, 7: 1} // leftovers must go
		h.Encode(&b)
		if b.Opcode() != h.Op() || b.AHSLength() != 0 || b.DataLength() != 0 {
			t.Errorf("%s: encoded as %x", h.Op(), b)
		}
		got, err := Parse(&b)
		if err != nil || !reflect.DeepEqual(got, h) {
			t.Errorf("%s: got %+v (%v), want %+v", h.Op(), got, err, h)
		}
		if strings.HasPrefix(h.Op().String(), "opcode") {
			t.Errorf("opcode %d has no name", h.Op())
		}
		seen[h.Op()] = true
	}
	for op := range Opcode(64) {
		b := BHS{0: byte(op)}
		if _, err := Parse(&b); (err == nil) != seen[op] || err != nil && !errors.Is(err, ErrOpcode) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// Golden bytes, laid out by hand from the figures of RFC 7143 §11, so that an Encode and a Decode
// that are wrong in the same way are caught.
func TestHeaderBytes(t *testing.T) {
	for _, c := range []struct {
		h    Header
		want string
	}{
		{&SCSICommand{Final: true, Read: true, Attr: AttrSimple, LUN: EncodeLUN(1), ITT: 0x11223344, ExpectedLength: 0x1000, CmdSN: 5, ExpStatSN: 6, CDB: [16]byte{0x28, 8: 8}},
			"01c10000 00000000 0001000000000000 11223344 00001000 00000005 00000006 28000000000000000800000000000000"},
		{&SCSICommand{Immediate: true, Write: true, CDB: [16]byte{0x2a}},
			"41200000 00000000 0000000000000000 00000000 00000000 00000000 00000000 2a000000000000000000000000000000"},
		{&SCSIResponse{Underflow: true, Status: 2, ITT: 1, StatSN: 2, ExpCmdSN: 3, MaxCmdSN: 4, ExpDataSN: 5, Residual: 6},
			"21820002 00000000 0000000000000000 00000001 00000000 00000002 00000003 00000004 00000005 00000000 00000006"},
		{&DataIn{Final: true, HasStatus: true, Overflow: true, Status: 0, LUN: EncodeLUN(0), ITT: 1, TTT: NoTag, StatSN: 2, ExpCmdSN: 3, MaxCmdSN: 4, DataSN: 5, BufferOffset: 6, Residual: 7},
			"25850000 00000000 0000000000000000 00000001 ffffffff 00000002 00000003 00000004 00000005 00000006 00000007"},
		{&LoginRequest{Transit: true, CSG: StageOperational, NSG: StageFullFeature, ISID: ISID{0x40, 0, 1, 0x37, 0, 2}, TSIH: 3, ITT: 4, CID: 5, CmdSN: 6, ExpStatSN: 7},
			"43870000 00000000 400001370002 0003 00000004 0005 0000 00000006 00000007 00000000000000000000000000000000"},
		{&LoginResponse{ITT: 4, Status: LoginForbidden, StatSN: 1, ExpCmdSN: 2, MaxCmdSN: 3},
			"23000000 00000000 000000000000 0000 00000004 00000000 00000001 00000002 00000003 0202 0000 0000000000000000"},
		{&Async{Event: AsyncDropSession, StatSN: 1, ExpCmdSN: 2, MaxCmdSN: 3, Parameter1: 4, Parameter2: 5, Parameter3: 6},
			"32800000 00000000 0000000000000000 ffffffff 00000000 00000001 00000002 00000003 0300 0004 0005 0006 00000000"},
	} {
		var b BHS
		c.h.Encode(&b)
		if want := strings.ReplaceAll(c.want, " ", ""); hex.EncodeToString(b[:]) != want {
			t.Errorf("%s:\n got %x\nwant %s", c.h.Op(), b, want)
		}
	}
}

func TestLUN(t *testing.T) {
	for _, n := range []uint16{0, 1, 255, 256, 16383} {
		if got, ok := DecodeLUN(EncodeLUN(n)); !ok || got != n {
			t.Errorf("LUN %d came back as %d, %v", n, got, ok)
		}
	}
	for _, raw := range []uint64{1, 0xc1 << 56, 0x0100 << 48, 0x8000 << 48} {
		if _, ok := DecodeLUN(raw); ok {
			t.Errorf("%x accepted", raw)
		}
	}
}

func TestSerial(t *testing.T) {
	for _, c := range []struct {
		a, b uint32
		want bool
	}{{0, 1, true}, {1, 0, false}, {5, 5, false}, {0xffffffff, 0, true}, {0, 0xffffffff, false}, {0xfffffff0, 0x10, true},
		{0, 0x7fffffff, true}, {0, 0x80000000, false}, {0x80000000, 0, false}} {
		if SerialLess(c.a, c.b) != c.want {
			t.Errorf("%x < %x is %v", c.a, c.b, !c.want)
		}
		if SerialLessEq(c.a, c.b) != (c.want || c.a == c.b) {
			t.Errorf("%x <= %x", c.a, c.b)
		}
	}
}

func TestSense(t *testing.T) {
	data := AppendSense(nil, []byte{0x70, 0, 5})
	got, err := ParseSense(data)
	if err != nil || len(got) != 3 || got[0] != 0x70 {
		t.Errorf("%x %v", got, err)
	}
	for _, bad := range [][]byte{{0}, {0, 4, 1}} {
		if _, err := ParseSense(bad); err == nil {
			t.Errorf("%x accepted", bad)
		}
	}
	for _, bad := range [][]byte{{0}, {0, 0, 1, 0}, {0, 2, 1, 0}, {1, 0, 1, 0, 0, 0, 0, 0}} {
		if _, err := ParseAHS(bad); err == nil {
			t.Errorf("%x accepted as additional header", bad)
		}
	}
}
