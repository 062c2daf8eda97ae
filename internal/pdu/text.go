package pdu

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Limits of text (RFC 7143 §6.1).
const (
	// MaxKeyLength bounds a key's name.
	MaxKeyLength = 63
	// MaxValueLength bounds a value here. The RFC's bound is 255 but for values that say otherwise,
	// such as CHAP's binary ones of up to 1024 bytes, in hexadecimal.
	MaxValueLength = 8192
	// maxSimpleValue is the RFC's bound, for values that are declared.
	maxSimpleValue = 255
	// MaxKeys bounds the pairs in one text.
	MaxKeys = 512
)

// Constant answers (RFC 7143 §6.2).
const (
	AnswerReject        = "Reject"
	AnswerIrrelevant    = "Irrelevant"
	AnswerNotUnderstood = "NotUnderstood"
	AnswerNone          = "None"
	AnswerYes           = "Yes"
	AnswerNo            = "No"
)

// ErrText is the error for text that is not a list of key=value pairs each ended by a zero byte.
var ErrText = errors.New("pdu: malformed text")

// KeyValue is one pair of a text; order in a text matters (RFC 7143 §6.1).
type KeyValue struct{ Key, Value string }

// ParseText splits a complete text. Empty pairs (stray zero bytes, with which some
// initiators pad) are skipped. It fails with ErrText.
func ParseText(data []byte) ([]KeyValue, error) {
	if len(data) > 0 && data[len(data)-1] != 0 {
		return nil, fmt.Errorf("%w: the last pair does not end with a zero byte", ErrText)
	}
	var list []KeyValue
	for len(data) > 0 {
		pair, rest, _ := bytes.Cut(data, []byte{0})
		data = rest
		if len(pair) == 0 {
			continue
		}
		key, value, found := strings.Cut(string(pair), "=")
		switch {
		case !found:
			return nil, fmt.Errorf("%w: %.64q has no '='", ErrText, key)
		case key == "" || len(key) > MaxKeyLength || !isKey(key):
			return nil, fmt.Errorf("%w: %.64q is no key name", ErrText, key)
		case len(value) > MaxValueLength:
			return nil, fmt.Errorf("%w: the value of %s has %d bytes, at most %d are allowed", ErrText, key, len(value), MaxValueLength)
		case len(list) == MaxKeys:
			return nil, fmt.Errorf("%w: more than %d pairs", ErrText, MaxKeys)
		}
		list = append(list, KeyValue{key, value})
	}
	return list, nil
}

// isKey checks the letters of a standard label (RFC 7143 §6.1).
func isKey(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(".-+@_#/", c) >= 0) {
			return false
		}
	}
	return true
}

// AppendText appends list as text.
func AppendText(dst []byte, list ...KeyValue) []byte {
	for _, kv := range list {
		dst = append(dst, kv.Key...)
		dst = append(dst, '=')
		dst = append(dst, kv.Value...)
		dst = append(dst, 0)
	}
	return dst
}

// SplitText cuts a text into the data segments of as many PDUs as it takes, each of at
// most maxData bytes; all but the last are sent with the C bit. There is at least one, perhaps empty.
func SplitText(text []byte, maxData int) [][]byte {
	var parts [][]byte
	for len(text) > maxData {
		parts = append(parts, text[:maxData:maxData])
		text = text[maxData:]
	}
	return append(parts, text)
}

// TextJoiner gathers a text that comes in several PDUs.
type TextJoiner struct {
	// Max bounds the whole text in bytes.
	Max int
	buf []byte
}

// Add takes one PDU's data segment. While more (the C bit) is set it returns nil; then
// the pairs of the whole text, and is ready for the next. It fails with ErrTooLong or ErrText.
func (j *TextJoiner) Add(data []byte, more bool) ([]KeyValue, error) {
	if len(j.buf)+len(data) > j.Max {
		n := len(j.buf) + len(data)
		j.buf = nil
		return nil, fmt.Errorf("%w: text of %d bytes, %d allowed", ErrTooLong, n, j.Max)
	}
	if more {
		j.buf = append(j.buf, data...)
		return nil, nil
	}
	if j.buf != nil {
		data = append(j.buf, data...)
		j.buf = nil
	}
	return ParseText(data)
}

// Find returns the value of the first pair with that key.
func Find(list []KeyValue, key string) (string, bool) {
	for _, kv := range list {
		if kv.Key == key {
			return kv.Value, true
		}
	}
	return "", false
}

// FormatBinary renders b as a hexadecimal binary value (RFC 7143 §6.1).
func FormatBinary(b []byte) string { return "0x" + hex.EncodeToString(b) }

// ParseBinary reads a binary value, hexadecimal (0x) or base64 (0b), of at most maxBytes bytes.
func ParseBinary(s string, maxBytes int) ([]byte, error) {
	if len(s) < 2 || s[0] != '0' {
		return nil, fmt.Errorf("%w: a binary value begins with 0x or 0b", ErrText)
	}
	digits := s[2:]
	if len(digits) > 2*maxBytes+4 {
		return nil, fmt.Errorf("%w: binary value of more than %d bytes", ErrText, maxBytes)
	}
	var b []byte
	var err error
	switch s[1] {
	case 'x', 'X':
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		b, err = hex.DecodeString(digits)
	case 'b', 'B':
		b, err = base64.StdEncoding.DecodeString(digits)
	default:
		return nil, fmt.Errorf("%w: a binary value begins with 0x or 0b", ErrText)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrText, err)
	}
	if len(b) > maxBytes {
		return nil, fmt.Errorf("%w: binary value of %d bytes, %d allowed", ErrText, len(b), maxBytes)
	}
	return b, nil
}
