package pdu

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"slices"
	"strconv"
	"strings"
)

// CHAPAlgorithm is a CHAP hash by its number (IANA PPP Authentication Algorithms; RFC 7143 §12.1.3).
type CHAPAlgorithm uint8

// CHAP algorithms. MD5 is the one that every initiator knows.
const (
	CHAPMD5    CHAPAlgorithm = 5
	CHAPSHA256 CHAPAlgorithm = 7
)

// MaxCHAPBytes bounds challenges and responses (RFC 7143 §12.1.3).
const MaxCHAPBytes = 1024

func (a CHAPAlgorithm) new() hash.Hash {
	switch a {
	case CHAPMD5:
		return md5.New()
	case CHAPSHA256:
		return sha256.New()
	}
	return nil
}

// Response computes the answer to a challenge: the hash of identifier, secret and
// challenge (RFC 1994 §4.1). It is nil for an algorithm that is not supported.
func (a CHAPAlgorithm) Response(identifier uint8, secret string, challenge []byte) []byte {
	h := a.new()
	if h == nil {
		return nil
	}
	h.Write([]byte{identifier})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}

// Verify reports in constant time whether response answers the challenge.
func (a CHAPAlgorithm) Verify(response []byte, identifier uint8, secret string, challenge []byte) bool {
	want := a.Response(identifier, secret, challenge)
	return want != nil && subtle.ConstantTimeCompare(want, response) == 1
}

// ChallengeBytes is the size of a challenge for the algorithm: its hash's size.
func (a CHAPAlgorithm) ChallengeBytes() int {
	if h := a.new(); h != nil {
		return h.Size()
	}
	return 0
}

// FormatCHAPAlgorithms renders a CHAP_A offer, preferred first.
func FormatCHAPAlgorithms(list ...CHAPAlgorithm) string {
	s := make([]string, len(list))
	for i, a := range list {
		s[i] = strconv.Itoa(int(a))
	}
	return strings.Join(s, ",")
}

// ChooseCHAPAlgorithm picks the first algorithm of a CHAP_A offer that is among supported.
func ChooseCHAPAlgorithm(offer string, supported ...CHAPAlgorithm) (CHAPAlgorithm, bool) {
	for i, s := range strings.Split(offer, ",") {
		v, err := strconv.ParseUint(s, 0, 8)
		if a := CHAPAlgorithm(v); err == nil && slices.Contains(supported, a) {
			return a, true
		}
		if i == 15 {
			break
		}
	}
	return 0, false
}
