package fsm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/fsm/codec"
	"github.com/sandbar-san/sandbar/san"
)

var update = flag.Bool("update", false, "rewrite the golden files; never for a format that was released")

// filled sets every field below v to something that is not zero, the same each time.
func filled(v reflect.Value, seed *int) {
	*seed++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(v.Elem(), seed)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 11, 22, 1, 2, 3, *seed, time.UTC)))
			return
		}
		for i := range v.NumField() {
			filled(v.Field(i), seed)
		}
	case reflect.Slice:
		n := 2
		if v.Type().Elem().Kind() == reflect.Uint8 {
			n = 3
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			filled(v.Index(i), seed)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, k := range []string{"b", "a", "long"} {
			v.SetMapIndex(reflect.ValueOf(k), reflect.ValueOf(fmt.Sprint(k, *seed)))
		}
	case reflect.String:
		v.SetString(fmt.Sprint("s", *seed))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(int64(*seed) << 33)
	case reflect.Uint8:
		v.SetUint(uint64(*seed) % 256)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*seed))
	}
}

// everyCommand returns each kind of command with every field set.
func everyCommand() []Command {
	var out []Command
	for k := Kind(1); newCommand(k) != nil; k++ {
		c, seed := newCommand(k), int(k)*100
		filled(reflect.ValueOf(c).Elem(), &seed)
		out = append(out, c)
	}
	return out
}

// TestGoldenCommands freezes the bytes of every command: what is in somebody's log must be read for ever.
func TestGoldenCommands(t *testing.T) {
	path := filepath.Join("testdata", "commands-1.txt")
	var got strings.Builder
	for _, c := range everyCommand() {
		b, err := Encode(c)
		if err != nil {
			t.Fatalf("%T: %v", c, err)
		}
		fmt.Fprintf(&got, "%s %x\n", reflect.TypeOf(c).Elem().Name(), b)
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Error("commands are no longer encoded as they were")
	}
	for i, l := range strings.Split(strings.TrimSpace(string(want)), "\n") {
		name, text, _ := strings.Cut(l, " ")
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if all := everyCommand(); i >= len(all) || !reflect.DeepEqual(c, all[i]) {
			t.Errorf("%s is read as %+v", name, c)
		}
	}
}

// TestKinds: each command knows its number, and there is an apply for each.
func TestKinds(t *testing.T) {
	all := everyCommand()
	if len(all) != int(KindGrowVolume) {
		t.Errorf("%d kinds of command, the last is number %d", len(all), KindGrowVolume)
	}
	for i, c := range all {
		if c.Kind() != Kind(i+1) {
			t.Errorf("%T is kind %d, made for %d", c, c.Kind(), i+1)
		}
		if c.Header().Principal == "" {
			t.Errorf("%T has no header", c)
		}
		if formatOf(c.Kind()) > codec.Format {
			t.Errorf("%T needs format %d", c, formatOf(c.Kind()))
		}
	}
}

// TestHalts: what can't be read stops the machine, which stays as it is.
func TestHalts(t *testing.T) {
	good, err := Encode(&AddHost{ID: "h", Initiators: []string{"iqn.x:h"}})
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	header := func(at int, v uint16) []byte {
		return change(func(b []byte) []byte { binary.BigEndian.PutUint16(b[at:], v); return b })
	}
	unknownField, err := codec.EncodeCommand(codec.Envelope{Format: 1, Kind: uint16(KindAddHost)}, map[int]any{2: "h", 99: "new"})
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name  string
		entry []byte
		want  error
	}{
		{"empty", nil, codec.ErrDamaged},
		{"short", good[:7], codec.ErrDamaged},
		{"cut", good[:len(good)-1], codec.ErrDamaged},
		{"longer", append(bytes.Clone(good), 0), codec.ErrDamaged},
		{"other magic", change(func(b []byte) []byte { b[0] = 'X'; return b }), codec.ErrDamaged},
		{"format 0", header(2, 0), codec.ErrDamaged},
		{"format 2", header(2, 2), codec.ErrNewer},
		{"unknown kind", header(4, 9999), codec.ErrNewer},
		{"unknown flag", change(func(b []byte) []byte { b[6] = 2; return b }), codec.ErrNewer},
		{"reserved byte", change(func(b []byte) []byte { b[7] = 1; return b }), codec.ErrNewer},
		{"unknown field", unknownField, codec.ErrDamaged},
		{"too long", make([]byte, codec.MaxCommandBytes+1), codec.ErrDamaged},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := New()
			mustApply(t, m, &AddHost{ID: "h0", Initiators: []string{"iqn.x:h0"}})
			if r, err := m.Apply(2, c.entry); !errors.Is(err, c.want) {
				t.Fatalf("got %+v, %v; want %v", r, err, c.want)
			}
			if m.AppliedIndex() != 1 || len(m.View().Hosts()) != 1 {
				t.Error("the machine changed")
			}
			if r, err := m.Apply(2, good); err != nil || r.Err != nil {
				t.Errorf("the machine is stuck: %+v, %v", r, err)
			}
		})
	}
}

func TestIndexOrder(t *testing.T) {
	m := New()
	entry, err := Encode(&AddHost{ID: "h", Initiators: []string{"iqn.x:h"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Apply(0, entry); err == nil {
		t.Error("index 0 was applied")
	}
	if _, err := m.Apply(7, entry); err != nil {
		t.Fatal(err)
	}
	for _, i := range []san.Index{6, 7} {
		if _, err := m.Apply(i, entry); err == nil {
			t.Errorf("index %d was applied after 7", i)
		}
	}
}

// TestIgnorable: a command of an unknown kind that may be skipped moves the index and nothing else, and
// one of a known kind may have more fields than this program knows.
func TestIgnorable(t *testing.T) {
	m := New()
	for i, env := range []codec.Envelope{{Format: 1, Kind: 9999, Ignorable: true}, {Format: 9, Kind: uint16(KindAddHost), Ignorable: true}} {
		entry, err := codec.EncodeCommand(env, map[int]any{1: "anything"})
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.Apply(san.Index(i+1), entry)
		if err != nil || r.Err != nil || m.AppliedIndex() != san.Index(i+1) || len(m.View().Hosts()) != 0 {
			t.Errorf("%+v: %+v, %v at %d", env, r, err, m.AppliedIndex())
		}
	}
	entry, err := codec.EncodeCommand(codec.Envelope{Format: 1, Kind: uint16(KindAddHost), Ignorable: true}, map[int]any{2: "h", 3: []string{"iqn.x:h"}, 99: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := m.Apply(3, entry); err != nil || r.Err != nil || m.View().Host("h") == nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestEncodeRefuses: what could not be read again is refused before it is in the log.
func TestEncodeRefuses(t *testing.T) {
	for name, c := range map[string]Command{
		"broken UTF-8": &AddHost{ID: "h\xff"},
		"year 10000":   &AddHost{H: Header{At: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, ID: "h"},
		"too long":     &AddHost{ID: san.HostID(strings.Repeat("h", codec.MaxCommandBytes))},
	} {
		if b, err := Encode(c); san.KindOf(err) != san.KindInvalid {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

// TestZones: the zone that a proposer thinks in doesn't reach the state.
func TestZones(t *testing.T) {
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.FixedZone("far", 5*3600))
	m := New()
	mustApply(t, m, &InitCluster{H: Header{At: at}, ID: "c", CACertPEM: []byte("c"), CAKeySealed: []byte("k"),
		Tokens: []Token{{ID: "t", Name: "t", Role: TokenAdmin, SecretHash: []byte("h"), ExpiresAt: at.Add(time.Hour)}}})
	v := m.View()
	for _, got := range []time.Time{v.Cluster().CreatedAt, v.Token("t").CreatedAt, v.Token("t").ExpiresAt, v.Audit(0, 1)[0].At} {
		if got.Location() != time.UTC || got.Sub(at) > time.Hour || got.Before(at) {
			t.Errorf("%v", got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range everyCommand() {
		b, err := Encode(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("SB\x00\x01\x00\x0f\x00\x00\xa0"))
	f.Fuzz(func(t *testing.T, entry []byte) {
		m := New()
		r, err := m.Apply(1, entry)
		if err != nil {
			if m.AppliedIndex() != 0 {
				t.Fatal("halted, and moved on")
			}
			return
		}
		if m.AppliedIndex() != 1 {
			t.Fatal("applied, and not moved")
		}
		c, err := Decode(entry)
		if errors.Is(err, ErrIgnorable) {
			return
		}
		// What was read can be written, and does the same again.
		again, err := Encode(c)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		other := New()
		r2, err := other.Apply(1, again)
		if err != nil || fmt.Sprint(r) != fmt.Sprint(r2) {
			t.Fatalf("%+v, then %+v, %v", r, r2, err)
		}
		var a, b bytes.Buffer
		if _, err := m.Snapshot().WriteTo(&a); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Snapshot().WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Fatal("the same command made two states")
		}
	})
}
