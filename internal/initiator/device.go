package initiator

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

// Device is a logical unit as a block device. It is safe for concurrent use. Its session
// may serve other Devices too and outlives it; there is nothing to close.
type Device struct {
	s           *Session
	lun         uint64
	inquiry     Inquiry
	designators []Designator
	limits      blockLimits
	geometry    atomic.Pointer[geometry]
	attention   atomic.Pointer[func(cdb.ASC)]
}

// geometry changes as a whole when the logical unit grows.
type geometry struct {
	sizeBytes      int64
	blockSizeBytes int64
	provisioned    bool
	// maxTransferBytes bounds one READ or WRITE; a multiple of the block size.
	maxTransferBytes int
}

const (
	// maxAttentions bounds the unit attentions and aborts that one request sits out.
	maxAttentions = 16
	// chunkBytes is the longest READ or WRITE sent, whatever the target would take: long
	// enough for full speed, short enough for other requests to get in between.
	chunkBytes = 1 << 20
	// chunksInFlight is how many pieces of one long ReadAt or WriteAt are in flight at once.
	chunksInFlight = 8

	firstBackoff = 10 * time.Millisecond
	lastBackoff  = time.Second
)

// OpenDevice makes a block device of a logical unit: waits until it is ready, consumes
// its unit attentions, asks for identity, limits and capacity. lun is the logical unit number,
// 0 to 16383. A logical unit that is not there gives san.KindNotFound.
func OpenDevice(ctx context.Context, s *Session, lun uint64) (*Device, error) {
	d := &Device{s: s, lun: lun}
	err := d.open(ctx)
	var sense *SenseError
	switch {
	case err == nil:
		return d, nil
	case errors.As(err, &sense) && sense.Sense.ASC == cdb.ASCLUNNotSupported:
		return nil, san.Errorf(san.KindNotFound, "open LUN %d of %s: there is no such logical unit; check the LUN and the assignment: %w", lun, s.target, err)
	}
	return nil, san.Errorf(san.KindOf(err), "open LUN %d of %s: %w", lun, s.target, err)
}

func (d *Device) open(ctx context.Context) error {
	if _, err := d.ask(ctx, cdb.TestUnitReady(), 0); err != nil {
		return err
	}
	if err := d.identify(ctx); err != nil {
		return err
	}
	return d.Refresh(ctx)
}

// Session is the session that carries the device's requests.
func (d *Device) Session() *Session { return d.s }

// LUN is the logical unit number.
func (d *Device) LUN() uint64 { return d.lun }

// SizeBytes is the capacity as last read. It follows the target's CAPACITY DATA HAS
// CHANGED, which it sends with the next request after a change; Refresh asks at once.
func (d *Device) SizeBytes() int64 { return d.geometry.Load().sizeBytes }

// BlockSizeBytes is the logical block size, of which every offset and length is a multiple.
func (d *Device) BlockSizeBytes() int64 { return d.geometry.Load().blockSizeBytes }

// Inquiry is the standard INQUIRY data.
func (d *Device) Inquiry() Inquiry { return d.inquiry }

// Designators are the entries of VPD page 83h, empty where the target has none.
func (d *Device) Designators() []Designator { return d.designators }

// WWID names the logical unit the same way through every path: naa., eui. or t10. and its
// designator; empty where the target has none.
func (d *Device) WWID() string { return wwid(d.designators) }

// CanDiscard reports whether Discard is supported.
func (d *Device) CanDiscard() bool {
	return d.geometry.Load().provisioned && d.limits.maxUnmapBlocks > 0
}

// OnUnitAttention has f called for each unit attention that a request meets, before the
// request is repeated: with 2900h to 2907h the target may have lost what was not flushed.
// f is called by the goroutine of that request and must not use the device.
func (d *Device) OnUnitAttention(f func(cdb.ASC)) { d.attention.Store(&f) }

// Refresh reads the capacity again.
func (d *Device) Refresh(ctx context.Context) error {
	parse := cdb.ParseCapacity16
	b, err := d.ask(ctx, cdb.ReadCapacity16(cdb.Capacity16Length), cdb.Capacity16Length)
	var sense *SenseError
	if errors.As(err, &sense) && sense.Sense.ASC == cdb.ASCInvalidOpcode {
		parse = cdb.ParseCapacity10
		b, err = d.ask(ctx, cdb.ReadCapacity10(), cdb.Capacity10Length)
	}
	if err != nil {
		return err
	}
	c, err := parse(b)
	if err != nil {
		return san.Errorf(san.KindInternal, "READ CAPACITY of %s: %w", d.s.target, err)
	}
	g, err := newGeometry(c, d.limits)
	if err != nil {
		return err
	}
	d.geometry.Store(g)
	return nil
}

func newGeometry(c cdb.Capacity, limits blockLimits) (*geometry, error) {
	bs := c.BlockSizeBytes
	if bs < 512 || bs > 64<<10 || bs&(bs-1) != 0 {
		return nil, san.Errorf(san.KindInvalid, "the logical unit has blocks of %d bytes; powers of two from 512 to 65536 are supported", bs)
	}
	if c.LastLBA >= 1<<62/uint64(bs) {
		return nil, san.Errorf(san.KindInvalid, "the logical unit claims %d blocks of %d bytes, more than can be addressed", c.LastLBA, bs)
	}
	g := &geometry{
		sizeBytes: int64(c.LastLBA+1) * int64(bs), blockSizeBytes: int64(bs),
		provisioned: c.Provisioned, maxTransferBytes: chunkBytes,
	}
	if most := int64(limits.maxTransferBlocks) * int64(bs); most > 0 && most < chunkBytes {
		g.maxTransferBytes = int(most)
	}
	return g, nil
}

// Flush makes every write that returned before it stable at the target.
func (d *Device) Flush(ctx context.Context) error {
	_, err := d.do(ctx, &Command{LUN: d.lun, CDB: cdb.SynchronizeCache16(0, 0)})
	var sense *SenseError
	if errors.As(err, &sense) && sense.Sense.ASC == cdb.ASCInvalidOpcode {
		_, err = d.do(ctx, &Command{LUN: d.lun, CDB: cdb.SynchronizeCache10(0, 0)})
	}
	return err
}

// Discard tells the target that the range is not needed any more (UNMAP). What it reads as afterwards is the
// target's choice. Offset and length are multiples of the block size; what does not fill the target's
// granularity is the target's to ignore. Without support the error is errors.ErrUnsupported.
func (d *Device) Discard(ctx context.Context, off, length int64) error {
	g := d.geometry.Load()
	if err := g.check("discard", off, length); err != nil {
		return err
	}
	if !d.CanDiscard() {
		return san.Errorf(san.KindInvalid, "discard on %s: %w by the target", d.s.target, errors.ErrUnsupported)
	}
	lba, blocks := uint64(off/g.blockSizeBytes), uint64(length/g.blockSizeBytes)
	for blocks > 0 {
		n := uint32(min(blocks, uint64(d.limits.maxUnmapBlocks)))
		list, err := cdb.AppendUnmapList(nil, []cdb.LBARange{{LBA: lba, Blocks: n}})
		if err != nil {
			return san.Errorf(san.KindInternal, "discard: %w", err)
		}
		if _, err := d.do(ctx, &Command{LUN: d.lun, CDB: cdb.Unmap(uint16(len(list))), Out: list}); err != nil {
			return err
		}
		lba, blocks = lba+uint64(n), blocks-uint64(n)
	}
	return nil
}

// check refuses ranges that are not whole blocks of the device.
func (g *geometry) check(what string, off, length int64) error {
	switch {
	case off < 0 || length < 0 || off > g.sizeBytes || length > g.sizeBytes-off:
		return san.Errorf(san.KindInvalid, "%s of %d bytes at offset %d is outside of the device's %d bytes", what, length, off, g.sizeBytes)
	case off%g.blockSizeBytes != 0 || length%g.blockSizeBytes != 0:
		return san.Errorf(san.KindInvalid, "%s of %d bytes at offset %d is not aligned to the device's blocks of %d bytes", what, length, off, g.blockSizeBytes)
	}
	return nil
}

// ask runs a command that returns up to n bytes.
func (d *Device) ask(ctx context.Context, c cdb.CDB, n int) ([]byte, error) {
	cmd := Command{LUN: d.lun, CDB: c}
	if n > 0 {
		cmd.In = make([]byte, n)
	}
	r, err := d.do(ctx, &cmd)
	if err != nil {
		return nil, err
	}
	return cmd.In[:r.InBytes], nil
}

// do runs cmd until it succeeds or fails for good: unit attentions, aborts by others and a busy or
// transitioning target are sat out.
func (d *Device) do(ctx context.Context, cmd *Command) (Response, error) {
	r, err := d.s.Execute(ctx, cmd)
	if err == nil && r.Status == cdb.StatusGood && r.Response == 0 { // the hot path
		return r, nil
	}
	return d.retry(ctx, cmd, r, err)
}

func (d *Device) retry(ctx context.Context, cmd *Command, r Response, err error) (Response, error) {
	op := opName(&cmd.CDB)
	backoff, deadline := firstBackoff, time.Now().Add(d.s.limits.RequestTimeout)
	for again := 0; ; again++ {
		if err != nil {
			return r, err
		}
		failed := r.Err(op)
		if failed == nil {
			return r, nil
		}
		switch verdict := d.judge(ctx, failed); {
		case verdict == retryNow && again < maxAttentions:
		case verdict == retryLater && time.Now().Before(deadline):
			if err := pause(ctx, backoff); err != nil {
				return r, requestError(op, !harmless(&cmd.CDB), err)
			}
			backoff = min(2*backoff, lastBackoff)
		default:
			return r, failed
		}
		r, err = d.s.Execute(ctx, cmd)
	}
}

type verdict uint8

const (
	giveUp verdict = iota
	retryNow
	retryLater
)

// judge decides what to do about a failed answer, and follows what a unit attention tells.
func (d *Device) judge(ctx context.Context, failed error) verdict {
	var status *StatusError
	if errors.As(failed, &status) {
		switch {
		case status.Response != 0:
			return giveUp
		case status.Status == cdb.StatusBusy, status.Status == cdb.StatusTaskSetFull:
			return retryLater
		case status.Status == cdb.StatusTaskAborted:
			return retryNow
		}
		return giveUp
	}
	var sense *SenseError
	if !errors.As(failed, &sense) {
		return giveUp
	}
	if sense.Sense.Deferred {
		return giveUp // an earlier write was lost: its writer must learn of it
	}
	switch asc := sense.Sense.ASC; sense.Sense.Key {
	case cdb.KeyUnitAttention:
		d.attend(ctx, asc)
		return retryNow
	case cdb.KeyAbortedCommand:
		return retryNow
	case cdb.KeyNotReady:
		if asc == cdb.ASCBecomingReady || asc == cdb.ASCAsymmetricStateTransition {
			return retryLater
		}
	}
	return giveUp
}

// attend follows a unit attention.
func (d *Device) attend(ctx context.Context, asc cdb.ASC) {
	if f := d.attention.Load(); f != nil {
		(*f)(asc)
	}
	if d.geometry.Load() == nil || asc != ascCapacityChanged && asc&0xff00 != ascPowerOnOrReset {
		return
	}
	// By a bare Execute, since another attention may be waiting: that one is met by the
	// repeated request. A capacity that can't be read now stays as it was.
	cmd := Command{LUN: d.lun, CDB: cdb.ReadCapacity16(cdb.Capacity16Length), In: make([]byte, cdb.Capacity16Length)}
	r, err := d.s.Execute(ctx, &cmd)
	if err != nil || r.Err("") != nil {
		return
	}
	c, err := cdb.ParseCapacity16(cmd.In[:r.InBytes])
	if err != nil {
		return
	}
	if g, err := newGeometry(c, d.limits); err == nil {
		d.geometry.Store(g)
	}
}

// pause waits for a span of time or the end of ctx.
func pause(ctx context.Context, span time.Duration) error {
	t := time.NewTimer(span)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
