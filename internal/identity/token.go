package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/sandbar-san/sandbar/san"
)

// Tokens as people and programs hold them:
//
//	sbt_<id>_<secret>                    operator token
//	sbj_<id>_<secret>_<CA fingerprint>   join token
//
// with id 16, secret 64 and fingerprint 64 lower-case hex digits.
const (
	operatorPrefix = "sbt"
	joinPrefix     = "sbj"
	tokenIDBytes   = 8
	secretBytes    = 32
	// secretPlaceholder is what a secret prints as.
	secretPlaceholder = "[secret]"
	// maxTokenBytes bounds what is looked at; a join token has 149.
	maxTokenBytes = 256
)

// A token's stored hash is version (1 byte) | salt (16) | SHA-256 (32).
const (
	hashVersion   = 1
	hashSaltBytes = 16
	hashBytes     = 1 + hashSaltBytes + sha256.Size
)

// Secret is the private half of a token: 256 random bits. It prints and logs as a
// placeholder.
type Secret [secretBytes]byte

// String returns a placeholder, never the secret.
func (Secret) String() string { return secretPlaceholder }

// Format writes a placeholder under every verb, %x and %d included.
func (Secret) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, secretPlaceholder) // a State keeps what can't be written to itself
}

// MarshalText returns a placeholder, for loggers and encoders that look inside a token.
func (Secret) MarshalText() ([]byte, error) { return []byte(secretPlaceholder), nil }

// OperatorToken is what a person or a program shows a station on each call.
type OperatorToken struct {
	ID     san.TokenID
	Secret Secret
}

// JoinToken is what a part shows a station once, to get its certificate.
type JoinToken struct {
	ID     san.TokenID
	Secret Secret
	// CA is the fingerprint of the cluster's CA, by which the part knows the station.
	CA Fingerprint
}

// NewOperatorToken makes a random operator token.
func NewOperatorToken() OperatorToken {
	id, secret := newTokenParts()
	return OperatorToken{ID: id, Secret: secret}
}

// NewJoinToken makes a random join token for the cluster whose CA has fingerprint ca.
func NewJoinToken(ca Fingerprint) JoinToken {
	id, secret := newTokenParts()
	return JoinToken{ID: id, Secret: secret, CA: ca}
}

func newTokenParts() (san.TokenID, Secret) {
	var id [tokenIDBytes]byte
	var secret Secret
	rand.Read(id[:]) // never fails: crypto/rand ends the process if the system has no randomness
	rand.Read(secret[:])
	return san.TokenID(hex.EncodeToString(id[:])), secret
}

// Reveal returns the token's text, secret included. It is shown once, to whoever made it.
func (t OperatorToken) Reveal() string {
	return operatorPrefix + "_" + string(t.ID) + "_" + hex.EncodeToString(t.Secret[:])
}

// String names the token without its secret.
func (t OperatorToken) String() string { return operatorPrefix + "_" + string(t.ID) + "_…" }

// Reveal returns the token's text, secret included. It is shown once, to whoever made it.
func (t JoinToken) Reveal() string {
	return joinPrefix + "_" + string(t.ID) + "_" + hex.EncodeToString(t.Secret[:]) + "_" + t.CA.String()
}

// String names the token without its secret.
func (t JoinToken) String() string { return joinPrefix + "_" + string(t.ID) + "_…" }

// ParseOperatorToken reads an operator token; white space around it is ignored, since
// it mostly comes from a file. Errors never repeat the text.
func ParseOperatorToken(text string) (OperatorToken, error) {
	fields, err := splitToken(text, operatorPrefix, "operator", 3)
	if err != nil {
		return OperatorToken{}, err
	}
	id, secret, err := parseTokenParts(fields, "operator")
	return OperatorToken{ID: id, Secret: secret}, err
}

// ParseJoinToken reads a join token; white space around it is ignored.
func ParseJoinToken(text string) (JoinToken, error) {
	fields, err := splitToken(text, joinPrefix, "join", 4)
	if err != nil {
		return JoinToken{}, err
	}
	id, secret, err := parseTokenParts(fields, "join")
	if err != nil {
		return JoinToken{}, err
	}
	ca, err := parseHex(fields[3], len(Fingerprint{}))
	if err != nil {
		return JoinToken{}, malformed("join", "its CA fingerprint is not 64 lower-case hex digits")
	}
	return JoinToken{ID: id, Secret: secret, CA: Fingerprint(ca)}, nil
}

func malformed(kind, why string) error {
	return san.Errorf(san.KindUnauthenticated, "%s token is malformed: %s; copy it whole as it was shown when it was made", kind, why)
}

func splitToken(text, prefix, kind string, want int) ([]string, error) {
	if len(text) > 2*maxTokenBytes {
		return nil, malformed(kind, "it is too long")
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, malformed(kind, "it is empty")
	}
	if len(text) > maxTokenBytes {
		return nil, malformed(kind, "it is too long")
	}
	fields := strings.Split(text, "_")
	other := map[string]string{operatorPrefix: "an operator token", joinPrefix: "a join token"}
	switch {
	case fields[0] != prefix && other[fields[0]] != "":
		return nil, san.Errorf(san.KindUnauthenticated, "this is %s where %s is wanted; give one that begins with %s_", other[fields[0]], other[prefix], prefix)
	case fields[0] != prefix:
		return nil, malformed(kind, "it does not begin with "+prefix+"_")
	case len(fields) != want:
		return nil, malformed(kind, "a part of it is missing or doubled")
	}
	return fields, nil
}

func parseTokenParts(fields []string, kind string) (san.TokenID, Secret, error) {
	if _, err := parseHex(fields[1], tokenIDBytes); err != nil {
		return "", Secret{}, malformed(kind, "its id is not 16 lower-case hex digits")
	}
	secret, err := parseHex(fields[2], secretBytes)
	if err != nil {
		return "", Secret{}, malformed(kind, "its secret is not 64 lower-case hex digits")
	}
	return san.TokenID(fields[1]), Secret(secret), nil
}

// parseHex accepts lower case only, so that one token has one spelling.
func parseHex(s string, wantBytes int) ([]byte, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != wantBytes || strings.ToLower(s) != s {
		return nil, san.Errorf(san.KindInvalid, "not %d lower-case hex digits", 2*wantBytes)
	}
	return raw, nil
}

// Hash returns what the cluster stores of the token. A salted SHA-256 is enough: slow
// hashes make guessing passwords dear, but nobody guesses 256 random bits, and stations
// check a token on every call. The salt keeps equal hashes from meaning anything.
func (t OperatorToken) Hash() []byte { return newHash(operatorPrefix, t.ID, t.Secret) }

// Hash returns what the cluster stores of the token.
func (t JoinToken) Hash() []byte { return newHash(joinPrefix, t.ID, t.Secret) }

// Verify reports whether stored is the hash of this very token, in constant time.
func (t OperatorToken) Verify(stored []byte) bool {
	return verifyHash(stored, operatorPrefix, t.ID, t.Secret)
}

// Verify reports whether stored is the hash of this very token, in constant time.
func (t JoinToken) Verify(stored []byte) bool {
	return verifyHash(stored, joinPrefix, t.ID, t.Secret)
}

func newHash(prefix string, id san.TokenID, secret Secret) []byte {
	salt := make([]byte, hashSaltBytes)
	rand.Read(salt) // never fails: see newTokenParts
	return hashWith(salt, prefix, id, secret)
}

// hashWith binds prefix and id too, so that an operator's hash cannot serve as a join
// token's. Both have a fixed length, so the input is unambiguous.
func hashWith(salt []byte, prefix string, id san.TokenID, secret Secret) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write([]byte(prefix + "_" + string(id) + "_"))
	h.Write(secret[:])
	out := make([]byte, 0, hashBytes)
	out = append(out, hashVersion)
	out = append(out, salt...)
	return h.Sum(out)
}

func verifyHash(stored []byte, prefix string, id san.TokenID, secret Secret) bool {
	if len(stored) != hashBytes || stored[0] != hashVersion {
		return false
	}
	computed := hashWith(stored[1:1+hashSaltBytes], prefix, id, secret)
	return subtle.ConstantTimeCompare(stored, computed) == 1
}

// NewCHAPSecret makes a random CHAP secret: 26 capital letters and digits, at least 128
// random bits, where RFC 7143 §9.2.1 asks for 96. Letters and digits need no
// escaping in iscsi:// URLs and in initiators' configuration files.
func NewCHAPSecret() string { return rand.Text() }
