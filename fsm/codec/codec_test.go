package codec

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/san"
)

type payload struct {
	Name string            `cbor:"1,keyasint"`
	Map  map[string]uint64 `cbor:"2,keyasint"`
	At   time.Time         `cbor:"3,keyasint"`
	Data []byte            `cbor:"4,keyasint"`
}

// TestFrozenBytes: the envelope and the CBOR of format 1, byte by byte.
func TestFrozenBytes(t *testing.T) {
	got, err := EncodeCommand(Envelope{Format: 1, Kind: 258, Ignorable: true},
		payload{Name: "v", Map: map[string]uint64{"bb": 2, "a": 1}, At: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Data: []byte{9}})
	if err != nil {
		t.Fatal(err)
	}
	want := "SB\x00\x01\x01\x02\x01\x00" + // magic, format 1, kind 258, ignorable
		"\xa4" + "\x01\x61v" + // map of 4; 1: "v"
		"\x02\xa2\x61a\x01\x62bb\x02" + // 2: keys in bytewise order
		"\x03\x78\x1b2026-01-02T03:04:05.000006Z" + "\x04\x41\x09"
	if string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	env, body, err := OpenCommand(got)
	if err != nil || env != (Envelope{Format: 1, Kind: 258, Ignorable: true}) || len(body) != len(want)-HeaderBytes {
		t.Errorf("%+v, %d bytes, %v", env, len(body), err)
	}
}

// TestRoundTrip: what is written is read, and written again is the same.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := payload{
			Name: rapid.String().Draw(t, "name"),
			Map:  rapid.MapOf(rapid.String(), rapid.Uint64()).Draw(t, "map"),
			At:   time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "seconds"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC(),
			Data: rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
		}
		b, err := Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var q payload
		if err := Unmarshal(b, &q); err != nil {
			t.Fatal(err)
		}
		again, err := Marshal(q)
		if err != nil || !bytes.Equal(b, again) || !q.At.Equal(p.At) || q.Name != p.Name {
			t.Fatalf("%x, then %x, %v", b, again, err)
		}
	})
}

func TestUnmarshalIsStrict(t *testing.T) {
	for name, b := range map[string]string{
		"unknown field":     "\xa1\x18\x63\x01",
		"repeated field":    "\xa2\x01\x61a\x01\x61b",
		"indefinite length": "\xbf\x01\x61a\xff",
		"tag":               "\xa1\x03\xc0\x74" + "2026-01-02T03:04:05Z",
		"bytes after it":    "\xa1\x01\x61a\x00",
		"cut":               "\xa1\x01\x61",
		"wrong type":        "\xa1\x01\x05",
		"broken UTF-8":      "\xa1\x01\x61\xff",
		"deep":              "\xa1\x02" + strings.Repeat("\x81", 40) + "\x00",
		"claims 2^32 items": "\xa1\x02\xba\xff\xff\xff\xff",
		"nothing":           "",
	} {
		var p payload
		if err := Unmarshal([]byte(b), &p); err == nil {
			t.Errorf("%s: read as %+v", name, p)
		}
	}
	var p payload
	if err := UnmarshalLenient([]byte("\xa2\x01\x61a\x18\x63\x01"), &p); err != nil || p.Name != "a" {
		t.Errorf("lenient: %+v, %v", p, err)
	}
}

func TestCommandBound(t *testing.T) {
	if _, err := EncodeCommand(Envelope{Format: 1, Kind: 1}, payload{Data: make([]byte, MaxCommandBytes)}); san.KindOf(err) != san.KindInvalid {
		t.Errorf("too long: %v", err)
	}
	if b, err := EncodeCommand(Envelope{Format: 1, Kind: 1}, payload{Data: make([]byte, MaxCommandBytes-64)}); err != nil {
		t.Errorf("just fits: %d bytes, %v", len(b), err)
	}
}

func writeSnapshot(t *testing.T, rows ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewSnapshotWriter(&b, SnapshotHeader{Index: 7, Tables: 1})
	w.Table(3, uint64(len(rows)))
	for _, r := range rows {
		w.Row(payload{Name: r})
	}
	if n, err := w.Close(); err != nil || n != int64(b.Len()) {
		t.Fatalf("%d of %d bytes, %v", n, b.Len(), err)
	}
	return b.Bytes()
}

// readSnapshot reads as many rows as the table says.
func readSnapshot(b []byte) ([]string, error) {
	r, h, err := NewSnapshotReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if h.Index != 7 || h.Tables != 1 {
		return nil, errors.New("wrong header")
	}
	table, n, err := r.Table()
	if err != nil {
		return nil, err
	}
	if table != 3 {
		return nil, errors.New("wrong table")
	}
	var out []string
	for range n {
		var p payload
		if err := r.Row(&p); err != nil {
			return nil, err
		}
		out = append(out, p.Name)
	}
	return out, r.Close()
}

func TestSnapshot(t *testing.T) {
	big := strings.Repeat("x", 200<<10)
	got, err := readSnapshot(writeSnapshot(t, "a", big, "c"))
	if err != nil || len(got) != 3 || got[0] != "a" || got[1] != big || got[2] != "c" {
		t.Fatalf("%d rows, %v", len(got), err)
	}
	whole := writeSnapshot(t, "a", "b")
	for n := range whole {
		if _, err := readSnapshot(whole[:n]); !errors.Is(err, ErrIncomplete) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// TestSnapshotCounts: a table that says less than it has is noticed.
func TestSnapshotCounts(t *testing.T) {
	whole := writeSnapshot(t, "a", "b")
	count := bytes.Index(whole, []byte{0xa2, 1, 3, 2, 2})
	if count < 0 {
		t.Fatal("no table record")
	}
	for _, n := range []byte{0, 1, 3, 23} {
		bad := bytes.Clone(whole)
		bad[count+4] = n
		if _, err := readSnapshot(bad); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%d rows said: %v", n, err)
		}
	}
}

// TestSnapshotRecordBound: a length that nothing backs costs no memory.
func TestSnapshotRecordBound(t *testing.T) {
	whole := writeSnapshot(t)
	at := len(snapshotMagic) + 2
	for _, length := range []string{"\xff\xff\xff\xff", "\x00\x7f\xff\xff"} {
		bad := append(bytes.Clone(whole[:at+1]), length...)
		if allocated := testing.AllocsPerRun(1, func() {
			if _, err := readSnapshot(bad); !errors.Is(err, ErrIncomplete) {
				t.Errorf("length %x: %v", length, err)
			}
		}); allocated > 100 {
			t.Errorf("length %x: %v allocations", length, allocated)
		}
	}
	var b bytes.Buffer
	w := NewSnapshotWriter(&b, SnapshotHeader{})
	w.Row(payload{Data: make([]byte, MaxRecordBytes)})
	if _, err := w.Close(); err == nil {
		t.Error("a row over the bound was written")
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestSnapshotWriterFails(t *testing.T) {
	w := NewSnapshotWriter(fullDisk{}, SnapshotHeader{})
	for range 100 {
		w.Row(payload{Name: strings.Repeat("x", 4096)})
	}
	if _, err := w.Close(); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
}

func FuzzOpenCommand(f *testing.F) {
	f.Add([]byte("SB\x00\x01\x01\x02\x01\x00\xa0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		env, body, err := OpenCommand(b)
		if err != nil {
			return
		}
		var p payload
		if Unmarshal(body, &p) != nil {
			return
		}
		again, err := EncodeCommand(env, p)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := OpenCommand(again); err != nil || got != env {
			t.Fatalf("%+v became %+v, %v", env, got, err)
		}
	})
}
