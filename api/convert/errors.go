package convert

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/san"
)

// unknownOutcome marks an Unavailable whose request may have taken effect.
const unknownOutcome = "Sandbar-Outcome-Unknown"

// finalAnswer marks an error that every other station would answer with too, and now.
const finalAnswer = "Sandbar-Final"

// finalError is an error that Final was given.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// Final marks an error, which may be KindUnavailable, as one that asking again or elsewhere does
// not change soon: it is for the operator to act. The mark goes over the wire.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return finalError{err}
}

// IsFinal tells whether err, ours or a client's, was marked so.
func IsFinal(err error) bool {
	var ce *connect.Error
	var fe finalError
	return errors.As(err, &fe) || errors.As(err, &ce) && ce.Meta().Get(finalAnswer) != ""
}

var codeOf = map[san.Kind]connect.Code{
	san.KindInternal:        connect.CodeInternal,
	san.KindInvalid:         connect.CodeInvalidArgument,
	san.KindNotFound:        connect.CodeNotFound,
	san.KindExists:          connect.CodeAlreadyExists,
	san.KindConflict:        connect.CodeFailedPrecondition,
	san.KindNoSpace:         connect.CodeResourceExhausted,
	san.KindUnauthenticated: connect.CodeUnauthenticated,
	san.KindDenied:          connect.CodePermissionDenied,
	san.KindUnavailable:     connect.CodeUnavailable,
	san.KindUnknown:         connect.CodeUnavailable,
}

// ToConnect turns err into the Connect error that clients see.
func ToConnect(err error) error {
	if err == nil {
		return nil
	}
	var ce *connect.Error
	if errors.As(err, &ce) {
		return ce
	}
	var known *san.Error
	switch {
	case errors.As(err, &known): // what ended a wait matters less than what is known of its outcome
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	case errors.Is(err, context.Canceled):
		// Whoever still listens did not cancel: the station is stopping, and another one will do.
		return connect.NewError(connect.CodeUnavailable, err)
	}
	kind := san.KindOf(err)
	out := connect.NewError(codeOf[kind], err)
	if kind == san.KindUnknown {
		out.Meta().Set(unknownOutcome, "1")
	}
	if IsFinal(err) {
		out.Meta().Set(finalAnswer, "1")
	}
	return out
}

// FromConnect turns a client's error into one with a kind, keeping only the message
// that the station wrote. What no station said, because the connection failed, is KindUnavailable
// (it may have taken effect), or the kind that TLS refused the other side with.
func FromConnect(err error) error {
	var ce *connect.Error
	if err == nil || !errors.As(err, &ce) {
		return err
	}
	if connect.IsWireError(ce) {
		said := san.Errorf(kindOf(ce), "%s", ce.Message())
		if IsFinal(ce) {
			return Final(said)
		}
		return said
	}
	var known *san.Error
	switch {
	case errors.As(ce, &known):
		return &san.Error{Kind: known.Kind, Err: ce.Unwrap()}
	case Lost(err):
		return &san.Error{Kind: san.KindUnavailable, Err: ce.Unwrap()}
	}
	return &san.Error{Kind: kindOf(ce), Err: ce.Unwrap()}
}

// Lost reports whether err is of a call whose connection failed, or whose time ran out, before a
// station had answered: the call may have taken effect, and another station may answer.
func Lost(err error) bool {
	var ce *connect.Error
	if !errors.As(err, &ce) || connect.IsWireError(ce) {
		return false
	}
	switch ce.Code() {
	case connect.CodeUnknown, connect.CodeInternal, connect.CodeUnavailable, connect.CodeCanceled, connect.CodeDeadlineExceeded, connect.CodeAborted:
		return true
	}
	return false
}

func kindOf(ce *connect.Error) san.Kind {
	switch ce.Code() {
	case connect.CodeInvalidArgument, connect.CodeOutOfRange:
		return san.KindInvalid
	case connect.CodeNotFound:
		return san.KindNotFound
	case connect.CodeAlreadyExists:
		return san.KindExists
	case connect.CodeFailedPrecondition, connect.CodeAborted:
		return san.KindConflict
	case connect.CodeResourceExhausted:
		return san.KindNoSpace
	case connect.CodeUnauthenticated:
		return san.KindUnauthenticated
	case connect.CodePermissionDenied:
		return san.KindDenied
	case connect.CodeUnavailable:
		if ce.Meta().Get(unknownOutcome) != "" {
			return san.KindUnknown
		}
		return san.KindUnavailable
	case connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return san.KindUnavailable
	}
	return san.KindInternal
}
