package scsi

import (
	"github.com/gostor/gotgt/pkg/api"
	gotgt "github.com/gostor/gotgt/pkg/scsi"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

// gotgtDevice runs the few commands whose gotgt handlers are right (see doc.go) on a
// gotgt block device that is never registered in gotgt's global tables. It is immutable:
// each command gets its own copy of the logical unit with the present size.
type gotgtDevice struct {
	ops gotgt.SBCSCSIDeviceProtocol
	lu  api.SCSILu
}

// What standard INQUIRY data says; padded with blanks by gotgt.
const (
	vendorID        = "SANDBAR"
	productID       = "VOLUME"
	productRevision = "0001"
)

// gotgtBuffer is the size of the buffers that gotgt's handlers write to without
// looking: larger than all that they can return.
const gotgtBuffer = 512

func newGotgtDevice(blockShift uint) (*gotgtDevice, error) {
	ops, ok := gotgt.NewSBCDevice(api.TYPE_DISK).(gotgt.SBCSCSIDeviceProtocol)
	if !ok {
		return nil, san.Errorf(san.KindInternal, "gotgt's block device has another type than in v0.2.2; pin that version")
	}
	d := &gotgtDevice{ops: ops, lu: api.SCSILu{DeviceProtocol: ops, BlockShift: blockShift}}
	if err := ops.InitLu(&d.lu); err != nil {
		return nil, san.Errorf(san.KindInternal, "gotgt's block device: %w", err)
	}
	a := &d.lu.Attrs
	a.Online = true
	a.VendorID, a.ProductID, a.ProductRev = vendorID, productID, productRevision
	// SAM-5, SPC-4, SBC-3 and iSCSI, no version claimed (SPC-4 §6.6.2.2).
	a.VersionDesction = [8]uint16{0x00a0, 0x0460, 0x04c0, 0x0960}
	d.lu.ModePages = modePages()
	return d, nil
}

// run executes c, whose allocation length the caller has raised to what gotgtBuffer
// holds: gotgt's own trimming is unsafe for small ones. It returns the buffer, or the
// sense data of a command that gotgt refused.
func (d *gotgtDevice) run(c []byte, sizeBytes int64) ([]byte, *cdb.Sense) {
	dev := d.lu
	dev.Size = uint64(sizeBytes)
	dev.ModeBlockDescriptor = blockDescriptor(sizeBytes, dev.BlockShift)
	cmd := &api.SCSICommand{
		OpCode: c[0], SCB: c, SCBLength: len(c), Device: &dev, Target: &api.SCSITarget{},
		InSDBBuffer:  &api.SCSIDataBuffer{Buffer: make([]byte, gotgtBuffer), Length: gotgtBuffer},
		OutSDBBuffer: &api.SCSIDataBuffer{Buffer: make([]byte, gotgtBuffer)},
	}
	stat := d.ops.SCSIDeviceOps[c[0]].CommandPerformFunc(0, cmd)
	if stat.Stat == cdb.StatusGood {
		return cmd.InSDBBuffer.Buffer, nil
	}
	s := cdb.Sense{Key: cdb.KeyHardwareError, ASC: cdb.ASCInternalTargetFailure}
	if cmd.SenseBuffer != nil {
		if parsed, err := cdb.ParseSense(cmd.SenseBuffer.Buffer); err == nil {
			s = parsed
		}
	}
	return nil, &s
}

// blockDescriptor is the mode parameter block descriptor (SBC-3 §6.5.2.2).
func blockDescriptor(sizeBytes int64, blockShift uint) []byte {
	blocks := min(uint64(sizeBytes)>>blockShift, 1<<32-1)
	size := uint32(1) << blockShift
	return []byte{
		byte(blocks >> 24), byte(blocks >> 16), byte(blocks >> 8), byte(blocks),
		0, byte(size >> 16), byte(size >> 8), byte(size),
	}
}
