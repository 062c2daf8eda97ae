package scsi

import (
	"bytes"
	"context"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testVolume san.VolumeID = "5f0c2f5e-7a9b-4f0e-9a53-0d1f8c1f6a01"

// rig is a logical unit of a few blocks with one nexus whose unit attention was told.
type rig struct {
	t     testing.TB
	lu    *LU
	store *memStore
	nexus *Nexus
	log   *bytes.Buffer
}

func newRig(t testing.TB, blocks int, blockSize uint32) *rig {
	t.Helper()
	r := &rig{t: t, store: newMemStore(blocks * int(blockSize)), log: new(bytes.Buffer)}
	lu, err := NewLU(Config{ID: testVolume, BlockSizeBytes: blockSize, Store: r.store,
		TargetName: san.TargetName("unit1", testVolume), RelativePort: 3, PortGroup: 2,
		Logger: slog.New(slog.NewTextHandler(r.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	r.lu, r.nexus = lu, lu.OpenNexus("iqn.2026-11.example:h1,i,0x000000000001")
	if res := r.do(cdb.TestUnitReady(), nil, 0); res.Status != cdb.StatusCheckCondition {
		t.Fatalf("first command of a nexus: status %s, want its unit attention", cdb.StatusName(res.Status))
	}
	return r
}

// do executes c on LUN 0 and copies the data in.
func (r *rig) do(c cdb.CDB, dataOut []byte, limit int) Result {
	return r.exec(context.Background(), c, dataOut, limit)
}

func (r *rig) exec(ctx context.Context, c cdb.CDB, dataOut []byte, limit int) Result {
	res := r.lu.Execute(ctx, &Task{Nexus: r.nexus, CDB: c[:], DataOut: dataOut, DataInLimit: limit, Tag: 7})
	res.DataIn = bytes.Clone(res.DataIn)
	res.Release()
	return res
}

// want checks a result's status and, with CHECK CONDITION, its sense.
func want(t testing.TB, what string, res Result, key cdb.SenseKey, asc cdb.ASC) {
	t.Helper()
	if key == cdb.KeyNoSense {
		if res.Status != cdb.StatusGood {
			t.Errorf("%s: %s, want GOOD", what, describe(res))
		}
		return
	}
	if res.Status != cdb.StatusCheckCondition {
		t.Errorf("%s: %s, want CHECK CONDITION", what, describe(res))
		return
	}
	s, err := cdb.ParseSense(res.Sense)
	if err != nil {
		t.Errorf("%s: sense: %v", what, err)
		return
	}
	if s.Key != key || s.ASC != asc {
		t.Errorf("%s: %s, want %s", what, s, cdb.Sense{Key: key, ASC: asc})
	}
}

func describe(res Result) string {
	if s, err := cdb.ParseSense(res.Sense); err == nil {
		return cdb.StatusName(res.Status) + " " + s.String()
	}
	return cdb.StatusName(res.Status)
}

func TestReadBackWhatWasWritten(t *testing.T) {
	for _, size := range []uint32{512, 4096} {
		r := newRig(t, 64, size)
		data := bytes.Repeat([]byte("sandbar!"), 3*int(size)/8)
		for _, ops := range [][2]byte{{cdb.OpWrite6, cdb.OpRead6}, {cdb.OpWrite10, cdb.OpRead10}, {cdb.OpWrite12, cdb.OpRead12}, {cdb.OpWrite16, cdb.OpRead16}} {
			clear(r.store.data)
			want(t, "write", r.do(cdb.Block{Op: ops[0], LBA: 5, Blocks: 3}.Encode(), data, 0), 0, 0)
			res := r.do(cdb.Block{Op: ops[1], LBA: 5, Blocks: 3}.Encode(), nil, len(data))
			want(t, "read", res, 0, 0)
			if !bytes.Equal(res.DataIn, data) {
				t.Errorf("block size %d, op %02Xh: other data came back", size, ops[1])
			}
			if !bytes.Equal(r.store.data[5*size:8*size], data) {
				t.Errorf("block size %d, op %02Xh: data are not at LBA 5", size, ops[0])
			}
		}
	}
}
