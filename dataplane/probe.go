package dataplane

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// maxProbeBytes bounds a probe's message, which is empty.
	maxProbeBytes = 4 << 10
	// probeEndWait is how long probes under way have when the unit stops.
	probeEndWait = 500 * time.Millisecond
)

// prober answers stations that ask whether the unit lives.
type prober struct {
	unit        san.UnitID
	incarnation san.Incarnation
}

// Probe implements ProbeService.
func (p *prober) Probe(context.Context, *connect.Request[pb.ProbeRequest]) (*connect.Response[pb.ProbeResponse], error) {
	return connect.NewResponse(&pb.ProbeResponse{UnitId: string(p.unit), Incarnation: uint64(p.incarnation)}), nil
}

// serveProbes answers on l, stations alone, until ctx ends. It closes l.
func serveProbes(ctx context.Context, l net.Listener, id *identity.Identity, p *prober, logger *slog.Logger) error {
	mux := http.NewServeMux()
	mux.Handle(sandbarv1connect.NewProbeServiceHandler(p, connect.WithReadMaxBytes(maxProbeBytes)))
	srv := &http.Server{
		Handler:           mux,
		TLSConfig:         identity.ServerTLS(id, identity.ClientCertRequired, identity.Roles(san.RoleStation)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(debugLog{logger}, "", 0),
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	select {
	case err := <-done:
		return san.Errorf(san.KindUnavailable, "probes can't be answered at %s any more: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeEndWait)
	defer cancel()
	if srv.Shutdown(sctx) != nil {
		_ = srv.Close() // who is still there had the time
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return san.Errorf(san.KindUnavailable, "probes could not be answered at %s: %w", l.Addr(), err)
	}
	return nil
}

// debugLog takes what net/http says of strangers' handshakes.
type debugLog struct{ log *slog.Logger }

// Write implements io.Writer.
func (d debugLog) Write(b []byte) (int, error) {
	d.log.Debug("probe listener", "message", string(b))
	return len(b), nil
}
