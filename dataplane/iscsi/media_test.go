package iscsi

import (
	"bytes"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// fault is what a medium does wrong just now.
type fault struct {
	mu    sync.Mutex
	kind  disktest.OpKind
	errno error
}

func (f *fault) set(kind disktest.OpKind, errno error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kind, f.errno = kind, errno
}

func (f *fault) judge(op disktest.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if op.Kind == f.kind {
		return f.errno
	}
	return nil
}

// onMedium puts a real logical unit behind the rig's target: device server, volume and medium, on a disk that can fail.
func (r *rig) onMedium() *fault {
	r.t.Helper()
	must := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	const medium, id = san.MediumID("00000001-1111-4111-8111-111111111111"), san.VolumeID("00000001-0000-4000-8000-000000000000")
	const extentBytes, extents = 1 << 20, 4
	power := disktest.NewPower()
	bad := &fault{}
	file, err := power.NewDisk("medium", 16<<20).Open()
	must(err)
	must(extent.Format(file, extent.Params{Medium: medium, Cluster: "c", Unit: "u", Created: time.Unix(0, 0), ExtentSizeBytes: extentBytes}))
	m, err := extent.Open(disktest.WithFaults(file, bad.judge), extent.Expect{Cluster: "c", Unit: "u"})
	must(err)
	records, err := power.NewDir("records").Open()
	must(err)
	manager, err := volume.Open(volume.Config{Media: []*extent.Medium{m}, Records: records, Log: slog.New(slog.DiscardHandler)})
	must(err)
	replica, err := manager.Create(r.t.Context(), volume.Spec{ID: id, BlockSizeBytes: blockSize, SizeBytes: extents * extentBytes,
		Slices: []volume.Slice{{Medium: medium, Extents: extents}}})
	must(err)
	lu, err := scsi.NewLU(scsi.Config{ID: id, BlockSizeBytes: blockSize, Store: replica, TargetName: someTarget, RelativePort: 1, PortGroup: 1,
		Logger: slog.New(slog.DiscardHandler)})
	must(err)
	r.dir.set(func(d *directory) { d.lu = lu })
	return bad
}

// outcome sends a command with its data and returns its status, its sense, and how much data came.
func (c *client) outcome(h *pdu.SCSICommand, out []byte) (status byte, sense cdb.Sense, in []byte) {
	c.t.Helper()
	c.send(h, out[:min(len(out), int(c.params.FirstBurstLength))])
	for {
		switch a, data := c.next(); x := a.(type) {
		case *pdu.R2T:
			c.burst(h.ITT, x.TTT, out, int(x.BufferOffset), int(x.BufferOffset+x.DesiredLength))
		case *pdu.DataIn:
			in = append(in, data...)
			if x.HasStatus {
				return x.Status, sense, in
			}
		case *pdu.SCSIResponse:
			if len(data) > 2 {
				var err error
				if sense, err = cdb.ParseSense(data[2:]); err != nil {
					c.t.Fatalf("sense: %v", err)
				}
			}
			return x.Status, sense, in
		default:
			c.t.Fatalf("%T", x)
		}
	}
}

// What goes wrong on the medium reaches the initiator as the sense data that says so, never as GOOD, without a
// byte of data, and without harm to the session: once the medium works the same command does.
func TestMediaErrors(t *testing.T) {
	r := newRig(t, Limits{})
	bad := r.onMedium()
	c := r.dial().login(wishes())
	c.outcome(c.command([16]byte{}, 0), nil) // the unit attention of a new nexus
	command := func(op byte, blocks, out int, flags byte) func() (*pdu.SCSICommand, []byte) {
		return func() (*pdu.SCSICommand, []byte) {
			h := c.command(rw16(op, 8, blocks), out)
			h.CDB[1] |= flags
			h.Read = op == cdb.OpRead16
			if h.Write = out > 0 && !h.Read; !h.Write {
				return h, nil
			}
			return h, pattern(out, 3)
		}
	}
	compare := func() (*pdu.SCSICommand, []byte) {
		h := c.command(rw16(cdb.OpCompareAndWrite, 8, 0), 2*blockSize)
		h.CDB[13], h.Write = 1, true
		return h, append(pattern(blockSize, 3), pattern(blockSize, 3)...)
	}
	const fua = 0x08
	for _, x := range []struct {
		name  string
		kind  disktest.OpKind
		errno error
		send  func() (*pdu.SCSICommand, []byte)
		key   cdb.SenseKey
		asc   cdb.ASC
	}{
		{"read", disktest.OpRead, syscall.EIO, command(cdb.OpRead16, 8, 8*blockSize, 0), cdb.KeyMediumError, cdb.ASCUnrecoveredReadError},
		{"read of 512 KiB", disktest.OpRead, syscall.EIO, command(cdb.OpRead16, 1024, 1024*blockSize, 0), cdb.KeyMediumError, cdb.ASCUnrecoveredReadError},
		{"verify", disktest.OpRead, syscall.EIO, command(cdb.OpVerify16, 8, 0, 0), cdb.KeyMediumError, cdb.ASCUnrecoveredReadError},
		{"write", disktest.OpWrite, syscall.EIO, command(cdb.OpWrite16, 8, 8*blockSize, 0), cdb.KeyMediumError, cdb.ASCWriteError},
		{"write of 512 KiB", disktest.OpWrite, syscall.EIO, command(cdb.OpWrite16, 1024, 1024*blockSize, 0), cdb.KeyMediumError, cdb.ASCWriteError},
		{"write, no space", disktest.OpWrite, syscall.ENOSPC, command(cdb.OpWrite16, 8, 8*blockSize, 0), cdb.KeyDataProtect, cdb.ASCSpaceAllocationFailed},
		{"write, over quota", disktest.OpWrite, syscall.EDQUOT, command(cdb.OpWrite16, 8, 8*blockSize, 0), cdb.KeyDataProtect, cdb.ASCSpaceAllocationFailed},
		{"compare and write, on reading", disktest.OpRead, syscall.EIO, compare, cdb.KeyMediumError, cdb.ASCUnrecoveredReadError},
		{"compare and write, on writing", disktest.OpWrite, syscall.EIO, compare, cdb.KeyMediumError, cdb.ASCWriteError},
		{"write same", disktest.OpWrite, syscall.EIO, command(cdb.OpWriteSame16, 8, blockSize, 0), cdb.KeyMediumError, cdb.ASCWriteError},
		{"unmap by write same", disktest.OpPunch, syscall.EIO, command(cdb.OpWriteSame16, 2048, 0, 0x09), cdb.KeyMediumError, cdb.ASCWriteError},
	} {
		// What it reads and compares is there before.
		if status, _, _ := c.outcome(command(cdb.OpWrite16, 1024, 1024*blockSize, 0)()); status != 0 {
			t.Fatalf("status %#02x on a medium that works", status)
		}
		bad.set(x.kind, x.errno)
		status, sense, in := c.outcome(x.send())
		if status != cdb.StatusCheckCondition || sense.Key != x.key || sense.ASC != x.asc || len(in) != 0 {
			t.Errorf("%s with %v: status %#02x, %s, %d bytes; want %s", x.name, x.errno, status, sense, len(in), cdb.Sense{Key: x.key, ASC: x.asc})
		}
		bad.set("", nil)
		if status, sense, _ := c.outcome(x.send()); status != 0 {
			t.Errorf("%s once the medium works: status %#02x, %s", x.name, status, sense)
		}
	}
	h, _ := command(cdb.OpRead16, 8, 8*blockSize, 0)()
	if status, _, in := c.outcome(h, nil); status != 0 || !bytes.Equal(in, make([]byte, 8*blockSize)) {
		t.Errorf("at last: status %#02x, or not the zeros of the last command", status)
	}
	for _, send := range []func() (*pdu.SCSICommand, []byte){command(cdb.OpSynchronizeCache16, 0, 0, 0), command(cdb.OpWrite16, 8, 8*blockSize, fua)} {
		if status, _, _ := c.outcome(command(cdb.OpWrite16, 8, 8*blockSize, 0)()); status != 0 {
			t.Fatalf("status %#02x on a medium that works", status)
		}
		bad.set(disktest.OpDatasync, syscall.EIO)
		if status, sense, _ := c.outcome(send()); status != cdb.StatusCheckCondition || sense.Key != cdb.KeyMediumError {
			t.Errorf("what was written can't be made stable, and the status is %#02x, %s", status, sense)
		}
		bad.set("", nil)
	}
}
