package scsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

// memReservations is a ReservationStore in memory that can fail.
type memReservations struct {
	state []byte
	saves int
	err   error
}

func (m *memReservations) Load() ([]byte, error) { return m.state, nil }

func (m *memReservations) Save(b []byte) error {
	if m.err != nil {
		return m.err
	}
	m.saves++
	m.state = b
	return nil
}

// prRig is a logical unit with some initiators.
type prRig struct {
	t     testing.TB
	lu    *LU
	store *memStore
	n     map[string]*Nexus
}

func newPRRig(t testing.TB, kept ReservationStore, names ...string) *prRig {
	t.Helper()
	p := &prRig{t: t, store: newMemStore(64 * 512), n: map[string]*Nexus{}}
	lu, err := NewLU(Config{ID: testVolume, BlockSizeBytes: 512, Store: p.store, TargetName: san.TargetName("unit1", testVolume),
		RelativePort: 3, PortGroup: 2, Reservations: kept, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p.lu = lu
	for _, name := range names {
		p.n[name] = lu.OpenNexus("iqn.2026-11.example:" + name + ",i,0x000000000001")
		p.n[name].take()
	}
	return p
}

func (p *prRig) do(who string, c cdb.CDB, out []byte) Result {
	res := p.lu.Execute(context.Background(), &Task{Nexus: p.n[who], CDB: c[:], DataOut: out, DataInLimit: 4096})
	res.Release()
	return res
}

func prOut(action byte, kind cdb.PRType, length int) cdb.CDB {
	c := cdb.CDB{0: cdb.OpPersistentReserveOut, 1: action, 2: byte(kind)}
	binary.BigEndian.PutUint32(c[5:], uint32(length))
	return c
}

func (p *prRig) pr(who string, action byte, kind cdb.PRType, list cdb.PROutList) Result {
	return p.do(who, prOut(action, kind, cdb.PROutListLength), list.Encode())
}

func (p *prRig) ok(what string, res Result) {
	p.t.Helper()
	want(p.t, what, res, 0, 0)
}

func (p *prRig) conflict(what string, res Result) {
	p.t.Helper()
	if res.Status != cdb.StatusReservationConflict {
		p.t.Errorf("%s: %s, want RESERVATION CONFLICT", what, describe(res))
	}
}

func (p *prRig) attention(who string, asc cdb.ASC) {
	p.t.Helper()
	want(p.t, "unit attention of "+who, p.do(who, cdb.TestUnitReady(), nil), cdb.KeyUnitAttention, asc)
	p.ok(who+" has no other", p.do(who, cdb.TestUnitReady(), nil))
}

// TestAccess: what a stranger may do while another holds a reservation, by command (SPC-4 table 66,
// SBC-3 table 13, SPC-2 table 9).
func TestAccess(t *testing.T) {
	for _, c := range []struct {
		name                  string
		cdb                   cdb.CDB
		out                   int
		shared, exclusive, r6 bool // allowed with write exclusive, exclusive access, RESERVE (6)
	}{
		{"INQUIRY", cdb.CDB{0: cdb.OpInquiry, 4: 36}, 0, true, true, true},
		{"REPORT LUNS", cdb.ReportLUNs(64), 0, true, true, true},
		{"REQUEST SENSE", cdb.RequestSense(18), 0, true, true, true},
		{"RELEASE (6)", cdb.CDB{cdb.OpRelease6}, 0, false, false, true},
		{"RESERVE (6)", cdb.CDB{cdb.OpReserve6}, 0, false, false, false},
		{"TEST UNIT READY", cdb.TestUnitReady(), 0, true, true, false},
		{"READ CAPACITY (10)", cdb.CDB{cdb.OpReadCapacity10}, 0, true, true, false},
		{"READ KEYS", cdb.CDB{0: cdb.OpPersistentReserveIn, 8: 8}, 0, true, true, false},
		{"START", cdb.CDB{0: cdb.OpStartStopUnit, 4: 1}, 0, true, true, false},
		{"STOP", cdb.CDB{0: cdb.OpStartStopUnit}, 0, false, false, false},
		{"MODE SENSE (6)", cdb.ModeSense6(0x3f, 0, false, 255), 0, true, false, false},
		{"MODE SELECT (6)", cdb.CDB{0: cdb.OpModeSelect6, 1: 0x10}, 0, false, false, false},
		{"SEND DIAGNOSTIC", cdb.CDB{0: cdb.OpSendDiagnostic, 1: 4}, 0, false, false, false},
		{"READ (16)", cdb.Read16(0, 1, false), 0, true, false, false},
		{"VERIFY (10)", cdb.Block{Op: cdb.OpVerify10, Blocks: 1}.Encode(), 0, true, false, false},
		{"READ DEFECT DATA (10)", cdb.CDB{0: cdb.OpReadDefectData10, 8: 4}, 0, true, false, false},
		{"GET LBA STATUS", cdb.GetLBAStatus(0, 24), 0, true, false, false},
		{"WRITE (16)", cdb.Write16(0, 1, false), 512, false, false, false},
		{"WRITE ATOMIC (16)", cdb.Block{Op: cdb.OpWriteAtomic16, Blocks: 1}.Encode(), 512, false, false, false},
		{"EXTENDED COPY", cdb.ExtendedCopy(0), 0, false, false, false},
		{"RECEIVE COPY RESULTS", cdb.ReceiveCopyResults(3, 0, 64), 0, false, false, false},
		{"WRITE SAME (16)", cdb.Block{Op: cdb.OpWriteSame16, Blocks: 1}.Encode(), 512, false, false, false},
		{"COMPARE AND WRITE", cdb.CompareAndWrite(0, 1, false), 1024, false, false, false},
		{"SYNCHRONIZE CACHE (10)", cdb.Block{Op: cdb.OpSynchronizeCache10}.Encode(), 0, false, false, false},
		{"UNMAP", cdb.CDB{cdb.OpUnmap}, 0, false, false, false},
	} {
		check := func(how string, allowed bool, p *prRig) {
			t.Helper()
			res := p.do("b", c.cdb, make([]byte, c.out))
			if allowed {
				p.ok(c.name+" "+how, res)
			} else {
				p.conflict(c.name+" "+how, res)
			}
		}
		for kind, allowed := range map[cdb.PRType]bool{1: c.shared, 5: c.shared, 7: c.shared, 3: c.exclusive, 6: c.exclusive, 8: c.exclusive} {
			p := newPRRig(t, nil, "a", "b")
			p.ok("register", p.pr("a", cdb.PROutRegister, 0, cdb.PROutList{ActionKey: 7}))
			p.ok("reserve", p.pr("a", cdb.PROutReserve, kind, cdb.PROutList{Key: 7}))
			check(fmt.Sprint("with type ", kind), allowed, p)
			if c.cdb[0] != cdb.OpReserve6 && c.cdb[0] != cdb.OpRelease6 {
				p.ok(c.name+" by the holder", p.do("a", c.cdb, make([]byte, c.out)))
			}
		}
		p := newPRRig(t, nil, "a", "b")
		p.ok("RESERVE (6)", p.do("a", cdb.CDB{cdb.OpReserve6}, nil))
		check("with RESERVE (6)", c.r6, p)
	}
}

func TestReserve6Ends(t *testing.T) {
	p := newPRRig(t, nil, "a", "b")
	reserve, write := cdb.CDB{cdb.OpReserve6}, cdb.Write16(0, 1, false)
	for what, end := range map[string]func(){
		"release":    func() { p.ok("release", p.do("a", cdb.CDB{cdb.OpRelease6}, nil)) },
		"reset":      func() { p.lu.Reset(ResetTarget, nil); p.n["a"].take(); p.n["b"].take() },
		"nexus loss": func() { p.lu.CloseNexus(p.n["a"]) },
	} {
		p.ok("reserve", p.do("a", reserve, nil))
		p.ok("reserve again", p.do("a", reserve, nil))
		p.conflict("before "+what, p.do("b", write, make([]byte, 512)))
		p.conflict("PERSISTENT RESERVE OUT of the holder", p.pr("a", cdb.PROutRegister, 0, cdb.PROutList{ActionKey: 7}))
		end()
		p.ok("after "+what, p.do("b", write, make([]byte, 512)))
	}
	want(t, "third party", p.do("b", cdb.CDB{0: cdb.OpReserve6, 1: 0x10}, nil), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
}

func TestPreemptTells(t *testing.T) {
	p := newPRRig(t, nil, "a", "b", "c")
	for _, who := range []string{"a", "b", "c"} {
		p.ok("register", p.pr(who, cdb.PROutRegister, 0, cdb.PROutList{ActionKey: uint64(who[0])}))
	}
	p.ok("reserve", p.pr("a", cdb.PROutReserve, cdb.PRWriteExclusiveRegistrantsOnly, cdb.PROutList{Key: 'a'}))
	p.ok("preempt", p.pr("b", cdb.PROutPreempt, cdb.PRExclusiveAccess, cdb.PROutList{Key: 'b', ActionKey: 'a'}))
	p.attention("a", cdb.ASCRegistrationsPreempted)
	p.attention("c", cdb.ASCReservationsReleased)
	p.conflict("the former holder", p.do("a", cdb.Read16(0, 1, false), nil))
	p.conflict("a registrant", p.do("c", cdb.Read16(0, 1, false), nil))
	p.ok("clear", p.pr("b", cdb.PROutClear, 0, cdb.PROutList{Key: 'b'}))
	p.attention("c", cdb.ASCReservationsPreempted)
	p.ok("all is free", p.do("a", cdb.Write16(0, 1, false), make([]byte, 512)))
}

func TestRefusedServiceActions(t *testing.T) {
	p := newPRRig(t, nil, "a", "b")
	p.conflict("nobody registered", p.pr("a", cdb.PROutReserve, 1, cdb.PROutList{Key: 7}))
	bad := func(what string, res Result, asc cdb.ASC) {
		t.Helper()
		want(t, what, res, cdb.KeyIllegalRequest, asc)
	}
	bad("APTPL without a store", p.pr("a", cdb.PROutRegister, 0, cdb.PROutList{ActionKey: 7, APTPL: true}), cdb.ASCInvalidFieldInParameterList)
	bad("SPEC_I_PT", p.pr("a", cdb.PROutRegister, 0, cdb.PROutList{ActionKey: 7, SpecIPT: true}), cdb.ASCInvalidFieldInParameterList)
	bad("short list", p.do("a", prOut(cdb.PROutRegister, 0, 23), make([]byte, 23)), cdb.ASCParameterListLength)
	bad("long list", p.do("a", prOut(cdb.PROutRegister, 0, 28), make([]byte, 28)), cdb.ASCParameterListLength)
	bad("list that does not come", p.do("a", prOut(cdb.PROutRegister, 0, 24), make([]byte, 20)), cdb.ASCParameterListLength)
	p.ok("register", p.pr("a", cdb.PROutRegister, 0, cdb.PROutList{ActionKey: 7}))
	bad("scope", p.pr("a", cdb.PROutReserve, 0x21, cdb.PROutList{Key: 7}), cdb.ASCInvalidFieldInCDB)
	bad("type", p.pr("a", cdb.PROutReserve, 2, cdb.PROutList{Key: 7}), cdb.ASCInvalidFieldInCDB)
	p.ok("reserve", p.pr("a", cdb.PROutReserve, 1, cdb.PROutList{Key: 7}))
	bad("release of another type", p.pr("a", cdb.PROutRelease, 3, cdb.PROutList{Key: 7}), cdb.ASCInvalidReleaseOfReservation)
	bad("preempt of key 0", p.pr("a", cdb.PROutPreempt, 1, cdb.PROutList{Key: 7}), cdb.ASCInvalidFieldInParameterList)
	p.conflict("RESERVE (6) beside registrations", p.do("a", cdb.CDB{cdb.OpReserve6}, nil))
}

// TestReservationsPersist: with APTPL they outlive the logical unit, without it they don't, and what can't be saved
// is not done.
func TestReservationsPersist(t *testing.T) {
	kept := &memReservations{}
	p := newPRRig(t, kept, "a", "b")
	p.ok("register", p.pr("a", cdb.PROutRegister, 0, cdb.PROutList{ActionKey: 7}))
	if kept.saves != 0 {
		t.Error("saved without APTPL")
	}
	p.ok("register to stay", p.pr("a", cdb.PROutRegister, 0, cdb.PROutList{Key: 7, ActionKey: 8, APTPL: true}))
	p.ok("reserve", p.pr("a", cdb.PROutReserve, cdb.PRExclusiveAccess, cdb.PROutList{Key: 8}))
	kept.err = errStore
	want(t, "release that can't be saved", p.pr("a", cdb.PROutRelease, cdb.PRExclusiveAccess, cdb.PROutList{Key: 8}), cdb.KeyMediumError, cdb.ASCWriteError)
	p.conflict("it is not released", p.do("b", cdb.Read16(0, 1, false), nil))
	kept.err = nil

	p = newPRRig(t, kept, "a", "b")
	p.conflict("after a restart", p.do("b", cdb.Read16(0, 1, false), nil))
	p.ok("the holder after a restart", p.do("a", cdb.Read16(0, 1, false), nil))
	p.ok("register not to stay", p.pr("a", cdb.PROutRegister, 0, cdb.PROutList{Key: 8, ActionKey: 8}))
	p = newPRRig(t, kept, "b")
	p.ok("after another restart", p.do("b", cdb.Write16(0, 1, false), make([]byte, 512)))

	for what, state := range map[string]string{
		"no JSON": "{", "another version": `{"version":2}`, "no holder": `{"version":1,"table":{"type":1}}`,
		"unknown type": `{"version":1,"table":{"type":2,"registrations":[{"initiator":"a","key":"1"}],"holder":{"initiator":"a"}}}`,
		"twice":        `{"version":1,"table":{"registrations":[{"initiator":"a","key":"1"},{"initiator":"a","key":"2"}]}}`,
	} {
		if _, err := newReservations(&memReservations{state: []byte(state)}); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

// TestPreemptAndAbort: the victim's commands are gone before the status, and two that preempt each other
// both come to an end.
func TestPreemptAndAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPRRig(t, nil, "a", "b")
		for _, who := range []string{"a", "b"} {
			p.ok("register", p.pr(who, cdb.PROutRegister, 0, cdb.PROutList{ActionKey: uint64(who[0])}))
		}
		gone := make(chan struct{})
		called := false
		p.n["a"].OnAbort(func() { called = true; <-gone })
		ctx, cancel := context.WithCancel(context.Background())
		p.n["b"].OnAbort(func() { t.Error("the one that asks is aborted") })
		answers := make(chan Result, 2)
		preempt := func(ctx context.Context, who string, victim byte) {
			c := prOut(cdb.PROutPreemptAndAbort, 1, cdb.PROutListLength)
			list := cdb.PROutList{Key: uint64(who[0]), ActionKey: uint64(victim)}.Encode()
			answers <- p.lu.Execute(ctx, &Task{Nexus: p.n[who], CDB: c[:], DataOut: list})
		}
		go preempt(context.Background(), "b", 'a')
		synctest.Wait()
		if !called || len(answers) != 0 {
			t.Fatalf("abort called: %v, answers: %d", called, len(answers))
		}
		p.n["a"].take()
		go preempt(ctx, "a", 'b') // waits for its turn until it is aborted
		synctest.Wait()
		cancel()
		synctest.Wait()
		if res := <-answers; res.Status != cdb.StatusTaskAborted {
			t.Errorf("the victim's own: %s", describe(res))
		}
		close(gone)
		synctest.Wait()
		want(t, "preempt and abort", <-answers, 0, 0)
	})
}

func TestFullStatus(t *testing.T) {
	p := newPRRig(t, nil, "a", "b")
	p.ok("register", p.pr("a", cdb.PROutRegister, 0, cdb.PROutList{ActionKey: 7}))
	p.ok("reserve", p.pr("a", cdb.PROutReserve, 3, cdb.PROutList{Key: 7}))
	in := func(action byte) []byte {
		return p.do("b", cdb.CDB{0: cdb.OpPersistentReserveIn, 1: action, 7: 2}, nil).DataIn
	}
	name := "iqn.2026-11.example:a,i,0x000000000001"
	full := unhex(t, "00000001 00000044 0000000000000007 00000000 01 03 0000 0000 0003 0000002c 45 00 0028")
	full = append(append(full, name...), 0, 0)
	for what, c := range map[string]struct{ got, want []byte }{
		"READ KEYS":        {in(0), unhex(t, "00000001 00000008 0000000000000007")},
		"READ RESERVATION": {in(1), unhex(t, "00000001 00000010 0000000000000007 00000000 00 03 0000")},
		"READ FULL STATUS": {in(3), full},
	} {
		if string(c.got) != string(c.want) {
			t.Errorf("%s:\n got % x\nwant % x", what, c.got, c.want)
		}
	}
	// The TransportID that it shows is one that REGISTER AND MOVE takes.
	id := append([]byte{0x45, 0, 0, 0x28}, full[len(full)-40:]...)
	id[4+len("iqn.2026-11.example:")] = 'b'
	list := append(unhex(t, "0000000000000007 0000000000000009 00 02 0003 0000002c"), id...)
	p.ok("move", p.do("a", prOut(cdb.PROutRegisterAndMove, 0, len(list)), list))
	p.conflict("the former holder", p.do("a", cdb.Read16(0, 1, false), nil))
	p.ok("the new one", p.do("b", cdb.Read16(0, 1, false), nil))
}

// FuzzReservations has two initiators send PERSISTENT RESERVE OUT commands made of arbitrary bytes, one after
// the other: nothing may panic, the table stays one that service actions lead to, and what is kept can be loaded.
func FuzzReservations(f *testing.F) {
	step := func(who, action byte, kind cdb.PRType, list []byte) []byte {
		return append([]byte{who, action, byte(kind), byte(len(list))}, list...)
	}
	register := step(0, cdb.PROutRegister, 0, cdb.PROutList{ActionKey: 7, APTPL: true}.Encode())
	f.Add(append(register, step(0, cdb.PROutReserve, cdb.PRExclusiveAccess, cdb.PROutList{Key: 7}.Encode())...))
	f.Add(slices.Concat(register, step(1, cdb.PROutRegisterAndIgnore, 0, cdb.PROutList{ActionKey: 8, AllTargetPorts: true}.Encode()),
		step(1, cdb.PROutPreempt, cdb.PRWriteExclusiveAllRegistrants, cdb.PROutList{Key: 8, ActionKey: 7}.Encode()),
		step(1, cdb.PROutPreemptAndAbort, cdb.PRWriteExclusiveAllRegistrants, cdb.PROutList{Key: 8}.Encode())))
	move := append(cdb.PROutList{Key: 7, ActionKey: 9}.Encode(), append([]byte{0x45, 0, 0, 44}, "iqn.2026-11.example:b,i,0x000000000001\x00\x00\x00\x00\x00\x00"...)...)
	move[17], move[19], move[23] = 3, 3, byte(len(move)-24)
	f.Add(slices.Concat(register, step(0, cdb.PROutReserve, cdb.PRWriteExclusive, cdb.PROutList{Key: 7}.Encode()), step(0, cdb.PROutRegisterAndMove, 0, move)))
	f.Add(step(1, 31, 15, make([]byte, 255)))
	f.Fuzz(func(t *testing.T, in []byte) {
		kept := &memReservations{}
		p := newPRRig(t, kept, "a", "b")
		for n := 0; len(in) >= 4 && n < 64; n++ {
			who, list := "ab"[in[0]&1:][:1], in[4:min(len(in), 4+int(in[3]))]
			res := p.do(who, prOut(in[1], cdb.PRType(in[2]), len(list)), list)
			if res.Status != cdb.StatusGood && res.Status != cdb.StatusReservationConflict && res.Status != cdb.StatusCheckCondition {
				t.Fatalf("status %02x", res.Status)
			}
			now := p.lu.reserved.now.Load()
			if err := now.check(); err != nil {
				t.Fatal(err)
			}
			in = in[4+len(list):]
		}
		if _, err := newReservations(kept); err != nil {
			t.Fatal(err)
		}
	})
}
