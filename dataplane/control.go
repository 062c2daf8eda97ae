package dataplane

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/agentlink"
)

const (
	// partRetryMin and partRetryMax bound the wait before a part of the control path that failed is
	// started again. One that lasted for partSettled is new to failing.
	partRetryMin = time.Second
	partRetryMax = 30 * time.Second
	partSettled  = time.Minute
)

// keepUp runs a part of the control path until ctx ends and the part has ended, and starts it again whenever it fails:
// hosts are served without it. run calls up when the part works. alarm names the part in the log.
func (u *unit) keepUp(ctx context.Context, alarm string, run func(ctx context.Context, up func()) error) {
	var down atomic.Bool
	up := func() {
		if down.Swap(false) {
			u.log.Info("a part of the unit that had failed works again", "alarm", alarm, "over", true)
		}
	}
	for wait := partRetryMin; ; {
		began := time.Now()
		err := run(ctx, up)
		if ctx.Err() != nil {
			if err != nil {
				u.log.Warn("a part of the unit did not end in order", "part", alarm, "err", err)
			}
			return
		}
		if time.Since(began) >= partSettled {
			wait = partRetryMin
		}
		pause := wait/2 + rand.N(wait/2)
		down.Store(true)
		u.log.Error("a part of the unit failed; volumes are served without it, and it is started again", "alarm", alarm, "retryIn", pause, "err", err)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		wait = min(2*wait, partRetryMax)
	}
}

// link holds the stream to the stations.
func (u *unit) link(ctx context.Context, up func()) error {
	return agentlink.Run(ctx, agentlink.Config{
		Identity: u.member.Identity(), Endpoints: u.member.Endpoints(),
		Hello: func() *pb.Hello {
			return &pb.Hello{Incarnation: uint64(u.state.Incarnation), Version: u.cfg.Version, Portal: u.cfg.PortalAdvertise, ApiAddress: u.cfg.APIAdvertise}
		},
		OnWelcome: func(w *pb.Welcome) {
			up()
			u.member.Welcomed(w)
		},
		StorageInfo:    func() *pb.StorageInfo { return u.usage.tell(storageInfo(u.volumes.StorageInfo())) },
		StorageChanged: u.usage.changed,
		OnDesired:      u.agent.Apply,
		OnQuestion:     u.gate.answer,
		Reports:        u.outbox,
		Reason:         "shutdown",
		Log:            u.log.With("part", "link"),
	})
}

// probes answers the stations' probes.
func (u *unit) probes(ctx context.Context, up func()) error {
	ln := u.api
	u.api = nil
	if ln == nil { // the first one failed
		var err error
		if ln, err = listenAt(ctx, "api-listen", u.apiAddress); err != nil {
			return err
		}
	}
	up()
	p := &prober{unit: u.cfg.ID, incarnation: u.state.Incarnation}
	return serveProbes(ctx, ln, u.member.Identity(), p, u.log)
}

// gossip makes the unit a member of its cluster's gossip.
func (u *unit) gossip(ctx context.Context, up func()) error {
	m, err := u.startGossip()
	if err != nil {
		return err
	}
	up()
	return m.Run(ctx)
}
