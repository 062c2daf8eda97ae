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

// getLBAStatus is GET LBA STATUS (SBC-3 §5.4). A Store does not tell what it holds space
// for, so every block counts as mapped, which is always safe: an initiator reads it
// instead of taking it for zeros. The one run ends where its 32 bits or the volume do.
func (lu *LU) getLBAStatus(r request) Result {
	lba, capacity := binary.BigEndian.Uint64(r.CDB[2:]), lu.blocks()
	if lba >= capacity {
		return check(cdb.KeyIllegalRequest, cdb.ASCLBAOutOfRange)
	}
	run := cdb.LBAStatus{LBARange: cdb.LBARange{LBA: lba, Blocks: uint32(min(capacity-lba, 1<<32-1))}}
	return r.parameterData(cdb.AppendLBAStatus(nil, []cdb.LBAStatus{run}), cdb.Allocation(r.CDB))
}
