package identity

import (
	"context"
	"log/slog"
	"time"
)

// renewalCheckInterval is how often a Renewer looks whether a renewal is due, and how
// long it waits after one that failed. A short look is used rather than one long timer, which a
// suspended machine or a clock that is set would carry past the date.
const renewalCheckInterval = time.Hour

// Renewer keeps a part's certificate fresh.
type Renewer struct {
	Store    *Store
	Identity *Identity
	// Request sends a signing request (DER) to a station and returns the certificate (PEM).
	Request func(ctx context.Context, csrDER []byte) ([]byte, error)
	Log     *slog.Logger
}

// Run renews the certificate whenever it is due, until ctx ends. Failures are logged and
// tried again: a third of a certificate's life is there for them.
func (r *Renewer) Run(ctx context.Context) error {
	tick := time.NewTicker(renewalCheckInterval)
	defer tick.Stop()
	for {
		if r.Identity.NeedsRenewal(time.Now()) {
			r.renewOnce(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *Renewer) renewOnce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, renewalCheckInterval)
	defer cancel()
	before := r.Identity.Self()
	if err := r.Store.Renew(ctx, r.Identity, r.Request); err != nil {
		r.Log.Warn("certificate renewal failed; it is tried again", "serial", before.Serial, "expires", before.NotAfter, "retryIn", renewalCheckInterval, "error", err)
		return
	}
	after := r.Identity.Self()
	r.Log.Info("certificate renewed", "former", before.Serial, "serial", after.Serial, "expires", after.NotAfter)
}
