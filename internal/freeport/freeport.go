package freeport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sandbar-san/sandbar/san"
)

const (
	// rangeFile has the first and last port of outgoing connections (Linux, ip-sysctl).
	rangeFile = "/proc/sys/net/ipv4/ip_local_port_range"
	// firstPort is the least that is given out: well-known services and most registered ones lie below.
	firstPort = 10000
	lastPort  = 65535
	// leastChoice is how many ports there must be to choose from.
	leastChoice = 1000
	// stride is how far apart processes with neighbouring ids begin to look, so that those which are started
	// at the same time seldom meet each other's claims.
	stride = 64
	// maxPID keeps the arithmetic within an int of 32 bits; Linux has 2²² ids at most.
	maxPID = 1 << 22
)

// Loopback returns n different addresses, 127.0.0.1:port, where nobody listens now over TCP or UDP. No later
// call, here or in another process of this machine, returns one of them while this process lives: each costs
// it a file descriptor until its end.
// The error is of san.KindUnavailable if there are not that many, or ctx has ended.
func Loopback(ctx context.Context, n int) ([]string, error) {
	text, err := os.ReadFile(rangeFile)
	if err != nil {
		text = nil // another kernel, or a sandbox: any port may be one of an outgoing connection
	}
	spans := choice(string(text))
	out := make([]string, 0, n)
	first := os.Getpid() % maxPID * stride
	for i := range total(spans) {
		if len(out) == n || ctx.Err() != nil {
			break
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(at(spans, first+i)))
		if tryBoth(ctx, addr) != nil {
			continue
		}
		switch err := claim(addr); {
		case err == nil:
			out = append(out, addr)
		case !errors.Is(err, unix.EADDRINUSE):
			return nil, san.Errorf(san.KindUnavailable, "port %s can't be kept from others: %w", addr, err)
		}
	}
	if err := ctx.Err(); err != nil && len(out) < n {
		return nil, san.Errorf(san.KindUnavailable, "the search for free ports was ended: %w", err)
	}
	if len(out) < n {
		return nil, san.Errorf(san.KindUnavailable, "only %d of %d ports could be found on 127.0.0.1; end some of the programs that listen there", len(out), n)
	}
	return out, nil
}

// span is a range of ports, both ends included.
type span struct{ first, last int }

func (s span) size() int { return max(0, s.last-s.first+1) }

// choice is where ports may be taken from: everywhere but in the kernel's own range, unless that
// leaves too few.
func choice(kernelRange string) []span {
	all := []span{{firstPort, lastPort}}
	var low, high int
	if _, err := fmt.Sscan(kernelRange, &low, &high); err != nil || low > high {
		return all
	}
	outside := []span{{firstPort, min(low-1, lastPort)}, {max(high+1, firstPort), lastPort}}
	if outside[0].size()+outside[1].size() < leastChoice {
		return all
	}
	return outside
}

// total is how many ports there are to choose from.
func total(spans []span) int {
	n := 0
	for _, s := range spans {
		n += s.size()
	}
	return n
}

// at is the n-th port of the spans, beginning anew after the last.
func at(spans []span, n int) int {
	n %= total(spans)
	for _, s := range spans {
		if n < s.size() {
			return s.first + n
		}
		n -= s.size()
	}
	return firstPort // unreachable: the sizes add up to total
}

// tryBoth tells whether an address can be listened on over TCP and over UDP, which gossip needs both.
func tryBoth(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", addr)
	if err != nil {
		return err
	}
	p, err := lc.ListenPacket(ctx, "udp4", addr)
	if err == nil {
		err = p.Close()
	}
	return errors.Join(err, l.Close())
}

// claim makes addr this process's; unix.EADDRINUSE if some process has it, this one too. The claim is a Unix
// socket of the abstract namespace (unix(7)): as ports do it belongs to the network namespace, it leaves
// nothing in any folder, and it goes with the process, however that ends. So it is a bare descriptor, which nobody
// closes: an object would have to be kept, and a book in memory would say nothing to other processes.
func claim(addr string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// Nobody listens on it, so nobody can connect to it.
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@sandbar-port/" + addr}); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return nil
}
