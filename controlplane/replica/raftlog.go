package replica

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// repeatsAllowed of one message pass within repeatWindow: raft says the same on every try to reach a
	// station that is away.
	repeatsAllowed = 3
	repeatWindow   = 10 * time.Second
	// messagesKnown bounds the memory of what was said.
	messagesKnown = 256
)

// raftLogger hands what raft logs to slog, in bounded amounts. raft's errors are warnings here: what ends
// the replica is returned by Run.
type raftLogger struct {
	out     *slog.Logger
	name    string
	implied []any
	repeats *repeats
}

func newRaftLogger(out *slog.Logger) hclog.Logger {
	return &raftLogger{out: out.With("part", "raft"), name: "raft", repeats: &repeats{seen: make(map[string]*repeat)}}
}

type repeat struct {
	start      time.Time
	n, dropped int
}

type repeats struct {
	mu   sync.Mutex
	seen map[string]*repeat
}

// pass reports whether msg may be logged, and how often it was held back before.
func (r *repeats) pass(msg string, now time.Time) (ok bool, dropped int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.seen[msg]
	if m == nil {
		if len(r.seen) >= messagesKnown {
			clear(r.seen)
		}
		m = &repeat{start: now}
		r.seen[msg] = m
	}
	if now.Sub(m.start) > repeatWindow {
		dropped = m.dropped
		*m = repeat{start: now}
	}
	if m.n >= repeatsAllowed {
		m.dropped++
		return false, 0
	}
	m.n++
	return true, dropped
}

func levelOf(level hclog.Level) slog.Level {
	switch level {
	case hclog.Info:
		return slog.LevelInfo
	case hclog.Warn, hclog.Error:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Log logs at level.
func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to := levelOf(level)
	if !l.out.Enabled(context.Background(), to) {
		return
	}
	pass, dropped := l.repeats.pass(msg, time.Now())
	if !pass {
		return
	}
	attrs := make([]any, 0, len(l.implied)+len(args)+2)
	attrs = append(append(attrs, l.implied...), args...)
	for i, a := range attrs {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			attrs[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	if dropped > 0 {
		attrs = append(attrs, "heldBack", dropped)
	}
	l.out.Log(context.Background(), to, msg, attrs...)
}

// Trace logs at trace level.
func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }

// Debug logs at debug level.
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }

// Info logs at info level.
func (l *raftLogger) Info(msg string, args ...any) { l.Log(hclog.Info, msg, args...) }

// Warn logs at warning level.
func (l *raftLogger) Warn(msg string, args ...any) { l.Log(hclog.Warn, msg, args...) }

// Error logs raft's errors.
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) enabled(level slog.Level) bool {
	return l.out.Enabled(context.Background(), level)
}

// IsTrace reports whether trace messages are wanted: never.
func (l *raftLogger) IsTrace() bool { return false }

// IsDebug reports whether debug messages are wanted.
func (l *raftLogger) IsDebug() bool { return l.enabled(slog.LevelDebug) }

// IsInfo reports whether info messages are wanted.
func (l *raftLogger) IsInfo() bool { return l.enabled(slog.LevelInfo) }

// IsWarn reports whether warnings are wanted.
func (l *raftLogger) IsWarn() bool { return l.enabled(slog.LevelWarn) }

// IsError reports whether errors are wanted.
func (l *raftLogger) IsError() bool { return l.enabled(slog.LevelWarn) }

// ImpliedArgs returns what With added.
func (l *raftLogger) ImpliedArgs() []any { return l.implied }

// With returns a logger that adds args to each message.
func (l *raftLogger) With(args ...any) hclog.Logger {
	c := *l
	c.implied = append(append([]any(nil), l.implied...), args...)
	return &c
}

// Name returns the logger's name.
func (l *raftLogger) Name() string { return l.name }

// Named returns a logger with name added.
func (l *raftLogger) Named(name string) hclog.Logger { return l.ResetNamed(l.name + "." + name) }

// ResetNamed returns a logger of that name.
func (l *raftLogger) ResetNamed(name string) hclog.Logger {
	c := *l
	c.name = name
	return &c
}

// SetLevel does nothing: slog's handler decides.
func (l *raftLogger) SetLevel(hclog.Level) {}

// GetLevel returns the lowest level that may be wanted.
func (l *raftLogger) GetLevel() hclog.Level { return hclog.Debug }

// StandardLogger adapts to the standard library's logger.
func (l *raftLogger) StandardLogger(opts *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(opts), "", 0)
}

// StandardWriter returns a writer each of whose writes is one message.
func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lineWriter{l} }

type lineWriter struct{ l *raftLogger }

// Write logs one line.
func (w lineWriter) Write(p []byte) (int, error) {
	w.l.Debug(string(p))
	return len(p), nil
}
