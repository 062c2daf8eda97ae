package fsm

import (
	"context"
	"errors"
	"sort"
	"sync"

	"github.com/sandbar-san/sandbar/san"
)

const (
	// feedEntries is how many log entries' changes are kept for those who watch.
	feedEntries = 8192
	// feedBatch bounds how many entries one Next returns.
	feedBatch = 256
)

var (
	// ErrResync tells a watcher that it missed changes (it was too slow, asked for too old an index, or
	// the state was restored) and must begin again from a new View. Its kind is KindConflict.
	ErrResync = san.Errorf(san.KindConflict, "changes since that index are no longer kept; list again and watch from the index of that list")
	// ErrClosed is returned by Next after Close.
	ErrClosed = errors.New("subscription is closed")
)

// Change is one row made, changed or deleted. Old is nil for a new row, New for a deleted one; both
// are the row's pointer type (*Volume …). Several changes may have one Index.
type Change struct {
	Index san.Index
	Table Table
	ID    string
	Old   any
	New   any
}

type feedEntry struct {
	index   san.Index
	changes []Change
}

// feed keeps the last changes in a ring. Watchers read the ring at their own speed, so none of
// them can hold up Apply.
type feed struct {
	mu    sync.Mutex
	ring  []feedEntry
	start int
	n     int
	floor san.Index     // every change above it is in the ring
	epoch uint64        // raised by each restore
	wake  chan struct{} // closed at the next change; nil if nobody waits
}

func newFeed(entries int) *feed { return &feed{ring: make([]feedEntry, entries)} }

func (f *feed) at(i int) *feedEntry { return &f.ring[(f.start+i)%len(f.ring)] }

func (f *feed) add(index san.Index, changes []Change) {
	if len(changes) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == len(f.ring) {
		f.floor = f.at(0).index
		f.start = (f.start + 1) % len(f.ring)
		f.n--
	}
	*f.at(f.n) = feedEntry{index: index, changes: changes}
	f.n++
	f.signal()
}

func (f *feed) signal() {
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

// reset forgets all and makes every subscription resync.
func (f *feed) reset(index san.Index) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.ring)
	f.start, f.n, f.floor = 0, 0, index
	f.epoch++
	f.signal()
}

// Subscription follows the changes. It is for one goroutine; Close may be called from any.
type Subscription struct {
	feed  *feed
	epoch uint64

	closing sync.Once
	closed  chan struct{}

	cursor san.Index // last index that Next returned
}

func (f *feed) subscribe(from san.Index) (*Subscription, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if from < f.floor {
		return nil, ErrResync
	}
	return &Subscription{feed: f, epoch: f.epoch, cursor: from, closed: make(chan struct{})}, nil
}

// Next waits for changes after those that it returned last and returns them in the order of the log, never
// part of an entry. Errors: ctx's; ErrResync, from then on always; ErrClosed.
func (s *Subscription) Next(ctx context.Context) ([]Change, error) {
	for {
		select {
		case <-s.closed:
			return nil, ErrClosed
		default:
		}
		out, wake, err := s.poll()
		if err != nil || len(out) > 0 {
			return out, err
		}
		select {
		case <-wake:
		case <-s.closed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// poll returns what is there, or else a channel that is closed when that changes.
func (s *Subscription) poll() ([]Change, <-chan struct{}, error) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.epoch != f.epoch || s.cursor < f.floor {
		return nil, nil, ErrResync
	}
	first := sort.Search(f.n, func(i int) bool { return f.at(i).index > s.cursor })
	if first == f.n {
		if f.wake == nil {
			f.wake = make(chan struct{})
		}
		return nil, f.wake, nil
	}
	last := min(f.n, first+feedBatch)
	var out []Change
	for i := first; i < last; i++ {
		out = append(out, f.at(i).changes...)
	}
	s.cursor = f.at(last - 1).index
	return out, nil, nil
}

// Close ends the subscription and wakes a waiting Next.
func (s *Subscription) Close() { s.closing.Do(func() { close(s.closed) }) }
