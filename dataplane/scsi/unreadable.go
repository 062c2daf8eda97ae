package scsi

import (
	"context"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// searchStepBytes is how much is read at a time in search of the block that can't be read.
const searchStepBytes = 64 << 10

// unreadable answers a read of p at lba that failed with err. Its sense data names the first block
// that can't be read (SBC-3 §4.17.1): a host's RAID or file system then repairs that one, and does not
// give up the disk. p is overwritten.
func (lu *LU) unreadable(ctx context.Context, err error, p []byte, lba uint64) Result {
	s, stopped := storeSense(err, cdb.ASCUnrecoveredReadError)
	if stopped || s.Key != cdb.KeyMediumError {
		return checkOrAbort(s, stopped)
	}
	if at, found := lu.firstUnreadable(ctx, p, lba); found {
		s.Information, s.InformationValid = at, true
	}
	return checkSense(s)
}

// firstUnreadable looks for the first block of a range that can't be read: first in steps, then in
// the step that failed by blocks. It finds none where all can be read by now.
func (lu *LU) firstUnreadable(ctx context.Context, p []byte, lba uint64) (at uint64, found bool) {
	p, lba, found = lu.failingPart(ctx, p, lba, searchStepBytes)
	if found {
		_, lba, found = lu.failingPart(ctx, p, lba, int(lu.cfg.BlockSizeBytes))
	}
	return lba, found && ctx.Err() == nil
}

// failingPart finds the first part of step bytes that can't be read.
func (lu *LU) failingPart(ctx context.Context, p []byte, lba uint64, step int) (part []byte, at uint64, found bool) {
	for off := 0; off < len(p); off += step {
		part, at = p[off:min(off+step, len(p))], lba+uint64(off)>>lu.shift
		if lu.cfg.Store.ReadAt(ctx, part, lu.bytes(at)) != nil {
			return part, at, true
		}
	}
	return nil, 0, false
}
