package hostlib

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/internal/initiator"
	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// refreshWait bounds how long redialling waits for a station's word on where the volume is.
	refreshWait = 2 * time.Second
	// firstOpenWait bounds Open if its context has no deadline.
	firstOpenWait = 30 * time.Second
)

// grant is what it takes to log in.
type grant struct {
	*Assignment
	chap initiator.CHAP
}

// Open opens a volume of this host's, named by id or name. If it is not assigned to the host yet but about to be,
// Open waits for that. With DataDir it needs no station if the agent knows the volume.
func (c *Client) Open(ctx context.Context, volume string) (*Volume, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, firstOpenWait)
		defer cancel()
	}
	g, err := c.grant(ctx, volume)
	if err != nil {
		return nil, san.Wrap("open volume "+volume, err)
	}
	name, err := c.initiatorName(ctx)
	if err != nil {
		return nil, san.Wrap("open volume "+volume, err)
	}
	d := &dialer{client: c, grant: g, initiator: name, isid: initiator.RandomISID(), log: c.log.With("volume", g.Name)}
	first, err := d.first(ctx)
	if err != nil {
		return nil, san.Wrap("open volume "+g.Name, err)
	}
	var v *Volume
	opts := volumeOptions{retryLimit: c.cfg.RetryLimit, unflushedBytes: c.cfg.UnflushedBytes}
	v = newVolume(g.Name, newLine(d.dial, d.log), first, opts, func() { c.forget(v) })
	if err := c.adopt(v); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// grant finds out where a volume is and how to log in there.
func (c *Client) grant(ctx context.Context, volume string) (*grant, error) {
	if c.cfg.DataDir == "" {
		return c.grantByStations(ctx, volume)
	}
	g, err := c.grantByAgent(volume)
	if err == nil || san.KindOf(err) != san.KindNotFound {
		return g, err
	}
	a, err := c.Wait(ctx, volume) // and thereby for the agent's confirmation
	if err != nil {
		return nil, err
	}
	return c.grantByAgent(a.Volume)
}

// grantByAgent reads the agent's folder.
func (c *Client) grantByAgent(volume string) (*grant, error) {
	s, err := state.Read(c.cfg.DataDir)
	if err != nil {
		return nil, err
	}
	a := s.Find(volume)
	if a == nil {
		return nil, san.Errorf(san.KindNotFound, "the agent of host %s knows no volume %s", c.host, volume)
	}
	return &grant{Assignment: kept(a), chap: initiator.CHAP{User: a.CHAPUser, Secret: a.CHAPSecret}}, nil
}

// grantByStations waits until the volume is assigned and asks for its credentials.
func (c *Client) grantByStations(ctx context.Context, volume string) (*grant, error) {
	a, err := c.Wait(ctx, volume)
	if err != nil {
		return nil, err
	}
	m, err := call(ctx, c, func(ctx context.Context, api *stationclient.Client, ep string) (*connect.Response[pb.GetCredentialsResponse], error) {
		return api.Volumes(ep).GetCredentials(ctx, connect.NewRequest(&pb.GetCredentialsRequest{Volume: a.Volume, HostId: string(c.host)}))
	})
	if err != nil {
		return nil, err
	}
	return &grant{Assignment: a, chap: initiator.CHAP{User: m.ChapUser, Secret: m.ChapSecret}}, nil
}

// initiatorName is the iSCSI name to log in with; it may have to be asked for.
func (c *Client) initiatorName(ctx context.Context) (string, error) {
	c.mu.Lock()
	name := c.initiator
	c.mu.Unlock()
	if name != "" {
		return name, nil
	}
	m, err := call(ctx, c, func(ctx context.Context, api *stationclient.Client, ep string) (*connect.Response[pb.GetHostResponse], error) {
		return api.Hosts(ep).GetHost(ctx, connect.NewRequest(&pb.GetHostRequest{Id: string(c.host)}))
	})
	if err != nil {
		return "", err
	}
	if len(m.GetHost().GetInitiators()) == 0 {
		return "", san.Errorf(san.KindNotFound, "host %s has no initiator name; set Initiator", c.host)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.initiator = m.Host.Initiators[0]
	return c.initiator, nil
}

// dialer logs in to one volume, again and again. It belongs to one goroutine at a time.
type dialer struct {
	client    *Client
	grant     *grant
	initiator string
	// isid stays the same for the volume's life, so that each login takes the place of the session
	// before it (RFC 7143 §6.3.5), whose commands the unit ends first.
	isid   pdu.ISID
	log    *slog.Logger
	wwid   string // of the first session
	block  int64  // of the first session
	failed bool   // the last round found no way
	turn   int    // which path is tried first
}

// first logs in for the first time.
func (d *dialer) first(ctx context.Context) (device, error) {
	began := time.Now()
	for wait := redialMin; ; wait = min(2*wait, redialMax) {
		dctx, cancel := context.WithTimeout(ctx, dialWait)
		dev, err := d.dial(dctx)
		cancel()
		if err == nil {
			return dev, nil
		}
		switch k := san.KindOf(err); {
		case isGone(err):
			return nil, err
		case k == san.KindUnavailable || k == san.KindUnknown:
		case !refusal(k) || time.Since(began) > d.client.timing.refusal:
			return nil, err
		}
		if !pause(ctx, wait/2+rand.N(wait/2)) {
			return nil, err
		}
	}
}

// refusal reports whether a login that fails so may be let in a moment later: the unit may have been told of
// the assignment after this host was, or may be just starting.
func refusal(k san.Kind) bool {
	return k == san.KindUnauthenticated || k == san.KindDenied || k == san.KindNotFound
}

// dial tries every path once.
func (d *dialer) dial(ctx context.Context) (device, error) {
	if err := d.refresh(ctx); err != nil {
		return nil, err
	}
	d.failed = true
	err := san.Errorf(san.KindUnavailable, "no unit that has volume %s has told its portal yet", d.grant.Name)
	for i := range d.grant.Paths {
		p := d.grant.Paths[(d.turn+i)%len(d.grant.Paths)]
		if p.Portal == "" {
			continue
		}
		var dev device
		if dev, err = d.login(ctx, p); err == nil {
			d.turn, d.failed = (d.turn+i)%len(d.grant.Paths), false
			return dev, nil
		}
		if isGone(err) || ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// login opens the volume by one path, and makes sure that it is that volume.
func (d *dialer) login(ctx context.Context, p Path) (device, error) {
	s, err := initiator.Dial(ctx, initiator.Config{
		Portal: p.Portal, Target: p.Target, InitiatorName: d.initiator, ISID: d.isid, CHAP: d.grant.chap, Logger: d.client.log,
	})
	if err != nil {
		return nil, err
	}
	dev, err := initiator.OpenDevice(ctx, s, uint64(p.LUN))
	if err == nil {
		err = d.check(dev, p)
	}
	if err != nil {
		_ = s.Close() // the error at hand matters more
		return nil, err
	}
	d.wwid, d.block = dev.WWID(), dev.BlockSizeBytes()
	return &unitDevice{Device: dev, Session: s}, nil
}

// check refuses a logical unit that is not what was assigned or opened before.
func (d *dialer) check(dev *initiator.Device, p Path) error {
	switch wwid, block := dev.WWID(), dev.BlockSizeBytes(); {
	case wwid == "":
		return san.Errorf(san.KindInvalid, "the logical unit at %s, %s, has no name of its own (VPD page 83h), so that it could be any", p.Portal, p.Target)
	case d.wwid != "" && wwid != d.wwid:
		return san.Errorf(san.KindConflict, "%w: %s answers at %s in place of %s", ErrGone, wwid, p.Portal, d.wwid)
	case d.block != 0 && block != d.block:
		return san.Errorf(san.KindConflict, "%w: its blocks have %d bytes in place of %d", ErrGone, block, d.block)
	case p.StartLBA == 0 && uint64(dev.SizeBytes()/block) <= p.EndLBA:
		return san.Errorf(san.KindConflict, "volume %s has %d blocks at %s, but its last is assigned as LBA %d", d.grant.Name, dev.SizeBytes()/block, p.Portal, p.EndLBA)
	}
	return nil
}

// refresh looks whether the volume is still this host's, and where. The agent's folder is asked each time,
// stations only if the last round found no way. Whoever can't be asked changes nothing.
func (d *dialer) refresh(ctx context.Context) error {
	var g *grant
	var err error
	switch {
	case d.client.cfg.DataDir != "":
		g, err = d.client.grantByAgent(d.grant.Volume)
	case d.failed:
		g, err = d.ask(ctx)
	default:
		return nil
	}
	switch k := san.KindOf(err); {
	case err != nil && (k == san.KindNotFound || k == san.KindDenied):
		return san.Errorf(san.KindConflict, "%w: %w", ErrGone, err)
	case err != nil:
		d.log.Info("where the volume is now could not be learnt", "err", err)
		return nil
	case g.Generation != d.grant.Generation:
		return san.Errorf(san.KindConflict, "%w: it was taken away and assigned again (generation %d, opened with %d)", ErrGone, g.Generation, d.grant.Generation)
	}
	d.grant = g
	return nil
}

// ask has the stations say where the volume is. The credentials of a generation never change.
func (d *dialer) ask(ctx context.Context) (*grant, error) {
	ctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	v, err := d.client.volume(ctx, d.grant.Volume)
	if err != nil {
		return nil, err
	}
	a, err := d.client.assignmentOf(v)
	if err != nil {
		return nil, err
	}
	if a.State == StateReleasing {
		return nil, san.Errorf(san.KindNotFound, "volume %s is being taken away from host %s", a.Name, d.client.host)
	}
	return &grant{Assignment: a, chap: d.grant.chap}, nil
}
