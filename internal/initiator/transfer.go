package initiator

import (
	"context"
	"errors"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

// ReadAt fills p from off. Both are whole blocks inside the device, or the error is of
// san.KindInvalid. After an error p's contents are undefined.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.transfer(ctx, transferRead, p, off)
}

// WriteAt stores p at off; it may be in the target's volatile cache until Flush. Offset and length are
// whole blocks inside the device, or the error is of san.KindInvalid. After another error any part of
// the range may have been written, unless MayHaveTakenEffect says no.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64) error {
	return d.transfer(ctx, transferWrite, p, off)
}

// WriteThroughAt is WriteAt that returns only when p is stable at the target (FUA).
func (d *Device) WriteThroughAt(ctx context.Context, p []byte, off int64) error {
	return d.transfer(ctx, transferWriteThrough, p, off)
}

type transferKind uint8

const (
	transferRead transferKind = iota
	transferWrite
	transferWriteThrough
)

func (k transferKind) String() string {
	if k == transferRead {
		return "read"
	}
	return "write"
}

// piece makes the command for one piece of a transfer.
func (d *Device) piece(kind transferKind, g *geometry, p []byte, off int64) Command {
	lba, blocks := uint64(off/g.blockSizeBytes), uint32(int64(len(p))/g.blockSizeBytes)
	cmd := Command{LUN: d.lun}
	if kind == transferRead {
		cmd.CDB, cmd.In = cdb.Read16(lba, blocks, false), p
	} else {
		cmd.CDB, cmd.Out = cdb.Write16(lba, blocks, kind == transferWriteThrough), p
	}
	return cmd
}

func (d *Device) transfer(ctx context.Context, kind transferKind, p []byte, off int64) error {
	g := d.geometry.Load()
	if err := g.check(kind.String(), off, int64(len(p))); err != nil {
		return err
	}
	switch {
	case len(p) == 0:
		return nil
	case len(p) <= g.maxTransferBytes:
		cmd := d.piece(kind, g, p, off)
		r, err := d.do(ctx, &cmd)
		if err != nil {
			return err
		}
		return whole(&r, &cmd)
	}
	return d.transferLong(ctx, kind, g, p, off)
}

// whole refuses an answer that says GOOD for less than everything.
func whole(r *Response, cmd *Command) error {
	if r.InBytes != len(cmd.In) || r.Residual != 0 && (r.Underflow || r.Overflow) {
		return san.Errorf(san.KindInternal, "%s: the target answered GOOD but moved %d bytes less or more than asked for", opName(&cmd.CDB), max(int64(len(cmd.In)-r.InBytes), int64(r.Residual)))
	}
	return nil
}

// transferLong moves p in pieces, several in flight at once.
func (d *Device) transferLong(ctx context.Context, kind transferKind, g *geometry, p []byte, off int64) error {
	type part struct {
		cmd  Command
		call *call
	}
	var ring [chunksInFlight]part
	var failed error
	started, ended := 0, 0
	for {
		for failed == nil && len(p) > 0 && started-ended < len(ring) {
			n := min(len(p), g.maxTransferBytes)
			at := &ring[started%len(ring)]
			at.cmd = d.piece(kind, g, p[:n], off)
			if at.call, failed = d.s.start(ctx, &at.cmd); failed == nil {
				p, off, started = p[n:], off+int64(n), started+1
			}
		}
		if started == ended {
			break
		}
		at := &ring[ended%len(ring)]
		ended++
		r, err := d.s.wait(ctx, at.call)
		if err != nil || r.Status != cdb.StatusGood || r.Response != 0 {
			r, err = d.retry(ctx, &at.cmd, r, err)
		}
		if err == nil {
			err = whole(&r, &at.cmd)
		}
		failed = firstOf(failed, err)
	}
	var unanswered *RequestError
	if kind != transferRead && started > 0 && errors.As(failed, &unanswered) && !unanswered.MayHaveTakenEffect {
		return requestError("WRITE in pieces", true, unanswered.Err) // that piece is untouched, but others were written
	}
	return failed
}
