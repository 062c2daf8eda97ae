package initiator

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// disk is a scripted target's logical unit. Only the script's goroutine touches it, but
// for what its test sets before the first request.
type disk struct {
	blocks    []byte // 512 bytes each
	limits    [64]byte
	trouble   []trouble // for the next commands that are not INQUIRY, one each
	seen      []byte    // operation codes
	unmapped  []cdb.LBARange
	noVPD     bool
	noSync16  bool
	noRC16    bool
	thin      bool
	qualifier byte
}

type trouble struct {
	status uint8
	sense  *cdb.Sense
	then   func(*disk)
}

func newDisk(blocks int) *disk { return &disk{blocks: make([]byte, blocks*512)} }

func (d *disk) handle(c *pdu.SCSICommand, data []byte) (uint8, *cdb.Sense, []byte) {
	d.seen = append(d.seen, c.CDB[0])
	if c.CDB[0] != cdb.OpInquiry && len(d.trouble) > 0 {
		now := d.trouble[0]
		d.trouble = d.trouble[1:]
		if now.then != nil {
			now.then(d)
		}
		if now.status != cdb.StatusGood {
			return now.status, now.sense, nil
		}
	}
	invalid := &cdb.Sense{Key: cdb.KeyIllegalRequest, ASC: cdb.ASCInvalidOpcode}
	last := uint64(len(d.blocks)/512 - 1)
	switch op := c.CDB[0]; op {
	case cdb.OpTestUnitReady:
	case cdb.OpInquiry:
		return d.inquiry(c)
	case cdb.OpServiceActionIn16:
		if d.noRC16 {
			return cdb.StatusCheckCondition, invalid, nil
		}
		return cdb.StatusGood, nil, cdb.Capacity{LastLBA: last, BlockSizeBytes: 512, Provisioned: d.thin}.Encode16()
	case cdb.OpReadCapacity10:
		return cdb.StatusGood, nil, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(last)), 512)
	case cdb.OpRead16, cdb.OpWrite16:
		b, err := cdb.DecodeBlock(c.CDB[:])
		if err != nil || b.LBA+uint64(b.Blocks) > last+1 {
			return cdb.StatusCheckCondition, &cdb.Sense{Key: cdb.KeyIllegalRequest, ASC: cdb.ASCLBAOutOfRange}, nil
		}
		if op == cdb.OpRead16 {
			return cdb.StatusGood, nil, d.blocks[b.LBA*512 : (b.LBA+uint64(b.Blocks))*512]
		}
		copy(d.blocks[b.LBA*512:], data)
	case cdb.OpSynchronizeCache16:
		if d.noSync16 {
			return cdb.StatusCheckCondition, invalid, nil
		}
	case cdb.OpSynchronizeCache10:
	case cdb.OpUnmap:
		ranges, err := cdb.ParseUnmapList(data, 16)
		if err != nil {
			return cdb.StatusCheckCondition, invalid, nil
		}
		d.unmapped = append(d.unmapped, ranges...)
	default:
		return cdb.StatusCheckCondition, invalid, nil
	}
	return cdb.StatusGood, nil, nil
}

func (d *disk) inquiry(c *pdu.SCSICommand) (uint8, *cdb.Sense, []byte) {
	if c.CDB[1]&1 == 0 {
		b := make([]byte, 36)
		b[0], b[5] = d.qualifier<<5, 1<<4
		copy(b[8:], "SANDBAR DISK            1.0 ")
		return cdb.StatusGood, nil, b
	}
	page := func(body []byte) (uint8, *cdb.Sense, []byte) {
		b := append([]byte{0, c.CDB[2], 0, 0}, body...)
		binary.BigEndian.PutUint16(b[2:], uint16(len(body)))
		return cdb.StatusGood, nil, b
	}
	switch {
	case d.noVPD:
	case c.CDB[2] == vpdSupported:
		return page([]byte{vpdSupported, vpdIdentification, vpdBlockLimits})
	case c.CDB[2] == vpdIdentification:
		return page(append([]byte{
			0x02, 0x01, 0, 8, 'S', 'A', 'N', 'D', 'B', 'A', 'R', ' ', // T10
			0x51, 0x14, 0, 4, 0, 0, 0, 9, // relative target port
			0x01, 0x03, 0, 16}, bytes.Repeat([]byte{0x6a}, 16)...))
	case c.CDB[2] == vpdBlockLimits:
		return page(d.limits[4:])
	}
	return cdb.StatusCheckCondition, &cdb.Sense{Key: cdb.KeyIllegalRequest, ASC: cdb.ASCInvalidFieldInCDB}, nil
}

// session serves d. The line takes all data of a write at once.
func (d *disk) session(t testing.TB) *Session {
	keys := []pdu.KeyValue{kv("MaxRecvDataSegmentLength", "262144"), kv("FirstBurstLength", "262144"), kv("MaxBurstLength", "1048576")}
	return dialScripted(t, Limits{}, keys, func(g *scripted) { g.serve(d.handle) })
}

func (d *disk) open(t testing.TB) *Device {
	t.Helper()
	dev, err := OpenDevice(t.Context(), d.session(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func attention(asc cdb.ASC) trouble {
	return trouble{status: cdb.StatusCheckCondition, sense: &cdb.Sense{Key: cdb.KeyUnitAttention, ASC: asc}}
}

func notReady(asc cdb.ASC) trouble {
	return trouble{status: cdb.StatusCheckCondition, sense: &cdb.Sense{Key: cdb.KeyNotReady, ASC: asc}}
}

func TestOpenDevice(t *testing.T) {
	d := newDisk(2048)
	d.trouble = []trouble{attention(0x2900), attention(0x2a01), attention(0x3f0e)}
	dev := d.open(t)
	if dev.SizeBytes() != 1<<20 || dev.BlockSizeBytes() != 512 || dev.WWID() != "naa.6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a" || dev.CanDiscard() {
		t.Errorf("%d, %d, %s", dev.SizeBytes(), dev.BlockSizeBytes(), dev.WWID())
	}
	if want := (Inquiry{"SANDBAR", "DISK", "1.0", 1}); dev.Inquiry() != want {
		t.Errorf("%+v", dev.Inquiry())
	}
	if l := dev.Designators(); len(l) != 3 || l[1].Type != DesignatorRelativePort || l[1].Association != AssociationTargetPort || l[1].Value[3] != 9 {
		t.Errorf("%+v", l)
	}
	bare := newDisk(8)
	bare.noVPD, bare.noRC16, bare.noSync16 = true, true, true
	dev = bare.open(t)
	if dev.SizeBytes() != 4096 || dev.WWID() != "" || dev.Flush(t.Context()) != nil {
		t.Errorf("a bare device: %d bytes, %q", dev.SizeBytes(), dev.WWID())
	}
	absent := newDisk(8)
	absent.qualifier = 3
	if _, err := OpenDevice(t.Context(), absent.session(t), 0); san.KindOf(err) != san.KindNotFound {
		t.Errorf("no logical unit: %v", err)
	}
	if _, err := OpenDevice(t.Context(), bare.session(t), 1<<14); san.KindOf(err) != san.KindInvalid {
		t.Errorf("LUN out of range: %v", err)
	}
}

func TestUnitAttentionIsFollowed(t *testing.T) {
	d := newDisk(8)
	grown := attention(ascCapacityChanged)
	grown.then = func(d *disk) { d.blocks = append(d.blocks, make([]byte, 8*512)...) }
	d.trouble = []trouble{{}, {}, grown, {}, attention(0x2900), attention(0x2a06)}
	dev := d.open(t)
	var heard []cdb.ASC
	dev.OnUnitAttention(func(a cdb.ASC) { heard = append(heard, a) })
	if err := dev.ReadAt(t.Context(), make([]byte, 512), 0); err != nil || dev.SizeBytes() != 8192 {
		t.Errorf("%v, %d bytes", err, dev.SizeBytes())
	}
	if err := dev.WriteAt(t.Context(), make([]byte, 512), 7680); err != nil {
		t.Error(err)
	}
	if len(heard) != 2 || heard[0] != ascCapacityChanged || heard[1] != 0x2900 {
		// 2A/06 met the READ CAPACITY that followed 29/00, whose failure changes nothing.
		t.Errorf("heard %x", heard)
	}
}

func TestTroubleIsSatOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name    string
			trouble []trouble
			least   time.Duration
		}{
			{"busy", []trouble{{status: cdb.StatusBusy}, {status: cdb.StatusTaskSetFull}, {status: cdb.StatusBusy}}, 70 * time.Millisecond},
			{"becoming ready", []trouble{notReady(cdb.ASCBecomingReady), notReady(cdb.ASCAsymmetricStateTransition)}, 30 * time.Millisecond},
			{"aborted", []trouble{{status: cdb.StatusTaskAborted}, {status: cdb.StatusCheckCondition, sense: &cdb.Sense{Key: cdb.KeyAbortedCommand}}}, 0},
		} {
			d := newDisk(8)
			dev := d.open(t)
			synctest.Wait()
			d.trouble = c.trouble
			began := time.Now()
			if err := dev.WriteAt(t.Context(), bytes.Repeat([]byte{7}, 512), 512); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if took := time.Since(began); took < c.least || took > c.least+time.Second {
				t.Errorf("%s took %v", c.name, took)
			}
			synctest.Wait()
			if d.blocks[512] != 7 || len(d.trouble) != 0 {
				t.Errorf("%s: not written", c.name)
			}
			dev.Session().Close()
		}
	})
}

func TestTroubleThatLastsIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := func(x trouble) (list []trouble) {
			for range 1000 {
				list = append(list, x)
			}
			return list
		}
		deferred := trouble{status: cdb.StatusCheckCondition, sense: &cdb.Sense{Key: cdb.KeyUnitAttention, ASC: 0x2900, Deferred: true}}
		for _, c := range []struct {
			name    string
			trouble []trouble
			kind    san.Kind
			most    time.Duration
		}{
			{"busy", many(trouble{status: cdb.StatusBusy}), san.KindUnavailable, 32 * time.Second},
			{"attention without end", many(attention(0x2a01)), san.KindUnavailable, time.Second},
			{"standby", many(notReady(cdb.ASCPortStandby)), san.KindUnavailable, time.Second},
			{"medium", many(trouble{status: cdb.StatusCheckCondition, sense: &cdb.Sense{Key: cdb.KeyMediumError, ASC: cdb.ASCWriteError}}), san.KindInternal, time.Second},
			{"no space", many(trouble{status: cdb.StatusCheckCondition, sense: &cdb.Sense{Key: cdb.KeyDataProtect, ASC: ascSpaceAllocationFailed}}), san.KindNoSpace, time.Second},
			{"write protected", many(trouble{status: cdb.StatusCheckCondition, sense: &cdb.Sense{Key: cdb.KeyDataProtect, ASC: 0x2700}}), san.KindDenied, time.Second},
			{"reserved", many(trouble{status: cdb.StatusReservationConflict}), san.KindDenied, time.Second},
			{"no sense", many(trouble{status: cdb.StatusCheckCondition}), san.KindInternal, time.Second},
			{"deferred", []trouble{deferred}, san.KindUnavailable, time.Second},
		} {
			d := newDisk(8)
			dev := d.open(t)
			synctest.Wait()
			d.trouble = c.trouble
			began := time.Now()
			err := dev.Flush(t.Context())
			if took := time.Since(began); err == nil || san.KindOf(err) != c.kind || took > c.most {
				t.Errorf("%s: %v (%v) after %v", c.name, err, san.KindOf(err), took)
			}
			dev.Session().Close()
		}
	})
}

func TestDiscard(t *testing.T) {
	d := newDisk(64)
	d.thin = true
	binary.BigEndian.PutUint32(d.limits[20:], 10) // maximum unmap LBA count
	binary.BigEndian.PutUint32(d.limits[24:], 1)
	dev := d.open(t)
	if err := dev.Discard(t.Context(), 512, 25*512); err != nil {
		t.Fatal(err)
	}
	if err := dev.Discard(t.Context(), 0, 100); san.KindOf(err) != san.KindInvalid {
		t.Errorf("%v", err)
	}
	dev.Session().Close()
	want := []cdb.LBARange{{LBA: 1, Blocks: 10}, {LBA: 11, Blocks: 10}, {LBA: 21, Blocks: 5}}
	if len(d.unmapped) != 3 || d.unmapped[0] != want[0] || d.unmapped[1] != want[1] || d.unmapped[2] != want[2] {
		t.Errorf("%+v", d.unmapped)
	}
}

func TestMaximumTransferLengthIsKept(t *testing.T) {
	d := newDisk(64)
	binary.BigEndian.PutUint32(d.limits[8:], 3) // maximum transfer length
	dev := d.open(t)
	p := bytes.Repeat([]byte{9}, 10*512)
	if err := dev.WriteAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	dev.Session().Close()
	writes := bytes.Count(d.seen, []byte{cdb.OpWrite16})
	if writes != 4 || !bytes.Equal(d.blocks[:len(p)], p) || d.blocks[len(p)] != 0 {
		t.Errorf("%d writes", writes)
	}
}

// A piece that fails after others were written must not claim that nothing happened.
func TestLongWriteTellsOfItsParts(t *testing.T) {
	d := newDisk(64)
	binary.BigEndian.PutUint32(d.limits[8:], 1)
	d.trouble = []trouble{{}, {}, {}, {}, {then: func(*disk) { panic(lineBroken{io.EOF}) }}}
	dev := d.open(t)
	if err := dev.WriteAt(t.Context(), make([]byte, 20*512), 0); !MayHaveTakenEffect(err) || san.KindOf(err) != san.KindUnknown {
		t.Errorf("%v", err)
	}
	if err := dev.WriteAt(t.Context(), make([]byte, 20*512), 0); err == nil || MayHaveTakenEffect(err) {
		t.Errorf("on a session that is gone: %v", err)
	}
}

// Whatever is asked of the device, it answers like a byte slice, or refuses.
func TestDeviceMatchesModel(t *testing.T) {
	d := newDisk(40)
	binary.BigEndian.PutUint32(d.limits[8:], 5)
	dev := d.open(t)
	model := make([]byte, 40*512)
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.Int64Range(-1024, 41*512).Draw(t, "offset")
		n := rapid.IntRange(0, 41*512).Draw(t, "length")
		if rapid.Bool().Draw(t, "aligned") {
			off, n = off/512*512, n/512*512
		}
		lawful := off >= 0 && off%512 == 0 && n%512 == 0 && off+int64(n) <= 40*512
		p := make([]byte, n)
		var err error
		if rapid.Bool().Draw(t, "write") {
			for i := range p {
				p[i] = rapid.Byte().Draw(t, "fill") + byte(i)
				if i > 16 {
					p[i] = p[i-16] + 1
				}
			}
			if err = dev.WriteAt(t.Context(), p, off); err == nil {
				copy(model[off:], p)
			}
		} else if err = dev.ReadAt(t.Context(), p, off); err == nil && !bytes.Equal(p, model[off:off+int64(n)]) {
			t.Fatalf("read of %d at %d differs", n, off)
		}
		if (err == nil) != lawful || err != nil && san.KindOf(err) != san.KindInvalid {
			t.Fatalf("%d bytes at %d: %v", n, off, err)
		}
	})
}

func TestCapacityBounds(t *testing.T) {
	for _, c := range []cdb.Capacity{
		{LastLBA: 1<<64 - 1, BlockSizeBytes: 512}, {LastLBA: 1 << 62, BlockSizeBytes: 4096}, {LastLBA: 7, BlockSizeBytes: 0},
		{LastLBA: 7, BlockSizeBytes: 520}, {LastLBA: 7, BlockSizeBytes: 1 << 31},
	} {
		if g, err := newGeometry(c, blockLimits{}); err == nil {
			t.Errorf("%+v gives %+v", c, g)
		}
	}
	g, err := newGeometry(cdb.Capacity{LastLBA: 9, BlockSizeBytes: 4096}, blockLimits{maxTransferBlocks: 1<<32 - 1})
	if err != nil || g.sizeBytes != 40960 || g.maxTransferBytes != chunkBytes {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestShortAnswersAreErrors(t *testing.T) {
	s := dialScripted(t, Limits{}, nil, func(g *scripted) {
		d := newDisk(8)
		short := false
		g.serve(func(c *pdu.SCSICommand, data []byte) (uint8, *cdb.Sense, []byte) {
			status, sense, in := d.handle(c, data)
			if c.CDB[0] == cdb.OpRead16 {
				if short = !short; short {
					in = in[:512]
				} else {
					in = nil
				}
			}
			return status, sense, in
		})
	})
	dev, err := OpenDevice(t.Context(), s, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var re *RequestError
		if err := dev.ReadAt(t.Context(), make([]byte, 1024), 0); err == nil || errors.As(err, &re) {
			t.Errorf("GOOD without all data: %v", err)
		}
	}
}
