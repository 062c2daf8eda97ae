package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

const (
	ready    = pb.ReportKind_REPORT_KIND_REPLICA_READY
	deleted  = pb.ReportKind_REPORT_KIND_REPLICA_DELETED
	failed   = pb.ReportKind_REPORT_KIND_REPLICA_FAILED
	granted  = pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY
	released = pb.ReportKind_REPORT_KIND_RELEASED
	refused  = pb.ReportKind_REPORT_KIND_ASSIGNMENT_ERROR
)

var errBroken = errors.New("broken on purpose")

func vol(n int) san.VolumeID {
	return san.VolumeID(fmt.Sprintf("%08x-0000-4000-8000-000000000000", n))
}

type nexus struct {
	volume san.VolumeID
	host   san.HostID
}

// world is an agent with a gate and replicas in memory, and records on a disk that can lose power.
type world struct {
	t     *testing.T
	power *disktest.Power
	dir   *disktest.Dir
	agent *Agent
	stop  func()

	mu       sync.Mutex
	replicas map[san.VolumeID]bool // survive a restart, as those of package volume do
	sizes    map[san.VolumeID]int64
	grown    []san.VolumeID // whose sessions were told so
	shown    map[nexus]Grant
	sessions map[nexus]san.Generation // as if a host logged in wherever it may, at once
	reports  []*pb.Report
	creates  int
	deletes  int
	fail     map[string]error      // by the name of the method
	hang     map[san.VolumeID]bool // whose sessions' commands don't end
	hanging  int                   // calls of Close that wait for such a command
}

func newWorld(t *testing.T) *world {
	p := disktest.NewPower()
	return &world{t: t, power: p, dir: p.NewDir("access"), replicas: map[san.VolumeID]bool{}, sizes: map[san.VolumeID]int64{},
		fail: map[string]error{}, hang: map[san.VolumeID]bool{}}
}

// start opens and runs the agent; call it within a bubble.
func (w *world) start() error {
	w.mu.Lock()
	w.shown, w.sessions, w.reports = map[nexus]Grant{}, map[nexus]san.Generation{}, nil
	w.mu.Unlock()
	dir, err := w.dir.Open()
	if err != nil {
		return err
	}
	w.agent, err = Open(Config{Records: dir, Volumes: w, Gate: w, Report: w.report, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.agent.Run(ctx) }()
	w.stop = func() { cancel(); <-done }
	synctest.Wait()
	return nil
}

func (w *world) mustStart() {
	w.t.Helper()
	if err := w.start(); err != nil {
		w.t.Fatal(err)
	}
}

// restart is a kill of the process, and a start.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.power.Kill()
	w.mustStart()
}

// tell applies a state and waits until nothing happens any more.
func (w *world) tell(m *pb.DesiredState) {
	w.t.Helper()
	w.mu.Lock()
	w.reports = nil
	w.mu.Unlock()
	if err := w.agent.Apply(m); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) Create(_ context.Context, s volume.Spec) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fail["Create"]; err != nil {
		return err
	}
	w.creates++
	w.replicas[s.ID], w.sizes[s.ID] = true, s.SizeBytes
	return nil
}

func (w *world) Grow(_ context.Context, s volume.Spec) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fail["Grow"]; err != nil {
		return false, err
	}
	if !w.replicas[s.ID] {
		return false, san.Errorf(san.KindNotFound, "volume %s is not here", s.ID)
	}
	larger := w.sizes[s.ID] < s.SizeBytes
	w.sizes[s.ID] = s.SizeBytes
	return larger, nil
}

func (w *world) Grown(v san.VolumeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.grown = append(w.grown, v)
}

func (w *world) Delete(_ context.Context, id san.VolumeID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.shown {
		if n.volume == id {
			w.t.Errorf("volume %s is deleted while host %s is let in", id, n.host)
		}
	}
	for n := range w.sessions {
		if n.volume == id {
			w.t.Errorf("volume %s is deleted while host %s has a session", id, n.host)
		}
	}
	if err := w.fail["Delete"]; err != nil {
		return err
	}
	if w.replicas[id] {
		w.deletes++
	}
	delete(w.replicas, id)
	return nil
}

func (w *world) Show(g Grant) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fail["Show"]; err != nil {
		return err
	}
	if !w.replicas[g.Volume] {
		return san.Errorf(san.KindNotFound, "volume %s is not here", g.Volume)
	}
	n := nexus{g.Volume, g.Host}
	w.shown[n] = g
	if _, open := w.sessions[n]; !open {
		w.sessions[n] = g.Generation
	}
	return nil
}

func (w *world) Hide(v san.VolumeID, h san.HostID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.shown, nexus{v, h})
}

func (w *world) Close(ctx context.Context, v san.VolumeID, h san.HostID, covers *Grant) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hang[v] {
		w.hanging++
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		w.hanging--
		return ctx.Err()
	}
	if err := w.fail["Close"]; err != nil {
		return err
	}
	for n, generation := range w.sessions {
		if n.volume == v && (h == "" || n.host == h) && (covers == nil || generation != covers.Generation) {
			delete(w.sessions, n)
			if g, ok := w.shown[n]; ok {
				w.sessions[n] = g.Generation // it logs in again at once
			}
		}
	}
	return nil
}

func (w *world) Forget(v san.VolumeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.shown {
		if n.volume == v {
			delete(w.shown, n)
		}
	}
}

// report holds each report against what is so at that very moment.
func (w *world) report(r *pb.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := nexus{san.VolumeID(r.VolumeId), san.HostID(r.HostId)}
	g, in := w.shown[n]
	generation, open := w.sessions[n]
	switch r.Kind {
	case released:
		if in || open {
			w.t.Errorf("%v is reported with the host let in: %v, a session: %v", r, in, open)
		}
	case granted:
		if !in || uint64(g.Generation) != r.Generation || open && uint64(generation) != r.Generation {
			w.t.Errorf("%v is reported with grant %v and a session of generation %d", r, g, generation)
		}
	case ready:
		if !w.replicas[n.volume] || r.SizeBytes != w.sizes[n.volume] {
			w.t.Errorf("%v is reported and there is: %v, of %d bytes", r, w.replicas[n.volume], w.sizes[n.volume])
		}
	case deleted:
		if w.replicas[n.volume] {
			w.t.Errorf("%v is reported and it is there", r)
		}
	}
	w.reports = append(w.reports, r)
}

// has reports whether a report of that kind came since the last tell.
func (w *world) has(kind pb.ReportKind, v san.VolumeID, h san.HostID, generation uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.reports {
		if r.Kind == kind && r.VolumeId == string(v) && r.HostId == string(h) && r.Generation == generation {
			return true
		}
	}
	return false
}

func (w *world) want(kind pb.ReportKind, v san.VolumeID, h san.HostID, generation uint64) {
	w.t.Helper()
	if !w.has(kind, v, h, generation) {
		w.t.Errorf("no %v of volume %.8s, host %q, generation %d; reports: %v", kind, v, h, generation, w.reports)
	}
}

func (w *world) in(v san.VolumeID, h san.HostID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, in := w.shown[nexus{v, h}]
	return in
}

func (w *world) wantIn(v san.VolumeID, h san.HostID, in bool) {
	w.t.Helper()
	if w.in(v, h) != in {
		w.t.Errorf("host %s is let in to volume %.8s: %v, want %v", h, v, !in, in)
	}
}

func (w *world) spoil(method string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail[method] = err
}

func stamp(index uint64) *pb.Stamp { return &pb.Stamp{ClusterGeneration: 1, Index: index} }

// change is a state that is not full.
func change(index uint64, objects ...any) *pb.DesiredState {
	m := &pb.DesiredState{Stamp: stamp(index)}
	for _, o := range objects {
		switch x := o.(type) {
		case *pb.DesiredReplica:
			m.Replicas = append(m.Replicas, x)
		case *pb.DesiredAssignment:
			m.Assignments = append(m.Assignments, x)
		}
	}
	return m
}

func full(index uint64, objects ...any) *pb.DesiredState {
	m := change(index, objects...)
	m.Full = true
	return m
}

func replica(index uint64, v san.VolumeID) *pb.DesiredReplica {
	return &pb.DesiredReplica{Stamp: stamp(index), VolumeId: string(v), Name: "v", SizeBytes: 4 << 20, BlockSizeBytes: 512,
		Slices: []*pb.DesiredSlice{{MediumId: "m", Extents: 1}}}
}

// larger is a replica that was there, to be extended to so many extents.
func larger(index uint64, v san.VolumeID, extents uint32) *pb.DesiredReplica {
	r := replica(index, v)
	r.Grow, r.SizeBytes, r.Slices[0].Extents = true, int64(extents)*san.ExtentSizeBytes, extents
	return r
}

func noReplica(index uint64, v san.VolumeID) *pb.DesiredReplica {
	r := replica(index, v)
	r.Deleted = true
	return r
}

func assign(index uint64, v san.VolumeID, h san.HostID, generation uint64) *pb.DesiredAssignment {
	return &pb.DesiredAssignment{Stamp: stamp(index), VolumeId: string(v), HostId: string(h), Generation: generation,
		Initiators: []string{"iqn.2004-10.com.example:" + string(h)}, ChapUser: "user", ChapSecret: "secret-of-" + string(h)}
}

func release(index uint64, v san.VolumeID, h san.HostID, generation uint64) *pb.DesiredAssignment {
	a := assign(index, v, h, generation)
	a.Release = true
	return a
}

func gone(index uint64, v san.VolumeID, h san.HostID, generation uint64) *pb.DesiredAssignment {
	return &pb.DesiredAssignment{Stamp: stamp(index), VolumeId: string(v), HostId: string(h), Generation: generation, Gone: true}
}
