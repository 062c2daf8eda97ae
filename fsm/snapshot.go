package fsm

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/sandbar-san/sandbar/fsm/codec"
	"github.com/sandbar-san/sandbar/san"
)

// Snapshot is the state as of one index, ready to be written while Apply goes on.
type Snapshot struct {
	view View
}

// Snapshot captures the present state; it costs a pointer.
func (m *Machine) Snapshot() *Snapshot { return &Snapshot{view: m.View()} }

// Index is the last log entry in the snapshot.
func (s *Snapshot) Index() san.Index { return s.view.index }

// WriteTo writes the snapshot. Equal states give equal bytes.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	all := tables()
	out := codec.NewSnapshotWriter(w, codec.SnapshotHeader{Index: s.view.index, Tables: uint32(len(all))})
	for _, t := range all {
		if err := s.writeTable(out, t); err != nil {
			return 0, err
		}
	}
	return out.Close()
}

func (s *Snapshot) writeTable(out *codec.SnapshotWriter, t Table) error {
	count := uint64(0)
	if s.view.txn != nil {
		it, err := s.view.txn.Get(t.String(), byID)
		if err != nil {
			return err
		}
		for it.Next() != nil {
			count++
		}
	}
	out.Table(uint8(t), count)
	if count == 0 {
		return nil
	}
	it, err := s.view.txn.Get(t.String(), byID)
	if err != nil {
		return err
	}
	for raw := it.Next(); raw != nil; raw = it.Next() {
		out.Row(raw)
	}
	return nil
}

// Restore replaces the state by the snapshot in r. It builds the new state first and switches to it only once the
// end marker was read and agrees: on an error (codec.ErrIncomplete, codec.ErrNewer) nothing has changed.
// Subscriptions get ErrResync.
func (m *Machine) Restore(r io.Reader) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fresh := &Machine{}
	if fresh.db, fresh.broken = newDB(); fresh.broken != nil {
		return fresh.broken
	}
	in, h, err := codec.NewSnapshotReader(r)
	if err != nil {
		return fmt.Errorf("restore stations' state: %w", err)
	}
	txn := fresh.db.Txn(true)
	defer txn.Abort()
	insert := func(r row) error {
		fresh.enqueue(r)
		return txn.Insert(r.table().String(), r)
	}
	if err := readTables(in, h, insert); err != nil {
		return fmt.Errorf("restore stations' state: %w", err)
	}
	txn.Commit()
	slices.SortFunc(fresh.requests.items, func(a, b *Request) int { return cmp.Compare(a.Index, b.Index) })
	m.db, m.requests, m.audit = fresh.db, fresh.requests, fresh.audit
	m.publish(h.Index)
	m.feed.reset(h.Index)
	return nil
}

func (m *Machine) enqueue(r row) {
	switch r := r.(type) {
	case *Request:
		m.requests.push(r)
	case *Audit:
		m.audit.push(r)
	}
}

func readTables(in *codec.SnapshotReader, h codec.SnapshotHeader, insert func(row) error) error {
	seen := map[Table]bool{}
	for range h.Tables {
		n, rows, err := in.Table()
		if err != nil {
			return err
		}
		t := Table(n)
		if newRow(t) == nil || seen[t] {
			return fmt.Errorf("table number %d: %w", n, codec.ErrIncomplete)
		}
		seen[t] = true
		for range rows {
			r := newRow(t)
			if err := in.Row(r); err != nil {
				return fmt.Errorf("table %s: %w", t, err)
			}
			if err := insert(r); err != nil {
				return fmt.Errorf("table %s: %w", t, err)
			}
		}
	}
	return in.Close()
}
