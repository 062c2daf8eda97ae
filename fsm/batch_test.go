package fsm_test

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/fsm/codec"
	"github.com/sandbar-san/sandbar/san"
)

// TestBatches: however a log is cut into batches, it gives the state that its entries give one by
// one, refusals included.
func TestBatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			m.step(t)
		}
		want, err := m.env.SnapshotBytes()
		if err != nil {
			t.Fatal(err)
		}
		other, log := fsm.New(), m.env.Log
		for at := 0; at < len(log); {
			n := rapid.IntRange(1, min(8, len(log)-at)).Draw(t, "batch")
			if _, err := other.ApplyBatch(entries(log[at:at+n], at+1)); err != nil {
				t.Fatal(err)
			}
			at += n
		}
		var got bytes.Buffer
		if _, err := other.Snapshot().WriteTo(&got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, got.Bytes()) {
			t.Fatal("batches gave another state than single entries")
		}
	})
}

func entries(log [][]byte, first int) []fsm.Entry {
	var out []fsm.Entry
	for i, data := range log {
		out = append(out, fsm.Entry{Index: san.Index(first + i), Data: data})
	}
	return out
}

// TestRefusedInTheMiddle: a command that was refused after its first change leaves nothing of
// it, and a retry of the command before it, in the same batch, is answered from memory.
func TestRefusedInTheMiddle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { // newModel wants rapid's T
		m := newModel(t)
		first := len(m.env.Log) + 1
		good := volumeIn("good", 1, fsm.Slice{Medium: "m1", Extents: 1})
		good.H.RequestID, good.H.Fingerprint, good.H.Principal = "r1", []byte("f"), "p"
		// Its first slice fits and is reserved; its second does not.
		tooBig := volumeIn("too-big", 12, fsm.Slice{Medium: "m1", Extents: 5}, fsm.Slice{Medium: "m2", Extents: 7})
		last := volumeIn("last", 5, fsm.Slice{Medium: "m1", Extents: 5})
		var log [][]byte
		for _, c := range []fsm.Command{good, tooBig, good, last} {
			entry, err := fsm.Encode(c)
			if err != nil {
				t.Fatal(err)
			}
			log = append(log, entry)
		}
		rs, err := m.env.Machine.ApplyBatch(entries(log, first))
		if err != nil {
			t.Fatal(err)
		}
		if rs[0].Err != nil || san.KindOf(rs[1].Err) != san.KindNoSpace || !rs[2].Replayed || rs[2].Object != "id-good" || rs[3].Err != nil {
			t.Fatalf("got %+v", rs)
		}
		v := m.env.Machine.View()
		if got := v.Medium("m1").ReservedExtents; got != 6 {
			t.Errorf("medium m1 has %d extents reserved, want 6", got)
		}
		if v.VolumeByName("too-big") != nil || v.Volume("id-last") == nil {
			t.Error("the wrong volumes are there")
		}
	})
}

// TestUnknownInTheMiddle: what comes before an entry that can't be understood counts, it and
// what comes after do not.
func TestUnknownInTheMiddle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		first := len(m.env.Log) + 1
		entry, err := fsm.Encode(volumeIn("good", 1, fsm.Slice{Medium: "m1", Extents: 1}))
		if err != nil {
			t.Fatal(err)
		}
		after, err := fsm.Encode(volumeIn("after", 1, fsm.Slice{Medium: "m1", Extents: 1}))
		if err != nil {
			t.Fatal(err)
		}
		rs, err := m.env.Machine.ApplyBatch(entries([][]byte{entry, []byte("not an entry"), after}, first))
		if !errors.Is(err, codec.ErrDamaged) && !errors.Is(err, codec.ErrNewer) || len(rs) != 1 {
			t.Fatalf("got %+v, %v", rs, err)
		}
		v := m.env.Machine.View()
		if v.Volume("id-good") == nil || v.Volume("id-after") != nil || m.env.Machine.AppliedIndex() != san.Index(first) {
			t.Errorf("applied up to %d", m.env.Machine.AppliedIndex())
		}
	})
}

func volumeIn(name string, extents int64, slices ...fsm.Slice) *fsm.CreateVolume {
	return &fsm.CreateVolume{
		ID: san.VolumeID("id-" + name), Name: name, SizeBytes: extents * san.ExtentSizeBytes, BlockSizeBytes: 512,
		Copies: []fsm.Copy{{Unit: "u1", Role: fsm.RolePrimary, Slices: slices}},
	}
}
