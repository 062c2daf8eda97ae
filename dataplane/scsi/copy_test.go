package scsi

import (
	"bytes"
	"context"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/internal/cdb"
)

// self is the rig's logical unit as a CSCD.
func (r *rig) self() cdb.CopyTarget {
	naa := r.lu.NAA()
	return cdb.CopyTarget{Designator: cdb.Designator{CodeSet: cdb.CodeSetBinary, Type: cdb.DesignatorNAA, Value: naa[:]}, BlockSizeBytes: r.lu.cfg.BlockSizeBytes}
}

func (r *rig) copy(list cdb.CopyList) Result {
	out := list.Encode()
	return r.do(cdb.ExtendedCopy(uint32(len(out))), out, 0)
}

// copyStatus asks for the status of the copy with a list id.
func (r *rig) copyStatus(id byte) Result { return r.do(cdb.ReceiveCopyResults(0, id, 255), nil, 255) }

// TestCopyAgainstModel: segments are carried out one after the other, each as if it were read as a whole
// before it is written; holes stay holes.
func TestCopyAgainstModel(t *testing.T) {
	const count = 4608 // blocks: several steps
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, count, 512)
		for i := range r.store.data {
			r.store.data[i] = byte(i>>9*7 + i)
		}
		at := rapid.Int64Range(0, count/2).Draw(rt, "hole")
		if err := r.store.Zero(context.Background(), at*512, count/2*512); err != nil {
			rt.Fatal(err)
		}
		model := bytes.Clone(r.store.data)
		list := cdb.CopyList{ListID: 3, Targets: []cdb.CopyTarget{r.self()}}
		segments := rapid.IntRange(0, 6).Draw(rt, "segments")
		kib := uint32(0)
		for range segments {
			n := rapid.Uint16Range(0, count).Draw(rt, "blocks")
			s := cdb.CopySegment{Blocks: n, SourceLBA: rapid.Uint64Range(0, count-uint64(n)).Draw(rt, "from"), DestinationLBA: rapid.Uint64Range(0, count-uint64(n)).Draw(rt, "to")}
			s.Destination = rapid.SampledFrom([]uint16{0, cdb.CopyThisUnit}).Draw(rt, "destination")
			list.Segments = append(list.Segments, s)
			copy(model[s.DestinationLBA*512:], bytes.Clone(model[s.SourceLBA*512:(s.SourceLBA+uint64(n))*512]))
			kib += uint32(n)
		}
		want(t, "EXTENDED COPY", r.copy(list), 0, 0)
		if !bytes.Equal(r.store.data, model) {
			rt.Fatal("other blocks are there than should be")
		}
		res := r.copyStatus(3)
		want(t, "COPY STATUS", res, 0, 0)
		if expect := (cdb.CopyStatus{Manager: copyDone, Segments: uint16(segments), Transferred: kib / 2}).Encode(); !bytes.Equal(res.DataIn, expect) {
			rt.Fatalf("the status is % x, want % x", res.DataIn, expect)
		}
	})
}

// TestCopyRefuses: what can't be is refused before a block is changed, and an error names the segment.
func TestCopyRefuses(t *testing.T) {
	r := newRig(t, 64, 512)
	one := []cdb.CopySegment{{Blocks: 1, DestinationLBA: 9}}
	list := func(change func(*cdb.CopyList)) []byte {
		l := cdb.CopyList{Targets: []cdb.CopyTarget{r.self()}, Segments: one}
		change(&l)
		return l.Encode()
	}
	target := func(change func(*cdb.CopyTarget)) []byte {
		return list(func(l *cdb.CopyList) { change(&l.Targets[0]) })
	}
	spoiled := func(at int, v byte) []byte {
		b := list(func(*cdb.CopyList) {})
		b[at] = v
		return b
	}
	segments := func(s ...cdb.CopySegment) []byte { return list(func(l *cdb.CopyList) { l.Segments = s }) }
	whole := list(func(*cdb.CopyList) {})
	for i := range r.store.data {
		r.store.data[i] = byte(i >> 9)
	}
	before := bytes.Clone(r.store.data)
	for _, c := range []struct {
		name    string
		out     []byte
		key     cdb.SenseKey
		asc     cdb.ASC
		segment uint64
	}{
		{"header cut off", whole[:15], cdb.KeyIllegalRequest, cdb.ASCParameterListLength, 0},
		{"target cut off", whole[:47], cdb.KeyIllegalRequest, cdb.ASCParameterListLength, 0},
		{"segment cut off", whole[:len(whole)-1], cdb.KeyIllegalRequest, cdb.ASCParameterListLength, 0},
		{"too many targets", list(func(l *cdb.CopyList) { l.Targets = []cdb.CopyTarget{r.self(), r.self(), r.self()} }), cdb.KeyIllegalRequest, cdb.ASCTooManyTargetDescriptors, 0},
		{"too many segments", segments(make([]cdb.CopySegment, maxCopySegments+1)...), cdb.KeyIllegalRequest, cdb.ASCTooManySegmentDescriptors, 0},
		{"more than all may have", segments(make([]cdb.CopySegment, 40)...), cdb.KeyIllegalRequest, cdb.ASCParameterListLength, 0},
		{"another type of target", spoiled(16, 0xe0), cdb.KeyIllegalRequest, cdb.ASCUnsupportedTargetDescriptor, 0},
		{"another type of segment", spoiled(48, 0x03), cdb.KeyIllegalRequest, cdb.ASCUnsupportedSegmentDescriptor, 0},
		{"a long designator", spoiled(23, 21), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInParameterList, 0},
		{"a segment of another length", spoiled(51, 0x17), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInParameterList, 0},
		{"inline data", spoiled(15, 1), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInParameterList, 0},
		{"reserved use of the list id", spoiled(1, 1<<3), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInParameterList, 0},
		{"a list id that is not used", list(func(l *cdb.CopyList) { l.Usage, l.ListID = 3, 1 }), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInParameterList, 0},
		{"another logical unit", target(func(t *cdb.CopyTarget) { t.Value = make([]byte, 16) }), cdb.KeyCopyAborted, cdb.ASCCopyTargetNotReachable, 0},
		{"a port", target(func(t *cdb.CopyTarget) { t.Association = cdb.AssociationTargetPort }), cdb.KeyCopyAborted, cdb.ASCCopyTargetNotReachable, 0},
		{"a tape", target(func(t *cdb.CopyTarget) { t.DeviceType = 1 }), cdb.KeyCopyAborted, cdb.ASCIncorrectCopyTargetType, 0},
		{"another block size", target(func(t *cdb.CopyTarget) { t.BlockSizeBytes = 4096 }), cdb.KeyCopyAborted, cdb.ASCIncorrectCopyTargetType, 0},
		{"no such source", segments(one[0], cdb.CopySegment{Source: 1, Blocks: 1}), cdb.KeyCopyAborted, cdb.ASCUnreachableCopyTarget, 1},
		{"no such destination", segments(one[0], one[0], cdb.CopySegment{Destination: 1, Blocks: 1}), cdb.KeyCopyAborted, cdb.ASCUnreachableCopyTarget, 2},
		{"beyond the end of the source", segments(one[0], cdb.CopySegment{Blocks: 2, SourceLBA: 63}), cdb.KeyCopyAborted, cdb.ASCNone, 1},
		{"beyond the end of the destination", segments(cdb.CopySegment{Blocks: 1, DestinationLBA: 1<<64 - 1}), cdb.KeyCopyAborted, cdb.ASCNone, 0},
	} {
		res := r.do(cdb.ExtendedCopy(uint32(len(c.out))), c.out, 0)
		want(t, c.name, res, c.key, c.asc)
		if s, _ := cdb.ParseSense(res.Sense); s.CommandSpecific != c.segment {
			t.Errorf("%s: segment %d is told, want %d", c.name, s.CommandSpecific, c.segment)
		}
	}
	want(t, "less data than announced", r.do(cdb.ExtendedCopy(uint32(len(whole))), whole[:20], 0), cdb.KeyIllegalRequest, cdb.ASCParameterListLength)
	want(t, "an empty list", r.do(cdb.ExtendedCopy(0), nil, 0), 0, 0)
	if !bytes.Equal(r.store.data, before) {
		t.Error("a refused copy changed the volume")
	}
}

// TestCopyThatFails: the segments before are done and told; a full medium is told as one.
func TestCopyThatFails(t *testing.T) {
	segments := []cdb.CopySegment{{Blocks: 2, DestinationLBA: 8}, {Blocks: 1, SourceLBA: 20, DestinationLBA: 30}, {Blocks: 1}}
	for _, c := range []struct {
		name string
		fail func(*memStore)
		key  cdb.SenseKey
		asc  cdb.ASC
	}{
		{"a bad source", func(m *memStore) { m.bad = 20 }, cdb.KeyCopyAborted, cdb.ASCThirdPartyDeviceFailure},
		{"a full medium", func(m *memStore) {
			left := 1
			m.failWrite = func() error {
				if left--; left < 0 {
					return disk.ErrNoSpace
				}
				return nil
			}
		}, cdb.KeyDataProtect, cdb.ASCSpaceAllocationFailed},
	} {
		r := newRig(t, 64, 512)
		c.fail(r.store)
		want(t, c.name, r.copy(cdb.CopyList{ListID: 1, Targets: []cdb.CopyTarget{r.self()}, Segments: segments}), c.key, c.asc)
		if got, expect := r.copyStatus(1).DataIn, (cdb.CopyStatus{Manager: copyFailed, Segments: 1, Transferred: 1}).Encode(); !bytes.Equal(got, expect) {
			t.Errorf("%s: the status is % x, want % x", c.name, got, expect)
		}
	}
	// Aborted between two steps.
	r := newRig(t, 8192, 512)
	ctx, cancel := context.WithCancel(context.Background())
	r.store.failWrite = func() error { cancel(); return nil }
	out := (&cdb.CopyList{Usage: 3, Segments: []cdb.CopySegment{{Source: cdb.CopyThisUnit, Destination: cdb.CopyThisUnit, Blocks: 8192}}}).Encode()
	if res := r.exec(ctx, cdb.ExtendedCopy(uint32(len(out))), out, 0); res.Status != cdb.StatusTaskAborted || r.store.writes != 1 {
		t.Errorf("%s after %d writes", describe(res), r.store.writes)
	}
}

// TestCopyResults: each initiator has its own, as many as are kept; a list id that is in use can't be used again.
func TestCopyResults(t *testing.T) {
	r := newRig(t, 64, 512)
	want(t, "nothing yet", r.copyStatus(0), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
	for id := range byte(heldCopies + 4) {
		want(t, "a copy", r.copy(cdb.CopyList{ListID: id}), 0, 0)
	}
	for id := range byte(heldCopies + 4) {
		if id < 4 {
			want(t, "one that was forgotten", r.copyStatus(id), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
		} else {
			want(t, "one that is kept", r.copyStatus(id), 0, 0)
		}
	}
	other := r.lu.OpenNexus("iqn.2026-11.example:h2,i,0x000000000001")
	other.take()
	c := cdb.ReceiveCopyResults(0, heldCopies, 255)
	want(t, "somebody else's", r.lu.Execute(context.Background(), &Task{Nexus: other, CDB: c[:], DataInLimit: 255}), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)

	// One that is under way.
	if !r.nexus.copyBegins(5) || r.nexus.copyBegins(5) {
		t.Error("a list id that is in use is used again")
	}
	want(t, "a list id in use", r.copy(cdb.CopyList{ListID: 5}), cdb.KeyIllegalRequest, cdb.ASCOperationInProgress)
	want(t, "without a nexus", r.lu.Execute(context.Background(), &Task{CDB: c[:], DataInLimit: 255}), cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
}
