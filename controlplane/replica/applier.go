package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// applier feeds committed entries to the state machine. raft calls it from one goroutine.
type applier struct {
	machine *fsm.Machine
	failed  *failure
	reached watermark
	running atomic.Bool // raft is open; before, a damaged snapshot may have an older one behind it
	halted  error       // nothing is applied, captured or restored any more
}

// Apply applies one entry.
func (a *applier) Apply(l *raft.Log) any { return a.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries in order. Each answer is an fsm.Result, or an error for an entry that was not
// applied because the replica halted.
func (a *applier) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	var entries []fsm.Entry
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			entries = append(entries, fsm.Entry{Index: san.Index(l.Index), Data: l.Data})
		}
	}
	var results []fsm.Result
	if a.halted == nil && len(entries) > 0 {
		var err error
		if results, err = a.machine.ApplyBatch(entries); err != nil {
			a.halt(fmt.Errorf("apply: %w", err))
		}
	}
	for i, l := range logs {
		switch {
		case l.Type == raft.LogCommand && len(results) > 0:
			answers[i], results = results[0], results[1:]
		case a.halted != nil:
			answers[i] = a.halted
			continue
		}
		a.reached.stage(l.Index)
	}
	a.reached.publish()
	return answers
}

// halt stops the state machine for good. raft goes on to count entries as applied until Run has shut it
// down, but can no longer keep that anywhere: a snapshot is refused, so the log keeps the entry.
func (a *applier) halt(err error) {
	a.halted = san.Errorf(san.KindInternal, "%w; the state is kept as it was before: start a version of sandbar that knows the entry", err)
	a.failed.set(a.halted)
}

// Snapshot captures the state.
func (a *applier) Snapshot() (raft.FSMSnapshot, error) {
	if a.halted != nil {
		return nil, a.halted
	}
	return capture{a.machine.Snapshot()}, nil
}

// Restore replaces the state. A stream that cannot be taken leaves the state as it was and, as an entry
// that cannot be understood, ends the replica. raft closes source.
func (a *applier) Restore(source io.ReadCloser) error {
	if a.halted != nil {
		return a.halted
	}
	if err := a.machine.Restore(source); err != nil {
		err = san.Errorf(san.KindInternal, "take over a snapshot: %w; if it was made by a newer version of sandbar, start that one", err)
		if a.running.Load() {
			a.failed.set(err)
		}
		return err
	}
	a.reached.stage(uint64(a.machine.AppliedIndex()))
	a.reached.publish()
	return nil
}

type capture struct{ state *fsm.Snapshot }

// Persist writes the captured state to sink.
func (c capture) Persist(sink raft.SnapshotSink) error {
	if _, err := c.state.WriteTo(sink); err != nil {
		return errors.Join(fmt.Errorf("write a snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to give back: the capture is garbage once it is unused.
func (capture) Release() {}

// watermark is the highest index that the state machine has seen, to be waited for.
type watermark struct {
	mu     sync.Mutex
	staged uint64 // of the goroutine that applies
	index  uint64
	moved  chan struct{} // made by the first who waits
}

func (w *watermark) stage(index uint64) { w.staged = max(w.staged, index) }

func (w *watermark) publish() { w.advance(w.staged) }

func (w *watermark) advance(index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if index <= w.index {
		return
	}
	w.index = index
	if w.moved != nil {
		close(w.moved)
		w.moved = nil
	}
}

func (w *watermark) get() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.index
}

// wait returns nil once index is reached, and the cause's error when ctx or stop ends first.
func (w *watermark) wait(ctx context.Context, index uint64, stop <-chan struct{}) error {
	for {
		w.mu.Lock()
		if w.index >= index {
			w.mu.Unlock()
			return nil
		}
		if w.moved == nil {
			w.moved = make(chan struct{})
		}
		moved := w.moved
		w.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-stop:
			return errStopping
		}
	}
}
