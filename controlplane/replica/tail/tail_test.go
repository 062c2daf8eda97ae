package tail

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

// gatedStore is a store that lets writes wait, and fails them.
type gatedStore struct {
	*raft.InmemStore
	mu   sync.Mutex
	gate chan struct{}
	err  error
}

func (s *gatedStore) StoreLogs(logs []*raft.Log) error {
	s.mu.Lock()
	gate, err := s.gate, s.err
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if err != nil {
		return err
	}
	return s.InmemStore.StoreLogs(logs)
}

func command(index uint64, size int) *raft.Log {
	return &raft.Log{Index: index, Term: 3, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(index)}, size), Extensions: []byte("x")}
}

func mustStore(t *testing.T, l *Log, logs ...*raft.Log) {
	t.Helper()
	if err := l.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
}

func mustHave(t *testing.T, l raft.LogStore, want *raft.Log) {
	t.Helper()
	var got raft.Log
	if err := l.GetLog(want.Index, &got); err != nil {
		t.Fatalf("entry %d: %v", want.Index, err)
	}
	if got.Term != want.Term || !bytes.Equal(got.Data, want.Data) || !bytes.Equal(got.Extensions, want.Extensions) {
		t.Fatalf("entry %d is another one", want.Index)
	}
}

// TestRealFiles fills several segments, with an append among them that is longer than one, and reads all
// back: while it is on its way to the store, and after a start.
func TestRealFiles(t *testing.T) {
	dir, store := t.TempDir(), raft.NewInmemStore()
	l, err := Open(dir, store, true, false)
	if err != nil {
		t.Fatal(err)
	}
	const n, size = 60, 512 << 10
	for i := uint64(1); i <= n; i++ {
		mustStore(t, l, command(i, size))
	}
	var large []*raft.Log
	for i := uint64(n + 1); i <= n+20; i++ {
		large = append(large, command(i, size))
	}
	mustStore(t, l, large...)
	mustStore(t, l, command(n+21, 1))
	for i := uint64(1); i <= n+20; i++ {
		mustHave(t, l, command(i, size))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(dir, store, false, false); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := uint64(1); i <= n+20; i++ {
		mustHave(t, store, command(i, size))
	}
	mustHave(t, l, command(n+21, 1))
}

// TestAppendsGoOnWhileTheStoreIsBusy fills one segment with the store stuck: the next segment takes what
// comes, until it is full too; when the store answers again, all go on.
func TestAppendsGoOnWhileTheStoreIsBusy(t *testing.T) {
	gate := make(chan struct{})
	store := &gatedStore{InmemStore: raft.NewInmemStore()}
	l, err := Open(t.TempDir(), store, true, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	store.mu.Lock()
	store.gate = gate
	store.mu.Unlock()
	const size = segmentSize / 4
	for i := uint64(1); i <= 6; i++ { // three fit into a segment
		mustStore(t, l, command(i, size))
	}
	done := make(chan error, 1)
	go func() { done <- l.StoreLog(command(7, size)) }()
	select {
	case err := <-done:
		t.Fatalf("a third segment was begun though the first is not in the store (%v)", err)
	default:
	}
	mustHave(t, l, command(1, size)) // reading does not wait
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 7; i++ {
		mustHave(t, l, command(i, size))
	}
}

// TestAFailedStoreIsFinal has the store fail: whoever waits for it is told, and so is everybody after.
func TestAFailedStoreIsFinal(t *testing.T) {
	store := &gatedStore{InmemStore: raft.NewInmemStore()}
	l, err := Open(t.TempDir(), store, true, true)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	broken := errors.New("input/output error")
	store.mu.Lock()
	store.err = broken
	store.mu.Unlock()
	for i := uint64(1); err == nil && i < 100; i++ {
		err = l.StoreLog(command(i, segmentSize/4))
	}
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	if err := l.DeleteRange(1, 2); !errors.Is(err, broken) {
		t.Errorf("a removal after it: %v", err)
	}
}

func TestForeignOrMissingFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, raft.NewInmemStore(), true, true)
	if err != nil {
		t.Fatal(err)
	}
	mustStore(t, l, command(1, 10))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, raft.NewInmemStore(), true, true); err == nil {
		t.Error("another store's entries are taken over")
	}
	if err := os.Remove(Files(dir)[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, raft.NewInmemStore(), false, true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestUnknownKindIsRefused(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, raft.NewInmemStore(), true, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.write(9, l.buffer()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, raft.NewInmemStore(), false, true); err == nil {
		t.Error("a frame that nobody understands is passed over")
	}
}

// FuzzScan feeds the reader what a damaged disk may hold.
func FuzzScan(f *testing.F) {
	dir := f.TempDir()
	l, err := Open(dir, raft.NewInmemStore(), true, true)
	if err != nil {
		f.Fatal(err)
	}
	for i := uint64(1); i < 5; i++ {
		if err := l.StoreLogs([]*raft.Log{command(i, 20), command(i+10, 3)}); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(l.DeleteRange(3, 4), l.Close()); err != nil {
		f.Fatal(err)
	}
	file, err := os.Open(Files(dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	image := make([]byte, 1024)
	if _, err := io.ReadFull(file, image); err != nil {
		f.Fatal(err)
	}
	f.Add(image)
	f.Fuzz(func(t *testing.T, image []byte) {
		s, err := scan(image)
		if s.end > int64(len(image))+alignment || err == nil && s.number == 0 && s.frames != 0 {
			t.Errorf("%+v of %d bytes", s, len(image))
		}
		readEntries(image)
	})
}

// BenchmarkAppend measures synced appends of one entry of 500 bytes.
func BenchmarkAppend(b *testing.B) {
	l, err := Open(b.TempDir(), raft.NewInmemStore(), true, false)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	i := uint64(0)
	for b.Loop() {
		i++
		if err := l.StoreLog(command(i, 500)); err != nil {
			b.Fatal(err)
		}
	}
}
