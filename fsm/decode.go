package fsm

import (
	"errors"
	"fmt"

	"github.com/sandbar-san/sandbar/fsm/codec"
	"github.com/sandbar-san/sandbar/san"
)

// ErrIgnorable is a command of an unknown kind whose proposer allowed to skip it.
var ErrIgnorable = errors.New("command of an unknown kind that may be skipped")

// Encode renders c for the log. KindInvalid: too long, or something in it can't be kept. What Encode
// returns, Decode reads: a committed entry that can't be read would stop every station.
func Encode(c Command) ([]byte, error) {
	entry, err := codec.EncodeCommand(codec.Envelope{Format: formatOf(c.Kind()), Kind: uint16(c.Kind())}, c)
	if err != nil {
		return nil, err
	}
	if _, err := Decode(entry); err != nil {
		return nil, san.Errorf(san.KindInvalid, "request can't be kept in the log: %w; check it for broken characters and dates", err)
	}
	return entry, nil
}

// Decode reads an entry that Encode made. ErrIgnorable: it may be skipped; any other error means that
// this program doesn't know what the entry does.
func Decode(entry []byte) (Command, error) {
	env, body, err := codec.OpenCommand(entry)
	if err != nil {
		return nil, err
	}
	cmd := newCommand(Kind(env.Kind))
	switch {
	case (cmd == nil || env.Format > codec.Format) && env.Ignorable:
		return nil, ErrIgnorable
	case cmd == nil || env.Format > codec.Format:
		return nil, fmt.Errorf("command of kind %d, format version %d: %w", env.Kind, env.Format, codec.ErrNewer)
	}
	read := codec.Unmarshal
	if env.Ignorable {
		read = codec.UnmarshalLenient
	}
	if err := read(body, cmd); err != nil {
		return nil, fmt.Errorf("command of kind %d: %w: %w", env.Kind, codec.ErrDamaged, err)
	}
	return cmd, nil
}
