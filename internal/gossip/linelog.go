package gossip

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// linesAllowed of one sort pass within lineWindow: anybody can make serf log by sending it rubbish.
	linesAllowed = 3
	lineWindow   = 10 * time.Second
	// sortBytes of a line tell its sort; what varies, such as an address, comes later.
	sortBytes  = 32
	sortsKnown = 128
	lineBytes  = 512
)

// lineLogger hands serf's and memberlist's log lines to slog, in bounded amounts. Their errors are warnings
// here: gossip gives hints, and what is wrong with it hurts nobody's data.
type lineLogger struct {
	out  *slog.Logger
	mu   sync.Mutex
	seen map[string]*lineSort
}

type lineSort struct {
	start      time.Time
	n, dropped int
}

func newLineLogger(out *slog.Logger) *log.Logger {
	return log.New(&lineLogger{out: out.With("part", "gossip"), seen: make(map[string]*lineSort)}, "", 0)
}

// Write logs one line.
func (l *lineLogger) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p[:min(len(p), lineBytes)]))
	level := slog.LevelDebug
	if rest, ok := strings.CutPrefix(line, "["); ok {
		if word, text, ok := strings.Cut(rest, "]"); ok {
			line = strings.TrimSpace(text)
			if word == "WARN" || word == "ERR" || word == "ERROR" {
				level = slog.LevelWarn
			}
		}
	}
	if !l.out.Enabled(context.Background(), level) {
		return len(p), nil
	}
	if ok, dropped := l.pass(line[:min(len(line), sortBytes)], time.Now()); ok {
		var attrs []any
		if dropped > 0 {
			attrs = []any{"heldBack", dropped}
		}
		l.out.Log(context.Background(), level, line, attrs...)
	}
	return len(p), nil
}

func (l *lineLogger) pass(sort string, now time.Time) (ok bool, dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.seen[sort]
	if s == nil {
		if len(l.seen) >= sortsKnown {
			clear(l.seen)
		}
		s = &lineSort{start: now}
		l.seen[sort] = s
	}
	if now.Sub(s.start) > lineWindow {
		dropped = s.dropped
		*s = lineSort{start: now}
	}
	if s.n >= linesAllowed {
		s.dropped++
		return false, 0
	}
	s.n++
	return true, dropped
}
