package identity

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/san"
)

func newTestSealer(t testing.TB) *Sealer {
	t.Helper()
	s, err := NewSealer(NewClusterKey())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealOpen(t *testing.T) {
	s := newTestSealer(t)
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		kind, id := rapid.String().Draw(t, "kind"), rapid.String().Draw(t, "id")
		envelope, err := s.Seal(kind, id, plain)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.Seal(kind, id, plain)
		if err != nil || bytes.Equal(envelope, again) {
			t.Fatalf("the same secret sealed twice gives the same envelope (%v)", err)
		}
		got, err := s.Open(kind, id, envelope)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %x, %v; want %x", got, err, plain)
		}
		if len(plain) >= 8 && bytes.Contains(envelope, plain) {
			t.Fatalf("the secret is in its envelope in clear")
		}
		// Any change anywhere is noticed.
		at, bit := rapid.IntRange(0, len(envelope)-1).Draw(t, "at"), rapid.IntRange(0, 7).Draw(t, "bit")
		bad := bytes.Clone(envelope)
		bad[at] ^= 1 << bit
		if got, err := s.Open(kind, id, bad); err == nil {
			t.Fatalf("envelope with byte %d changed opens as %x", at, got)
		}
		if got, err := s.Open(kind, id, envelope[:rapid.IntRange(0, len(envelope)-1).Draw(t, "cut")]); err == nil {
			t.Fatalf("cut envelope opens as %x", got)
		}
	})
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	s, other := newTestSealer(t), newTestSealer(t)
	envelope, err := s.Seal("chap", "ab/c", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Clone(envelope)
	newer[0] = 2
	torn := bytes.Clone(envelope)
	torn[len(torn)-1] ^= 0x80
	for _, c := range []struct {
		name     string
		sealer   *Sealer
		kind, id string
		envelope []byte
		says     string
	}{
		{"another key", other, "chap", "ab/c", envelope, "cluster key"},
		{"newer format", s, "chap", "ab/c", newer, "format 2"},
		{"changed", s, "chap", "ab/c", torn, "altered"},
		{"another kind", s, "ca-key", "ab/c", envelope, "another object"},
		{"another id", s, "chap", "ab/d", envelope, "another object"},
		{"boundary moved", s, "chapa", "b/c", envelope, "another object"},
		{"empty", s, "chap", "ab/c", nil, "0 bytes"},
		{"huge", s, "chap", "ab/c", make([]byte, 2*maxSealedBytes), "no envelope"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.sealer.Open(c.kind, c.id, c.envelope)
			wantError(t, err, san.KindInternal, c.kind, c.id, c.says)
		})
	}
	_, err = s.Seal("chap", "x", make([]byte, maxSealedBytes+1))
	wantError(t, err, san.KindInvalid, "at most")
	_, err = NewSealer(make([]byte, 16))
	wantError(t, err, san.KindInvalid, "16 bytes")
}
