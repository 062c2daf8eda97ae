package scsi

import (
	"bytes"
	"context"
	"testing"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// doNow is do by ExecuteNow where that does it.
func (r *rig) doNow(c cdb.CDB, dataOut []byte, limit int) Result {
	res, ok := r.lu.ExecuteNow(&Task{Nexus: r.nexus, CDB: c[:], DataOut: dataOut, DataInLimit: limit, Tag: 7})
	if !ok {
		return r.do(c, dataOut, limit)
	}
	res.DataIn = bytes.Clone(res.DataIn)
	res.Release()
	return res
}

// What may wait, fail, or has more to tell than its data is not for ExecuteNow.
func TestExecuteNow(t *testing.T) {
	block := make([]byte, 512)
	naca := cdb.Read16(0, 1, false)
	naca[15] = 4
	protect := cdb.Block{Op: cdb.OpRead10, Blocks: 1}.Encode()
	protect[1] = 1 << 5
	for _, c := range []struct {
		name  string
		cdb   cdb.CDB
		out   []byte
		limit int
		lun   uint64
		want  bool
	}{
		{"read", cdb.Read16(3, 1, false), nil, 512, 0, true},
		{"read 10", cdb.Block{Op: cdb.OpRead10, LBA: 3, Blocks: 1}.Encode(), nil, 512, 0, true},
		{"read with fua", cdb.Read16(3, 1, true), nil, 512, 0, true},
		{"read of nothing", cdb.Read16(3, 0, false), nil, 512, 0, false},
		{"read of more than expected", cdb.Read16(3, 2, false), nil, 512, 0, false},
		{"read beyond the end", cdb.Read16(63, 2, false), nil, 1024, 0, false},
		{"read with naca", naca, nil, 512, 0, false},
		{"read with protection", protect, nil, 512, 0, false},
		{"read of another unit", cdb.Read16(3, 1, false), nil, 512, 1 << 48, false},
		{"write", cdb.Write16(3, 1, false), block, 0, 0, true},
		{"write with fua", cdb.Write16(3, 1, true), block, 0, 0, false},
		{"write of too little", cdb.Write16(3, 2, false), block, 0, 0, false},
		{"synchronize cache", cdb.Block{Op: cdb.OpSynchronizeCache16}.Encode(), nil, 0, 0, false},
		{"inquiry", cdb.Inquiry(36), nil, 36, 0, false},
		{"unknown", cdb.CDB{0xff}, nil, 0, 0, false},
	} {
		r := newRig(t, 64, 512)
		task := &Task{Nexus: r.nexus, LUN: c.lun, CDB: c.cdb[:], DataOut: c.out, DataInLimit: c.limit}
		res, ok := r.lu.ExecuteNow(task)
		if ok != c.want {
			t.Errorf("%s: done %v", c.name, ok)
		}
		if ok && (res.Status != cdb.StatusGood || res.DataInTotal != c.limit || len(res.DataIn) != c.limit || res.DataOutTotal != len(c.out) || res.Release == nil) {
			t.Errorf("%s: %s", c.name, describe(res))
		}
		if r.store.cold = true; ok {
			res.Release()
			if _, ok := r.lu.ExecuteNow(task); ok {
				t.Errorf("%s: done though it has to wait", c.name)
			}
		}
	}
}

func TestExecuteNowTellsUnitAttentionsToNobody(t *testing.T) {
	r := newRig(t, 64, 512)
	r.lu.Grown()
	c := cdb.Read16(0, 1, false)
	task := &Task{Nexus: r.nexus, CDB: c[:], DataInLimit: 512}
	if _, ok := r.lu.ExecuteNow(task); ok {
		t.Error("done before the unit attention was told")
	}
	want(t, "execute", r.lu.Execute(context.Background(), task), cdb.KeyUnitAttention, cdb.ASCCapacityChanged)
	if res, ok := r.lu.ExecuteNow(task); !ok {
		t.Error("not done after it")
	} else {
		res.Release()
	}
}

func TestExecuteNowKeepsToReservations(t *testing.T) {
	r := newRig(t, 64, 512)
	want(t, "reserve", r.do(cdb.CDB{cdb.OpReserve6}, nil, 0), cdb.KeyNoSense, 0)
	other := r.lu.OpenNexus("iqn.2026-11.example:h2,i,0x000000000001")
	other.take()
	c := cdb.Read16(0, 1, false)
	if _, ok := r.lu.ExecuteNow(&Task{Nexus: other, CDB: c[:], DataInLimit: 512}); ok {
		t.Error("done by one who has not reserved")
	}
}

func TestExecuteNowGivesWayToExclusiveRanges(t *testing.T) {
	r := newRig(t, 64, 512)
	held, err := r.lu.ranges.acquire(context.Background(), 8, 1, true)
	if err != nil {
		t.Fatal(err)
	}
	c := cdb.Write16(8, 1, false)
	task := &Task{Nexus: r.nexus, CDB: c[:], DataOut: make([]byte, 512)}
	if _, ok := r.lu.ExecuteNow(task); ok {
		t.Error("written into a range that is being compared")
	}
	r.lu.ranges.release(held)
	if _, ok := r.lu.ExecuteNow(task); !ok {
		t.Error("not written afterwards")
	}
}

func TestExecuteNowFails(t *testing.T) {
	r := newRig(t, 64, 512)
	r.store.failWrite = func() error { return errStore }
	c := cdb.Write16(8, 1, false)
	res, ok := r.lu.ExecuteNow(&Task{Nexus: r.nexus, CDB: c[:], DataOut: make([]byte, 512)})
	if !ok || res.DataOutTotal != 512 {
		t.Errorf("done %v, %d bytes asked for", ok, res.DataOutTotal)
	}
	want(t, "write", res, cdb.KeyMediumError, cdb.ASCWriteError)
}
