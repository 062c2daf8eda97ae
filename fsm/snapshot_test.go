package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/iotest"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/sandbar-san/sandbar/fsm/codec"
)

// someState is a machine that has a row in every table.
func someState(t testing.TB) *Machine {
	m := benchPool(t, 2)
	at := time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	c := benchCreate(1)
	c.H.At, c.Host, c.CHAPUser, c.CHAPSecretSealed = at, "h1", "user", []byte("sealed")
	c.Labels = map[string]string{"b": "2", "a": "1"}
	mustApply(t, m, c)
	mustApply(t, m, &PutStation{H: Header{At: at}, Station: Station{ID: "s1", APIAddress: "a:1", RaftAddress: "b:2"}})
	mustApply(t, m, &CreateToken{H: Header{At: at, Principal: "root", RequestID: "r"}, Token: Token{ID: "t", Name: "t", Role: TokenAdmin, SecretHash: []byte("h")}})
	return m
}

func snapshotOf(t testing.TB, m *Machine) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := m.Snapshot().WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("%d bytes said, %d written, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

// TestGoldenSnapshot: snapshots of released versions can be restored, whole.
func TestGoldenSnapshot(t *testing.T) {
	path := filepath.Join("testdata", "snapshot-1.bin")
	now := snapshotOf(t, someState(t))
	if *update {
		if err := os.WriteFile(path, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(now, golden) {
		t.Error("the state is no longer written as it was")
	}
	m := New()
	if err := m.Restore(iotest.OneByteReader(bytes.NewReader(golden))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snapshotOf(t, m), golden) {
		t.Error("restored, it is another state")
	}
	for _, table := range tables() {
		it, err := m.View().txn.Get(table.String(), byID)
		if err != nil || it.Next() == nil {
			t.Errorf("table %s is empty: the golden snapshot tests too little (%v)", table, err)
		}
	}
	if m.View().Request("root", "r") == nil || len(m.View().Audit(0, 99)) == 0 {
		t.Error("requests or audit are lost")
	}
}

// TestGoldenRows: every field of every row survives a snapshot.
func TestGoldenRows(t *testing.T) {
	for _, table := range tables() {
		r, seed := newRow(table), 1
		filled(reflect.ValueOf(r).Elem(), &seed)
		b, err := codec.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got := newRow(table)
		if err := codec.Unmarshal(b, got); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: %+v, %v", table, got, err)
		}
		if r.table() != table || r.key() == "" {
			t.Errorf("%s: row of %s with key %q", table, r.table(), r.key())
		}
	}
}

// TestTruncated: a snapshot that ends early, wherever, restores nothing.
func TestTruncated(t *testing.T) {
	whole := snapshotOf(t, someState(t))
	m := New()
	mustApply(t, m, &AddHost{ID: "mine", Initiators: []string{"iqn.x:mine"}})
	for n := range whole {
		if err := m.Restore(bytes.NewReader(whole[:n])); !errors.Is(err, codec.ErrIncomplete) {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	if m.AppliedIndex() != 1 || m.View().Host("mine") == nil {
		t.Error("the machine changed")
	}
	if err := m.Restore(io.MultiReader(bytes.NewReader(whole), bytes.NewReader([]byte{0}))); !errors.Is(err, codec.ErrIncomplete) {
		t.Errorf("a byte too many: %v", err)
	}
	broken := errors.New("disk gone")
	if err := m.Restore(io.MultiReader(bytes.NewReader(whole[:100]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a read error: %v", err)
	}
	if err := m.Restore(bytes.NewReader(whole)); err != nil || m.View().Host("mine") != nil || m.View().Host("h1") == nil {
		t.Errorf("the whole of it: %v", err)
	}
}

// TestFlipped: no changed bit goes unnoticed.
func TestFlipped(t *testing.T) {
	whole := snapshotOf(t, someState(t))
	m := New()
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 1 << (i % 8)
		if err := m.Restore(bytes.NewReader(bad)); err == nil {
			t.Fatalf("bit %d of byte %d was changed and restored", i%8, i)
		}
	}
	if m.AppliedIndex() != 0 {
		t.Error("the machine changed")
	}
}

func TestNewerSnapshot(t *testing.T) {
	b := snapshotOf(t, New())
	binary.BigEndian.PutUint16(b[len("SANDBARSNAP"):], codec.Format+1)
	if err := New().Restore(bytes.NewReader(b)); !errors.Is(err, codec.ErrNewer) {
		t.Error(err)
	}
	m := New()
	txn := m.db.Txn(true)
	if err := txn.Insert(TableCluster.String(), &Cluster{ID: "c", FormatVersion: FormatVersion + 1}); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	m.publish(1)
	if err := New().Restore(bytes.NewReader(snapshotOf(t, m))); !errors.Is(err, codec.ErrNewer) {
		t.Errorf("a cluster at a newer log format: %v", err)
	}
}

// TestSnapshotWhileApplying: a snapshot captured before more commands has none of them.
func TestSnapshotWhileApplying(t *testing.T) {
	m := someState(t)
	want := snapshotOf(t, m)
	s := m.Snapshot()
	for i := 2; i < 200; i++ {
		mustApply(t, m, benchCreate(i))
	}
	var got bytes.Buffer
	if _, err := s.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the snapshot changed (%v)", err)
	}
	if _, err := m.Snapshot().WriteTo(failingWriter{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a full disk: %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// FuzzRestoreRow puts any bytes in the place of a row, under a checksum that is right.
func FuzzRestoreRow(f *testing.F) {
	for _, table := range tables() {
		r, seed := newRow(table), 1
		filled(reflect.ValueOf(r).Elem(), &seed)
		if c, ok := r.(*Cluster); ok {
			c.FormatVersion = FormatVersion
		}
		b, err := codec.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(table), b)
	}
	f.Add(uint8(TableRequests), []byte("\xa0"))
	f.Add(uint8(TableAudit), []byte("\xa0"))
	f.Fuzz(func(t *testing.T, table uint8, row []byte) {
		if len(row) == 0 {
			return
		}
		var b bytes.Buffer
		w := codec.NewSnapshotWriter(&b, codec.SnapshotHeader{Index: 1, Tables: 1})
		w.Table(table, 1)
		w.Row(cbor.RawMessage(row))
		if _, err := w.Close(); err != nil {
			return
		}
		m := New()
		if err := m.Restore(&b); err != nil {
			if m.AppliedIndex() != 0 {
				t.Fatal("refused, and changed")
			}
			return
		}
		// Restored, it can be written, restored again, and be worked on.
		again := New()
		if err := again.Restore(bytes.NewReader(snapshotOf(t, m))); err != nil {
			t.Fatal(err)
		}
		entry, err := Encode(&PutStation{Station: Station{ID: "s1"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Apply(2, entry); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkSnapshot writes and restores 10,000 volumes.
func BenchmarkSnapshot(b *testing.B) {
	m := benchPool(b, 3)
	for i := range 10000 {
		mustApply(b, m, benchCreate(i))
	}
	for b.Loop() {
		if err := New().Restore(bytes.NewReader(snapshotOf(b, m))); err != nil {
			b.Fatal(err)
		}
	}
}
