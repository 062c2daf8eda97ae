package gossip

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/sandbar-san/sandbar/san"
)

// Reservation holds an address for a member that is to be started later.
type Reservation struct {
	tcp net.Listener
	udp net.PacketConn
}

// Reserve takes address, TCP and UDP, as Start does, so that a part learns early that it can't have it: before it
// does what can't be undone. It is released just before Start. Port 0, which is any, is tried alone. Errors:
// san.KindConflict for an address that is taken, san.KindInvalid for one that can't be listened at.
func Reserve(address string) (*Reservation, error) {
	var lc net.ListenConfig
	tcp, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, unusable(address, err)
	}
	udp, err := lc.ListenPacket(context.Background(), "udp", address)
	if err != nil {
		return nil, errors.Join(unusable(address, err), tcp.Close())
	}
	return &Reservation{tcp: tcp, udp: udp}, nil
}

// Release gives the address up. It may be called again.
func (r *Reservation) Release() error {
	var errs []error
	for _, close := range []func() error{r.tcp.Close, r.udp.Close} {
		if err := close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// unusable says why a member can't listen at address.
func unusable(address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return san.Errorf(san.KindConflict, "address %s (gossip-listen, TCP and UDP) is in use by another process; stop that one, or set gossip-listen to another address: %w", address, err)
	}
	return san.Errorf(san.KindInvalid, "gossip can't listen at %s (gossip-listen); set it to an address of this machine: %w", address, err)
}
