package pdu

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// The digest test vectors of RFC 7143 appendix B.4, as the bytes on the wire.
func TestDigestVectors(t *testing.T) {
	up := make([]byte, 32)
	for i := range up {
		up[i] = byte(i)
	}
	for _, c := range []struct {
		data []byte
		want string
	}{
		{make([]byte, 32), "aa36918a"},
		{bytes.Repeat([]byte{0xff}, 32), "43aba862"},
		{up, "4e79dd46"},
	} {
		got := Digests{Data: true}.AppendTrailer(nil, c.data[:7], c.data[7:])
		if hex.EncodeToString(got) != c.want {
			t.Errorf("digest of %x: %x, want %s", c.data, got, c.want)
		}
	}
}

func TestFrameRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Digests{Header: rapid.Bool().Draw(t, "hd"), Data: rapid.Bool().Draw(t, "dd")}
		data := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data")
		var ahs []byte
		if rapid.Bool().Draw(t, "ahs") {
			ahs = AppendAHS(nil, AHS{Type: AHSExtendedCDB, Data: rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "cdb")})
		}
		h := &DataIn{Final: true, ITT: 7, DataSN: 3}
		var stream []byte
		for range 2 {
			var err error
			if stream, err = d.Append(stream, h, ahs, data); err != nil {
				t.Fatal(err)
			}
		}
		r := NewReader(bytes.NewReader(stream), 300, MaxAHSLength)
		r.Digests = d
		for range 2 {
			p, err := r.ReadPDU()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(p.Data, data) || !bytes.Equal(p.AHS, ahs) {
				t.Fatal("differs")
			}
			got, err := Parse(&p.BHS)
			if err != nil || !reflect.DeepEqual(got, h) {
				t.Fatalf("%+v %v", got, err)
			}
		}
		if _, err := r.ReadPDU(); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
	})
}

func TestDamageIsSeen(t *testing.T) {
	d := Digests{Header: true, Data: true}
	whole, err := d.Append(nil, &NOPOut{ITT: 1, TTT: NoTag}, nil, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x10
		r := NewReader(bytes.NewReader(bad), 8192, 0)
		r.Digests = d
		if _, err := r.ReadPDU(); err == nil {
			t.Errorf("a flipped bit in byte %d went unnoticed", i)
		}
	}
	for n := 1; n < len(whole); n++ {
		r := NewReader(bytes.NewReader(whole[:n]), 8192, 0)
		r.Digests = d
		if _, err := r.ReadPDU(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
}

func TestReaderGoesOnAfterDataDigestError(t *testing.T) {
	d := Digests{Data: true}
	stream, _ := d.Append(nil, &NOPOut{ITT: 1}, nil, []byte("abc"))
	stream[BHSLength] ^= 1
	stream, _ = d.Append(stream, &NOPOut{ITT: 2}, nil, []byte("def"))
	r := NewReader(bytes.NewReader(stream), 8192, 0)
	r.Digests = d
	if p, err := r.ReadPDU(); !errors.Is(err, ErrDataDigest) || p == nil || p.BHS.ITT() != 1 {
		t.Fatalf("%v %v", p, err)
	}
	if p, err := r.ReadPDU(); err != nil || p.BHS.ITT() != 2 {
		t.Fatalf("%v %v", p, err)
	}
}

func TestReaderBounds(t *testing.T) {
	var b BHS
	(&NOPOut{}).Encode(&b)
	b.SetLengths(0, 8193)
	if _, err := NewReader(bytes.NewReader(b[:]), 8192, 0).ReadPDU(); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
	b.SetLengths(4, 0)
	if _, err := NewReader(bytes.NewReader(b[:]), 8192, 0).ReadPDU(); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
	if _, err := (Digests{}).Append(nil, &NOPOut{}, nil, make([]byte, 1<<24)); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
	if _, err := (Digests{}).Append(nil, &NOPOut{}, make([]byte, 3), nil); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
}

func FuzzReader(f *testing.F) {
	d := Digests{Header: true, Data: true}
	for _, h := range everyHeader() {
		whole, _ := d.Append(nil, h, AppendAHS(nil, AHS{Type: 1, Data: []byte{1, 2}}), []byte("key=value\x00"))
		f.Add(whole, true)
		whole, _ = Digests{}.Append(nil, h, nil, []byte("abc"))
		f.Add(whole, false)
	}
	f.Fuzz(func(t *testing.T, in []byte, digests bool) {
		r := NewReader(bytes.NewReader(in), 1024, 64)
		r.Digests = Digests{Header: digests, Data: digests}
		for range len(in)/BHSLength + 1 {
			p, err := r.ReadPDU()
			if err != nil {
				return
			}
			if len(p.Data) > 1024 || len(p.AHS) > 64 {
				t.Fatalf("bounds: %d %d", len(p.Data), len(p.AHS))
			}
			if list, err := ParseAHS(p.AHS); err == nil {
				var again []byte
				for _, a := range list {
					again = AppendAHS(again, a)
				}
				if len(again) != len(p.AHS) {
					t.Fatalf("additional headers of %d bytes written again take %d", len(p.AHS), len(again))
				}
			}
			if h, err := Parse(&p.BHS); err == nil {
				var b BHS
				h.Encode(&b)
				again, err := Parse(&b)
				if err != nil || !reflect.DeepEqual(h, again) {
					t.Fatalf("%+v came back as %+v, %v", h, again, err)
				}
			}
		}
	})
}
