package iscsi

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// Config is what a server is made of.
type Config struct {
	Directory Directory
	// Limits' zero fields take their defaults.
	Limits Limits
	// Logger gets sessions' beginnings and ends, never single commands.
	Logger *slog.Logger
}

// Server is the target side of iSCSI for all of a unit's targets. Its methods are safe for
// concurrent use.
type Server struct {
	directory Directory
	limits    Limits
	logger    *slog.Logger
	buffers   buffers
	budget    *budget
	commands  commandPool
	minder    minder

	mu          sync.Mutex
	sessions    map[uint64]*session
	byTSIH      map[uint16]*session
	lastID      uint64
	lastTSIH    uint16
	connections int
	logins      int
	loginsFrom  map[netip.Addr][]net.Conn // in order of arrival
}

// NewServer makes a server; Serve starts it.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Directory == nil || cfg.Logger == nil {
		return nil, san.Errorf(san.KindInternal, "iscsi: directory or logger is missing")
	}
	limits, err := cfg.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Server{
		directory: cfg.Directory, limits: limits, logger: cfg.Logger, budget: newBudget(limits.TotalBufferBytes),
		minder:   minder{alarm: make(chan struct{}, 1)},
		sessions: map[uint64]*session{}, byTSIH: map[uint16]*session{}, loginsFrom: map[netip.Addr][]net.Conn{},
	}, nil
}

// Serve accepts connections from ln until ctx ends or ln fails, then tells the
// initiators, lets commands in flight end (for at most Limits.ShutdownGrace), closes
// all, and returns when nothing is left that came from ln. It closes ln. Several
// listeners may be served at once. It returns nil when ctx ended.
func (srv *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var conns sync.WaitGroup
	watching, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() { srv.watchdog(watching) })
	watch.Go(func() { srv.budget.serve(watching) })
	watch.Go(func() { srv.mind(watching) })
	defer watch.Wait()
	defer endWatch()
	defer conns.Wait()
	defer cancel() // before Wait: sessions end by it
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if err == nil {
			srv.accept(ctx, conn, &conns)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return san.Errorf(san.KindUnavailable, "iscsi: the listener on %s was closed: %w", ln.Addr(), err)
		}
		// Out of file descriptors, or the like: it may pass.
		srv.logger.Error("iscsi connection could not be accepted; raise the limit on open files if that is it", "error", err)
		pause := time.NewTimer(100 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// accept takes a connection within the limits and serves it on a goroutine of its own.
func (srv *Server) accept(ctx context.Context, conn net.Conn, conns *sync.WaitGroup) {
	from := remoteAddr(conn)
	if !srv.admitConnection(conn, from.Addr()) {
		_ = conn.Close()
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(true)
	}
	conns.Go(func() {
		srv.serveConn(ctx, conn, from)
		srv.mu.Lock()
		srv.connections--
		srv.mu.Unlock()
	})
}

func (srv *Server) admitConnection(conn net.Conn, from netip.Addr) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.connections >= srv.limits.MaxConnections || len(srv.loginsFrom[from]) >= srv.limits.MaxLoginsPerAddress ||
		srv.logins >= srv.limits.MaxLogins && !srv.evictLogin(from) {
		return false
	}
	srv.connections++
	srv.logins++
	srv.loginsFrom[from] = append(srv.loginsFrom[from], conn)
	return true
}

// evictLogin makes a place for a login from an address: who has the most open there loses the one that has had
// the most time. So a flood of connections that never log in keeps nobody else out. srv.mu is held.
func (srv *Server) evictLogin(from netip.Addr) bool {
	most := from
	for a, list := range srv.loginsFrom {
		if len(list) > len(srv.loginsFrom[most]) {
			most = a
		}
	}
	if most == from {
		return false
	}
	victim := srv.loginsFrom[most][0]
	srv.forgetLogin(victim, most)
	_ = victim.Close() // its login fails by that
	return true
}

// forgetLogin counts a login no more, if it has not been evicted. srv.mu is held.
func (srv *Server) forgetLogin(conn net.Conn, from netip.Addr) {
	list := srv.loginsFrom[from]
	i := slices.Index(list, conn)
	if i < 0 {
		return
	}
	srv.logins--
	if srv.loginsFrom[from] = slices.Delete(list, i, i+1); len(list) == 1 {
		delete(srv.loginsFrom, from)
	}
}

func (srv *Server) loginEnded(conn net.Conn, from netip.Addr) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.forgetLogin(conn, from)
}

// serveConn takes a connection from its login to its end.
func (srv *Server) serveConn(ctx context.Context, conn net.Conn, from netip.AddrPort) {
	defer func() { _ = conn.Close() }()
	stopLogin := context.AfterFunc(ctx, func() { _ = conn.Close() })
	in := bufio.NewReaderSize(conn, readBuffer)
	s, err := srv.login(ctx, conn, in, from)
	srv.loginEnded(conn, from.Addr())
	stopLogin()
	if s == nil {
		srv.logger.Info("iscsi login failed", "from", from, "reason", err)
		return
	}
	defer srv.unregister(s)
	if err != nil {
		srv.logger.Info("iscsi login failed", "from", from, "reason", err)
		s.finish()
		return
	}
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(told); s.shutdown() })
	s.logger.Info("iscsi session begins", "discovery", s.info.Discovery, "host", s.info.Host, "volume", s.info.Volume)
	s.run()
	if !stop() {
		<-told
	}
}

// register lists a session under a new id and TSIH. It returns the session that it
// reinstates, if there is one: same initiator port, same target (RFC 7143 §6.3.5).
func (srv *Server) register(s *session) (old *session, err error) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if len(srv.sessions) >= srv.limits.MaxConnections {
		return nil, refuse(pdu.LoginOutOfResources, "%d sessions are open", len(srv.sessions))
	}
	for { // ends: there are more handles than connections
		srv.lastTSIH++
		if srv.lastTSIH != 0 && srv.byTSIH[srv.lastTSIH] == nil {
			break
		}
	}
	if !s.info.Discovery {
		for _, o := range srv.sessions {
			// The newest counts: an older one is being waited for by those between.
			if o.info.Initiator == s.info.Initiator && o.info.ISID == s.info.ISID && o.info.Target == s.info.Target &&
				(old == nil || o.info.ID > old.info.ID) {
				old = o
			}
		}
	}
	if n := srv.budget.sessions(s.owner()); old == nil && n >= srv.limits.MaxSessionsPerHost {
		return nil, refuse(pdu.LoginOutOfResources, "%s has %d sessions, as many as one host may have", s.owner(), n)
	}
	srv.lastID++
	s.info.ID, s.info.TSIH = srv.lastID, srv.lastTSIH
	srv.sessions[s.info.ID], srv.byTSIH[s.info.TSIH] = s, s
	s.account = srv.budget.open(s.owner(), srv.limits.OwnBufferBytes)
	return old, nil
}

func (srv *Server) unregister(s *session) {
	srv.mu.Lock()
	delete(srv.sessions, s.info.ID)
	delete(srv.byTSIH, s.info.TSIH)
	srv.mu.Unlock()
	srv.budget.close(s.account, srv.limits.OwnBufferBytes, s.held)
	close(s.done)
}

// hasSession reports whether a session of that initiator and TSIH is there.
func (srv *Server) hasSession(initiator string, isid pdu.ISID, tsih uint16) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	s := srv.byTSIH[tsih]
	return s != nil && s.info.Initiator == san.NormalizeInitiator(initiator) && s.info.ISID == isid
}

// sharing lists the sessions with a logical unit.
func (srv *Server) sharing(lu LogicalUnit) []*session {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	var list []*session
	for _, s := range srv.sessions {
		if s.lu == lu {
			list = append(list, s)
		}
	}
	return list
}

// Sessions describes the sessions that there are, in no order.
func (srv *Server) Sessions() []SessionInfo {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	list := make([]SessionInfo, 0, len(srv.sessions))
	for _, s := range srv.sessions {
		list = append(list, s.info)
	}
	return list
}

// CloseSessions closes the sessions that match: what they sent and has not begun to
// execute is thrown away, and what executes is waited for. When it returns nil no command of theirs
// takes effect any more. To keep them from coming back, have Admit refuse before. It fails
// with ctx's error when ctx ends first; the sessions are closed nevertheless, but commands
// may still be executing.
func (srv *Server) CloseSessions(ctx context.Context, match func(SessionInfo) bool) error {
	srv.mu.Lock()
	var closing []*session
	for _, s := range srv.sessions {
		if match(s.info) {
			closing = append(closing, s)
		}
	}
	srv.mu.Unlock()
	for _, s := range closing {
		s.kill()
	}
	for _, s := range closing {
		select {
		case <-s.done:
		case <-ctx.Done():
			return san.Errorf(san.KindUnknown, "iscsi: session of %s with %s has commands that do not end: %w", s.info.Initiator, s.info.Target, ctx.Err())
		}
	}
	return nil
}

func remoteAddr(conn net.Conn) netip.AddrPort {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		a := tcp.AddrPort()
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return netip.AddrPort{}
}

// watched is what the watchdog remembers of a session.
type watched struct {
	mu               sync.Mutex // each Serve has its watchdog
	received, writes uint64
	heard, progress  time.Time
	dataPDUs         uint64
	data             time.Time // the last data, or the last time that none was owed
	pinged           bool
}

// watchdog pings silent initiators and closes sessions that are dead or stuck.
func (srv *Server) watchdog(ctx context.Context) {
	tick := time.NewTicker(min(srv.limits.PingInterval, srv.limits.PingTimeout) / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			srv.mu.Lock()
			list := make([]*session, 0, len(srv.sessions))
			for _, s := range srv.sessions {
				list = append(list, s)
			}
			srv.mu.Unlock()
			for _, s := range list {
				s.look(now)
			}
		}
	}
}
