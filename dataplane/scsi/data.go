package scsi

import (
	"bytes"
	"context"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// ascInvalidFieldInUnit is INVALID FIELD IN COMMAND INFORMATION UNIT (0E/03): what the
// transport carried does not fit the CDB.
const ascInvalidFieldInUnit cdb.ASC = 0x0e03

// verifyChunkBytes is how much VERIFY reads at a time.
const verifyChunkBytes = 1 << 20

// checkRange judges a block command's protection field and range. limit is the
// largest number of blocks that it may name, 0 for none. A refusal is ok false.
func (lu *LU) checkRange(b *cdb.Block, limit uint64) (refused Result, ok bool) {
	if b.Protect != 0 {
		// No protection information (SBC-3 §4.21).
		return badCDB(1, 7), false
	}
	capacity := lu.blocks()
	if b.LBA > capacity || uint64(b.Blocks) > capacity-b.LBA {
		return check(cdb.KeyIllegalRequest, cdb.ASCLBAOutOfRange), false
	}
	if limit != 0 && uint64(b.Blocks) > limit {
		return badCDB(lengthField(b.Op), -1), false
	}
	return Result{}, true
}

// lengthField is the offset of a block CDB's transfer length.
func lengthField(op byte) int {
	switch {
	case op == cdb.OpCompareAndWrite:
		return 13
	case op == cdb.OpWriteAtomic16:
		return 12
	case cdb.Length(op) == 6:
		return 4
	case cdb.Length(op) == 10:
		return 7
	case cdb.Length(op) == 12:
		return 6
	}
	return 10
}

// read is READ (6), (10), (12) and (16) (SBC-3 §5.10 to §5.13). FUA needs no more: a
// read returns what the last write left, wherever it is.
func (lu *LU) read(r request) Result {
	b := &r.block
	if refused, ok := lu.checkRange(b, uint64(lu.limits.MaxTransfer)); !ok {
		return refused
	}
	total := int(lu.bytes(uint64(b.Blocks)))
	wanted := min(total, r.inLimit())
	res := Result{Status: cdb.StatusGood, DataInTotal: total}
	if wanted == 0 {
		return res
	}
	// A transport that expects less gets less, but the Store reads whole blocks.
	mask := int(lu.cfg.BlockSizeBytes) - 1
	whole := (wanted + mask) &^ mask
	buf := lu.buffers.get(whole)
	if err := lu.cfg.Store.ReadAt(r.ctx, buf.b[:whole], lu.bytes(b.LBA)); err != nil {
		res = lu.unreadable(r.ctx, err, buf.b[:whole], b.LBA)
		buf.release()
		return res
	}
	res.DataIn, res.Release = buf.b[:wanted], buf.release
	return res
}

// dataOut checks that the data out is all there. More than the CDB asks for is
// ignored; less is refused before anything happens.
func (r *request) dataOut(n int) (data []byte, refused Result, ok bool) {
	if len(r.DataOut) >= n {
		return r.DataOut[:n], Result{}, true
	}
	refused = check(cdb.KeyIllegalRequest, ascInvalidFieldInUnit)
	refused.DataOutTotal = n
	return nil, refused, false
}

// writeOut is dataOut for plain writes, for which an expected data transfer length below
// the CDB's is no error: the blocks that it covers are written, and the residual
// overflow tells the rest (RFC 7143 §11.4.5.1, FCP-4 §9.4.2). Part of a block is
// refused, and so is a command that the transport carries as a read.
func (lu *LU) writeOut(r *request, n int) (data []byte, refused Result, ok bool) {
	if have := len(r.DataOut); have < n && r.DataInLimit <= 0 && have%int(lu.cfg.BlockSizeBytes) == 0 {
		r.block.Blocks = uint32(have >> lu.shift)
		return r.DataOut, Result{}, true
	}
	return r.dataOut(n)
}

// write is WRITE (6), (10), (12) and (16) (SBC-3 §5.31 to §5.34).
func (lu *LU) write(r request) Result {
	b := &r.block
	if refused, ok := lu.checkRange(b, uint64(lu.limits.MaxTransfer)); !ok {
		return refused
	}
	total := int(lu.bytes(uint64(b.Blocks)))
	data, refused, ok := lu.writeOut(&r, total)
	if !ok {
		return refused
	}
	res := Result{Status: cdb.StatusGood, DataOutTotal: total}
	if len(data) == 0 {
		return res
	}
	held, err := lu.ranges.acquire(r.ctx, b.LBA, uint64(b.Blocks), false)
	if err != nil {
		return aborted()
	}
	defer lu.ranges.release(held)
	if err := lu.cfg.Store.WriteAt(r.ctx, data, lu.bytes(b.LBA), b.FUA); err != nil {
		res = writeFailed(err)
		res.DataOutTotal = total
	}
	return res
}

// writeAtomic is WRITE ATOMIC (16) (SBC-4 §5.48): all of it or nothing, and stable, whether FUA asks
// for that or not. An atomic boundary, which would let parts be atomic by themselves, is not supported.
func (lu *LU) writeAtomic(r request) Result {
	b := &r.block
	if refused, ok := lu.checkRange(b, uint64(lu.limits.MaxAtomic)); !ok {
		return refused
	}
	if b.Boundary != 0 {
		return badCDB(10, -1)
	}
	total := int(lu.bytes(uint64(b.Blocks)))
	data, refused, ok := r.dataOut(total)
	if !ok {
		return refused
	}
	res := Result{Status: cdb.StatusGood, DataOutTotal: total}
	if total == 0 {
		return res
	}
	held, err := lu.ranges.acquire(r.ctx, b.LBA, uint64(b.Blocks), false)
	if err != nil {
		return aborted()
	}
	defer lu.ranges.release(held)
	if err := lu.cfg.Store.WriteAtomic(r.ctx, data, lu.bytes(b.LBA)); err != nil {
		res = writeFailed(err)
		res.DataOutTotal = total
	}
	return res
}

// writeAndVerify is WRITE AND VERIFY (10), (12) and (16) (SBC-3 §5.36 to §5.38): the
// data must be on the medium before they are read back, so it writes with FUA.
func (lu *LU) writeAndVerify(r request) Result {
	b := &r.block
	if refused, ok := lu.checkRange(b, uint64(lu.limits.MaxTransfer)); !ok {
		return refused
	}
	if b.ByteCheck > 1 {
		return badCDB(1, 2)
	}
	total := int(lu.bytes(uint64(b.Blocks)))
	data, refused, ok := lu.writeOut(&r, total)
	if !ok {
		return refused
	}
	res := Result{Status: cdb.StatusGood}
	if len(data) > 0 {
		res = lu.writeAndReadBack(&r, data)
	}
	res.DataOutTotal = total
	return res
}

func (lu *LU) writeAndReadBack(r *request, data []byte) Result {
	b := &r.block
	held, err := lu.ranges.acquire(r.ctx, b.LBA, uint64(b.Blocks), true)
	if err != nil {
		return aborted()
	}
	defer lu.ranges.release(held)
	if err := lu.cfg.Store.WriteAt(r.ctx, data, lu.bytes(b.LBA), true); err != nil {
		return writeFailed(err)
	}
	// The write has taken effect: from here on the command can't be aborted.
	r.ctx = context.WithoutCancel(r.ctx)
	if b.ByteCheck == 0 {
		return lu.compareMedium(r, nil)
	}
	return lu.compareMedium(r, sameAs(data))
}

// verify is VERIFY (10), (12) and (16) (SBC-3 §5.27 to §5.29).
func (lu *LU) verify(r request) Result {
	b := &r.block
	if refused, ok := lu.checkRange(b, uint64(lu.limits.MaxTransfer)); !ok {
		return refused
	}
	total, size := int(lu.bytes(uint64(b.Blocks))), int(lu.cfg.BlockSizeBytes)
	switch {
	case b.ByteCheck == 2:
		return badCDB(1, 2)
	case b.ByteCheck == 0:
		return lu.compareMedium(&r, nil)
	case b.ByteCheck == 3:
		total = min(total, size)
	}
	data, refused, ok := r.dataOut(total)
	if !ok {
		return refused
	}
	want := sameAs(data)
	if b.ByteCheck == 3 {
		repeated := bytes.Repeat(data, int(min(b.Blocks, verifyChunkBytes/lu.cfg.BlockSizeBytes)))
		want = func(_, n int) []byte { return repeated[:n] }
	}
	res := lu.compareMedium(&r, want)
	res.DataOutTotal = total
	return res
}

// expected gives the n bytes that shall be at offset at of a command's range. n is at most
// verifyChunkBytes.
type expected func(at, n int) []byte

func sameAs(data []byte) expected {
	return func(at, n int) []byte { return data[at : at+n] }
}

// compareMedium reads the command's blocks and compares them with want; with want nil
// it is enough that they can be read.
func (lu *LU) compareMedium(r *request, want expected) Result {
	total := int(lu.bytes(uint64(r.block.Blocks)))
	if total == 0 {
		return good()
	}
	buf := lu.buffers.get(min(total, verifyChunkBytes))
	defer buf.release()
	for done := 0; done < total; {
		p := buf.b[:min(total-done, verifyChunkBytes)]
		if err := lu.cfg.Store.ReadAt(r.ctx, p, lu.bytes(r.block.LBA)+int64(done)); err != nil {
			return lu.unreadable(r.ctx, err, p, r.block.LBA+uint64(done)>>lu.shift)
		}
		if want != nil {
			if w := want(done, len(p)); !bytes.Equal(p, w) {
				return miscompare(done + firstDifference(p, w))
			}
		}
		done += len(p)
	}
	return good()
}

// firstDifference is the offset of the first byte in which b differs from o, which is
// at least as long; len(b) if there is none.
func firstDifference(b, o []byte) int {
	for i := range b {
		if b[i] != o[i] {
			return i
		}
	}
	return len(b)
}

// preFetch is PRE-FETCH (10) and (16) (SBC-3 §5.7, §5.8). It is a hint; GOOD means that the
// blocks are not promised to be in the cache (CONDITION MET would).
func (lu *LU) preFetch(r request) Result {
	if refused, ok := lu.checkRange(&r.block, 0); !ok {
		return refused
	}
	return good()
}

// synchronizeCache is SYNCHRONIZE CACHE (10) and (16) (SBC-3 §5.22, §5.23). The whole
// cache is written whatever the range, and the status waits for it even with IMMED,
// which the standard allows and which is the only answer that says something.
func (lu *LU) synchronizeCache(r request) Result {
	if refused, ok := lu.checkRange(&r.block, 0); !ok {
		return refused
	}
	if err := lu.cfg.Store.Flush(r.ctx); err != nil {
		return writeFailed(err)
	}
	return good()
}
