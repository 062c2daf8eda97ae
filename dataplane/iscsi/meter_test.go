package iscsi

import (
	"context"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/iscsi/meter"
	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// counts are a target's by class, read, write and other.
func counts(st meter.Stats) (n [3]meter.Count) {
	for i, f := range st.Class {
		n[i] = f.Count
	}
	return n
}

func TestSessionsAreCounted(t *testing.T) {
	r := newRig(t, Limits{})
	counted := meter.NewTarget()
	r.dir.set(func(d *directory) { d.admit = func(a Admission) Admission { a.Meter = counted; return a } })
	c := r.dial().login(wishes())
	st := counted.Stats()
	if len(st.Sessions) != 1 || st.Sessions[0].Initiator != goodInitiator || !st.Sessions[0].Address.IsValid() || st.Sessions[0].Since.IsZero() {
		t.Fatalf("after the login: %+v", st.Sessions)
	}
	answered := func() *pdu.SCSIResponse {
		t.Helper()
		resp, _ := expect[pdu.SCSIResponse](c)
		return resp
	}
	for range 3 {
		c.send(c.write(0, 4), pattern(4*blockSize, 1))
		answered()
	}
	for range 5 {
		c.send(c.read(0, 2), nil)
		expect[pdu.DataIn](c)
	}
	c.send(c.read(len(r.lu.data)/blockSize, 1), nil) // beyond the end
	answered()
	c.send(c.command([16]byte{cdb.OpTestUnitReady}, 0), nil)
	answered()
	st = counted.Stats()
	want := [3]meter.Count{
		meter.Read:  {Commands: 6, Bytes: 5 * 2 * blockSize, Errors: 1},
		meter.Write: {Commands: 3, Bytes: 3 * 4 * blockSize},
		meter.Other: {Commands: 1},
	}
	if got := counts(st); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if st.Depth != 0 || st.DepthMax != 1 || st.Reads.N() != 6 || st.Writes.N() != 3 || st.Writes.Max() <= 0 {
		t.Errorf("depth %d of %d, %d reads and %d writes timed", st.Depth, st.DepthMax, st.Reads.N(), st.Writes.N())
	}

	held := make(chan struct{})
	r.lu.setHold(func(ctx context.Context, _ *scsi.Task) { close(held); <-ctx.Done() })
	h := c.read(0, 1)
	c.send(h, nil)
	<-held
	if st = counted.Stats(); st.Depth != 1 {
		t.Errorf("depth %d with one command that executes", st.Depth)
	}
	c.send(&pdu.TaskRequest{Immediate: true, Function: pdu.TaskAbort, ITT: 900, RefTag: h.ITT, CmdSN: c.cmdSN, RefCmdSN: h.CmdSN}, nil)
	expect[pdu.TaskResponse](c)
	if st = counted.Stats(); st.Depth != 0 || st.Aborted != 1 || counts(st) != want {
		t.Errorf("after an abort: depth %d, %d aborted, %+v", st.Depth, st.Aborted, counts(st))
	}
	r.stop()
	if st = counted.Stats(); len(st.Sessions) != 0 || counts(st) != want {
		t.Errorf("after the session's end: %+v", st)
	}
}
