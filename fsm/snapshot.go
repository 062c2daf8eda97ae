package fsm

import (
	"fmt"
	"io"

	"github.com/hashicorp/go-memdb"

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
	out := codec.NewSnapshotWriter(w, codec.SnapshotHeader{Index: s.view.index, Tables: uint32(len(all) + 2)})
	for _, t := range all {
		if err := s.writeTable(out, t); err != nil {
			return 0, err
		}
	}
	out.Table(uint8(TableRequests), uint64(len(s.view.answered)))
	for _, r := range s.view.answered {
		out.Row(r)
	}
	out.Table(uint8(TableAudit), uint64(len(s.view.audit)))
	for _, a := range s.view.audit {
		out.Row(a)
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
	fresh := emptyMachine()
	if fresh.broken != nil {
		return fresh.broken
	}
	in, h, err := codec.NewSnapshotReader(r)
	if err != nil {
		return fmt.Errorf("restore stations' state: %w", err)
	}
	txn := fresh.db.Txn(true)
	defer txn.Abort()
	if err := fresh.readTables(in, h, txn); err != nil {
		return fmt.Errorf("restore stations' state: %w", err)
	}
	txn.Commit()
	m.db, m.requests, m.audit = fresh.db, fresh.requests, fresh.audit
	m.publish(h.Index)
	m.feed.reset(h.Index)
	return nil
}

func (m *Machine) readTables(in *codec.SnapshotReader, h codec.SnapshotHeader, txn *memdb.Txn) error {
	seen := map[Table]bool{}
	for range h.Tables {
		n, rows, err := in.Table()
		if err != nil {
			return err
		}
		t := Table(n)
		if seen[t] {
			return fmt.Errorf("table %s comes twice: %w", t, codec.ErrIncomplete)
		}
		seen[t] = true
		for range rows {
			if err := m.readRow(in, t, txn); err != nil {
				return fmt.Errorf("table %s: %w", t, err)
			}
		}
	}
	return in.Close()
}

func (m *Machine) readRow(in *codec.SnapshotReader, t Table, txn *memdb.Txn) error {
	switch t {
	case TableRequests:
		var r Request
		if err := in.Row(&r); err != nil {
			return err
		}
		m.requests.add(&r)
		return nil
	case TableAudit:
		var a Audit
		if err := in.Row(&a); err != nil {
			return err
		}
		m.audit.push(&a)
		return nil
	}
	r := newRow(t)
	if r == nil {
		return fmt.Errorf("number %d is unknown: %w", uint8(t), codec.ErrNewer)
	}
	if err := in.Row(r); err != nil {
		return err
	}
	if c, ok := r.(*Cluster); ok && c.FormatVersion > FormatVersion {
		return fmt.Errorf("the cluster uses log format %d, this program reads up to %d: %w", c.FormatVersion, FormatVersion, codec.ErrNewer)
	}
	return txn.Insert(t.String(), r)
}
