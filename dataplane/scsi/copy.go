package scsi

import (
	"bytes"
	"context"
	"math/bits"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// EXTENDED COPY (LID1) within the logical unit: hosts that clone a file or a virtual disk on it
// need not have its bytes travel to them and back. Other logical units are not reached.

const (
	maxCopyTargets  = 2
	maxCopySegments = 16
	maxCopyBytes    = 1024 // of descriptors
	maxCopies       = 16   // at a time; told, not enforced: commands are bounded by the transport
	// copyStepBytes is how much is copied at a time.
	copyStepBytes = 1 << 20
	// heldCopies is how many results are kept for a nexus to ask for.
	heldCopies = 16
)

func (lu *LU) copyParameters() cdb.CopyParameters {
	return cdb.CopyParameters{
		CopyLimits:   cdb.CopyLimits{Targets: maxCopyTargets, Segments: maxCopySegments, Bytes: maxCopyBytes},
		SegmentBytes: uint32(min(lu.bytes(1<<16-1), 1<<32-1)),
		Concurrent:   maxCopies,
		Granularity:  uint8(bits.TrailingZeros32(lu.cfg.BlockSizeBytes)),
	}
}

// copyResult is what became of a copy with a list id.
type copyResult struct {
	id     byte
	status cdb.CopyStatus
}

// Copy manager status.
const (
	copyUnderWay uint8 = 0
	copyDone     uint8 = 1
	copyFailed   uint8 = 2
)

// copyBegins notes a copy of that list id; it refuses one that is under way.
func (n *Nexus) copyBegins(id byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, c := range n.copies {
		if c.id == id {
			if c.status.Manager == copyUnderWay {
				return false
			}
			n.copies = append(n.copies[:i], n.copies[i+1:]...)
			break
		}
	}
	if len(n.copies) >= heldCopies {
		// The oldest that is over; the transport has fewer commands under way than that, or all
		// of them are copies, whose number it bounds.
		for i, c := range n.copies {
			if c.status.Manager != copyUnderWay {
				n.copies = append(n.copies[:i], n.copies[i+1:]...)
				break
			}
		}
	}
	n.copies = append(n.copies, copyResult{id: id})
	return true
}

// copyGoes notes how far a copy is.
func (n *Nexus) copyGoes(id byte, status cdb.CopyStatus) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.copies {
		if n.copies[i].id == id {
			n.copies[i].status = status
		}
	}
}

// copyStatus finds a copy by its list id.
func (n *Nexus) copyStatus(id byte) (status cdb.CopyStatus, ok bool) {
	if n == nil {
		return status, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.copies {
		if c.id == id {
			return c.status, true
		}
	}
	return status, false
}

// extendedCopy is EXTENDED COPY (LID1) (SPC-4 §6.4).
func (lu *LU) extendedCopy(r request) Result {
	length := cdb.Allocation(r.CDB)
	if length == 0 {
		return good()
	}
	if len(r.DataOut) < length {
		return check(cdb.KeyIllegalRequest, cdb.ASCParameterListLength)
	}
	list, err := cdb.ParseCopyList(r.DataOut[:length], lu.copyParameters().CopyLimits)
	if err != nil {
		return decodeFailed(err)
	}
	res := lu.copyListed(&r, &list)
	res.DataOutTotal = length
	return res
}

func (lu *LU) copyListed(r *request, list *cdb.CopyList) Result {
	named := list.Usage != 3 && r.Nexus != nil
	if named && !r.Nexus.copyBegins(list.ListID) {
		return check(cdb.KeyIllegalRequest, cdb.ASCOperationInProgress)
	}
	status := cdb.CopyStatus{Manager: copyFailed}
	res, copied := good(), int64(0)
	if refused, ok := lu.checkCopy(list); !ok {
		res = refused
	} else {
		for i := range list.Segments {
			n, failed := lu.copySegment(r.ctx, &list.Segments[i], i)
			if copied += n; failed != nil {
				res = *failed
				break
			}
			status.Segments++
		}
	}
	if res.Status == cdb.StatusGood {
		status.Manager = copyDone
	}
	status.Transferred = uint32(copied >> 10)
	if named {
		r.Nexus.copyGoes(list.ListID, status)
	}
	return res
}

// copyAborted says that segment number was not carried out (SPC-4 §6.4.3).
func copyAborted(asc cdb.ASC, number int) Result {
	return checkSense(cdb.Sense{Key: cdb.KeyCopyAborted, ASC: asc, CommandSpecific: uint64(number)})
}

// checkCopy judges all segments before the first is carried out.
func (lu *LU) checkCopy(list *cdb.CopyList) (refused Result, ok bool) {
	capacity := lu.blocks()
	for i, s := range list.Segments {
		for _, index := range []uint16{s.Source, s.Destination} {
			if asc := lu.reaches(list.Targets, index); asc != cdb.ASCNone {
				return copyAborted(asc, i), false
			}
		}
		for _, lba := range []uint64{s.SourceLBA, s.DestinationLBA} {
			if lba > capacity || uint64(s.Blocks) > capacity-lba {
				return copyAborted(cdb.ASCNone, i), false
			}
		}
	}
	return Result{}, true
}

// reaches finds out whether a CSCD is this logical unit, and says why it is not.
func (lu *LU) reaches(targets []cdb.CopyTarget, index uint16) cdb.ASC {
	if index == cdb.CopyThisUnit {
		return cdb.ASCNone
	}
	if int(index) >= len(targets) {
		return cdb.ASCUnreachableCopyTarget
	}
	t, naa := &targets[index], lu.NAA()
	switch {
	case t.Type != cdb.DesignatorNAA || t.Association != cdb.AssociationLogicalUnit || !bytes.Equal(t.Value, naa[:]):
		return cdb.ASCCopyTargetNotReachable
	case t.DeviceType != 0 || t.BlockSizeBytes != lu.cfg.BlockSizeBytes:
		return cdb.ASCIncorrectCopyTargetType
	}
	return cdb.ASCNone
}

// copySegment carries out a segment: as if all of it were read before the first block is written. It
// returns how many bytes were copied. Ending the context stops it between two steps.
func (lu *LU) copySegment(ctx context.Context, s *cdb.CopySegment, number int) (copied int64, failed *Result) {
	if s.Blocks == 0 {
		return 0, nil
	}
	held, err := lu.ranges.acquire(ctx, s.DestinationLBA, uint64(s.Blocks), false)
	if err != nil {
		res := aborted()
		return 0, &res
	}
	defer lu.ranges.release(held)
	total := lu.bytes(uint64(s.Blocks))
	buf := lu.buffers.get(int(min(total, copyStepBytes)))
	defer buf.release()
	from, to := lu.bytes(s.SourceLBA), lu.bytes(s.DestinationLBA)
	backward := from < to && to < from+total
	for copied < total {
		n := min(total-copied, copyStepBytes)
		at := copied
		if backward {
			at = total - copied - n
		}
		if err := lu.copyStep(ctx, buf.b[:n], from+at, to+at); err != nil {
			res := copyAborted(cdb.ASCThirdPartyDeviceFailure, number)
			if sense, stopped := storeSense(err, cdb.ASCNone); stopped || sense.Key == cdb.KeyDataProtect {
				res = checkOrAbort(sense, stopped)
			}
			return copied, &res
		}
		copied += n
	}
	return copied, nil
}

// copyStep copies what fits p. What the Store has no space for at the source takes none at the destination.
func (lu *LU) copyStep(ctx context.Context, p []byte, from, to int64) error {
	run, mapped, err := lu.cfg.Store.Mapped(ctx, from, int64(len(p)))
	if err != nil {
		return err
	}
	if !mapped && run >= int64(len(p)) {
		return lu.cfg.Store.Zero(ctx, to, int64(len(p)))
	}
	if err := lu.cfg.Store.ReadAt(ctx, p, from); err != nil {
		return err
	}
	return lu.cfg.Store.WriteAt(ctx, p, to, false)
}

// receiveCopyStatus is RECEIVE COPY RESULTS, COPY STATUS (SPC-4 §6.20).
func (lu *LU) receiveCopyStatus(r request) Result {
	status, ok := r.Nexus.copyStatus(r.CDB[2])
	if !ok {
		return badCDB(2, -1)
	}
	return r.parameterData(status.Encode(), cdb.Allocation(r.CDB))
}

// receiveCopyParameters is RECEIVE COPY RESULTS, OPERATING PARAMETERS (SPC-4 §6.24).
func (lu *LU) receiveCopyParameters(r request) Result {
	return r.parameterData(lu.copyParameters().Encode(), cdb.Allocation(r.CDB))
}
