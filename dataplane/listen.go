package dataplane

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/sandbar-san/sandbar/internal/gossip"
	"github.com/sandbar-san/sandbar/san"
)

// listen takes the unit's ports; from the kernel's own choice on, what is advertised is known. The port of the gossip
// is only reserved: nobody gossips before the unit has the key.
func (u *unit) listen(ctx context.Context) error {
	for _, l := range []struct {
		key, addr string
		advertise *string
		listener  *net.Listener
	}{
		{"portal-listen", u.cfg.PortalListen, &u.cfg.PortalAdvertise, &u.portal},
		{"api-listen", u.cfg.APIListen, &u.cfg.APIAdvertise, &u.api},
	} {
		ln, err := listenAt(ctx, l.key, l.addr)
		if err != nil {
			return err
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
	u.apiAddress = u.api.Addr().String()
	var err error
	if u.gossipPort, err = gossip.Reserve(u.cfg.GossipListen); err != nil {
		return err
	}
	u.opened(u.gossipPort.Release)
	return nil
}

// listenAt listens at addr, which the setting key names.
func listenAt(ctx context.Context, key, addr string) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, san.Errorf(san.KindConflict, "address %s (%s) is in use by another process; stop that one, or set %s to another address", addr, key, key)
	case err != nil:
		return nil, san.Errorf(san.KindInvalid, "can't listen at %s (%s): %w", addr, key, err)
	}
	return ln, nil
}
