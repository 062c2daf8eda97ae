package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandbar-san/sandbar/dataplane/agent"
	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/dataplane/iscsi"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/internal/agentlink"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/internal/gossip"
	"github.com/sandbar-san/sandbar/san"
)

// sessionGrace is the time that commands in flight have when the unit stops.
const sessionGrace = 2 * time.Second

// unit is a running unit's parts.
type unit struct {
	cfg     Config
	log     *slog.Logger
	dir     *datadir.Dir
	member  *enrol.Member
	states  stateDir // dir, or what a test puts in its place
	state   *state
	kept    bool      // state is on disk
	alarmed time.Time // when it was last said that it is not
	claims  []*claim
	volumes *volume.Manager
	server  *iscsi.Server
	gate    *gate
	agent   *agent.Agent
	outbox  *agentlink.Outbox
	usage   *usage
	portal  net.Listener

	api        net.Listener // nil once probes are answered there
	apiAddress string       // where it listens
	gossipPort *gossip.Reservation

	closers []func() error // last opened, first closed
}

// Run runs a unit until ctx ends or it can't go on. It returns after all that it started
// has stopped and what was written is stable. With ctx it stops in order: goodbye to the stations, then
// the hosts are told and their commands in flight awaited, then the media are closed.
func Run(ctx context.Context, cfg Config) error {
	return run(ctx, cfg, nil)
}

// run is Run with the unit's own state in states; nil: in the data folder.
func run(ctx context.Context, cfg Config, states stateDir) (err error) {
	if err := cfg.check(); err != nil {
		return err
	}
	u := &unit{cfg: cfg, log: cfg.Log, states: states, outbox: agentlink.NewOutbox(), usage: newUsage()}
	defer func() { err = errors.Join(err, u.close()) }()
	if err := u.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // it was told to stop while it waited for a station
		}
		return err
	}
	u.log.Info("unit runs", "unit", cfg.ID, "cluster", u.member.Cluster(), "incarnation", u.state.Incarnation, "portal", u.cfg.PortalAdvertise)
	err = u.run(ctx)
	u.log.Info("unit stops", "unit", cfg.ID, "err", err)
	return err
}

func (u *unit) opened(closer func() error) { u.closers = append(u.closers, closer) }

func (u *unit) close() error {
	var errs []error
	for i := len(u.closers) - 1; i >= 0; i-- {
		errs = append(errs, u.closers[i]())
	}
	return errors.Join(errs...)
}

// open takes all that the unit needs and lets in whom it let in before. A unit that is new to the cluster enrols once
// it has its ports and media: what is wrong with those leaves nothing behind at the stations.
func (u *unit) open(ctx context.Context) error {
	dir, err := datadir.Open(u.cfg.Data)
	if err != nil {
		return err
	}
	u.dir = dir
	u.opened(dir.Close)
	if u.states == nil {
		u.states = dir
	}
	u.member, err = enrol.Find(enrol.Part{
		Dir: dir, Role: san.RoleUnit, ID: string(u.cfg.ID), Endpoints: u.cfg.Join, Token: u.cfg.JoinToken, Log: u.log,
	})
	if err != nil {
		return err
	}
	if u.state, err = readState(u.states, u.cfg.ID); err != nil {
		return err
	}
	if err := u.listen(ctx); err != nil {
		return err
	}
	if err := u.claimMedia(); err != nil {
		return err
	}
	if err := u.member.Enrol(ctx); err != nil {
		return err
	}
	u.begin()
	if err := u.openVolumes(); err != nil {
		return err
	}
	return u.openService()
}

func (u *unit) openVolumes() error {
	media, err := u.openMedia()
	if err != nil {
		return err
	}
	u.opened(func() error { return closeMedia(media) })
	records, err := disk.OpenDir(u.dir.Path("volumes"))
	if err != nil {
		return err
	}
	u.opened(records.Close)
	return u.openManager(media, records)
}

func (u *unit) openManager(media []*extent.Medium, records disk.Dir) error {
	var err error
	if u.volumes, err = volume.Open(volume.Config{Media: media, Records: records, Log: u.log.With("part", "volume")}); err != nil {
		return err
	}
	u.opened(u.volumes.Close)
	return nil
}

// openService makes the block service and has the agent let hosts in by its records.
func (u *unit) openService() error {
	reserved, err := disk.OpenDir(u.dir.Path("reservations"))
	if err != nil {
		return err
	}
	u.opened(reserved.Close)
	g := newGate(u.cfg.ID, u.cfg.PortalAdvertise, u.volumes, reserved, u.log.With("part", "scsi"))
	server, err := iscsi.NewServer(iscsi.Config{
		Directory: g, Limits: iscsi.Limits{ShutdownGrace: sessionGrace}, Logger: u.log.With("part", "iscsi"),
	})
	if err != nil {
		return err
	}
	u.server, u.gate, g.server = server, g, server
	records, err := disk.OpenDir(u.dir.Path("access"))
	if err != nil {
		return err
	}
	u.opened(records.Close)
	u.agent, err = agent.Open(agent.Config{
		Records: records, Volumes: replicas{u.volumes}, Gate: g, Report: u.outbox.Put, Log: u.log.With("part", "agent"),
	})
	return err
}

// run serves until ctx ends or the block service fails, then stops in order: the stations first hear that the unit
// goes, then the rest ends. What hosts don't need, the control path, does not end the unit when it fails.
func (u *unit) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g.Go(func() error { return u.server.Serve(serving, u.portal) })
	g.Go(func() error { return u.agent.Run(serving) })
	g.Go(func() error { return u.gate.measure(serving) })
	g.Go(func() error { return u.member.Renew(serving) })
	g.Go(func() error {
		defer stop()
		u.control(ctx, serving, stop)
		return nil
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// control holds the unit's place in the cluster until ctx ends and goodbye has been said, and then stops the rest. What
// tells others the number of this start waits until that is stable.
func (u *unit) control(ctx, serving context.Context, stop func()) {
	if !u.awaitKept(ctx) {
		return
	}
	var hints sync.WaitGroup
	hints.Go(func() { u.keepUp(serving, "probes", u.probes) })
	hints.Go(func() { u.keepUp(serving, "gossip", u.gossip) })
	hints.Go(func() { u.usage.watch(serving, u.volumes.Used) })
	u.keepUp(ctx, "stream to the stations", u.link)
	stop()
	hints.Wait()
}
