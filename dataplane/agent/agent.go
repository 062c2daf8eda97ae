package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// workers is how many volumes are worked on at a time. Those whose work waits for a host's commands to end
	// are not among them: what one host holds up is its own volume. There is at most one such wait a volume.
	workers = 8
	// tick is how often what waits for its time is looked at.
	tick = 200 * time.Millisecond
	// closeWait bounds one wait for commands in flight.
	closeWait = 20 * time.Second
	// floorTicks is how many ticks a floor may be newer than the one on disk.
	floorTicks = 5

	backoffMin = 500 * time.Millisecond
	backoffMax = 30 * time.Second
)

// Volumes makes and deletes replicas.
type Volumes interface {
	// Create makes a replica or finds it made.
	Create(ctx context.Context, spec volume.Spec) error
	// Grow extends a replica that is there while it is in use, and reports whether it did so:
	// what has spec's size already stays as it is. After nil that size is stable.
	Grow(ctx context.Context, spec volume.Spec) (bool, error)
	// Delete deletes a replica; one that is not there is no error.
	Delete(ctx context.Context, id san.VolumeID) error
}

// Gate lets hosts in and keeps them out. What it does is in memory; the agent has it do
// everything again after a restart.
type Gate interface {
	// Show lets a host log in by g, in place of what was shown for it before. It fails if the
	// replica is not there.
	Show(g Grant) error
	// Hide refuses the host's logins from now on.
	Hide(v san.VolumeID, h san.HostID)
	// Close closes the sessions of a host with a volume that covers does not cover (all, if
	// it is nil; of every host, if h is ""), and waits for their commands. After nil no command
	// of theirs takes effect any more.
	Close(ctx context.Context, v san.VolumeID, h san.HostID, covers *Grant) error
	// Grown tells those who have sessions with a volume that it has become larger.
	Grown(v san.VolumeID)
	// Forget drops what is remembered of a volume whose sessions are closed.
	Forget(v san.VolumeID)
}

// Config is what an Agent works on.
type Config struct {
	// Records is a directory for the access records alone. Who opened it closes it.
	Records disk.Dir
	Volumes Volumes
	Gate    Gate
	// Report takes a report on its way to the stations; it must not block.
	Report func(*pb.Report)
	Log    *slog.Logger
}

// Agent is the unit's agent. It is safe for concurrent use.
type Agent struct {
	cfg   Config
	store *store

	mu      sync.Mutex
	work    *sync.Cond // queue, active or stopped changed
	book    book
	entries map[san.VolumeID]*entry
	queue   []san.VolumeID
	active  int // volumes that are worked on, but for those whose work waits
	stopped bool
}

// entry is the state of the work on one volume.
type entry struct {
	kept     Record
	shown    map[san.HostID]*Grant
	queued   bool
	running  bool
	again    bool // asked for while it was running
	failures int
	retryAt  time.Time // zero: no retry is due
}

// Open reads the access records and lets in whom they let in. It needs no station.
func Open(cfg Config) (*Agent, error) {
	st, floor, records, err := openStore(cfg.Records, cfg.Log)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, store: st,
		book: book{floor: floor, kept: floor, volumes: map[san.VolumeID]told{}}, entries: map[san.VolumeID]*entry{},
	}
	a.work = sync.NewCond(&a.mu)
	for _, r := range records {
		a.restore(r)
	}
	return a, nil
}

// restore takes up one record as the last process left it.
func (a *Agent) restore(r Record) {
	t := told{Record: r}
	if r.Replica != nil && r.Replica.Deleted {
		t.Purge = r.Replica // it may have been cut short
	}
	a.book.volumes[r.Volume] = t
	e := &entry{kept: r, shown: map[san.HostID]*Grant{}}
	a.entries[r.Volume] = e
	for h := range r.Hosts {
		g := r.grant(h)
		if g == nil {
			continue
		}
		if err := a.cfg.Gate.Show(*g); err != nil {
			a.cfg.Log.Error("a volume can't be served to its host", "volume", r.Volume, "host", h, "err", err)
			continue
		}
		e.shown[h] = g
	}
	if t.Purge != nil {
		a.enqueue(r.Volume)
	}
}

// Apply takes note of a desired state and returns; Run carries it out. It fails if the
// station that sent it is behind what the unit has seen.
func (a *Agent) Apply(m *pb.DesiredState) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	v, err := a.book.apply(m)
	if err != nil {
		return err
	}
	for _, id := range v.changed {
		a.enqueue(id)
	}
	if v.stale > 0 {
		a.cfg.Log.Warn("orders with stamps lower than those seen were refused", "count", v.stale, "state", a.book.floor)
	}
	for _, r := range v.refused {
		a.cfg.Log.Error("an order can't be carried out", "volume", r.volume, "host", r.host, "err", r.err)
		a.fail(r.volume, r.host, r.generation, r.err)
	}
	return nil
}

// fail reports that something can't be done.
func (a *Agent) fail(v san.VolumeID, h san.HostID, g san.Generation, err error) {
	kind := pb.ReportKind_REPORT_KIND_ASSIGNMENT_ERROR
	if h == "" {
		kind = pb.ReportKind_REPORT_KIND_REPLICA_FAILED
	}
	a.cfg.Report(&pb.Report{Kind: kind, VolumeId: string(v), HostId: string(h), Generation: uint64(g), Error: err.Error()})
}

// enqueue asks for work on a volume; a.mu is held, or a is not shared yet.
func (a *Agent) enqueue(id san.VolumeID) {
	e := a.entries[id]
	if e == nil {
		e = &entry{kept: Record{Volume: id}, shown: map[san.HostID]*Grant{}}
		a.entries[id] = e
	}
	e.retryAt = time.Time{}
	switch {
	case e.running:
		e.again = true
	case !e.queued:
		e.queued = true
		a.queue = append(a.queue, id)
		a.work.Broadcast()
	}
}

// Run does the work until ctx ends and what was begun has ended.
func (a *Agent) Run(ctx context.Context) error {
	var g errgroup.Group
	stop := context.AfterFunc(ctx, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.stopped = true
		a.work.Broadcast()
	})
	defer stop()
	g.Go(func() error { a.keepHouse(ctx); return nil })
	for id, ok := a.next(); ok; id, ok = a.next() {
		g.Go(func() error {
			defer a.pause()
			a.serve(ctx, id)
			return nil
		})
	}
	return g.Wait()
}

// next waits for a volume to work on, and for a worker to be free; false when the agent stops.
func (a *Agent) next() (san.VolumeID, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for (len(a.queue) == 0 || a.active >= workers) && !a.stopped {
		a.work.Wait()
	}
	if a.stopped {
		return "", false
	}
	id := a.queue[0]
	a.queue = a.queue[1:]
	e := a.entries[id]
	e.queued, e.running = false, true
	a.active++
	return id, true
}

// pause gives the caller's place among the workers up, resume waits for one.
func (a *Agent) pause() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active--
	a.work.Broadcast()
}

func (a *Agent) resume() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.active >= workers && !a.stopped {
		a.work.Wait()
	}
	a.active++
}

// keepHouse sees to retries and to the floor.
func (a *Agent) keepHouse(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for n := 1; ; n++ {
		select {
		case now := <-t.C:
			a.retry(now)
			if n%floorTicks == 0 {
				a.keepFloor()
			}
		case <-ctx.Done():
			a.keepFloor()
			return
		}
	}
}

func (a *Agent) retry(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, e := range a.entries {
		if !e.retryAt.IsZero() && !now.Before(e.retryAt) {
			a.enqueue(id)
		}
	}
}

// keepFloor makes the floor stable and then has what it makes superfluous removed.
func (a *Agent) keepFloor() {
	a.mu.Lock()
	floor, saved := a.book.floor, a.book.kept
	a.mu.Unlock()
	if floor == saved {
		return
	}
	if err := a.store.saveFloor(floor); err != nil {
		a.cfg.Log.Error("the newest state seen can't be kept; it is tried again", "err", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.book.kept = floor
	for id, e := range a.entries {
		if a.over(id) && !e.queued && !e.running {
			a.enqueue(id)
		}
	}
}
