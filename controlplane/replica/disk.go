package replica

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/sandbar-san/sandbar/controlplane/replica/tail"
	"github.com/sandbar-san/sandbar/san"
)

const (
	logFile = "raft.db"
	// mmapBytes is the address space reserved for the log, so that it seldom has to be mapped anew, which
	// stops writers.
	mmapBytes = 256 << 20
	// deletionPage bounds one transaction of log compaction, between which appends get their turn.
	deletionPage = 2048
)

// tailKey is where the store says that the log's newest part is kept outside it.
const tailKey = "LogTail"

// disk is the station's log, stable store and snapshots.
type disk struct {
	bolt   *raftboltdb.BoltStore
	tail   *tail.Log
	log    raft.LogStore
	stable *guardedStable
	snaps  raft.SnapshotStore
	writes *writeClock
}

func openDisk(cfg *Config, failed *failure) (*disk, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the log: %w", err)
	}
	path := filepath.Join(cfg.Dir, logFile)
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path:   path,
		NoSync: cfg.noSync,
		BoltOptions: &bbolt.Options{
			Timeout: lockWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, InitialMmapSize: mmapBytes,
		},
		MsgpackUseNewTimeFormat: true,
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, san.Errorf(san.KindConflict, "folder %s is in use by another process; stop that one, or give station %s a folder of its own", cfg.Dir, cfg.ID)
	case err != nil:
		return nil, san.Errorf(san.KindInternal, "open the log %s: %w; if the file is damaged, remove this station's folder and let it join again", path, err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, snapshotsRetained, newRaftLogger(cfg.Logger))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the snapshots in %s: %w", cfg.Dir, err), bolt.Close())
	}
	d := &disk{bolt: bolt, snaps: snaps, writes: &writeClock{since: make(map[uint64]time.Time)}}
	if err := d.openTail(cfg, failed); err != nil {
		return nil, errors.Join(err, d.close())
	}
	var log raft.LogStore = d.tail
	if cfg.wrapLog != nil {
		log = cfg.wrapLog(log)
	}
	var stable raft.StableStore = bolt
	if cfg.wrapStable != nil {
		stable = cfg.wrapStable(stable)
	}
	d.stable = &guardedStable{StableStore: stable, writes: d.writes, failed: failed}
	d.log, err = raft.NewLogCache(logCacheEntries, &guardedLog{LogStore: log, writes: d.writes, failed: failed})
	if err == nil {
		err = d.checkContinuous(cfg.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// openTail opens the log's newest part. The store knows whether there ever was one: without it the store
// alone could be taken for the whole log.
func (d *disk) openTail(cfg *Config, failed *failure) error {
	has, err := d.bolt.GetUint64([]byte(tailKey))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return fmt.Errorf("read the log in %s: %w", cfg.Dir, err)
	}
	store := &guardedLog{LogStore: d.bolt, writes: d.writes, failed: failed}
	if d.tail, err = tail.Open(cfg.Dir, store, has == 0, cfg.noSync); err != nil {
		return san.Errorf(san.KindInternal, "open the newest part of the log in %s: %w; if files are lost or damaged, remove this station's folder and let it join again", cfg.Dir, err)
	}
	if has == 0 {
		return d.bolt.SetUint64([]byte(tailKey), 1)
	}
	return nil
}

func (d *disk) close() error {
	if d.tail == nil {
		return d.bolt.Close()
	}
	return errors.Join(d.tail.Close(), d.bolt.Close())
}

// checkContinuous refuses a folder whose log does not begin where a snapshot that is there ends: raft
// would panic on the gap, or worse, take the older snapshot for the present.
func (d *disk) checkContinuous(dir string) error {
	first, err := d.log.FirstIndex()
	if err != nil {
		return fmt.Errorf("read the log's first index: %w", err)
	}
	snaps, err := d.snaps.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	var covered uint64
	if len(snaps) > 0 {
		covered = snaps[0].Index
	}
	if first > covered+1 {
		return san.Errorf(san.KindInternal, "the log in %s begins at %d, but its newest readable snapshot ends at %d: a snapshot is lost or damaged; remove this station's folder and let it join again", dir, first, covered)
	}
	d.snaps = &joinedSnapshots{SnapshotStore: d.snaps, first: first}
	return nil
}

// joinedSnapshots hides, at start, the snapshots that the log does not continue.
type joinedSnapshots struct {
	raft.SnapshotStore
	first uint64
}

// Open opens snapshot id unless the log begins after its end.
func (s *joinedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, source, err := s.SnapshotStore.Open(id)
	if err == nil && s.first > meta.Index+1 {
		return nil, nil, errors.Join(fmt.Errorf("snapshot %s ends at %d, the log begins at %d", id, meta.Index, s.first), source.Close())
	}
	return meta, source, err
}

// writeClock knows how long the disk has been at its oldest write.
type writeClock struct {
	mu    sync.Mutex
	next  uint64
	since map[uint64]time.Time
}

func (w *writeClock) begin() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	w.since[w.next] = time.Now()
	return w.next
}

func (w *writeClock) end(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.since, id)
}

func (w *writeClock) oldest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var age time.Duration
	for _, t := range w.since {
		age = max(age, time.Since(t))
	}
	return age
}

// guardedLog times every write and makes a failed one final.
type guardedLog struct {
	raft.LogStore
	writes *writeClock
	failed *failure
}

// StoreLog appends one entry.
func (g *guardedLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries.
func (g *guardedLog) StoreLogs(logs []*raft.Log) error {
	id := g.writes.begin()
	err := g.LogStore.StoreLogs(logs)
	g.writes.end(id)
	if err != nil {
		g.failed.set(diskError("append to the log", err))
	}
	return err
}

// DeleteRange deletes entries lo to hi. The log's beginning goes page by page, since a crash in between
// leaves a shorter log; an end that conflicts with the leader's goes at once, since a hole would not.
func (g *guardedLog) DeleteRange(lo, hi uint64) error {
	first, err := g.FirstIndex()
	if err != nil {
		return err
	}
	for ; lo+deletionPage <= hi && lo <= first; lo += deletionPage {
		if err := g.deleteRange(lo, lo+deletionPage-1); err != nil {
			return err
		}
		first = lo + deletionPage
	}
	return g.deleteRange(lo, hi)
}

func (g *guardedLog) deleteRange(lo, hi uint64) error {
	id := g.writes.begin()
	err := g.LogStore.DeleteRange(lo, hi)
	g.writes.end(id)
	if err != nil {
		g.failed.set(diskError("shorten the log", err))
	}
	return err
}

// guardedStable does the same for term and vote.
type guardedStable struct {
	raft.StableStore
	writes  *writeClock
	failed  *failure
	running atomic.Bool
}

// Set stores val under key.
func (g *guardedStable) Set(key, val []byte) error {
	id := g.writes.begin()
	err := g.StableStore.Set(key, val)
	g.writes.end(id)
	if err != nil {
		g.failed.set(diskError("save the vote", err))
	}
	return err
}

// SetUint64 stores val under key. raft panics when it cannot save its term; once raft runs, its goroutine that
// asked ends here instead, running its deferred calls, and the replica stops in an orderly way.
func (g *guardedStable) SetUint64(key []byte, val uint64) error {
	id := g.writes.begin()
	err := g.StableStore.SetUint64(key, val)
	g.writes.end(id)
	if err != nil {
		g.failed.set(diskError("save the term or vote", err))
		if g.running.Load() && bytes.Equal(key, []byte("CurrentTerm")) {
			runtime.Goexit()
		}
	}
	return err
}

func diskError(op string, err error) error {
	return san.Errorf(san.KindInternal, "%s failed: %w; nobody knows now what is on the disk, so the station stops: look at the disk, then start it again", op, err)
}
