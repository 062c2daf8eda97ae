package agentlink

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/identity"
)

// How a link behaves in time.
const (
	// Silence is how long a station may send nothing before it is given up.
	Silence = 5 * time.Second
	// GoodbyeWait bounds how long Run takes to end in order.
	GoodbyeWait = 1500 * time.Millisecond

	backoffMin = 100 * time.Millisecond
	backoffMax = 2 * time.Second
	// settled is how long a stream must have lived for its end to be redialled at once; one
	// that ended sooner was refused, and asking again at once would only be a burden.
	settled = time.Second
)

// Config is what a link needs. Its functions are called from the goroutines of Run, one
// call at a time each, and hold the stream up while they run.
type Config struct {
	// Identity is the agent's certificate. When it is renewed the link dials anew, because
	// stations believe reports only of the certificate that they issued last.
	Identity *identity.Identity
	// Endpoints are the stations known so far, host:port.
	Endpoints []string
	// Hello says who the agent is, for each stream.
	Hello func() *pb.Hello
	// OnWelcome hears of each stream that begins, and when the stations change, with their
	// present endpoints, so that they can be kept. May be nil.
	OnWelcome func(*pb.Welcome)
	// StorageInfo is what a unit has; nil in a host's agent.
	StorageInfo func() *pb.StorageInfo
	// StorageChanged has a value when StorageInfo is to be told again, to a station that has asked for it. How
	// often that may be is for who sends to decide. May be nil.
	StorageChanged <-chan struct{}
	// OnDesired takes each desired state: a full one first on each stream, then changes.
	// After an error the stream is dropped and another station is asked.
	OnDesired func(*pb.DesiredState) error
	// OnQuestion answers what a station asks, from memory; nil for a question that it does not know, which
	// stays without an answer. May be nil.
	OnQuestion func(*pb.Question) *pb.Answer
	// Reports is where reports wait.
	Reports *Outbox
	// Reason is what the goodbye says.
	Reason string
	// Log hears of streams that begin and end.
	Log *slog.Logger
}

// stream is one open stream; connect's is one.
type stream interface {
	Send(*pb.SessionRequest) error
	Receive() (*pb.SessionResponse, error)
	CloseResponse() error
}

// dialer knows the stations.
type dialer interface {
	Endpoint() string
	Failed(endpoint string)
	SetEndpoints([]string)
	// open begins a stream that ends with ctx; errors come from the stream's methods.
	open(ctx context.Context, endpoint string) stream
	// stale reports that the dialer's connections show an old certificate.
	stale() bool
	// renew makes the next streams show the newest one.
	renew() error
	close()
}

// Run keeps a stream to one of the stations until ctx ends, then says goodbye and returns
// nil. Stations that can't be reached are no error: it goes on trying. It returns after
// all that it started has ended.
func Run(ctx context.Context, cfg Config) error {
	d, err := newStations(cfg.Identity, cfg.Endpoints)
	if err != nil {
		return err
	}
	return run(ctx, cfg, d)
}

func run(ctx context.Context, cfg Config, d dialer) error {
	defer d.close()
	said := ""
	for wait := backoffMin; ; {
		if d.stale() {
			if err := d.renew(); err != nil {
				return err
			}
		}
		endpoint := d.Endpoint()
		s := &session{cfg: cfg, dialer: d, endpoint: endpoint, alive: make(chan struct{}, 1), needStorage: make(chan struct{}, 1), welcomed: make(chan *pb.Welcome, 1), answers: make(chan *pb.Answer, maxAnswers)}
		began := time.Now()
		err := s.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !s.renewing {
			d.Failed(endpoint)
		}
		if text := fmt.Sprint(err); text != said || s.begun.Load() {
			said = text
			cfg.Log.Info("no stream to a station; dialling", "station", endpoint, "err", err)
		}
		if s.begun.Load() && time.Since(began) >= settled {
			wait = backoffMin
			continue
		}
		if !pause(ctx, wait/2+rand.N(wait/2)) {
			return nil
		}
		wait = min(2*wait, backoffMax)
	}
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
