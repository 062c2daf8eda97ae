package iscsi

import (
	"bytes"
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// readAll sends a read and gathers its answer.
func (c *client) readAll(h *pdu.SCSICommand) (data []byte, status byte) {
	c.t.Helper()
	c.send(h, nil)
	for sn := uint32(0); ; sn++ {
		got, part := c.next()
		switch d := got.(type) {
		case *pdu.DataIn:
			if d.ITT != h.ITT || d.DataSN != sn || int(d.BufferOffset) != len(data) || len(part) > int(c.params.MaxRecvDataSegmentLength) {
				c.t.Fatalf("Data-In %+v of %d bytes after %d", d, len(part), len(data))
			}
			data = append(data, part...)
			if (uint32(len(data))%c.params.MaxBurstLength == 0 || len(data) == int(h.ExpectedLength)) != d.Final {
				c.t.Fatalf("F is %v at %d of %d", d.Final, len(data), h.ExpectedLength)
			}
			if d.HasStatus {
				return data, d.Status
			}
		case *pdu.SCSIResponse:
			if d.ExpDataSN != sn {
				c.t.Fatalf("ExpDataSN %d after %d PDUs", d.ExpDataSN, sn)
			}
			return data, d.Status
		default:
			c.t.Fatalf("got %+v", got)
		}
	}
}

// writeAll sends a write with as much immediate and unsolicited data as imm and first
// say, then answers R2Ts, and returns the response and the number of R2Ts.
func (c *client) writeAll(h *pdu.SCSICommand, data []byte, imm, first int) (*pdu.SCSIResponse, int) {
	c.t.Helper()
	h.Final = imm == first
	c.send(h, data[:imm])
	c.burst(h.ITT, pdu.NoTag, data, imm, first)
	for r2ts := 0; ; r2ts++ {
		got, _ := c.next()
		switch r := got.(type) {
		case *pdu.SCSIResponse:
			return r, r2ts
		case *pdu.R2T:
			if r.ITT != h.ITT || r.R2TSN != uint32(r2ts) || r.DesiredLength > c.params.MaxBurstLength {
				c.t.Fatalf("R2T %+v", r)
			}
			c.burst(h.ITT, r.TTT, data, int(r.BufferOffset), int(r.BufferOffset+r.DesiredLength))
		default:
			c.t.Fatalf("got %+v", got)
		}
	}
}

// burst sends data[from:to] in Data-Out PDUs.
func (c *client) burst(itt, ttt uint32, data []byte, from, to int) {
	for sn := uint32(0); from < to; sn++ {
		end := min(to, from+int(c.params.MaxSendDataSegmentLength), from+8000)
		c.send(&pdu.DataOut{Final: end == to, ITT: itt, TTT: ttt, DataSN: sn, BufferOffset: uint32(from)}, data[from:end])
		from = end
	}
}

func TestReadAndWrite(t *testing.T) {
	for _, digest := range []pdu.DigestChoice{pdu.DigestNever, pdu.DigestRequire} {
		r := newRig(t, Limits{FirstBurstLength: 32 << 10, MaxBurstLength: 64 << 10})
		w := wishes()
		w.HeaderDigest, w.DataDigest = digest, digest
		w.MaxOutstandingR2T = 3
		c := r.dial().login(w)
		if c.params.HeaderDigest != (digest == pdu.DigestRequire) || c.params.FirstBurstLength != 32<<10 {
			t.Fatalf("%+v", c.params)
		}
		for i, n := range []int{1, 8, 63, 64, 65, 500, 4000} {
			for _, imm := range []int{0, 512, 32 << 10} {
				for _, first := range []int{0, 512, 32 << 10} {
					first = min(max(first, imm), n*blockSize)
					imm = min(imm, first)
					data := pattern(n*blockSize, byte(i*16+imm/512))
					resp, r2ts := c.writeAll(c.write(10, n), data, imm, first)
					if resp.Status != 0 || resp.Underflow || resp.Overflow {
						t.Fatalf("%d blocks, %d immediate, %d first: %+v", n, imm, first, resp)
					}
					rest := n*blockSize - first
					if want := (rest + 64<<10 - 1) / (64 << 10); r2ts != want {
						t.Errorf("%d R2Ts for %d bytes, want %d", r2ts, rest, want)
					}
					got, status := c.readAll(c.read(10, n))
					if status != 0 || !bytes.Equal(got, data) {
						t.Fatalf("%d blocks, %d immediate, %d first: read back wrongly, status %d", n, imm, first, status)
					}
				}
			}
		}
		r.stop()
	}
}

func TestResiduals(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.dial().login(wishes())
	for _, x := range []struct {
		write               bool
		edtl, blocks, moved int
		over, under         bool
		residual            uint32
	}{
		{false, 1024, 1, 512, false, true, 512},
		{false, 512, 2, 512, true, false, 512},
		{false, 1024, 2, 1024, false, false, 0},
		{false, 0, 1, 0, true, false, 512},
		{true, 1024, 1, 0, false, true, 512},
		{true, 512, 2, 0, true, false, 512},
		{true, 0, 1, 0, true, false, 512},
	} {
		if x.write {
			h := c.write(0, x.blocks)
			h.ExpectedLength = uint32(x.edtl)
			resp, _ := c.writeAll(h, pattern(x.edtl, 1), x.edtl, x.edtl)
			if resp.Overflow != x.over || resp.Underflow != x.under || resp.Residual != x.residual {
				t.Errorf("%+v: %+v", x, resp)
			}
			continue
		}
		h := c.read(0, x.blocks)
		h.ExpectedLength = uint32(x.edtl)
		c.send(h, nil)
		got, data := c.next()
		over, under, residual := false, false, uint32(0)
		switch d := got.(type) {
		case *pdu.DataIn:
			over, under, residual = d.Overflow, d.Underflow, d.Residual
		case *pdu.SCSIResponse:
			over, under, residual = d.Overflow, d.Underflow, d.Residual
		}
		if len(data) != x.moved || over != x.over || under != x.under || residual != x.residual {
			t.Errorf("%+v: %d bytes, %+v", x, len(data), got)
		}
	}
}

func TestCheckConditionCarriesSense(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.dial().login(wishes())
	c.send(c.read(1<<40, 1), nil)
	resp, data := expect[pdu.SCSIResponse](c)
	sense, err := pdu.ParseSense(data)
	if err != nil || resp.Status != cdb.StatusCheckCondition || !resp.Underflow || resp.Residual != 512 {
		t.Fatalf("%+v %v", resp, err)
	}
	if got, err := cdb.ParseSense(sense); err != nil || got.ASC != cdb.ASCLBAOutOfRange {
		t.Errorf("%v %v", got, err)
	}
	// A defect in the device costs that command only.
	c.send(c.command([16]byte{0xff}, 0), nil)
	if resp, _ := expect[pdu.SCSIResponse](c); resp.Status != cdb.StatusCheckCondition {
		t.Errorf("%+v", resp)
	}
	c.send(c.command([16]byte{}, 0), nil)
	if resp, _ := expect[pdu.SCSIResponse](c); resp.Status != 0 {
		t.Errorf("%+v", resp)
	}
}

// spoiltLU hands out a buffer whose release has a defect.
type spoiltLU struct {
	*memoryLU
	quick bool
}

func (s *spoiltLU) ExecuteNow(t *scsi.Task) (scsi.Result, bool) {
	return s.Execute(context.Background(), t), s.quick
}

func (s *spoiltLU) Execute(context.Context, *scsi.Task) scsi.Result {
	return scsi.Result{DataIn: []byte("abc"), DataInTotal: 3, Release: func() { panic("a defect") }}
}

// A defect while a command is being answered costs its session and nothing else.
func TestDefectEndsOneSession(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.dial().login(wishes())
	for _, quick := range []bool{false, true} {
		r.dir.set(func(d *directory) { d.lu = &spoiltLU{r.lu, quick} })
		spoilt := r.dial()
		spoilt.isid[0] = 0x40
		spoilt.login(wishes())
		spoilt.send(spoilt.read(0, 1), nil)
		for {
			if _, err := spoilt.r.ReadPDU(); err != nil {
				break
			}
		}
	}
	if _, status := c.readAll(c.read(0, 1)); status != 0 {
		t.Errorf("status %d", status)
	}
	r.dir.set(func(d *directory) { d.admit = func(Admission) Admission { panic("a defect") } })
	r.dial().refusedSilently()
}

// refusedSilently logs in and expects nothing but the end of the connection.
func (c *client) refusedSilently() {
	c.t.Helper()
	c.send(&pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3, ISID: c.isid, ITT: 1}, pdu.AppendText(nil, names()...))
	c.closed()
}

func TestPingTextLogout(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.dial().login(wishes())
	c.send(&pdu.NOPOut{Immediate: true, ITT: 77, TTT: pdu.NoTag, CmdSN: c.cmdSN}, []byte("are you there"))
	if nop, data := expect[pdu.NOPIn](c); nop.ITT != 77 || nop.TTT != pdu.NoTag || string(data) != "are you there" || nop.ExpCmdSN != c.cmdSN {
		t.Errorf("%+v %q", nop, data)
	}
	c.send(&pdu.NOPOut{ITT: 78, TTT: pdu.NoTag, CmdSN: c.cmdSN}, nil)
	c.cmdSN++
	if nop, _ := expect[pdu.NOPIn](c); nop.ExpCmdSN != c.cmdSN || nop.MaxCmdSN != c.cmdSN+127 {
		t.Errorf("%+v, want ExpCmdSN %d", nop, c.cmdSN)
	}
	c.send(&pdu.TextRequest{Final: true, ITT: 79, TTT: pdu.NoTag, CmdSN: c.cmdSN},
		pdu.AppendText(nil, pdu.KeyValue{Key: "SendTargets", Value: ""}, pdu.KeyValue{Key: "X-what", Value: "1"}, pdu.KeyValue{Key: "MaxBurstLength", Value: "512"}))
	c.cmdSN++
	want := "TargetName=" + someTarget + "\x00TargetAddress=127.0.0.1:3260,1\x00TargetAddress=[::1]:3260,1\x00X-what=NotUnderstood\x00MaxBurstLength=Reject\x00"
	if resp, data := expect[pdu.TextResponse](c); !resp.Final || string(data) != want {
		t.Errorf("%+v %q", resp, data)
	}
	c.send(&pdu.LogoutRequest{Reason: pdu.LogoutCloseConnection, ITT: 80, CID: 9, CmdSN: c.cmdSN}, nil)
	c.cmdSN++
	if resp, _ := expect[pdu.LogoutResponse](c); resp.Response != pdu.LogoutCIDNotFound {
		t.Errorf("%+v", resp)
	}
	c.send(&pdu.LogoutRequest{Reason: pdu.LogoutCloseSession, ITT: 81, CmdSN: c.cmdSN}, nil)
	if resp, _ := expect[pdu.LogoutResponse](c); resp.Response != pdu.LogoutSuccess || resp.ITT != 81 {
		t.Errorf("%+v", resp)
	}
	c.closed()
}

// A list of targets is long; a request of many keys must not have it made as many times.
func TestTargetsAreListedOnceInARequest(t *testing.T) {
	r := newRig(t, Limits{})
	r.dir.set(func(d *directory) { d.many = 500 })
	c := r.dial().login(wishes())
	own := pdu.KeyValue{Key: "SendTargets", Value: someTarget}
	c.send(&pdu.TextRequest{Final: true, ITT: 1, TTT: pdu.NoTag, CmdSN: c.cmdSN}, pdu.AppendText(nil, own, own, own))
	_, data := expect[pdu.TextResponse](c)
	if n := bytes.Count(data, []byte("TargetName=")); n != 500 || !bytes.HasSuffix(data, []byte("SendTargets=Reject\x00SendTargets=Reject\x00")) {
		t.Errorf("%d targets listed, ending in %q", n, data[max(0, len(data)-50):])
	}
}

func TestRejects(t *testing.T) {
	r := newRig(t, Limits{QueueDepth: 8})
	c := r.dial().login(wishes())
	for _, x := range []struct {
		name   string
		h      pdu.Header
		data   []byte
		reason uint8
	}{
		{"unknown opcode", &raw{op: 0x1c}, []byte("abc"), pdu.RejectNotSupported},
		{"a target's PDU", &pdu.SCSIResponse{}, nil, pdu.RejectNotSupported},
		{"SNACK", &pdu.SNACK{}, nil, pdu.RejectSNACK},
		{"no task tag", &pdu.SCSICommand{Immediate: true, Final: true, ITT: pdu.NoTag}, nil, pdu.RejectProtocolError},
		{"data with a read", &pdu.SCSICommand{Immediate: true, Final: true, Read: true, ITT: 5, ExpectedLength: 8}, []byte("abc"), pdu.RejectProtocolError},
		{"more data than expected", &pdu.SCSICommand{Immediate: true, Final: true, Write: true, ITT: 5, ExpectedLength: 2}, []byte("abc"), pdu.RejectProtocolError},
	} {
		c.send(x.h, x.data)
		rej, data := expect[pdu.Reject](c)
		var b pdu.BHS
		x.h.Encode(&b)
		b.SetLengths(0, len(x.data))
		if rej.Reason != x.reason || !bytes.Equal(data, b[:]) {
			t.Errorf("%s: %+v with %x, want reason %d with %x", x.name, rej, data, x.reason, b)
		}
	}
	// Outside of the window: not a word.
	for _, sn := range []uint32{c.cmdSN - 1, c.cmdSN + 8} {
		c.send(&pdu.NOPOut{ITT: 9, TTT: pdu.NoTag, CmdSN: sn}, []byte("x"))
	}
	// Out of order: handled when the one before has come.
	c.send(&pdu.NOPOut{ITT: 11, TTT: pdu.NoTag, CmdSN: c.cmdSN + 1}, []byte("second"))
	c.send(&pdu.NOPOut{ITT: 10, TTT: pdu.NoTag, CmdSN: c.cmdSN}, []byte("first"))
	for i, want := range []string{"first", "second"} {
		if nop, data := expect[pdu.NOPIn](c); nop.ITT != uint32(10+i) || string(data) != want {
			t.Errorf("%+v %q", nop, data)
		}
	}
	c.cmdSN += 2
	c.send(&pdu.LoginRequest{}, nil)
	expect[pdu.Reject](c)
	c.closed()
}

// raw is a header of any opcode.
type raw struct{ op pdu.Opcode }

func (r *raw) Op() pdu.Opcode    { return r.op }
func (r *raw) Encode(b *pdu.BHS) { *b = pdu.BHS{0: byte(r.op)} }
func (r *raw) Decode(b *pdu.BHS) { r.op = b.Opcode() }
