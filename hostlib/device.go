package hostlib

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/initiator"
)

// device is a logical unit through one session; the initiator's is one. Its methods are
// initiator.Device's. A request whose session is lost fails with an *initiator.RequestError.
type device interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
	Flush(ctx context.Context) error
	Discard(ctx context.Context, off, length int64) error
	SizeBytes() int64
	BlockSizeBytes() int64
	CanDiscard() bool
	WWID() string
	// Done is closed when the session has ended and nothing of it is left on this side.
	Done() <-chan struct{}
	// Logout ends the session in order, Close at once; both return when it has ended.
	Logout(ctx context.Context) error
	Close() error
}

// unitDevice is a device at a unit.
type unitDevice struct {
	*initiator.Device
	*initiator.Session
}

// live is a device while it is in use.
type live struct {
	device
	number uint64 // sessions are counted from 1
	// bad says that nothing that this session answers from now on can be relied on.
	bad  atomic.Bool
	once sync.Once
	drop chan struct{} // closed with bad
}

func newLive(d device, number uint64) *live {
	l := &live{device: d, number: number, drop: make(chan struct{})}
	if u, ok := d.(*unitDevice); ok {
		u.OnUnitAttention(func(asc cdb.ASC) {
			// 29/00 to 29/07: the unit may have lost its cache under us. The login told of its own
			// already, so this is another; what is not stable must be given again, as after a loss.
			if asc>>8 == cdb.ASCPowerOnOrReset>>8 && asc&0xff <= 0x07 {
				l.suspect()
			}
		})
	}
	return l
}

// suspect has the session ended and replaced. It returns at once and may be called by anybody.
func (l *live) suspect() {
	l.bad.Store(true)
	l.once.Do(func() { close(l.drop) })
}

// unanswered reports whether a request ended without an answer that can be relied on.
func (l *live) unanswered(err error) bool {
	var lost *initiator.RequestError
	return l.bad.Load() || errors.As(err, &lost)
}
