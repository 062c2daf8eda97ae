package san

import (
	"errors"
	"fmt"
)

// Kind classifies an error by what its receiver can do about it. The API maps each
// kind to one Connect code and the CLI maps each to one exit code.
type Kind uint8

// The kinds of error.
const (
	// KindInternal is a defect or an unexpected failure of the machine.
	KindInternal Kind = iota
	// KindInvalid is input that can never work.
	KindInvalid
	// KindNotFound names a thing that is not there.
	KindNotFound
	// KindExists is a name or id that is taken.
	KindExists
	// KindConflict is refused in the present state: busy, assigned, stale, reused request id.
	KindConflict
	// KindNoSpace is a request for more than the pool can give.
	KindNoSpace
	// KindUnauthenticated is a missing, wrong, expired or foreign credential.
	KindUnauthenticated
	// KindDenied is a known caller without the right.
	KindDenied
	// KindUnavailable may work later: no leader, no quorum, unit away.
	KindUnavailable
	// KindUnknown is an outcome that could not be learnt: it may have happened.
	KindUnknown
)

var kindNames = [...]string{"internal", "invalid", "not found", "exists", "conflict", "no space", "unauthenticated", "denied", "unavailable", "outcome unknown"}

// String names the kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal"
}

// Error is an error with a kind. Its message says what happened, to what, and what to
// do next.
type Error struct {
	Kind Kind
	Err  error
}

// Error returns the message.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the message's own error, so that a cause given by %w stays reachable.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an error of kind k. A %w verb in format keeps its cause reachable.
func Errorf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Wrap puts the operation that failed before err and keeps err's kind.
func Wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: KindOf(err), Err: fmt.Errorf("%s: %w", op, err)}
}

// KindOf returns the kind of the first Error in err's chain, KindInternal if none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}
