package agents

import (
	"context"
	"net/http"
	"time"
)

type controllerKey struct{}

// Interruptible lets the streaming handlers behind it bound how long they read and write, which a
// context alone does not: a peer that takes nothing would hold them for ever.
func Interruptible(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ctx := context.WithValue(req.Context(), controllerKey{}, http.NewResponseController(w))
		next.ServeHTTP(w, req.WithContext(ctx))
	})
}

// SendWithin runs send, which writes to the response of the request that ctx is of, and ends the
// stream if the peer does not take it in time. It must not be called once the handler has returned.
func SendWithin(ctx context.Context, limit time.Duration, send func() error) error {
	rc, ok := ctx.Value(controllerKey{}).(*http.ResponseController)
	if !ok {
		return send()
	}
	if err := rc.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if err := send(); err != nil {
		return err
	}
	return rc.SetWriteDeadline(time.Time{})
}

// stopReading makes a read of the request that ctx is of return, now and later. It must not be
// called once the handler has returned.
func stopReading(ctx context.Context) {
	if rc, ok := ctx.Value(controllerKey{}).(*http.ResponseController); ok {
		// An error means that the stream is over: then nobody reads from it.
		_ = rc.SetReadDeadline(time.Unix(1, 0))
	}
}

// KeepReading takes back a bound on how long the request that ctx is of may take to arrive: it has, and
// over HTTP/1.1 the bound would end what goes on after it.
func KeepReading(ctx context.Context) {
	if rc, ok := ctx.Value(controllerKey{}).(*http.ResponseController); ok {
		// An error means that the stream is over, which the next write tells.
		_ = rc.SetReadDeadline(time.Time{})
	}
}
