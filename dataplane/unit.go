package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane/agent"
	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/dataplane/iscsi"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/internal/agentlink"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/san"
)

// sessionGrace is the time that commands in flight have when the unit stops.
const sessionGrace = 2 * time.Second

// unit is a running unit's parts.
type unit struct {
	cfg     Config
	log     *slog.Logger
	dir     *datadir.Dir
	member  *membership
	state   *state
	volumes *volume.Manager
	server  *iscsi.Server
	agent   *agent.Agent
	outbox  *agentlink.Outbox
	portal  net.Listener
	api     net.Listener
	closers []func() error // last opened, first closed
}

// Run runs a unit until ctx ends or it can't go on. It returns after all that it started
// has stopped and what was written is stable. With ctx it stops in order: goodbye to the stations, then
// the hosts are told and their commands in flight awaited, then the media are closed.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.check(); err != nil {
		return err
	}
	u := &unit{cfg: cfg, log: cfg.Log, outbox: agentlink.NewOutbox()}
	defer func() { err = errors.Join(err, u.close()) }()
	if err := u.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // it was told to stop while it waited for a station
		}
		return err
	}
	u.log.Info("unit runs", "unit", cfg.ID, "cluster", u.member.cluster(), "incarnation", u.state.Incarnation, "portal", u.cfg.PortalAdvertise)
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

// open takes all that the unit needs and lets in whom it let in before.
func (u *unit) open(ctx context.Context) error {
	dir, err := datadir.Open(u.cfg.Data)
	if err != nil {
		return err
	}
	u.dir = dir
	u.opened(dir.Close)
	if u.member, err = joinCluster(ctx, &u.cfg, dir); err != nil {
		return err
	}
	if err := u.listen(ctx); err != nil {
		return err
	}
	if u.state, err = beginIncarnation(dir, u.cfg.ID); err != nil {
		return err
	}
	if err := u.openVolumes(); err != nil {
		return err
	}
	return u.openService()
}

// listen takes the unit's ports; from the kernel's own choice on, what is advertised is known.
func (u *unit) listen(ctx context.Context) error {
	for _, l := range []struct {
		key, addr string
		advertise *string
		listener  *net.Listener
	}{
		{"portal-listen", u.cfg.PortalListen, &u.cfg.PortalAdvertise, &u.portal},
		{"api-listen", u.cfg.APIListen, &u.cfg.APIAdvertise, &u.api},
	} {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			return san.Errorf(san.KindConflict, "address %s (%s) is in use by another process; stop that one, or set %s to another address", l.addr, l.key, l.key)
		}
		if err != nil {
			return san.Errorf(san.KindInvalid, "can't listen at %s (%s): %w", l.addr, l.key, err)
		}
		u.opened(func() error {
			if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil // its server did so already
		})
		*l.listener = ln
		if *l.advertise == "" {
			*l.advertise = ln.Addr().String()
		}
	}
	return nil
}

func (u *unit) openVolumes() error {
	opener := &mediaOpener{cfg: &u.cfg, cluster: u.member.cluster(), dir: u.dir, state: u.state, log: u.log}
	media, err := opener.open()
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
	u.server, g.server = server, server
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

// run serves until ctx ends or a part fails, then stops in order: the stations first hear that the unit
// goes, then the rest ends.
func (u *unit) run(ctx context.Context) error {
	member, err := u.startGossip()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g.Go(func() error {
		defer stop()
		return u.link(ctx)
	})
	g.Go(func() error { return u.server.Serve(serving, u.portal) })
	g.Go(func() error { return u.agent.Run(serving) })
	g.Go(func() error { return u.member.renew(serving) })
	g.Go(func() error {
		p := &prober{unit: u.cfg.ID, incarnation: u.state.Incarnation}
		return serveProbes(serving, u.api, u.member.identity, p, u.log)
	})
	g.Go(func() error { return member.Run(serving) })
	err = g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// link holds the stream to the stations.
func (u *unit) link(ctx context.Context) error {
	return agentlink.Run(ctx, agentlink.Config{
		Identity: u.member.identity, Endpoints: u.member.endpoints(),
		Hello: func() *pb.Hello {
			return &pb.Hello{Incarnation: uint64(u.state.Incarnation), Version: u.cfg.Version, Portal: u.cfg.PortalAdvertise, ApiAddress: u.cfg.APIAdvertise}
		},
		OnWelcome:   u.member.welcomed,
		StorageInfo: func() *pb.StorageInfo { return storageInfo(u.volumes.StorageInfo()) },
		OnDesired:   u.agent.Apply,
		Reports:     u.outbox,
		Reason:      "shutdown",
		Log:         u.log.With("part", "link"),
	})
}
