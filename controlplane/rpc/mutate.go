package rpc

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

const requestIDField = "request_id"

// requestID is m's, empty for a message that has none.
func requestID(m proto.Message) san.RequestID {
	r := m.ProtoReflect()
	if fd := r.Descriptor().Fields().ByName(requestIDField); fd != nil {
		return san.RequestID(r.Get(fd).String())
	}
	return ""
}

// ensureRequestID gives a mutation that has no request id one, before the first try, so
// that passing it on and trying again are safe.
func ensureRequestID(m proto.Message) {
	r := m.ProtoReflect()
	fd := r.Descriptor().Fields().ByName(requestIDField)
	if fd != nil && r.Get(fd).String() == "" {
		r.Set(fd, protoreflect.ValueOfString(uuid.NewString()))
	}
}

// header makes the header of the command that m becomes, and finds out whether the
// state machine has answered the same request before: then replay is that answer.
func (s *Server) header(c Caller, m proto.Message) (h fsm.Header, replay *fsm.Request, err error) {
	r := m.ProtoReflect()
	fd := r.Descriptor().Fields().ByName(requestIDField)
	h = fsm.Header{At: s.now(), Principal: c.name(), RequestID: san.RequestID(r.Get(fd).String())}
	for _, c := range []byte(h.RequestID) {
		if c < '!' || c > '~' {
			return h, nil, san.Errorf(san.KindInvalid, "request id %q has a character that is not printable ASCII; a UUID will do", h.RequestID)
		}
	}
	content := proto.Clone(m)
	content.ProtoReflect().Clear(fd)
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(content)
	if err != nil {
		return h, nil, err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\x00", r.Descriptor().FullName())
	sum.Write(b)
	h.Fingerprint = sum.Sum(nil)
	row := s.replica.View().Request(h.Principal, h.RequestID)
	if row == nil {
		return h, nil, nil
	}
	if string(row.Fingerprint) != string(h.Fingerprint) {
		return h, nil, san.Errorf(san.KindConflict, "request id %q was used before with other content; use a new request id for a new request", h.RequestID)
	}
	return h, row, nil
}

// now is the proposer's clock, in what the log keeps.
func (s *Server) now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// propose commits cmd and returns what it made. A deterministic refusal is an error.
func (s *Server) propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	res, err := s.replica.Propose(ctx, cmd)
	if err == nil {
		err = res.Err
	}
	return res, err
}

// findVolume resolves a volume's id or name.
func findVolume(v fsm.View, s string) (*fsm.Volume, error) {
	if s == "" {
		return nil, san.Errorf(san.KindInvalid, "no volume named; give a volume's name or id")
	}
	if row := v.Volume(san.VolumeID(s)); row != nil {
		return row, nil
	}
	if row := v.VolumeByName(s); row != nil {
		return row, nil
	}
	return nil, san.Errorf(san.KindNotFound, "volume %q does not exist; 'sandbar volume list' shows those that do", clip(s))
}

func findHost(v fsm.View, s string) (*fsm.Host, error) {
	if s == "" {
		return nil, san.Errorf(san.KindInvalid, "no host named; give a host's id")
	}
	if row := v.Host(san.HostID(s)); row != nil {
		return row, nil
	}
	return nil, san.Errorf(san.KindNotFound, "host %q does not exist; register it with 'sandbar host add' or run its agent", clip(s))
}

func findUnit(v fsm.View, s string) (*fsm.Unit, error) {
	if s == "" {
		return nil, san.Errorf(san.KindInvalid, "no unit named; give a unit's id")
	}
	if row := v.Unit(san.UnitID(s)); row != nil {
		return row, nil
	}
	return nil, san.Errorf(san.KindNotFound, "unit %q does not exist; 'sandbar unit list' shows those that do", clip(s))
}

// clip keeps what a caller sent short enough to be put into a message, and cuts no character
// in two: messages are UTF-8 (gRPC refuses others).
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	n := most - len("...")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

// mutationOf is a mutation's message that names its object by id.
type mutationOf interface {
	proto.Message
	GetId() string
}
