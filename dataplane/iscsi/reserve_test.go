package iscsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/initiator"
)

// heldStore is a memoryStore whose writes, while held, wait until they are let go or aborted.
type heldStore struct {
	memoryStore
	held    atomic.Bool
	entered chan struct{}
	open    chan struct{}
}

func (h *heldStore) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if h.held.Load() {
		h.entered <- struct{}{}
		select {
		case <-h.open:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return h.memoryStore.WriteAt(ctx, p, off, fua)
}

// shared is a volume on the real device server, with initiators that log in to it as different hosts would.
type shared struct {
	t     *testing.T
	r     *rig
	store *heldStore
	who   map[string]*initiator.Session
}

func newShared(t *testing.T, names ...string) *shared {
	h := &shared{t: t, r: newRig(t, Limits{}), who: map[string]*initiator.Session{},
		store: &heldStore{memoryStore: memoryStore{data: make([]byte, 1<<20)}, entered: make(chan struct{}, 64), open: make(chan struct{})}}
	lu, err := scsi.NewLU(scsi.Config{ID: "0b1f3a62-7d7e-4a55-9a5e-0f6f0c9d2b11", BlockSizeBytes: blockSize, Store: h.store, TargetName: someTarget,
		RelativePort: 1, PortGroup: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h.r.dir.set(func(d *directory) { d.lu, d.everyone = lu, true })
	for _, name := range names {
		s, err := initiator.Dial(h.patience(), initiator.Config{Portal: h.r.addr, Target: someTarget, InitiatorName: "iqn.2004-10.com.example:" + name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		h.who[name] = s
		h.attention(name, cdb.ASCPowerOnOrReset)
	}
	return h
}

func (h *shared) patience() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	h.t.Cleanup(cancel)
	return ctx
}

// do executes a command as one of the initiators.
func (h *shared) do(name string, c cdb.CDB, in, out []byte) initiator.Response {
	h.t.Helper()
	res, err := h.who[name].Execute(h.patience(), &initiator.Command{CDB: c, In: in, Out: out})
	if err != nil {
		h.t.Fatalf("%s, command % x: %v", name, c, err)
	}
	return res
}

func (h *shared) status(name, what string, res initiator.Response, want byte) {
	h.t.Helper()
	if res.Status != want {
		sense, _ := cdb.ParseSense(res.Sense)
		h.t.Errorf("%s by %s: %s %v, want %s", what, name, cdb.StatusName(res.Status), sense, cdb.StatusName(want))
	}
}

// attention expects a unit attention, and no other after it.
func (h *shared) attention(name string, asc cdb.ASC) {
	h.t.Helper()
	res := h.do(name, cdb.TestUnitReady(), nil, nil)
	sense, err := cdb.ParseSense(res.Sense)
	if err != nil || res.Status != cdb.StatusCheckCondition || sense.Key != cdb.KeyUnitAttention || sense.ASC != asc {
		h.t.Errorf("%s is told %s %v (%v), want %s", name, cdb.StatusName(res.Status), sense, err, asc)
	}
	h.status(name, "the command after it", h.do(name, cdb.TestUnitReady(), nil, nil), cdb.StatusGood)
}

func (h *shared) reserve(name string, action byte, kind cdb.PRType, key, actionKey uint64) initiator.Response {
	h.t.Helper()
	list := cdb.PROutList{Key: key, ActionKey: actionKey}.Encode()
	return h.do(name, cdb.PersistentReserveOut(action, kind, uint32(len(list))), nil, list)
}

// keyOf is an initiator's reservation key.
func keyOf(name string) uint64 { return uint64(name[0]) }

func (h *shared) register(names ...string) {
	h.t.Helper()
	for _, name := range names {
		h.status(name, "REGISTER", h.reserve(name, cdb.PROutRegister, 0, 0, keyOf(name)), cdb.StatusGood)
	}
}

// keys is what READ KEYS says.
func (h *shared) keys(name string) (keys []uint64) {
	h.t.Helper()
	in := make([]byte, 256)
	res := h.do(name, cdb.PersistentReserveIn(cdb.PRInReadKeys, uint16(len(in))), in, nil)
	h.status(name, "READ KEYS", res, cdb.StatusGood)
	for b := in[8 : 8+binary.BigEndian.Uint32(in[4:])]; len(b) > 0; b = b[8:] {
		keys = append(keys, binary.BigEndian.Uint64(b))
	}
	return keys
}

// TestReservationConflictMatrix: what the holder, another registrant and a stranger may do with each type,
// over connections of their own (SPC-4 tables 60 and 66).
func TestReservationConflictMatrix(t *testing.T) {
	type may struct{ read, write bool }
	for _, c := range []struct {
		kind                         cdb.PRType
		holder, registrant, stranger may
	}{
		{cdb.PRWriteExclusive, may{true, true}, may{true, false}, may{true, false}},
		{cdb.PRExclusiveAccess, may{true, true}, may{}, may{}},
		{cdb.PRWriteExclusiveRegistrantsOnly, may{true, true}, may{true, true}, may{true, false}},
		{cdb.PRExclusiveAccessRegistrantsOnly, may{true, true}, may{true, true}, may{}},
		{cdb.PRWriteExclusiveAllRegistrants, may{true, true}, may{true, true}, may{true, false}},
		{cdb.PRExclusiveAccessAllRegistrants, may{true, true}, may{true, true}, may{}},
	} {
		t.Run(fmt.Sprint("type ", c.kind), func(t *testing.T) {
			h := newShared(t, "holder", "registrant", "stranger")
			h.register("holder", "registrant")
			h.status("holder", "RESERVE", h.reserve("holder", cdb.PROutReserve, c.kind, keyOf("holder"), 0), cdb.StatusGood)
			for name, can := range map[string]may{"holder": c.holder, "registrant": c.registrant, "stranger": c.stranger} {
				h.matrixRow(name, can.read, can.write)
			}
			allHold := c.kind == cdb.PRWriteExclusiveAllRegistrants || c.kind == cdb.PRExclusiveAccessAllRegistrants
			for other := range map[cdb.PRType]bool{c.kind: true, cdb.PRWriteExclusive: true, cdb.PRExclusiveAccessAllRegistrants: true} {
				want := cdb.StatusReservationConflict
				if other == c.kind && allHold {
					want = cdb.StatusGood
				}
				h.status("registrant", fmt.Sprint("RESERVE of type ", other), h.reserve("registrant", cdb.PROutReserve, other, keyOf("registrant"), 0), want)
			}
			h.status("stranger", "RESERVE", h.reserve("stranger", cdb.PROutReserve, c.kind, 0, 0), cdb.StatusReservationConflict)
			h.status("stranger", "RELEASE", h.reserve("stranger", cdb.PROutRelease, c.kind, 0, 0), cdb.StatusReservationConflict)
			h.status("holder", "RELEASE", h.reserve("holder", cdb.PROutRelease, c.kind, keyOf("holder"), 0), cdb.StatusGood)
			if c.kind != cdb.PRWriteExclusive && c.kind != cdb.PRExclusiveAccess {
				h.attention("registrant", cdb.ASCReservationsReleased)
			}
			h.matrixRow("stranger", true, true)
		})
	}
}

// matrixRow tries commands of every kind.
func (h *shared) matrixRow(name string, read, write bool) {
	h.t.Helper()
	want := func(allowed bool) byte {
		if allowed {
			return cdb.StatusGood
		}
		return cdb.StatusReservationConflict
	}
	block := make([]byte, blockSize)
	for _, c := range []struct {
		what    string
		cdb     cdb.CDB
		in, out []byte
		allowed bool
	}{
		{"TEST UNIT READY", cdb.TestUnitReady(), nil, nil, true},
		{"INQUIRY", cdb.Inquiry(36), make([]byte, 36), nil, true},
		{"READ CAPACITY (16)", cdb.ReadCapacity16(32), make([]byte, 32), nil, true},
		{"READ (16)", cdb.Read16(0, 1, false), block, nil, read},
		{"GET LBA STATUS", cdb.GetLBAStatus(0, 24), make([]byte, 24), nil, read},
		{"MODE SENSE (6)", cdb.ModeSense6(0x3f, 0, true, 255), make([]byte, 255), nil, read},
		{"VERIFY (16)", cdb.Block{Op: cdb.OpVerify16, Blocks: 1}.Encode(), nil, nil, read},
		{"WRITE (16)", cdb.Write16(0, 1, false), nil, block, write},
		{"WRITE ATOMIC (16)", cdb.Block{Op: cdb.OpWriteAtomic16, Blocks: 1}.Encode(), nil, block, write},
		{"WRITE SAME (16)", cdb.WriteSame16(0, 1, true, true), nil, nil, write},
		{"COMPARE AND WRITE", cdb.CompareAndWrite(0, 1, false), nil, make([]byte, 2*blockSize), write},
		{"SYNCHRONIZE CACHE (16)", cdb.SynchronizeCache16(0, 0), nil, nil, write},
	} {
		h.status(name, c.what, h.do(name, c.cdb, c.in, c.out), want(c.allowed))
	}
}

// TestPreemptAndAbortOverConnections: the commands of who is preempted are gone, without an answer and without an
// effect, before the preemptor is told; everybody else's go on; each is told what happened.
func TestPreemptAndAbortOverConnections(t *testing.T) {
	h := newShared(t, "preemptor", "victim", "witness")
	h.register("preemptor", "victim", "witness")
	h.status("victim", "RESERVE", h.reserve("victim", cdb.PROutReserve, cdb.PRWriteExclusiveRegistrantsOnly, keyOf("victim"), 0), cdb.StatusGood)

	h.store.held.Store(true)
	writing, stop := context.WithCancel(h.patience())
	defer stop()
	type answer struct {
		res initiator.Response
		err error
	}
	answers := map[string]chan answer{"victim": make(chan answer, 3), "witness": make(chan answer, 1)}
	write := func(name string, lba uint64) {
		go func() {
			res, err := h.who[name].Execute(writing, &initiator.Command{CDB: cdb.Write16(lba, 1, false), Out: pattern(blockSize, 7)})
			answers[name] <- answer{res, err}
		}()
		<-h.store.entered
	}
	for lba := range uint64(3) {
		write("victim", lba)
	}
	write("witness", 8)

	// The new reservation is of another type, so the witness loses what he had by it.
	h.status("preemptor", "PREEMPT AND ABORT", h.reserve("preemptor", cdb.PROutPreemptAndAbort, cdb.PRExclusiveAccess, keyOf("preemptor"), keyOf("victim")), cdb.StatusGood)
	if keys := h.keys("preemptor"); fmt.Sprint(keys) != fmt.Sprint([]uint64{keyOf("preemptor"), keyOf("witness")}) {
		t.Errorf("the keys are %x", keys)
	}
	// It was answered while the store still holds the writes: the victim's have ended by abort.
	h.store.held.Store(false)
	close(h.store.open)
	if a := <-answers["witness"]; a.err != nil || a.res.Status != cdb.StatusGood {
		t.Errorf("the witness's write: %s, %v", cdb.StatusName(a.res.Status), a.err)
	}
	h.attention("victim", cdb.ASCRegistrationsPreempted)
	h.attention("witness", cdb.ASCReservationsReleased)
	for _, name := range []string{"victim", "witness"} {
		h.status(name, "a write afterwards", h.do(name, cdb.Write16(9, 1, false), nil, make([]byte, blockSize)), cdb.StatusReservationConflict)
	}
	stop()
	for range 3 {
		if a := <-answers["victim"]; a.err == nil {
			t.Errorf("an aborted write was answered: %s", cdb.StatusName(a.res.Status))
		}
	}
	in := make([]byte, 9*blockSize)
	h.status("preemptor", "READ (16)", h.do("preemptor", cdb.Read16(0, 9, false), in, nil), cdb.StatusGood)
	for lba := range 9 {
		if wrote := in[lba*blockSize+1] != 0; wrote != (lba == 8) {
			t.Errorf("block %d was written: %v", lba, wrote)
		}
	}
}

// TestPreemptEachOther: of two that preempt each other at once one wins, and neither waits forever.
func TestPreemptEachOther(t *testing.T) {
	h := newShared(t, "a", "b")
	type answer struct {
		name string
		good bool
	}
	told := func(name string) { // all unit attentions
		for res := h.do(name, cdb.TestUnitReady(), nil, nil); res.Status == cdb.StatusCheckCondition; {
			res = h.do(name, cdb.TestUnitReady(), nil, nil)
		}
	}
	for range 50 {
		h.register("a", "b")
		ctx, cancel := context.WithCancel(h.patience())
		done := make(chan answer, 2)
		for name, other := range map[string]string{"a": "b", "b": "a"} {
			list := cdb.PROutList{Key: keyOf(name), ActionKey: keyOf(other)}.Encode()
			go func() {
				res, err := h.who[name].Execute(ctx, &initiator.Command{CDB: cdb.PersistentReserveOut(cdb.PROutPreemptAndAbort, cdb.PRExclusiveAccess, 24), Out: list})
				done <- answer{name, err == nil && res.Status == cdb.StatusGood}
			}()
		}
		first := <-done
		loser := map[string]string{"a": "b", "b": "a"}[first.name]
		if first.good {
			// The other's command may have been aborted, and is then never answered: this comes after any answer.
			told(loser)
			cancel()
		}
		if second := <-done; first.good == second.good {
			t.Fatalf("%s and %s: both are %v", first.name, loser, first.good)
		}
		cancel()
		for _, name := range []string{"a", "b"} {
			told(name)
			h.reserve(name, cdb.PROutClear, 0, keyOf(name), 0)
		}
		told("a")
		told("b")
	}
}
