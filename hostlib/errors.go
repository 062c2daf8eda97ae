package hostlib

import (
	"errors"
)

// Errors that callers may tell apart with errors.Is. san.KindOf says besides what may be done about an
// error; san.KindUnknown means that a request may or may not have taken effect.
var (
	// ErrClosed is a request to a volume or client that was closed.
	ErrClosed = errors.New("it was closed")
	// ErrLost is a request that was given up because the volume could not be reached in the time
	// that the request had. The volume stays open, and later requests may succeed.
	ErrLost = errors.New("the volume could not be reached in time")
	// ErrGone is a request to a volume that this host does not have any more in the form in which it was
	// opened: it was unassigned, or assigned anew, or another volume answers in its place.
	// It does not come back; close the volume, and open it again if it is assigned again.
	ErrGone = errors.New("the volume is not assigned to this host any more as it was")
)
