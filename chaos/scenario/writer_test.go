package scenario

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/hostlib"
)

// blockBytes is what a writer writes at once.
const blockBytes = 4 << 10

// writer is a program on a host that writes numbered blocks through the host library and keeps
// account of what must be there.
type writer struct {
	client *hostlib.Client
	vol    *hostlib.Volume
	blocks int64

	mu     sync.Mutex
	stored map[int64]uint64 // block → number of what was written there last and flushed
	maybe  map[int64]uint64 // block → number of what may be there instead: a write that failed

	flushed atomic.Uint64 // how many rounds of write and flush succeeded
	slowest atomic.Int64  // the longest round, in nanoseconds
	stop    context.CancelFunc
	done    chan error // one error, nil if all I/O succeeded
}

// startWriter opens a volume as a host's programs do, by its agent's folder, and writes to
// it until stopped, several requests at a time.
func startWriter(t *testing.T, dataDir, volume string) *writer {
	t.Helper()
	client, err := hostlib.New(hostlib.Config{DataDir: dataDir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	vol, err := client.Open(t.Context(), volume)
	if err != nil {
		t.Fatal(errors.Join(err, client.Close()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{
		client: client, vol: vol, blocks: vol.Size() / blockBytes,
		stored: map[int64]uint64{}, maybe: map[int64]uint64{}, stop: cancel, done: make(chan error, 1),
	}
	go func() {
		const lanes = 4
		errs := make([]error, lanes)
		var wg sync.WaitGroup
		for lane := range int64(lanes) {
			wg.Go(func() { errs[lane] = w.lane(ctx, lane, lanes) })
		}
		wg.Wait()
		w.done <- errors.Join(errs...)
	}()
	t.Cleanup(func() { // where the test has ended early
		cancel()
		_ = client.Close() // the units may be gone
	})
	return w
}

// lane writes numbered blocks at random places of its own share and flushes each few.
func (w *writer) lane(ctx context.Context, lane, lanes int64) error {
	rnd := rand.New(rand.NewPCG(uint64(lane), 7))
	buf := make([]byte, blockBytes)
	for number := uint64(lane) + 1; ctx.Err() == nil; {
		began := time.Now()
		wrote := map[int64]uint64{}
		for range 1 + rnd.IntN(8) {
			block := rnd.Int64N(w.blocks/lanes)*lanes + lane
			number += uint64(lanes)
			fill(buf, block, number)
			w.note(w.maybe, map[int64]uint64{block: number})
			if _, err := w.vol.WriteAt(buf, block*blockBytes); err != nil {
				return fmt.Errorf("write block %d: %w", block, err)
			}
			wrote[block] = number
		}
		if err := w.vol.Flush(); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		w.note(w.stored, wrote)
		w.flushed.Add(1)
		if d := int64(time.Since(began)); d > w.slowest.Load() {
			w.slowest.Store(d)
		}
	}
	return nil
}

func (w *writer) note(in, what map[int64]uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for block, number := range what {
		in[block] = number
	}
}

// fill makes a block that says where and what it is.
func fill(buf []byte, block int64, number uint64) {
	le := binary.LittleEndian
	for i := 0; i < len(buf); i += 16 {
		le.PutUint64(buf[i:], uint64(block)<<20|uint64(i))
		le.PutUint64(buf[i+8:], number)
	}
	le.PutUint32(buf[len(buf)-4:], crc32.ChecksumIEEE(buf[:len(buf)-4]))
}

// progress waits until some rounds that began after the call are flushed.
func (w *writer) progress(c *cluster, what string) {
	c.t.Helper()
	from := w.flushed.Load()
	c.await("the writer goes on "+what, patience, func(context.Context) error {
		select {
		case err := <-w.done:
			w.done <- err
			return fmt.Errorf("the writer has ended: %w", err)
		default:
		}
		if n := w.flushed.Load(); n < from+10 {
			return fmt.Errorf("%d rounds since", n-from)
		}
		return nil
	})
}

// finish ends the writing; every request must have succeeded. It returns how many rounds there were.
func (w *writer) finish(t *testing.T) uint64 {
	t.Helper()
	w.stop()
	if err := <-w.done; err != nil {
		t.Errorf("the writer: %v", err)
	}
	if err := w.client.Close(); err != nil {
		t.Errorf("close the volume: %v", err)
	}
	return w.flushed.Load()
}

// check reads every block and compares it with what was flushed last.
func (w *writer) check(t *testing.T, dev interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
}) {
	t.Helper()
	got, want := make([]byte, blockBytes), make([]byte, blockBytes)
	for block := range w.blocks {
		if err := dev.ReadAt(t.Context(), got, block*blockBytes); err != nil {
			t.Fatal(err)
		}
		number := w.stored[block]
		if later := w.maybe[block]; later != number && binary.LittleEndian.Uint64(got[8:]) == later {
			number = later
		}
		clear(want)
		if number != 0 {
			fill(want, block, number)
		}
		if string(got) != string(want) {
			t.Fatalf("block %d holds number %d, %d was flushed", block, binary.LittleEndian.Uint64(got[8:]), w.stored[block])
		}
	}
}
