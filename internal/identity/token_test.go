package identity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/sandbar-san/sandbar/san"
)

func TestTokenText(t *testing.T) {
	fp := newTestCA(t, clusterA).Fingerprint()
	op, join := NewOperatorToken(), NewJoinToken(fp)
	if !regexp.MustCompile(`^sbt_[0-9a-f]{16}_[0-9a-f]{64}$`).MatchString(op.Reveal()) {
		t.Errorf("operator token is %s", op.Reveal())
	}
	if !regexp.MustCompile(`^sbj_[0-9a-f]{16}_[0-9a-f]{64}_`+fp.String()+`$`).MatchString(join.Reveal()) || len(join.Reveal()) > maxTokenBytes {
		t.Errorf("join token is %s", join.Reveal())
	}
	if got, err := ParseOperatorToken("\n " + op.Reveal() + "\r\n"); err != nil || got != op {
		t.Errorf("operator token parses as %v, %v", got, err)
	}
	if got, err := ParseJoinToken(join.Reveal() + "\n"); err != nil || got != join {
		t.Errorf("join token parses as %v, %v", got, err)
	}
	if a, b := NewOperatorToken(), NewOperatorToken(); a == b {
		t.Error("two tokens are the same")
	}
}

func TestTokenParseErrors(t *testing.T) {
	op := NewOperatorToken()
	join := NewJoinToken(Fingerprint{1})
	secret := op.Reveal()[len("sbt_0123456789abcdef_"):]
	for _, c := range []struct{ name, text, says string }{
		{"empty", " \n", "empty"},
		{"huge", strings.Repeat("a", 1<<20), "too long"},
		{"long", op.Reveal() + strings.Repeat("a", 200), "too long"},
		{"a join token", join.Reveal(), "this is a join token where an operator token"},
		{"other prefix", "ghp_" + secret, "begin with sbt_"},
		{"no secret", "sbt_0123456789abcdef", "missing"},
		{"too many", op.Reveal() + "_x", "doubled"},
		{"short id", "sbt_0123_" + secret, "id"},
		{"odd id", "sbt_0123456789abcdeg_" + secret, "id"},
		{"short secret", op.Reveal()[:40], "secret"},
		{"upper case", "sbt_0123456789abcdef_" + strings.Repeat("A", 64), "secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseOperatorToken(c.text)
			wantError(t, err, san.KindUnauthenticated, c.says)
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error repeats the secret: %v", err)
			}
		})
	}
	_, err := ParseJoinToken(op.Reveal())
	wantError(t, err, san.KindUnauthenticated, "this is an operator token where a join token")
	_, err = ParseJoinToken(join.Reveal()[:len(join.Reveal())-1])
	wantError(t, err, san.KindUnauthenticated, "fingerprint")
}

func TestTokenHash(t *testing.T) {
	op, other := NewOperatorToken(), NewOperatorToken()
	stored := op.Hash()
	if !op.Verify(stored) {
		t.Fatal("token does not match its own hash")
	}
	if bytes.Equal(stored, op.Hash()) {
		t.Error("the hash has no salt")
	}
	renamed := OperatorToken{ID: other.ID, Secret: op.Secret}
	join := JoinToken{ID: op.ID, Secret: op.Secret}
	if other.Verify(stored) || renamed.Verify(stored) || join.Verify(stored) || !join.Verify(join.Hash()) {
		t.Error("a hash matches another token")
	}
	for i := range stored {
		bad := bytes.Clone(stored)
		bad[i] ^= 1
		if op.Verify(bad) {
			t.Errorf("token matches a hash with byte %d changed", i)
		}
	}
	for _, bad := range [][]byte{nil, stored[:len(stored)-1], append(bytes.Clone(stored), 0)} {
		if op.Verify(bad) {
			t.Errorf("token matches a hash of %d bytes", len(bad))
		}
	}
}

// However a token is printed or logged, its secret stays out.
func TestSecretsDoNotPrint(t *testing.T) {
	op, join := NewOperatorToken(), NewJoinToken(Fingerprint{1})
	var out bytes.Buffer
	for _, v := range []any{op, join, &op, op.Secret, []OperatorToken{op}, struct{ T JoinToken }{join}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "token", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "token", v)
	}
	for _, secret := range []Secret{op.Secret, join.Secret} {
		raw := [secretBytes]byte(secret)
		for _, leak := range []string{fmt.Sprintf("%x", raw), fmt.Sprintf("%X", raw), string(raw[:]), strings.Trim(fmt.Sprint(raw), "[]")} {
			if strings.Contains(out.String(), leak) {
				t.Errorf("a secret is printed: %q", leak)
			}
		}
	}
}

func TestCHAPSecret(t *testing.T) {
	// 26 of 32 symbols: 130 bits, above RFC 7143's 96.
	form := regexp.MustCompile(`^[A-Z2-7]{26}$`)
	seen := map[string]bool{}
	for range 100 {
		s := NewCHAPSecret()
		if !form.MatchString(s) || seen[s] {
			t.Fatalf("secret %q is malformed or came twice", s)
		}
		seen[s] = true
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(NewOperatorToken().Reveal())
	f.Add(NewJoinToken(Fingerprint{1}).Reveal())
	f.Add("sbj_0123456789abcdef__")
	f.Fuzz(func(t *testing.T, text string) {
		if tok, err := ParseOperatorToken(text); err == nil && tok.Reveal() != strings.TrimSpace(text) {
			t.Errorf("%q reads as %q", text, tok.Reveal())
		}
		if tok, err := ParseJoinToken(text); err == nil && tok.Reveal() != strings.TrimSpace(text) {
			t.Errorf("%q reads as %q", text, tok.Reveal())
		}
	})
}
