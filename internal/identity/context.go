package identity

import (
	"context"
	"crypto/tls"
	"net/http"
)

type connectionKey struct{}

// WithConnection makes each request's handler find its TLS connection by PeerFrom. It must be
// around every handler that judges certificates.
func WithConnection(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.TLS != nil {
			req = req.WithContext(context.WithValue(req.Context(), connectionKey{}, req.TLS))
		}
		next.ServeHTTP(w, req)
	})
}

// PeerFrom returns the peer at the other end of the request's connection, and false if it
// showed no certificate.
func PeerFrom(ctx context.Context) (Peer, bool, error) {
	cs, _ := ctx.Value(connectionKey{}).(*tls.ConnectionState)
	if cs == nil {
		return Peer{}, false, nil
	}
	return PeerOf(cs)
}
