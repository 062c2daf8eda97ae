package initiator

import (
	"errors"
	"fmt"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// ErrClosed is the cause given to requests that Session.Close or Session.Logout ended.
var ErrClosed = errors.New("the session was closed")

// ErrTimedOut is the cause given to a request that the target did not answer in
// Limits.RequestTimeout.
var ErrTimedOut = errors.New("the target did not answer in time")

// ErrKeepalive ends a session whose target did not answer a ping in
// Limits.PingTimeout.
var ErrKeepalive = errors.New("the target did not answer a keepalive ping")

// ErrTargetAsked ends a session whose target asked for logout or announced that it
// drops the connection (RFC 7143 §11.9).
var ErrTargetAsked = errors.New("the target asked to end the session")

var errAbortTimedOut = fmt.Errorf("a request was aborted, and %w", ErrTimedOut)

// RequestError says that a request ended without the target's answer: its context ended,
// it took too long, or its session was lost.
type RequestError struct {
	// Op names the request, such as "WRITE(16)".
	Op string
	// MayHaveTakenEffect is false when nothing on the medium can have changed because of this
	// request: it never left this machine or it changes nothing. When true, the request may
	// have been executed in whole or in part, and, until the session is known to be
	// dead at the target, may still be.
	MayHaveTakenEffect bool
	// Err is the cause.
	Err error
}

// Error tells the operation, the cause and the outcome.
func (e *RequestError) Error() string {
	if e.MayHaveTakenEffect {
		return fmt.Sprintf("%s: %v; it may have taken effect", e.Op, e.Err)
	}
	return fmt.Sprintf("%s: %v; it has not taken effect", e.Op, e.Err)
}

// Unwrap returns the cause.
func (e *RequestError) Unwrap() error { return e.Err }

// MayHaveTakenEffect reports whether err leaves open what a request did: it is or wraps
// a RequestError that says so.
func MayHaveTakenEffect(err error) bool {
	var e *RequestError
	return errors.As(err, &e) && e.MayHaveTakenEffect
}

// requestError builds the error of a request that got no answer, with the kind that fits.
func requestError(op string, mayHave bool, cause error) error {
	kind := san.KindUnavailable
	if mayHave {
		kind = san.KindUnknown
	}
	return &san.Error{Kind: kind, Err: &RequestError{Op: op, MayHaveTakenEffect: mayHave, Err: cause}}
}

// ProtocolError says how the target broke RFC 7143. It ends the session.
type ProtocolError struct {
	// What was wrong.
	What string
	// Err is the codec's error, if that found it.
	Err error
}

// Error tells what was wrong.
func (e *ProtocolError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("target broke the iSCSI protocol: %s: %v", e.What, e.Err)
	}
	return "target broke the iSCSI protocol: " + e.What
}

// Unwrap returns the codec's error.
func (e *ProtocolError) Unwrap() error { return e.Err }

func protocolErrorf(format string, args ...any) error {
	return &ProtocolError{What: fmt.Sprintf(format, args...)}
}

// LoginError is a target's refusal of a login.
type LoginError struct {
	Status pdu.LoginStatus
}

// Kind classifies the refusal.
func (e *LoginError) Kind() san.Kind {
	switch e.Status {
	case pdu.LoginAuthFailure:
		return san.KindUnauthenticated
	case pdu.LoginForbidden:
		return san.KindDenied
	case pdu.LoginNotFound, pdu.LoginTargetRemoved:
		return san.KindNotFound
	case pdu.LoginTooManyConnections, pdu.LoginNotIncludable, pdu.LoginNoSession:
		return san.KindConflict
	}
	if e.Status>>8 == 3 {
		return san.KindUnavailable
	}
	return san.KindInvalid
}

// Error tells the status and what to do about it.
func (e *LoginError) Error() string {
	advice := map[san.Kind]string{
		san.KindUnauthenticated: "check the CHAP user and secret",
		san.KindDenied:          "check that this initiator name and address are assigned the target",
		san.KindNotFound:        "check the target's name and portal",
		san.KindConflict:        "close the initiator's other sessions",
		san.KindUnavailable:     "try again later",
		san.KindInvalid:         "the target's log may say why",
	}
	return fmt.Sprintf("the target refused the login: %v; %s", e.Status, advice[e.Kind()])
}

// SenseError is a request that the target answered with CHECK CONDITION. Its sense is zero
// when the target gave no usable sense data.
type SenseError struct {
	// Op names the request, such as "WRITE(16)".
	Op    string
	Sense cdb.Sense
}

// Error tells the operation, sense key and additional sense code.
func (e *SenseError) Error() string {
	msg := fmt.Sprintf("%s: the target answered %v", e.Op, e.Sense)
	if e.Sense.InformationValid && e.Sense.Key == cdb.KeyMediumError {
		msg += fmt.Sprintf(" at block %d", e.Sense.Information)
	}
	return msg
}

// Kind classifies the error.
func (e *SenseError) Kind() san.Kind {
	switch e.Sense.Key {
	case cdb.KeyIllegalRequest:
		return san.KindInvalid
	case cdb.KeyNotReady, cdb.KeyUnitAttention, cdb.KeyAbortedCommand:
		return san.KindUnavailable
	case cdb.KeyDataProtect:
		if e.Sense.ASC == ascSpaceAllocationFailed {
			return san.KindNoSpace
		}
		return san.KindDenied
	case cdb.KeyMiscompare:
		return san.KindConflict
	}
	return san.KindInternal
}

// Additional sense codes that this package acts on (SPC-4 annex D.3).
const (
	ascSpaceAllocationFailed cdb.ASC = 0x2707
	ascPowerOnOrReset        cdb.ASC = 0x2900 // and its 29/01 to 29/07
	ascCapacityChanged       cdb.ASC = 0x2a09
)

// StatusError is a request that the target answered with a status other than GOOD and
// CHECK CONDITION (SAM-5 §5.3), or could not complete.
type StatusError struct {
	// Op names the request, such as "WRITE(16)".
	Op string
	// Response is RFC 7143 §11.4.3's: pdu.ResponseCompleted unless the target failed.
	Response uint8
	// Status is the SCSI status, when Response is pdu.ResponseCompleted.
	Status uint8
}

// Error tells the operation and the status.
func (e *StatusError) Error() string {
	if e.Response != pdu.ResponseCompleted {
		return fmt.Sprintf("%s: the target could not complete it (iSCSI response %02xh)", e.Op, e.Response)
	}
	msg := fmt.Sprintf("%s: the target answered %s", e.Op, cdb.StatusName(e.Status))
	if e.Status == cdb.StatusReservationConflict {
		msg += "; another initiator holds a reservation"
	}
	return msg
}

// Kind classifies the error.
func (e *StatusError) Kind() san.Kind {
	switch {
	case e.Response != pdu.ResponseCompleted:
		return san.KindInternal
	case e.Status == cdb.StatusReservationConflict:
		return san.KindDenied
	case e.Status == cdb.StatusBusy, e.Status == cdb.StatusTaskSetFull, e.Status == cdb.StatusTaskAborted:
		return san.KindUnavailable
	}
	return san.KindInternal
}

// withKind gives err, which classifies itself, to the rest of Sandbar.
func withKind(err interface {
	error
	Kind() san.Kind
}) error {
	return &san.Error{Kind: err.Kind(), Err: err}
}
