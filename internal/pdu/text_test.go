package pdu

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []KeyValue
		for range rapid.IntRange(0, 6).Draw(t, "n") {
			list = append(list, KeyValue{
				rapid.StringMatching(`[A-Za-z][A-Za-z0-9._#/-]{0,30}`).Draw(t, "key"),
				rapid.StringMatching(`[ -~]{0,80}`).Draw(t, "value")})
		}
		size := rapid.IntRange(1, 64).Draw(t, "size")
		parts := SplitText(AppendText(nil, list...), size)
		j := TextJoiner{Max: 1 << 16}
		for i, p := range parts {
			if len(p) > size {
				t.Fatalf("part of %d bytes", len(p))
			}
			got, err := j.Add(p, i < len(parts)-1)
			if err != nil {
				t.Fatal(err)
			}
			if i == len(parts)-1 && !reflect.DeepEqual(got, list) {
				t.Fatalf("got %v, want %v", got, list)
			}
		}
	})
}

func TestMalformedText(t *testing.T) {
	for _, bad := range []string{"a=b", "novalue\x00", "=b\x00", strings.Repeat("k", 64) + "=1\x00", "a b=1\x00",
		"k=" + strings.Repeat("v", MaxValueLength+1) + "\x00", strings.Repeat("a=b\x00", MaxKeys+1)} {
		if _, err := ParseText([]byte(bad)); !errors.Is(err, ErrText) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
	got, err := ParseText([]byte("\x00a=b=c\x00\x00d=\x00"))
	if want := []KeyValue{{"a", "b=c"}, {"d", ""}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}
}

func TestJoinerBound(t *testing.T) {
	j := TextJoiner{Max: 10}
	if _, err := j.Add([]byte("aaaaaaaa"), true); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Add([]byte("bbb"), true); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
}

func TestBinary(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []byte
		ok   bool
	}{{"0x0aFF", []byte{10, 255}, true}, {"0Xabc", []byte{10, 0xbc}, true}, {"0bAQI=", []byte{1, 2}, true},
		{"0b!!", nil, false}, {"0xzz", nil, false}, {"12", nil, false}, {"", nil, false}, {"0x0102030405", nil, false}} {
		got, err := ParseBinary(c.in, 4)
		if (err == nil) != c.ok || !bytes.Equal(got, c.want) {
			t.Errorf("%q: %x %v", c.in, got, err)
		}
	}
	if got, err := ParseBinary(FormatBinary([]byte{0, 1, 0xfe}), 3); err != nil || !bytes.Equal(got, []byte{0, 1, 0xfe}) {
		t.Errorf("%x %v", got, err)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.2004-10.com.example:a\x00SessionType=Normal\x00"))
	f.Add([]byte("MaxRecvDataSegmentLength=0x2000\x00HeaderDigest=CRC32C,None\x00\x00"))
	f.Add([]byte("CHAP_A=5,7\x00CHAP_R=0b////\x00X-foo=\x00ImmediateData=Maybe"))
	f.Fuzz(func(t *testing.T, in []byte) {
		list, err := ParseText(in)
		if err != nil {
			return
		}
		again, err := ParseText(AppendText(nil, list...))
		if err != nil || !reflect.DeepEqual(list, again) {
			t.Fatalf("%v came back as %v, %v", list, again, err)
		}
		for _, role := range []Role{Initiator, Target} {
			n := NewNegotiator(role, DefaultWishes())
			n.Offer()
			answers, err := n.Receive(list)
			if err != nil {
				continue
			}
			if len(answers) > len(list) {
				t.Fatalf("%d answers to %d keys", len(answers), len(list))
			}
			checkParams(t, n.Params())
		}
		for _, kv := range list {
			if b, err := ParseBinary(kv.Value, MaxCHAPBytes); err == nil && len(b) > MaxCHAPBytes {
				t.Fatal("binary value over its bound")
			}
			ChooseCHAPAlgorithm(kv.Value, CHAPMD5)
		}
	})
}

// FuzzCHAP runs the readers of CHAP's values over arbitrary text: none may panic, what they accept
// stays within its bound and is written again as it was, and no response verifies but the right one.
func FuzzCHAP(f *testing.F) {
	right := CHAPMD5.Response(7, "twelve bytes", []byte{1, 2, 3})
	f.Add(FormatBinary(right), "5,7", byte(7))
	f.Add("0b"+base64.StdEncoding.EncodeToString(right), "7", byte(7))
	f.Add("0x"+strings.Repeat("f", 2*MaxCHAPBytes), "05,0x7", byte(0))
	f.Add("0x"+strings.Repeat("0", 2*MaxCHAPBytes+2), strings.Repeat(",", 99), byte(1))
	f.Add("0bAAA", "-5,+5,5.0,261", byte(1))
	f.Add("0", "", byte(255))
	f.Fuzz(func(t *testing.T, value, offer string, id byte) {
		if b, err := ParseBinary(value, MaxCHAPBytes); err == nil {
			if len(b) > MaxCHAPBytes {
				t.Fatalf("%d bytes", len(b))
			}
			if again, err := ParseBinary(FormatBinary(b), MaxCHAPBytes); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%x came back as %x, %v", b, again, err)
			}
			for _, a := range []CHAPAlgorithm{CHAPMD5, CHAPSHA256} {
				want := a.Response(id, "twelve bytes", []byte{1, 2, 3})
				if a.Verify(b, id, "twelve bytes", []byte{1, 2, 3}) != bytes.Equal(b, want) {
					t.Fatalf("algorithm %d judges %x wrongly", a, b)
				}
			}
		}
		if a, ok := ChooseCHAPAlgorithm(offer, CHAPMD5, CHAPSHA256); ok && a.ChallengeBytes() == 0 {
			t.Fatalf("chose %d of %q", a, offer)
		}
	})
}
