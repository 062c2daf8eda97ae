package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/sandbar-san/sandbar/san"
)

const (
	// Format is the highest format version that this program reads and writes.
	Format uint16 = 1
	// MaxCommandBytes bounds an encoded command, envelope included; bulk work goes in pages.
	MaxCommandBytes = 512 << 10
	// HeaderBytes is the length of the envelope that precedes a command's payload.
	HeaderBytes = 8
)

// The envelope, big-endian: magic "SB", format version u16, kind u16, flags u8, zero u8.
const (
	magic0, magic1 = 'S', 'B'
	flagIgnorable  = 1 << 0
)

// Why an entry can't be read. A replica that meets any of them must not go on.
var (
	// ErrDamaged is an entry whose bytes are not a command at all.
	ErrDamaged = errors.New("not a command of this log")
	// ErrNewer is an entry that needs a newer program.
	ErrNewer = errors.New("made by a newer version of sandbar; update this station")
)

// Envelope describes a command to a program that may not know its kind.
type Envelope struct {
	// Format is the lowest format version that has this command, as it is.
	Format uint16
	// Kind numbers the command.
	Kind uint16
	// Ignorable commands may be skipped by a program that does not know them.
	Ignorable bool
}

// EncodeCommand renders env and payload. KindInvalid: longer than MaxCommandBytes.
func EncodeCommand(env Envelope, payload any) ([]byte, error) {
	body, err := Marshal(payload)
	if err != nil {
		return nil, err
	}
	if HeaderBytes+len(body) > MaxCommandBytes {
		return nil, san.Errorf(san.KindInvalid, "request needs %d bytes in the log, %d are allowed; split it into smaller ones",
			HeaderBytes+len(body), MaxCommandBytes)
	}
	out := make([]byte, HeaderBytes, HeaderBytes+len(body))
	out[0], out[1] = magic0, magic1
	binary.BigEndian.PutUint16(out[2:], env.Format)
	binary.BigEndian.PutUint16(out[4:], env.Kind)
	if env.Ignorable {
		out[6] |= flagIgnorable
	}
	return append(out, body...), nil
}

// OpenCommand reads the envelope of entry and returns its payload, which aliases entry. The
// format version is the caller's to judge.
func OpenCommand(entry []byte) (Envelope, []byte, error) {
	switch {
	case len(entry) < HeaderBytes:
		return Envelope{}, nil, fmt.Errorf("entry of %d bytes: %w", len(entry), ErrDamaged)
	case len(entry) > MaxCommandBytes:
		return Envelope{}, nil, fmt.Errorf("entry of %d bytes, %d are allowed: %w", len(entry), MaxCommandBytes, ErrDamaged)
	case entry[0] != magic0 || entry[1] != magic1:
		return Envelope{}, nil, fmt.Errorf("entry begins with % x: %w", entry[:2], ErrDamaged)
	}
	env := Envelope{
		Format:    binary.BigEndian.Uint16(entry[2:]),
		Kind:      binary.BigEndian.Uint16(entry[4:]),
		Ignorable: entry[6]&flagIgnorable != 0,
	}
	if env.Format == 0 {
		return Envelope{}, nil, fmt.Errorf("format version 0: %w", ErrDamaged)
	}
	if rest := entry[6] &^ flagIgnorable; rest != 0 || entry[7] != 0 {
		return Envelope{}, nil, fmt.Errorf("flags %#02x %#02x: %w", entry[6], entry[7], ErrNewer)
	}
	return env, entry[HeaderBytes:], nil
}

// modes are the CBOR rules: made once, immutable.
type modes struct {
	enc     cbor.EncMode
	strict  cbor.DecMode // an unknown field is an error
	lenient cbor.DecMode // an unknown field is skipped
}

var getModes = sync.OnceValues(func() (modes, error) {
	var m modes
	var err error
	eo := cbor.CoreDetEncOptions()
	eo.Time = cbor.TimeRFC3339Nano // exact to the nanosecond; Apply turns times to UTC
	if m.enc, err = eo.EncMode(); err != nil {
		return m, err
	}
	do := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		MaxNestedLevels:  16,
		MaxArrayElements: MaxCommandBytes,
		MaxMapPairs:      MaxCommandBytes,
		TagsMd:           cbor.TagsForbidden,
	}
	if m.lenient, err = do.DecMode(); err != nil {
		return m, err
	}
	do.ExtraReturnErrors = cbor.ExtraDecErrorUnknownField
	m.strict, err = do.DecMode()
	return m, err
})

// Marshal renders v as deterministic CBOR.
func Marshal(v any) ([]byte, error) {
	m, err := getModes()
	if err != nil {
		return nil, err
	}
	return m.enc.Marshal(v)
}

// Unmarshal reads exactly one value from b into v. Unknown and repeated fields are errors.
func Unmarshal(b []byte, v any) error {
	m, err := getModes()
	if err != nil {
		return err
	}
	return m.strict.Unmarshal(b, v)
}

// UnmarshalLenient is Unmarshal that skips fields that it doesn't know: for ignorable commands.
func UnmarshalLenient(b []byte, v any) error {
	m, err := getModes()
	if err != nil {
		return err
	}
	return m.lenient.Unmarshal(b, v)
}
