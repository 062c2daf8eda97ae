package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sandbar-san/sandbar/san"
)

const (
	// protocolName keeps raft's connections and the API's apart, though both use the same certificates.
	protocolName = "sandbar-raft/1"
	// handshakeLimit bounds how long an unauthenticated peer may keep a connection.
	handshakeLimit = 5 * time.Second
	// handshakesAtOnce and connsInbound bound what strangers, and stations, may hold open.
	handshakesAtOnce = 64
	connsInbound     = 512
)

var errCut = errors.New("connections to other stations are cut off while this station's disk hangs")

// stream carries raft over mutually authenticated TLS, and can cut the station off.
type stream struct {
	listener         net.Listener
	address          raftAddress
	server, client   *tls.Config
	dial             func(context.Context, string) (net.Conn, error)
	peerID           func(tls.ConnectionState) (san.StationID, error)
	expected         func(raft.ServerAddress) (san.StationID, bool)
	log              *slog.Logger
	accepted         chan net.Conn
	handshakes       chan struct{}
	done             chan struct{}
	children         sync.WaitGroup
	mu               sync.Mutex
	conns            map[net.Conn]struct{} // raw; every one that is open
	cutOff, isClosed bool
}

type raftAddress string

func (raftAddress) Network() string  { return "tcp" }
func (a raftAddress) String() string { return string(a) }

func newStream(cfg *Config, expected func(raft.ServerAddress) (san.StationID, bool)) *stream {
	s := &stream{
		listener: cfg.Listener, address: raftAddress(cfg.Advertise),
		server: raftTLS(cfg.ServerTLS), client: raftTLS(cfg.ClientTLS),
		dial: cfg.Dial, peerID: cfg.PeerID, expected: expected, log: cfg.Logger,
		accepted: make(chan net.Conn), handshakes: make(chan struct{}, handshakesAtOnce),
		done: make(chan struct{}), conns: make(map[net.Conn]struct{}),
	}
	s.children.Go(s.listen)
	return s
}

func raftTLS(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{protocolName}
	// Connections live long, so resumption saves nothing; and a ticket is one more write that a peer would
	// have to take before it may send.
	cfg.SessionTicketsDisabled = true
	return cfg
}

// Addr returns the advertised address.
func (s *stream) Addr() net.Addr { return s.address }

// Accept returns the next connection whose peer has proved to be a station.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

func (s *stream) listen() {
	const shortest, longest = 5 * time.Millisecond, time.Second
	delay := shortest
	for {
		raw, err := s.listener.Accept()
		if err == nil {
			delay = shortest
			s.admit(raw)
			continue
		}
		select {
		case <-s.done:
			return
		case <-time.After(delay):
			s.log.Warn("raft port does not accept", "address", s.address, "error", err)
			delay = min(2*delay, longest)
		}
	}
}

func (s *stream) admit(raw net.Conn) {
	select {
	case s.handshakes <- struct{}{}:
	default:
		raw.Close()
		return
	}
	if !s.track(raw, connsInbound) {
		raw.Close()
		<-s.handshakes
		return
	}
	s.children.Go(func() {
		conn, err := s.handshake(context.Background(), raw, tls.Server(raw, s.server), handshakeLimit)
		<-s.handshakes
		if err != nil {
			s.log.Debug("raft connection refused", "from", raw.RemoteAddr(), "error", err)
			return
		}
		select {
		case s.accepted <- conn:
		case <-s.done:
			s.drop(raw)
		}
	})
}

// Dial connects to the station at address, and makes sure that it is the one that belongs there.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if s.isCut() {
		return nil, errCut
	}
	raw, err := s.dial(ctx, string(address))
	if err != nil {
		return nil, err
	}
	if !s.track(raw, 0) {
		raw.Close()
		return nil, errCut
	}
	conn, err := s.handshake(ctx, raw, tls.Client(raw, s.client), timeout)
	if err != nil {
		return nil, fmt.Errorf("station at %s: %w", address, err)
	}
	want, known := s.expected(address)
	if got, err := s.peerID(conn.ConnectionState()); err != nil || known && got != want {
		s.drop(raw)
		if err == nil {
			err = fmt.Errorf("is %s and not %s", got, want)
		}
		return nil, fmt.Errorf("station at %s: %w", address, err)
	}
	return conn, nil
}

func (s *stream) handshake(ctx context.Context, raw net.Conn, conn *tls.Conn, limit time.Duration) (*stationConn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != protocolName {
		err = fmt.Errorf("peer speaks %q and not %s", conn.ConnectionState().NegotiatedProtocol, protocolName)
	}
	if err != nil {
		s.drop(raw)
		return nil, err
	}
	return &stationConn{Conn: conn, raw: raw, stream: s}, nil
}

// stationConn is one authenticated connection.
type stationConn struct {
	*tls.Conn
	raw    net.Conn
	stream *stream
}

// Close closes the connection. It closes the socket at once: raft has no use for TLS's farewell, which
// could wait for a peer that is gone.
func (c *stationConn) Close() error {
	c.stream.forget(c.raw)
	return c.raw.Close()
}

func (s *stream) track(raw net.Conn, limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cutOff || s.isClosed || limit > 0 && len(s.conns) >= limit {
		return false
	}
	s.conns[raw] = struct{}{}
	return true
}

func (s *stream) forget(raw net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, raw)
}

func (s *stream) drop(raw net.Conn) {
	s.forget(raw)
	raw.Close()
}

func (s *stream) isCut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cutOff || s.isClosed
}

// cut closes every connection and refuses new ones until mend.
func (s *stream) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutOff = true
	for raw := range s.conns {
		raw.Close()
	}
	clear(s.conns)
}

func (s *stream) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutOff = false
}

// Close ends the listener and every connection, and waits for what the stream started.
func (s *stream) Close() error {
	s.mu.Lock()
	closed := s.isClosed
	s.isClosed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	close(s.done)
	err := s.listener.Close()
	s.cut()
	s.children.Wait()
	return err
}
