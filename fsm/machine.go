package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"github.com/sandbar-san/sandbar/san"
)

const (
	// maxRequests is how many answered requests are remembered.
	maxRequests = 65536
	// maxAudit is how many audit entries are kept; whoever wants more exports them.
	maxAudit = 10000
)

// Machine is the state machine. One goroutine applies; any number read and watch.
type Machine struct {
	mu       sync.Mutex // held by whoever writes: Apply, Restore
	db       *memdb.MemDB
	broken   error // the schema is wrong: a defect that tests exclude
	requests *memory
	audit    window[*Audit]
	view     atomic.Pointer[View]
	feed     *feed
}

// New returns an empty machine.
func New() *Machine {
	m := emptyMachine()
	m.feed = newFeed(feedEntries)
	m.publish(0)
	return m
}

// emptyMachine has tables, and nobody who watches them.
func emptyMachine() *Machine {
	m := &Machine{requests: newMemory(maxRequests), audit: window[*Audit]{limit: maxAudit}}
	m.db, m.broken = newDB()
	return m
}

// newDB makes empty tables. The handle is a snapshot because memdb then skips the bookkeeping for its own
// watch channels, which we don't use: see feed.
func newDB() (*memdb.MemDB, error) {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		return nil, err
	}
	return db.Snapshot(), nil
}

func (m *Machine) publish(index san.Index) {
	v := &View{index: index, requests: m.requests, answered: m.requests.order.all(), audit: m.audit.all()}
	if m.db != nil {
		v.txn = m.db.Txn(false)
	}
	m.view.Store(v)
}

// Result is what a command came to.
type Result struct {
	// Index is the entry that the command took effect at; of a replayed one, the first's.
	Index san.Index
	// Object is the id of what was made or changed.
	Object string
	// Err is a refusal, a *san.Error, the same on every replica; nothing was changed.
	Err error
	// Replayed says that an equal request was answered before and this one changed nothing.
	Replayed bool
}

// Entry is one entry of the log.
type Entry struct {
	Index san.Index
	Data  []byte
}

// Apply carries out the entry at index. Its error means that this program can't tell what the entry does
// (codec.ErrNewer, codec.ErrDamaged, an index out of order): nothing is changed, the applied index
// has not moved, and the replica must stop. A refusal is not an error but Result.Err.
func (m *Machine) Apply(index san.Index, entry []byte) (Result, error) {
	results, err := m.ApplyBatch([]Entry{{index, entry}})
	if err != nil {
		return Result{}, err
	}
	return results[0], nil
}

// ApplyBatch carries out entries in order, as Apply does each; readers see them all at once. It
// stops at the first that it can't understand: the results are those of the entries before it, which count.
func (m *Machine) ApplyBatch(entries []Entry) ([]Result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return nil, m.broken
	}
	b := &batch{m: m, index: m.AppliedIndex()}
	results := make([]Result, 0, len(entries))
	var err error
	for _, e := range entries {
		var r Result
		if r, err = b.apply(e); err != nil {
			err = fmt.Errorf("log entry %d: %w", e.Index, err)
			break
		}
		results = append(results, r)
	}
	if m.broken != nil {
		b.abort()
		return nil, err
	}
	b.publish()
	return results, err
}

// batch is entries that are being carried out on one transaction of the tables.
type batch struct {
	m       *Machine
	index   san.Index  // of the last entry carried out
	txn     *memdb.Txn // nil until an entry needs it
	changed [][]Change // by entry
}

func (b *batch) apply(e Entry) (Result, error) {
	if e.Index <= b.index {
		return Result{}, fmt.Errorf("entry %d was applied before", b.index)
	}
	cmd, err := Decode(e.Data)
	if errors.Is(err, ErrIgnorable) {
		b.index = e.Index
		return Result{Index: e.Index}, nil
	}
	if err != nil {
		return Result{}, err
	}
	r, err := b.run(e.Index, cmd)
	if err != nil {
		// A defect of memdb's or ours left the transaction in an unknown state: it is dropped,
		// and with it what it held of earlier entries. This replica is at its end.
		b.m.broken = err
		return Result{}, err
	}
	b.index = e.Index
	return r, nil
}

func (b *batch) run(index san.Index, cmd Command) (Result, error) {
	h := cmd.Header()
	if err := h.check(); err != nil {
		return Result{Index: index, Err: err}, nil
	}
	if h.RequestID != "" {
		if r := b.m.requests.find(h.Principal, h.RequestID, index); r != nil {
			return replay(index, r, h), nil
		}
	}
	if b.txn == nil {
		b.txn = b.m.db.Txn(true)
	}
	x := &tx{View: View{txn: b.txn, index: index}, at: h.At.UTC()}
	object, refusal := x.run(cmd)
	if refusal != nil {
		x.undo()
	}
	if x.fault != nil {
		return Result{}, x.fault
	}
	if refusal != nil {
		return Result{Index: index, Object: object, Err: refusal}, nil
	}
	b.m.note(index, cmd, object)
	b.changed = append(b.changed, x.changes)
	return Result{Index: index, Object: object}, nil
}

// abort drops the transaction, which holds memdb's lock for writers.
func (b *batch) abort() {
	if b.txn != nil {
		b.txn.Abort()
	}
}

// publish makes the batch visible: first as state, then as changes, so that whoever hears of a
// change finds it in the next view.
func (b *batch) publish() {
	if len(b.changed) == 0 {
		if b.txn != nil {
			b.txn.Abort() // all were refused; without this the tables stay locked
		}
		if b.index > b.m.AppliedIndex() {
			b.m.advance(b.index)
		}
		return
	}
	b.txn.Commit()
	b.m.publish(b.index)
	for _, changes := range b.changed {
		if len(changes) > 0 {
			b.m.feed.add(changes[0].Index, changes)
		}
	}
}

// advance moves the index of a state that stays as it is.
func (m *Machine) advance(index san.Index) {
	v := *m.view.Load()
	v.index = index
	m.view.Store(&v)
}

func (x *tx) run(cmd Command) (string, error) {
	if err := x.Allows(cmd); err != nil {
		return "", err
	}
	return cmd.apply(x)
}

// note remembers who did what to object.
func (m *Machine) note(index san.Index, cmd Command, object string) {
	h := cmd.Header()
	if h.RequestID != "" {
		m.requests.add(&Request{Index: index, Principal: h.Principal, ID: h.RequestID, Fingerprint: h.Fingerprint, Object: object})
	}
	if action := cmd.action(); action != "" {
		m.audit.push(&Audit{Index: index, At: h.At.UTC(), Principal: h.Principal, Action: action, Object: object})
	}
}

func replay(index san.Index, r *Request, h *Header) Result {
	if !bytes.Equal(r.Fingerprint, h.Fingerprint) {
		return Result{Index: index, Object: r.Object, Err: san.Errorf(san.KindConflict,
			"request id %q was used before with other content; repeat the first request unchanged or choose a new id", h.RequestID)}
	}
	return Result{Index: r.Index, Object: r.Object, Replayed: true}
}

// View returns the present state.
func (m *Machine) View() View { return *m.view.Load() }

// AppliedIndex is the last entry that Apply or Restore took in.
func (m *Machine) AppliedIndex() san.Index { return m.view.Load().index }

// Subscribe follows the changes after index from; 0 means from now on. ErrResync: they are no longer kept.
func (m *Machine) Subscribe(from san.Index) (*Subscription, error) {
	if from == 0 {
		_, s, err := m.Watch()
		return s, err
	}
	return m.feed.subscribe(from)
}

// Watch returns the present state and a subscription to every change after it.
func (m *Machine) Watch() (View, *Subscription, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.View()
	s, err := m.feed.subscribe(v.index)
	return v, s, err
}
