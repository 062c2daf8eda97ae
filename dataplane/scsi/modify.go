package scsi

import (
	"bytes"
	"context"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// compareAndWrite is COMPARE AND WRITE (SBC-3 §5.2): the data out is what must be there
// and then what shall be. It is atomic against all other writes to these blocks.
func (lu *LU) compareAndWrite(r request) Result {
	b := &r.block
	if refused, ok := lu.checkRange(b, uint64(lu.limits.MaxCompareAndWrite)); !ok {
		return refused
	}
	half := int(lu.bytes(uint64(b.Blocks)))
	if len(r.DataOut) != 2*half {
		refused := badCDB(13, -1)
		refused.DataOutTotal = 2 * half
		return refused
	}
	res := Result{Status: cdb.StatusGood}
	if half > 0 {
		res = lu.swap(&r, r.DataOut[:half], r.DataOut[half:])
	}
	res.DataOutTotal = 2 * half
	return res
}

// swap writes next if the blocks hold old.
func (lu *LU) swap(r *request, old, next []byte) Result {
	b := &r.block
	held, err := lu.ranges.acquire(r.ctx, b.LBA, uint64(b.Blocks), true)
	if err != nil {
		return aborted()
	}
	defer lu.ranges.release(held)
	if res := lu.compareMedium(r, sameAs(old)); res.Status != cdb.StatusGood {
		return res
	}
	if err := lu.cfg.Store.WriteAt(r.ctx, next, lu.bytes(b.LBA), b.FUA); err != nil {
		return writeFailed(err)
	}
	return good()
}

// orWrite is ORWRITE (16) (SBC-3 §5.5): bits are set, atomically against other writes.
func (lu *LU) orWrite(r request) Result {
	b := &r.block
	if refused, ok := lu.checkRange(b, uint64(lu.limits.MaxTransfer)); !ok {
		return refused
	}
	total := int(lu.bytes(uint64(b.Blocks)))
	data, refused, ok := r.dataOut(total)
	if !ok {
		return refused
	}
	res := Result{Status: cdb.StatusGood}
	if total > 0 {
		res = lu.setBits(&r, data)
	}
	res.DataOutTotal = total
	return res
}

func (lu *LU) setBits(r *request, data []byte) Result {
	b := &r.block
	held, err := lu.ranges.acquire(r.ctx, b.LBA, uint64(b.Blocks), true)
	if err != nil {
		return aborted()
	}
	defer lu.ranges.release(held)
	buf := lu.buffers.get(len(data))
	defer buf.release()
	p := buf.b[:len(data)]
	if err := lu.cfg.Store.ReadAt(r.ctx, p, lu.bytes(b.LBA)); err != nil {
		return lu.unreadable(r.ctx, err, p, b.LBA)
	}
	for i := range p {
		p[i] |= data[i]
	}
	if err := lu.cfg.Store.WriteAt(r.ctx, p, lu.bytes(b.LBA), b.FUA); err != nil {
		return writeFailed(err)
	}
	return good()
}

// writeSame is WRITE SAME (10) and (16) (SBC-3 §5.41, §5.42): one block over and over. A
// block of zeros becomes Store.Zero, with the UNMAP bit or without: what the blocks read
// as is the same, and the Store may save the space.
func (lu *LU) writeSame(r request) Result {
	b := &r.block
	switch {
	case b.Anchor:
		return badCDB(1, 4)
	case b.PBData:
		return badCDB(1, 2)
	case b.LBData:
		return badCDB(1, 1)
	}
	if refused, ok := lu.checkRange(b, lu.limits.MaxWriteSame); !ok {
		return refused
	}
	if b.Blocks == 0 {
		// WSNZ: 0 would mean all the blocks to the end, which the limit never lets happen
		// on a volume of a real size.
		return badCDB(lengthField(b.Op), -1)
	}
	size := int(lu.cfg.BlockSizeBytes)
	var pattern []byte
	if !b.NDOB {
		if len(r.DataOut) != size {
			refused := check(cdb.KeyIllegalRequest, ascInvalidFieldInUnit)
			refused.DataOutTotal = size
			return refused
		}
		pattern = r.DataOut
	}
	res := lu.fill(&r, uint64(b.Blocks), pattern)
	res.DataOutTotal = len(pattern)
	return res
}

// fillChunkBytes is how much WRITE SAME writes at a time.
const fillChunkBytes = 1 << 20

// fill writes pattern, one block, over blocks; nil is zeros.
func (lu *LU) fill(r *request, blocks uint64, pattern []byte) Result {
	lba := r.block.LBA
	held, err := lu.ranges.acquire(r.ctx, lba, blocks, false)
	if err != nil {
		return aborted()
	}
	defer lu.ranges.release(held)
	if allZero(pattern) {
		if err := lu.cfg.Store.Zero(r.ctx, lu.bytes(lba), lu.bytes(blocks)); err != nil {
			return writeFailed(err)
		}
		return good()
	}
	total := int(lu.bytes(blocks))
	buf := lu.buffers.get(min(total, fillChunkBytes))
	defer buf.release()
	chunk := buf.b[:min(total, fillChunkBytes)]
	for n := copy(chunk, pattern); n < len(chunk); n *= 2 {
		copy(chunk[n:], chunk[:n])
	}
	for done := 0; done < total; {
		n := min(total-done, len(chunk))
		if err := lu.cfg.Store.WriteAt(r.ctx, chunk[:n], lu.bytes(lba)+int64(done), false); err != nil {
			return writeFailed(err)
		}
		done += n
		// Begun: from here on the command can't be aborted.
		r.ctx = context.WithoutCancel(r.ctx)
	}
	return good()
}

// allZero reports whether b has no bit set.
func allZero(b []byte) bool {
	// A slice is all zeros when its first byte is and it equals itself moved by one.
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// unmap is UNMAP (SBC-3 §5.26). All descriptors are judged before the first is carried out.
func (lu *LU) unmap(r request) Result {
	q, err := cdb.DecodeUnmap(r.CDB)
	if err != nil {
		return decodeFailed(err)
	}
	if q.Anchor {
		return badCDB(1, 0)
	}
	length := int(q.ListLength)
	if length == 0 {
		return good()
	}
	if len(r.DataOut) < length {
		return check(cdb.KeyIllegalRequest, cdb.ASCParameterListLength)
	}
	ranges, err := cdb.ParseUnmapList(r.DataOut[:length], maxUnmapDescriptors)
	if err != nil {
		return decodeFailed(err)
	}
	res := lu.unmapRanges(&r, ranges)
	res.DataOutTotal = length
	return res
}

func (lu *LU) unmapRanges(r *request, ranges []cdb.LBARange) Result {
	capacity, sum := lu.blocks(), uint64(0)
	for i, u := range ranges {
		if u.LBA > capacity || uint64(u.Blocks) > capacity-u.LBA {
			return check(cdb.KeyIllegalRequest, cdb.ASCLBAOutOfRange)
		}
		if sum += uint64(u.Blocks); sum > uint64(lu.limits.MaxUnmap) {
			return badParameter(cdb.UnmapHeaderLength + i*cdb.UnmapDescriptorLength + 8)
		}
	}
	for _, u := range ranges {
		if u.Blocks == 0 {
			continue
		}
		if res := lu.zero(r, u); res.Status != cdb.StatusGood {
			return res
		}
		// Begun: from here on the command can't be aborted.
		r.ctx = context.WithoutCancel(r.ctx)
	}
	return good()
}

func (lu *LU) zero(r *request, u cdb.LBARange) Result {
	held, err := lu.ranges.acquire(r.ctx, u.LBA, uint64(u.Blocks), false)
	if err != nil {
		return aborted()
	}
	defer lu.ranges.release(held)
	if err := lu.cfg.Store.Zero(r.ctx, lu.bytes(u.LBA), lu.bytes(uint64(u.Blocks))); err != nil {
		return writeFailed(err)
	}
	return good()
}
