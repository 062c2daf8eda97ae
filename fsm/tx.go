package fsm

import (
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// tx is the state as one command changes it. Reads through the embedded View see its writes.
type tx struct {
	View
	at      time.Time // the command's time, in UTC
	changes []Change
	where   map[changeKey]int // of changes, once there are many

	fault error // memdb refused a row: a defect, never the user's doing
}

type changeKey struct {
	table Table
	id    string
}

// put inserts r or replaces the row of its key. r is the table's from then on.
func (x *tx) put(r row) {
	r.stamp(x.index)
	old := x.raw(r)
	x.check(x.txn.Insert(r.table().String(), r))
	x.changed(r, old, r)
}

// del deletes the row of r's key.
func (x *tx) del(r row) {
	old := x.raw(r)
	if old == nil {
		return
	}
	x.check(x.txn.Delete(r.table().String(), r))
	x.changed(r, old, nil)
}

// raw returns the row that is now in r's place, an untyped nil if there is none.
func (x *tx) raw(r row) any {
	old, err := x.txn.First(r.table().String(), byID, r.key())
	x.check(err)
	return old
}

// undo takes back what a command did before it was refused: the transaction is shared with
// the entries before it.
func (x *tx) undo() {
	for i := len(x.changes) - 1; i >= 0; i-- {
		c := &x.changes[i]
		switch {
		case c.Old != nil:
			x.check(x.txn.Insert(c.Table.String(), c.Old))
		case c.New != nil:
			x.check(x.txn.Delete(c.Table.String(), c.New))
		}
	}
	x.changes = nil
}

func (x *tx) check(err error) {
	if err != nil && x.fault == nil {
		x.fault = err
	}
}

// changed notes a change; changes of one row in one command become one.
func (x *tx) changed(r row, old, now any) {
	k := changeKey{r.table(), r.key()}
	if i, ok := x.find(k); ok {
		x.changes[i].New = now
		return
	}
	if x.where != nil {
		x.where[k] = len(x.changes)
	}
	x.changes = append(x.changes, Change{Index: x.index, Table: k.table, ID: k.id, Old: old, New: now})
}

func (x *tx) find(k changeKey) (int, bool) {
	const few = 8
	if x.where == nil && len(x.changes) > few {
		x.where = make(map[changeKey]int, 4*few)
		for i := range x.changes {
			x.where[changeKey{x.changes[i].Table, x.changes[i].ID}] = i
		}
	}
	if x.where != nil {
		i, ok := x.where[k]
		return i, ok
	}
	for i := range x.changes {
		if x.changes[i].Table == k.table && x.changes[i].ID == k.id {
			return i, true
		}
	}
	return 0, false
}

// refuse makes a refusal.
func refuse(k san.Kind, format string, args ...any) error { return san.Errorf(k, format, args...) }
