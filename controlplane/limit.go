package controlplane

import (
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	// maxAPIConns bounds the connections to a station's API, whoever they are of: an agent needs one, an operator's
	// command one for its moment. It is far below the files that a daemon may open, some of which the log needs.
	maxAPIConns = 8192
	// crowdedEvery is how often at most the log says that connections are turned away.
	crowdedEvery = time.Minute
)

// limitListener closes connections beyond a number at once: who is turned away tries another station, while one
// that was left to wait in the kernel's queue would think that it is served.
type limitListener struct {
	net.Listener
	max int
	log *slog.Logger

	mu     sync.Mutex
	open   int
	turned int       // away since said
	said   time.Time // when the log had it last
}

func newLimitListener(l net.Listener, limit int, log *slog.Logger) *limitListener {
	return &limitListener{Listener: l, max: limit, log: log}
}

// Accept returns the next connection for which there is room.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.enter() {
			return &limitedConn{Conn: conn, leave: sync.OnceFunc(l.leave)}, nil
		}
		_ = conn.Close() // nothing was written to it
	}
}

func (l *limitListener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open < l.max {
		l.open++
		return true
	}
	l.turned++
	if now := time.Now(); now.Sub(l.said) >= crowdedEvery {
		l.log.Warn("API connections are turned away: too many are open; see who holds them, or run more stations", "open", l.open, "turnedAway", l.turned)
		l.said, l.turned = now, 0
	}
	return false
}

func (l *limitListener) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
}

// limitedConn gives its place back when it is closed.
type limitedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection; once more does no harm.
func (c *limitedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
