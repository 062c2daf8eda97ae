package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/internal/agentlink"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// maxAddresses bounds what a host tells of its interfaces; stations take no more.
	maxAddresses = 64
	// writeAgain is how long to wait after the folder could not be written.
	writeAgain = time.Second
)

// agent is the running agent.
type agent struct {
	cfg         Config
	dir         *datadir.Dir
	member      *enrol.Member
	incarnation san.Incarnation
	outbox      *agentlink.Outbox

	mu   sync.Mutex
	kept state.State // what stations said last
	lost bool        // kept is not on disk
}

// Run runs a host's agent until ctx ends or it can't go on. It returns after all that it started
// has stopped. With ctx it says goodbye to the stations; what the host was assigned stays in the
// data folder, where hostlib finds it.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.check(); err != nil {
		return err
	}
	dir, err := datadir.Open(cfg.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	a := &agent{cfg: cfg, dir: dir, outbox: agentlink.NewOutbox()}
	if err := a.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // it was told to stop while it waited for a station
		}
		return err
	}
	cfg.Log.Info("host agent runs", "host", cfg.ID, "cluster", a.member.Cluster(), "incarnation", a.incarnation,
		"initiators", a.member.Initiators(), "assignments", len(a.kept.Assignments))
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.member.Renew(gctx) })
	g.Go(func() error { return a.writeLater(gctx) })
	g.Go(func() error { return agentlink.Run(gctx, a.link()) })
	return g.Wait()
}

func (a *agent) open(ctx context.Context) (err error) {
	if a.member, err = joinCluster(ctx, a.cfg, a.dir); err != nil {
		return err
	}
	if a.kept, err = state.Read(a.dir.Path("")); err != nil {
		return err
	}
	if a.kept.Host != "" && a.kept.Host != a.cfg.ID {
		return san.Errorf(san.KindConflict, "%s is of host %s, not %s; use that host's data folder", a.dir.Path(state.FileName), a.kept.Host, a.cfg.ID)
	}
	a.kept.Host = a.cfg.ID
	a.incarnation, err = begin(a.dir)
	return err
}

func (a *agent) link() agentlink.Config {
	return agentlink.Config{
		Identity: a.member.Identity(), Endpoints: a.member.Endpoints(),
		Hello: a.hello, OnWelcome: a.member.Welcomed, OnDesired: a.desired,
		Reports: a.outbox, Reason: "the host agent was told to stop", Log: a.cfg.Log,
	}
}

func (a *agent) hello() *pb.Hello {
	return &pb.Hello{
		Incarnation: uint64(a.incarnation), Version: a.cfg.Version,
		Addresses: addresses(), Initiators: a.member.Initiators(),
	}
}

// desired judges what a station says, keeps it, and then confirms it. After an error the link asks another
// station, which begins with a full state.
func (a *agent) desired(m *pb.DesiredState) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	v, err := judge(a.kept, m)
	if err != nil {
		return err
	}
	if v.stale > 0 {
		a.cfg.Log.Warn("assignments with stamps lower than those seen were refused", "count", v.stale)
	}
	if len(a.kept.Assignments) != len(v.next.Assignments) {
		a.cfg.Log.Info("the host's assignments changed", "assignments", len(v.next.Assignments), "state", v.next.Floor)
	}
	a.kept = v.next
	if v.changed || a.lost {
		err = a.write()
	}
	for _, r := range v.reports {
		switch {
		case r.Kind == pb.ReportKind_REPORT_KIND_ASSIGNMENT_ERROR:
			a.cfg.Log.Error("an assignment can't be taken", "volume", r.VolumeId, "err", r.Error)
		case err != nil:
			r = &pb.Report{
				Kind: pb.ReportKind_REPORT_KIND_ASSIGNMENT_ERROR, VolumeId: r.VolumeId, HostId: r.HostId, Generation: r.Generation, Error: err.Error(),
			}
		}
		a.outbox.Put(r)
	}
	return nil
}

// write makes what is kept stable. Needs mu.
func (a *agent) write() error {
	err := state.Write(a.dir, a.kept)
	if a.lost = err != nil; a.lost {
		a.cfg.Log.Error("the host's assignments can't be kept; it is tried again", "err", err)
	}
	return err
}

// writeLater tries again what could not be kept, until ctx ends, and then confirms all of it.
func (a *agent) writeLater(ctx context.Context) error {
	tick := time.NewTicker(writeAgain)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		a.mu.Lock()
		if a.lost && a.write() == nil {
			for _, x := range a.kept.Assignments {
				a.outbox.Put(confirmation(a.cfg.ID, x))
			}
		}
		a.mu.Unlock()
	}
}

// addresses are the host's unicast addresses, those of the loopback interface only if there are no others.
func addresses() []string {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil // the stations keep what they knew
	}
	var global, loopback []string
	for _, x := range list {
		p, err := netip.ParsePrefix(x.String())
		if err != nil {
			continue
		}
		switch ip := p.Addr().Unmap(); {
		case ip.IsLoopback():
			loopback = append(loopback, ip.String())
		case ip.IsGlobalUnicast():
			global = append(global, ip.String())
		}
	}
	if len(global) == 0 {
		global = loopback
	}
	return global[:min(len(global), maxAddresses)]
}
