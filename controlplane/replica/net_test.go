package replica

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// memNet is a network in memory, on which synctest can see that everybody waits. Cutting a station off
// drops its connections and lets nobody reach it or be reached by it.
type memNet struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	cut       map[string]bool
	conns     map[*memConn]bool
}

func newMemNet() *memNet {
	return &memNet{listeners: make(map[string]*memListener), cut: make(map[string]bool), conns: make(map[*memConn]bool)}
}

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }

type memListener struct {
	net   *memNet
	addr  string
	queue chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (n *memNet) listen(addr string) *memListener {
	l := &memListener{net: n, addr: addr, queue: make(chan net.Conn), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[addr] = l
	return l
}

func (l *memListener) Addr() net.Addr { return memAddr(l.addr) }

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		if l.net.listeners[l.addr] == l {
			delete(l.net.listeners, l.addr)
		}
	})
	return nil
}

type memConn struct {
	net.Conn
	net      *memNet
	from, to string
}

func (c *memConn) RemoteAddr() net.Addr { return memAddr(c.to) }

func (c *memConn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}

func (n *memNet) dialer(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, to string) (net.Conn, error) {
		n.mu.Lock()
		l, cut := n.listeners[to], n.cut[from] || n.cut[to]
		n.mu.Unlock()
		if cut {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if l == nil {
			return nil, fmt.Errorf("%s refuses connections", to)
		}
		a, b := net.Pipe()
		near, far := &memConn{a, n, from, to}, &memConn{b, n, to, from}
		n.mu.Lock()
		n.conns[near], n.conns[far] = true, true
		n.mu.Unlock()
		select {
		case l.queue <- far:
			return near, nil
		case <-l.done:
		case <-ctx.Done():
		}
		near.Close()
		far.Close()
		return nil, fmt.Errorf("%s does not answer", to)
	}
}

// isolate cuts addr off, or lets it back.
func (n *memNet) isolate(addr string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[addr] = cut
	if !cut {
		return
	}
	for c := range n.conns {
		if c.from == addr || c.to == addr {
			c.Conn.Close()
			delete(n.conns, c)
		}
	}
}
