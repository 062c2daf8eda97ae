package freeport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

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
	// stride is how far apart processes with neighbouring ids begin to look: who is started at the same time
	// must not find the same ports before anybody listens there.
	stride = 64
	// maxPID keeps the arithmetic within an int of 32 bits; Linux has 2²² ids at most.
	maxPID = 1 << 22
	// maxTaken bounds the search.
	maxTaken = 5000
)

// Loopback returns n different addresses, 127.0.0.1:port, where nobody listens now over TCP or UDP. Another
// call by the same process may return the same ones as long as nobody listens there.
// The error is of san.KindUnavailable if there are not that many, or ctx has ended.
func Loopback(ctx context.Context, n int) ([]string, error) {
	text, err := os.ReadFile(rangeFile)
	if err != nil {
		text = nil // another kernel, or a sandbox: any port may be one of an outgoing connection
	}
	spans := choice(string(text))
	out := make([]string, 0, n)
	first := os.Getpid() % maxPID * stride
	for i := range n + maxTaken {
		if len(out) == n || ctx.Err() != nil {
			break
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(at(spans, first+i)))
		if tryBoth(ctx, addr) == nil {
			out = append(out, addr)
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

// at is the n-th port of the spans, beginning anew after the last.
func at(spans []span, n int) int {
	total := 0
	for _, s := range spans {
		total += s.size()
	}
	n %= total
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
