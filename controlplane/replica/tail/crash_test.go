package tail

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

var errCrashed = errors.New("the machine crashed")

// machine is what crashes: after so many writes and syncs nothing reaches its disk any more.
type machine struct {
	mu   sync.Mutex
	left int
}

// act runs f unless the machine has crashed; the action in which it crashes is told so.
func (m *machine) act(f func(crash bool)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left <= 0 {
		return errCrashed
	}
	m.left--
	f(m.left == 0)
	if m.left == 0 {
		return errCrashed
	}
	return nil
}

const sector = 512

// crashFile is a file in two states: as it reads, and as it is on the disk.
type crashFile struct {
	machine *machine
	rng     *rand.Rand
	durable []byte
	pending map[int64][]byte // sectors written and not synced
}

func (f *crashFile) image() []byte {
	image := slices.Clone(f.durable)
	for at, s := range f.pending {
		copy(image[at:], s)
	}
	return image
}

func (f *crashFile) WriteAt(p []byte, at int64) (int, error) {
	return len(p), f.machine.act(func(bool) {
		image := f.image()
		for need := (at + int64(len(p)) + sector - 1) / sector * sector; int64(len(image)) < need; {
			image = append(image, 0)
			f.durable = append(f.durable, 0)
		}
		copy(image[at:], p)
		for s := at / sector * sector; s < at+int64(len(p)); s += sector {
			f.pending[s] = slices.Clone(image[s : s+sector])
		}
	})
}

func (f *crashFile) Sync() error {
	return f.machine.act(func(crash bool) {
		if !crash {
			f.settle(func() bool { return true })
		}
	})
}

// settle writes those of the pending sectors that keep picks, and forgets the others.
func (f *crashFile) settle(keep func() bool) {
	for at, s := range f.pending {
		if keep() {
			copy(f.durable[at:], s)
		}
	}
	clear(f.pending)
}

func (f *crashFile) Close() error { return nil }

// crashStore is the store behind: a write to it is there whole or, if the machine crashes in it, not at all.
type crashStore struct {
	machine *machine
	mu      sync.Mutex
	logs    map[uint64]*raft.Log
}

func (s *crashStore) edge(better func(a, b uint64) bool) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found uint64
	for i := range s.logs {
		if found == 0 || better(i, found) {
			found = i
		}
	}
	return found, nil
}

func (s *crashStore) FirstIndex() (uint64, error) {
	return s.edge(func(a, b uint64) bool { return a < b })
}

func (s *crashStore) LastIndex() (uint64, error) {
	return s.edge(func(a, b uint64) bool { return a > b })
}

func (s *crashStore) GetLog(i uint64, l *raft.Log) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs[i] == nil {
		return raft.ErrLogNotFound
	}
	*l = *s.logs[i]
	return nil
}

func (s *crashStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *crashStore) StoreLogs(logs []*raft.Log) error {
	return s.change(func() {
		for _, l := range logs {
			s.logs[l.Index] = l
		}
	})
}

func (s *crashStore) DeleteRange(lo, hi uint64) error {
	return s.change(func() {
		for i := range s.logs {
			if lo <= i && i <= hi {
				delete(s.logs, i)
			}
		}
	})
}

func (s *crashStore) change(f func()) error {
	return s.machine.act(func(crash bool) {
		if !crash {
			s.mu.Lock()
			defer s.mu.Unlock()
			f()
		}
	})
}

// world is a disk with the two files and the store, and what a log on it has to hold.
type world struct {
	t     *rapid.T
	m     *machine
	files [2]*crashFile
	store *crashStore
	log   *Log
	// want are the entries that were answered; maybe is what the last, unanswered change would have made.
	want, maybe map[uint64]*raft.Log
	next, term  uint64
}

const smallSegment = 4 << 10

func newWorld(t *rapid.T) *world {
	m := &machine{}
	w := &world{t: t, m: m, store: &crashStore{machine: m, logs: map[uint64]*raft.Log{}}, want: map[uint64]*raft.Log{}, next: 1, term: 1}
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	for i := range w.files {
		w.files[i] = &crashFile{machine: m, rng: rng, durable: make([]byte, smallSegment), pending: map[int64][]byte{}}
	}
	return w
}

// boot opens the log on what is on the disk.
func (w *world) boot() error {
	for _, f := range w.files {
		f.settle(func() bool { return f.rng.IntN(2) == 0 })
	}
	var err error
	w.log, err = open(w.store, [2]file{w.files[0], w.files[1]}, [2][]byte{w.files[0].image(), w.files[1].image()}, smallSegment)
	return err
}

// change runs one change, and says whether it was answered.
func (w *world) change() bool {
	after := make(map[uint64]*raft.Log, len(w.want))
	for i, l := range w.want {
		after[i] = l
	}
	var first, last uint64
	for i := range after {
		if first == 0 || i < first {
			first = i
		}
		last = max(last, i)
	}
	remove := func(lo, hi uint64) error {
		for i := lo; i <= hi; i++ {
			delete(after, i)
		}
		return w.log.DeleteRange(lo, hi)
	}
	var err error
	switch kind := rapid.IntRange(0, 9).Draw(w.t, "change"); {
	case kind == 0 && last > first: // a new leader's log differs
		lo := rapid.Uint64Range(first+1, last).Draw(w.t, "from")
		w.next, w.term = lo, w.term+1
		err = remove(lo, last)
	case kind == 1 && last > first: // compaction
		err = remove(first, rapid.Uint64Range(first, last-1).Draw(w.t, "to"))
	case kind == 2: // a snapshot from the leader leaves a gap
		w.next += 5
		fallthrough
	default:
		var logs []*raft.Log
		for range rapid.IntRange(1, 8).Draw(w.t, "entries") {
			l := &raft.Log{Index: w.next, Term: w.term, Type: raft.LogCommand, AppendedAt: time.Unix(int64(w.next), 7),
				Data: bytes.Repeat([]byte{byte(w.next)}, rapid.IntRange(0, 600).Draw(w.t, "bytes"))}
			logs = append(logs, l)
			after[l.Index] = l
			w.next++
		}
		err = w.log.StoreLogs(logs)
	}
	if err != nil {
		w.maybe = after
		return false
	}
	w.want = after
	return true
}

// holds reports whether the log holds exactly that.
func (w *world) holds(want map[uint64]*raft.Log) bool {
	var first, last uint64
	for i := range want {
		if first == 0 || i < first {
			first = i
		}
		last = max(last, i)
	}
	gotFirst, err1 := w.log.FirstIndex()
	gotLast, err2 := w.log.LastIndex()
	if err1 != nil || err2 != nil {
		w.t.Fatal(err1, err2)
	}
	if gotFirst != first || gotLast != last {
		return false
	}
	for i := first; i <= last && i > 0; i++ {
		var got raft.Log
		err := w.log.GetLog(i, &got)
		l := want[i]
		if l == nil {
			if !errors.Is(err, raft.ErrLogNotFound) {
				return false
			}
			continue
		}
		if err != nil || !same(&got, l) {
			return false
		}
	}
	return true
}

func same(a, b *raft.Log) bool {
	return a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data) && a.AppendedAt.Equal(b.AppendedAt)
}

// TestCrashes crashes the machine at any write or sync, also those in which it recovers: what was answered
// is there, and what was not is there whole or not at all.
func TestCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 5).Draw(t, "crashes") {
			w.m.left = rapid.IntRange(1, 120).Draw(t, "actions")
			err := w.boot()
			for err == nil && w.change() {
			}
			if err == nil {
				if err := w.log.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err != nil && !errors.Is(err, errCrashed) {
				t.Fatalf("what was on the disk after a crash is refused: %v", err)
			}
			w.recovered(t)
		}
	})
}

// recovered looks at the log after a start that nothing disturbs.
func (w *world) recovered(t *rapid.T) {
	w.m.left = 1 << 30
	if err := w.boot(); err != nil {
		t.Fatalf("what was on the disk after a crash is refused: %v", err)
	}
	switch {
	case w.holds(w.want):
	case w.maybe != nil && w.holds(w.maybe):
		w.want = w.maybe
	default:
		t.Fatalf("the log holds neither the %d entries before the last change nor the %d after it", len(w.want), len(w.maybe))
	}
	w.maybe = nil
	w.next = 1
	for i := range w.want {
		w.next = max(w.next, i+1)
	}
	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
}

// holdsBetween reports whether all that was there before the last change and is to be there after it is there, and
// nothing that was there neither before nor after. The store may have carried out a removal of which the files
// have lost the record.
func (w *world) holdsBetween(before map[uint64]*raft.Log) bool {
	for i := uint64(1); i < w.next+10; i++ {
		var got raft.Log
		err := w.log.GetLog(i, &got)
		was, is := before[i], w.want[i]
		switch {
		case err != nil && was != nil && was == is:
			return false
		case err == nil && (was == nil || !same(&got, was)) && (is == nil || !same(&got, is)):
			return false
		}
	}
	return true
}

// TestDamageIsRefused flips one byte of what was answered: the log is refused or complete. One
// frame can go unnoticed, the last, because it then looks like one that was never answered.
func TestDamageIsRefused(t *testing.T) {
	refused := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.m.left = 1 << 30
		if err := w.boot(); err != nil {
			t.Fatal(err)
		}
		var before map[uint64]*raft.Log
		for range rapid.IntRange(2, 60).Draw(t, "changes") {
			before = w.want
			if !w.change() {
				t.Fatal("a change failed")
			}
		}
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
		f := w.files[rapid.IntRange(0, 1).Draw(t, "file")]
		f.durable[rapid.IntRange(0, len(f.durable)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		// What the store got since the last start is not damaged, and hides nothing.
		if w.boot() != nil {
			refused++
			return
		}
		if !w.holds(w.want) && !w.holdsBetween(before) {
			t.Fatal("entries are missing, and nothing was said")
		}
		if err := w.log.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if refused == 0 {
		t.Error("no damage was ever noticed")
	}
}
