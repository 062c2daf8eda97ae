package hostlib

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sandbar-san/sandbar/internal/initiator"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fate is what becomes of one request at a fakeUnit.
type fate uint8

const (
	fine        fate = iota
	lostBefore       // the session ends, the request was not done
	lostAfter        // the session ends, the request was done
	powerBefore      // lostBefore, and the cache is lost
	powerAfter       // lostAfter, and the cache is lost
	powerLater       // done and answered, but before the answer is heard the cache is lost and a new session is there
	refused          // answered with an error that is the unit's last word
	busy             // answered with an error that passes
)

// fakeUnit is a unit with a volatile cache, whose sessions end as a test likes.
type fakeUnit struct {
	block int64
	// judge, if set, says what becomes of a request; it may block.
	judge func(what string) fate
	// linger, if set, is called between the end of a request and its answer.
	linger func()

	mu      sync.Mutex
	cached  []byte
	stable  []byte
	wwid    string
	session *fakeSession
	dials   int
	dialErr error // what logins fail with, nil if they don't
	counts  map[string]int
}

func newFakeUnit(size, block int64) *fakeUnit {
	return &fakeUnit{block: block, cached: make([]byte, size), stable: make([]byte, size), wwid: "naa.1", counts: map[string]int{}}
}

var errCut = errors.New("cut")

// dial is a login, which takes the place of the session before it.
func (u *fakeUnit) dial(ctx context.Context) (device, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if u.dialErr != nil {
		return nil, u.dialErr
	}
	u.dials++
	u.end()
	u.session = &fakeSession{unit: u, done: make(chan struct{})}
	return u.session, nil
}

// end ends the session that there is. Needs mu.
func (u *fakeUnit) end() {
	if u.session != nil && !u.session.over {
		u.session.over = true
		close(u.session.done)
	}
}

// cut ends the session; with power the cache is lost too.
func (u *fakeUnit) cut(power bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cutLocked(power)
}

func (u *fakeUnit) cutLocked(power bool) {
	u.end()
	if power {
		copy(u.cached, u.stable)
	}
}

func (u *fakeUnit) setDialErr(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dialErr = err
}

func (u *fakeUnit) count(what string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.counts[what]
}

// fakeSession is a session with a fakeUnit.
type fakeSession struct {
	unit *fakeUnit
	done chan struct{}
	over bool
}

func lost(what string, effect bool) error {
	kind := san.KindUnavailable
	if effect {
		kind = san.KindUnknown
	}
	return &san.Error{Kind: kind, Err: &initiator.RequestError{Op: what, MayHaveTakenEffect: effect, Err: errCut}}
}

// do has a request done.
func (s *fakeSession) do(ctx context.Context, what string, effect bool, act func(u *fakeUnit)) error {
	f := fine
	if s.unit.judge != nil {
		f = s.unit.judge(what)
	}
	u := s.unit
	err := s.act(ctx, f, what, effect, act)
	if u.linger != nil {
		u.linger()
	}
	if err == nil && f == powerLater {
		u.cut(true)
		time.Sleep(2 * redialMax)
	}
	return err
}

func (s *fakeSession) act(ctx context.Context, f fate, what string, effect bool, act func(u *fakeUnit)) error {
	u := s.unit
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case s.over:
		return lost(what, effect) // in the worst case it can't be known
	case ctx.Err() != nil:
		return lost(what, effect)
	}
	u.counts[what]++
	switch f {
	case refused:
		return san.Errorf(san.KindInternal, "%s: medium error", what)
	case busy:
		return san.Errorf(san.KindUnavailable, "%s: busy", what)
	case lostBefore, powerBefore:
		u.cutLocked(f == powerBefore)
		return lost(what, effect)
	}
	act(u)
	if f == lostAfter || f == powerAfter {
		u.cutLocked(f == powerAfter)
		return lost(what, effect)
	}
	return nil
}

func (s *fakeSession) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.aligned(p, off)
	return s.do(ctx, "read", false, func(u *fakeUnit) { copy(p, u.cached[off:]) })
}

func (s *fakeSession) WriteAt(ctx context.Context, p []byte, off int64) error {
	s.aligned(p, off)
	return s.do(ctx, "write", true, func(u *fakeUnit) { copy(u.cached[off:], p) })
}

func (s *fakeSession) Flush(ctx context.Context) error {
	return s.do(ctx, "flush", false, func(u *fakeUnit) { copy(u.stable, u.cached) })
}

func (s *fakeSession) Discard(ctx context.Context, off, length int64) error {
	return s.do(ctx, "discard", true, func(u *fakeUnit) { clear(u.cached[off : off+length]) })
}

func (s *fakeSession) aligned(p []byte, off int64) {
	if off%s.unit.block != 0 || int64(len(p))%s.unit.block != 0 || len(p) == 0 {
		panic("a request that is not of whole blocks")
	}
}

func (s *fakeSession) SizeBytes() int64      { return int64(len(s.unit.cached)) }
func (s *fakeSession) BlockSizeBytes() int64 { return s.unit.block }
func (s *fakeSession) CanDiscard() bool      { return true }
func (s *fakeSession) WWID() string          { return s.unit.wwid }
func (s *fakeSession) Done() <-chan struct{} { return s.done }

func (s *fakeSession) Logout(context.Context) error { return s.Close() }

func (s *fakeSession) Close() error {
	s.unit.mu.Lock()
	defer s.unit.mu.Unlock()
	if !s.over {
		s.over = true
		close(s.done)
	}
	return nil
}

// openFake opens a volume at u, and closes it when the test ends.
func openFake(t testing.TB, u *fakeUnit, opts volumeOptions) *Volume {
	t.Helper()
	d, err := u.dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if opts.retryLimit == 0 {
		opts.retryLimit = defaultRetryLimit
	}
	if opts.unflushedBytes == 0 {
		opts.unflushedBytes = defaultUnflushedBytes
	}
	v := newVolume("data", newLine(u.dial, slog.New(slog.DiscardHandler)), d, opts, nil)
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func (u *fakeUnit) holds(off int64, want []byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return bytes.Equal(u.cached[off:off+int64(len(want))], want)
}

func (u *fakeUnit) holdsStable(off int64, want []byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return bytes.Equal(u.stable[off:off+int64(len(want))], want)
}
