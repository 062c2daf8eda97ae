package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// Replica is one station's member of the Raft group.
type Replica struct {
	cfg     Config
	log     *slog.Logger
	raft    *raft.Raft
	node    atomic.Pointer[raft.Raft] // raft, for what it calls itself while it is being opened
	disk    *disk
	stream  *stream
	applier *applier
	tenure  *tenure
	reads   *readQueue
	calls   *gate
	failed  *failure
	started atomic.Bool
	stopped chan struct{} // Run no longer answers reads

	handoverFailed chan struct{} // reads wait for somebody to make sure that none is under way
}

// Open opens the folder, restores the newest snapshot and joins the group that the log tells of, or waits
// for Bootstrap or for a leader that adds this station. The caller then calls Run, which also closes the
// replica; or Close if it never runs it. Errors: san.KindConflict when another process has the folder,
// san.KindInvalid for a bad configuration.
func Open(cfg Config) (*Replica, error) {
	if err := cfg.fill(); err != nil {
		if cfg.Listener != nil {
			cfg.Listener.Close()
		}
		return nil, err
	}
	r := &Replica{
		cfg: cfg, log: cfg.Logger, failed: newFailure(), calls: newGate(), tenure: newTenure(),
		reads: newReadQueue(), stopped: make(chan struct{}), handoverFailed: make(chan struct{}, 1),
	}
	var err error
	if r.disk, err = openDisk(&r.cfg, r.failed); err != nil {
		cfg.Listener.Close()
		return nil, err
	}
	r.applier = &applier{machine: cfg.Machine, failed: r.failed}
	r.stream = newStream(&r.cfg, r.serverAt)
	if err := r.startRaft(); err != nil {
		return nil, errors.Join(err, r.stream.Close(), r.disk.close())
	}
	return r, nil
}

// snapshotBytesPerRPC sets how long sending a snapshot may take: Timing.RPC for each so many bytes.
const snapshotBytesPerRPC = 16 << 10

func (r *Replica) startRaft() error {
	rc := r.cfg.raftConfig()
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: r.stream, MaxPool: 3, Timeout: r.cfg.Timing.RPC, Logger: rc.Logger, MsgpackUseNewTimeFormat: true,
	})
	transport.TimeoutScale = snapshotBytesPerRPC
	node, err := r.newRaft(rc, transport)
	if err != nil {
		return errors.Join(san.Errorf(san.KindInternal, "start station %s from %s: %w", r.cfg.ID, r.cfg.Dir, err), transport.Close())
	}
	r.raft = node
	r.node.Store(node)
	r.applier.running.Store(true)
	r.disk.stable.running.Store(true)
	return nil
}

// newRaft makes an error of the panics with which raft meets a log that it cannot read.
func (r *Replica) newRaft(rc *raft.Config, transport raft.Transport) (node *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("raft: %v", p)
		}
	}()
	return raft.NewRaft(rc, r.applier, r.disk.log, r.disk.stable, r.disk.snaps, transport)
}

// Run serves until ctx ends or something makes it impossible to go on. When ctx ends it hands the
// leadership over first, answers what is under way, and returns nil with everything closed. Otherwise it
// returns the reason, and the process has to end soon: see the package's comment.
func (r *Replica) Run(ctx context.Context) error {
	if !r.started.CompareAndSwap(false, true) {
		return san.Errorf(san.KindInternal, "replica of station %s is run twice or was closed", r.cfg.ID)
	}
	// The children outlive ctx, until the leadership is handed over.
	live, end := context.WithCancel(context.Background())
	var children sync.WaitGroup
	children.Go(func() { r.followLeadership(live) })
	children.Go(func() { r.confirmReads(live) })
	children.Go(func() { r.watchDisk(live) })
	children.Go(func() { r.resumeReads(live) })
	select {
	case <-ctx.Done():
		r.leave()
	case <-r.failed.done:
		r.log.Error("station cannot go on", "error", r.failed.get())
		r.stream.cut()
		r.tenure.end()
		if !r.stalled() {
			r.waitIdle(r.calls.close(), r.patience(), nil)
		}
	}
	r.tenure.end()
	end()
	children.Wait()
	close(r.stopped)
	return r.shutdown()
}

// Close closes a replica that was opened and never run.
func (r *Replica) Close() error {
	if !r.started.CompareAndSwap(false, true) {
		return nil
	}
	r.calls.close()
	close(r.stopped)
	return r.shutdown()
}

// leave refuses new work, ends what is under way, and hands the leadership over.
func (r *Replica) leave() {
	idle := r.calls.close()
	patience := r.patience()
	r.waitIdle(idle, patience, r.failed.done)
	r.tenure.update(0, func(g *reign) { g.readable = false })
	if r.raft.State() == raft.Leader && len(r.voters()) > 1 {
		if err := r.waitFuture(r.raft.LeadershipTransfer(), patience); err != nil {
			r.log.Warn("leadership was not handed over; the others will elect a leader", "error", err)
		}
	}
	r.stream.cut()
	// Without its peers a leader steps down within its lease, which answers all that is left.
	r.waitIdle(idle, 2*patience, r.failed.done)
}

// patience is how long a leader without peers may take to step down, amply.
func (r *Replica) patience() time.Duration { return r.cfg.Timing.Heartbeat + r.cfg.Timing.Lease }

// stalled reports whether the disk has hung for long enough to be cut off for it.
func (r *Replica) stalled() bool { return r.disk.writes.oldest() >= r.cfg.StallLimit/4 }

func (r *Replica) waitIdle(idle <-chan struct{}, limit time.Duration, stop <-chan struct{}) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-idle:
	case <-stop:
	case <-t.C:
	}
}

func (r *Replica) waitFuture(f raft.Future, limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-r.failed.done:
		return r.failed.get()
	case <-t.C:
		return fmt.Errorf("no answer within %v", limit)
	}
}

// shutdown stops raft and closes the disk. A disk that hangs holds raft's goroutines, and closing the log
// would wait for it as well: both are then left to the end of the process.
func (r *Replica) shutdown() error {
	stopped := r.raft.Shutdown()
	err := r.stream.Close()
	done := make(chan error, 1)
	go func() { done <- stopped.Error() }()
	t := time.NewTimer(r.cfg.StallLimit)
	defer t.Stop()
	if r.stalled() {
		t.Reset(0)
	}
	select {
	case stopErr := <-done:
		err = errors.Join(err, stopErr, r.disk.close())
	case <-t.C:
		err = errors.Join(err, san.Errorf(san.KindInternal, "station %s did not stop within %v: its disk hangs", r.cfg.ID, r.cfg.StallLimit))
	}
	if failed := r.failed.get(); failed != nil {
		return failed
	}
	return err
}

// watchDisk cuts this station off while a write hangs, and gives up when it hangs for too long.
func (r *Replica) watchDisk(ctx context.Context) {
	cutAfter := r.cfg.StallLimit / 4
	ticker := time.NewTicker(r.cfg.StallLimit / 32)
	defer ticker.Stop()
	cut := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch age := r.disk.writes.oldest(); {
		case age >= r.cfg.StallLimit:
			r.failed.set(san.Errorf(san.KindInternal, "a write to %s has not ended for %v; look at the disk, then start the station again", r.cfg.Dir, age.Round(time.Second)))
		case age >= cutAfter && !cut:
			cut = true
			r.stream.cut()
			r.log.Warn("disk hangs: connections to the other stations are cut so that they can elect a leader", "folder", r.cfg.Dir, "for", age)
		case age < cutAfter && cut:
			cut = false
			r.stream.mend()
			r.log.Info("disk answers again: connections to the other stations are allowed", "folder", r.cfg.Dir)
		}
	}
}

// HasState reports whether the folder holds a term, a log or a snapshot: then this station belongs to
// a group, and must not found one.
func (r *Replica) HasState() (bool, error) {
	has, err := raft.HasExistingState(r.disk.log, r.disk.stable, r.disk.snaps)
	if err != nil {
		return false, fmt.Errorf("look for an earlier state in %s: %w", r.cfg.Dir, err)
	}
	return has, nil
}

// View returns this station's state, which may lag behind the leader's.
func (r *Replica) View() fsm.View { return r.cfg.Machine.View() }

// WaitApplied waits until the entry at index, which was committed, is in this station's View.
func (r *Replica) WaitApplied(ctx context.Context, index san.Index) error {
	err := r.applier.reached.wait(ctx, uint64(index), r.stopped)
	if err != nil {
		return san.Errorf(san.KindUnavailable, "station %s has not reached index %d: %w", r.cfg.ID, index, err)
	}
	return nil
}

// TakeSnapshot snapshots the state now and shortens the log. It does nothing when there is nothing new.
func (r *Replica) TakeSnapshot(ctx context.Context) error {
	if !r.calls.enter() {
		return san.Errorf(san.KindUnavailable, "%w", errStopping)
	}
	err := r.await(ctx, r.raft.Snapshot())
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return san.Wrap("take a snapshot", err)
}

// WriteSnapshot writes the present state of this station to w, in the form that fsm.Machine.Restore reads.
func (r *Replica) WriteSnapshot(w io.Writer) (san.Index, error) {
	s := r.cfg.Machine.Snapshot()
	_, err := s.WriteTo(w)
	return s.Index(), san.Wrap("write a snapshot", err)
}
