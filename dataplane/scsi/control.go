package scsi

import (
	"encoding/binary"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// testUnitReady is TEST UNIT READY (SPC-4 §6.47).
func (lu *LU) testUnitReady(r request) Result {
	if _, sense := lu.base.run(r.CDB, lu.cfg.Store.SizeBytes()); sense != nil {
		return checkSense(*sense)
	}
	return good()
}

// requestSense is REQUEST SENSE (SPC-4 §6.39): a waiting unit attention is told, and
// with that done, as data.
func (lu *LU) requestSense(r request) Result {
	var s cdb.Sense
	if asc, ok := r.Nexus.take(); ok {
		s = cdb.Sense{Key: cdb.KeyUnitAttention, ASC: asc}
	}
	return lu.senseData(&r, s)
}

// senseData answers REQUEST SENSE in the format that it asks for.
func (lu *LU) senseData(r *request, s cdb.Sense) Result {
	data := s.Fixed()
	if r.CDB[1]&1 != 0 {
		data = s.Descriptor()
	}
	return r.parameterData(data, cdb.Allocation(r.CDB))
}

// reportLUNs is REPORT LUNS (SPC-4 §6.33): LUN 0, and no well known logical units.
func (lu *LU) reportLUNs(r request) Result {
	q, err := cdb.DecodeReportLUNs(r.CDB)
	if err != nil {
		return decodeFailed(err)
	}
	luns := []uint64{cdb.EncodeLUN(0)}
	if q.Select == 1 {
		luns = nil
	}
	return r.parameterData(cdb.AppendLUNs(nil, luns), int(q.Allocation))
}

// startStop is START STOP UNIT (SBC-3 §5.25). There is no motor: stopping writes the
// cache back, as it must, and the logical unit stays ready, since one initiator's
// stop must not take a shared volume from the others.
func (lu *LU) startStop(r request) Result {
	q, err := cdb.DecodeStartStop(r.CDB)
	if err != nil {
		return decodeFailed(err)
	}
	switch {
	case q.PowerCondition == 0 && q.LoadEject:
		// The medium is not removable.
		return badCDB(4, 1)
	case q.PowerCondition == 0 && !q.Start && !q.NoFlush:
		if err := lu.cfg.Store.Flush(r.ctx); err != nil {
			return writeFailed(err)
		}
	}
	return good()
}

// sendDiagnostic is SEND DIAGNOSTIC (SPC-4 §6.42): the default self-test, which is to
// be here, and nothing else.
func (lu *LU) sendDiagnostic(r request) Result {
	if length := int(r.CDB[3])<<8 | int(r.CDB[4]); length != 0 {
		return badCDB(3, -1)
	}
	if r.CDB[1]&0xe3 != 0 {
		return badCDB(1, 7)
	}
	return good()
}

// readCapacity10 is READ CAPACITY (10) (SBC-3 §5.15).
func (lu *LU) readCapacity10(r request) Result {
	data, sense := lu.base.run(r.CDB[:10], lu.cfg.Store.SizeBytes())
	if sense != nil {
		return checkSense(*sense)
	}
	return r.parameterData(data, cdb.Capacity10Length)
}

// readCapacity16 is READ CAPACITY (16) (SBC-3 §5.16). gotgt's lacks LBPRZ and half of
// the data. The physical block is the logical one; what size a medium likes best, the
// block limits page tells as the optimal granularity.
func (lu *LU) readCapacity16(r request) Result {
	data := cdb.Capacity{LastLBA: lu.blocks() - 1, BlockSizeBytes: lu.cfg.BlockSizeBytes, Provisioned: true, ReadZeros: true}
	return r.parameterData(data.Encode16(), cdb.Allocation(r.CDB))
}

// readDefectData is READ DEFECT DATA (10) and (12) (SBC-3 §5.17, §5.18). A volume's defects are its
// media's business: both lists are valid and empty, in whichever format they are asked for.
func (lu *LU) readDefectData(r request) Result {
	if r.CDB[0] == cdb.OpReadDefectData10 {
		return r.parameterData([]byte{0, r.CDB[2] & 0x1f, 0, 0}, int(binary.BigEndian.Uint16(r.CDB[7:])))
	}
	return r.parameterData([]byte{1: r.CDB[1] & 0x1f, 7: 0}, int(min(binary.BigEndian.Uint32(r.CDB[6:]), 8)))
}

// maxStatusRuns bounds what one GET LBA STATUS looks up and returns; the initiator asks on from there.
// maxStatusSteps bounds what is looked up for one of them, which may then be shorter than it could be.
const (
	maxStatusRuns  = 256
	maxStatusSteps = 64
)

// getLBAStatus is GET LBA STATUS (SBC-3 §5.4): which blocks the Store holds space for, in runs from
// the LBA on, as many as there is room for. There is at least one.
func (lu *LU) getLBAStatus(r request) Result {
	lba, capacity, allocation := binary.BigEndian.Uint64(r.CDB[2:]), lu.blocks(), cdb.Allocation(r.CDB)
	if lba >= capacity {
		return check(cdb.KeyIllegalRequest, cdb.ASCLBAOutOfRange)
	}
	var runs []cdb.LBAStatus
	for room := min(max(1, (allocation-8)/16), maxStatusRuns); len(runs) < room && lba < capacity; {
		run, err := lu.statusAt(&r, lba, capacity)
		if err != nil {
			return readFailed(err)
		}
		lba += uint64(run.Blocks)
		runs = append(runs, run)
	}
	return r.parameterData(cdb.AppendLBAStatus(nil, runs), allocation)
}

// statusAt finds the run of blocks that begins at lba. A block of which a part is mapped is mapped.
func (lu *LU) statusAt(r *request, lba, capacity uint64) (cdb.LBAStatus, error) {
	run := cdb.LBAStatus{LBARange: cdb.LBARange{LBA: lba}}
	most := min(capacity-lba, 1<<32-1)
	for step := 0; uint64(run.Blocks) < most && step < maxStatusSteps; step++ {
		at := lba + uint64(run.Blocks)
		n, mapped, err := lu.cfg.Store.Mapped(r.ctx, lu.bytes(at), lu.bytes(most-uint64(run.Blocks)))
		if err != nil {
			return run, err
		}
		blocks := uint64(n) >> lu.shift
		if part := uint64(n) & uint64(lu.cfg.BlockSizeBytes-1); mapped && part != 0 {
			blocks++
		}
		if blocks == 0 {
			blocks, mapped = 1, true
		}
		state := lbaDeallocated
		if mapped {
			state = lbaMapped
		}
		if run.Blocks > 0 && state != run.State {
			break
		}
		run.State = state
		run.Blocks += uint32(blocks)
	}
	return run, nil
}

// Provisioning status (SBC-3 table 48).
const (
	lbaMapped      uint8 = 0
	lbaDeallocated uint8 = 1
)
