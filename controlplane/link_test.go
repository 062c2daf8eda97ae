package controlplane

import (
	"io"
	"net"
	"sync"
	"testing"
)

// link is a TCP relay to a station that can be cut: what a station that lost its power looks like
// to the others.
type link struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{listener: l, target: target, conns: map[net.Conn]struct{}{}}
	k.wg.Go(k.serve)
	t.Cleanup(func() {
		l.Close()
		k.setCut(true)
		k.wg.Wait()
	})
	return k
}

func (k *link) addr() string { return k.listener.Addr().String() }

func (k *link) serve() {
	for {
		in, err := k.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp4", k.target)
		if err != nil || !k.keep(in, out) {
			in.Close()
			if out != nil {
				out.Close()
			}
			continue
		}
		k.wg.Go(func() { k.relay(out, in) })
		k.wg.Go(func() { k.relay(in, out) })
	}
}

func (k *link) relay(to, from net.Conn) {
	_, _ = io.Copy(to, from) // an error is how it ends
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range []net.Conn{to, from} {
		c.Close()
		delete(k.conns, c)
	}
}

func (k *link) keep(conns ...net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cut {
		return false
	}
	for _, c := range conns {
		k.conns[c] = struct{}{}
	}
	return true
}

// setCut breaks all connections and refuses new ones, or lets them through again.
func (k *link) setCut(cut bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut = cut
	if cut {
		for c := range k.conns {
			c.Close()
		}
		clear(k.conns)
	}
}
