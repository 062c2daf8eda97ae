package stationclient

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/san"
)

// Limits of a client.
const (
	// MaxMessageBytes bounds an answer; the largest is a page of volumes.
	MaxMessageBytes = 16 << 20
	// MaxEndpoints bounds the list of stations that a client keeps.
	MaxEndpoints = 64

	dialTimeout = 3 * time.Second
	retryMin    = 20 * time.Millisecond
	retryMax    = 500 * time.Millisecond
)

// Config says which stations there are and who the caller is.
type Config struct {
	Endpoints []string    // host:port, at least one
	TLS       *tls.Config // from internal/identity
	Token     string      // bearer token; empty when TLS carries a certificate
}

// Client calls one station at a time and moves to the next when that one cannot be
// reached. It is safe for concurrent use.
type Client struct {
	token string
	tls   *tls.Config

	mu         sync.Mutex
	http       *http.Client
	configured []string // never forgotten: what is learnt may be too short a list
	endpoints  []string
	current    int
}

// New makes a client; it connects when first used.
func New(cfg Config) (*Client, error) {
	eps, err := cleanEndpoints(cfg.Endpoints)
	if err != nil {
		return nil, err
	}
	c := &Client{token: cfg.Token, tls: cfg.TLS, configured: eps, endpoints: eps, current: rand.IntN(len(eps))}
	c.http = c.connections()
	return c, nil
}

// connections makes an empty set of connections.
func (c *Client) connections() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:     c.tls,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		IdleConnTimeout:     90 * time.Second,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 2 * time.Second, // a silent cut is noticed within four seconds
			PingTimeout:     2 * time.Second,
		},
	}}
}

// redial makes the calls to come use new connections, which show the newest certificate.
func (c *Client) redial() {
	c.mu.Lock()
	old := c.http
	c.http = c.connections()
	c.mu.Unlock()
	old.CloseIdleConnections()
}

// doer is the connections in use.
func (c *Client) doer() *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.http
}

func cleanEndpoint(e string) string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(e), "https://"), "/")
}

// CheckEndpoint reports whether a client can be made with that endpoint; san.KindInvalid if not.
func CheckEndpoint(e string) error {
	if _, _, err := net.SplitHostPort(cleanEndpoint(e)); err != nil {
		return san.Errorf(san.KindInvalid, "station endpoint %.300q is not host:port", e)
	}
	return nil
}

func cleanEndpoints(in []string) ([]string, error) {
	var eps []string
	for _, e := range in {
		e = cleanEndpoint(e)
		if e == "" || slices.Contains(eps, e) {
			continue
		}
		if err := CheckEndpoint(e); err != nil {
			return nil, err
		}
		if eps = append(eps, e); len(eps) == MaxEndpoints {
			break
		}
	}
	if len(eps) == 0 {
		return nil, san.Errorf(san.KindInvalid, "no station endpoint given; name at least one as host:port")
	}
	return eps, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.doer().CloseIdleConnections() }

// SetEndpoints replaces what was learnt of the stations, as a Welcome told it; an unusable
// list changes nothing. The endpoints that the client was made with stay in the list, behind
// the learnt ones.
func (c *Client) SetEndpoints(eps []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := cleanEndpoints(eps); err != nil {
		return
	}
	clean, err := cleanEndpoints(slices.Concat(eps, c.configured))
	if err != nil {
		return
	}
	now := c.endpoints[c.current]
	c.endpoints, c.current = clean, max(0, slices.Index(clean, now))
}

// Endpoints returns the present list.
func (c *Client) Endpoints() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.endpoints)
}

// Endpoint returns the station in use.
func (c *Client) Endpoint() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endpoints[c.current]
}

// Failed moves on to the next station if ep is still the one in use.
func (c *Client) Failed(ep string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.endpoints[c.current] == ep {
		c.current = (c.current + 1) % len(c.endpoints)
	}
}

func (c *Client) options() []connect.ClientOption {
	return []connect.ClientOption{
		connect.WithReadMaxBytes(MaxMessageBytes),
		connect.WithInterceptors(bearer{c.token}),
	}
}

// Volumes returns the volume service at endpoint ep.
func (c *Client) Volumes(ep string) sandbarv1connect.VolumeServiceClient {
	return sandbarv1connect.NewVolumeServiceClient(c.doer(), "https://"+ep, c.options()...)
}

// Hosts returns the host service at ep.
func (c *Client) Hosts(ep string) sandbarv1connect.HostServiceClient {
	return sandbarv1connect.NewHostServiceClient(c.doer(), "https://"+ep, c.options()...)
}

// Units returns the unit service at ep.
func (c *Client) Units(ep string) sandbarv1connect.UnitServiceClient {
	return sandbarv1connect.NewUnitServiceClient(c.doer(), "https://"+ep, c.options()...)
}

// Stations returns the station service at ep.
func (c *Client) Stations(ep string) sandbarv1connect.StationServiceClient {
	return sandbarv1connect.NewStationServiceClient(c.doer(), "https://"+ep, c.options()...)
}

// Tokens returns the token service at ep.
func (c *Client) Tokens(ep string) sandbarv1connect.TokenServiceClient {
	return sandbarv1connect.NewTokenServiceClient(c.doer(), "https://"+ep, c.options()...)
}

// Enrol returns the enrolment service at ep.
func (c *Client) Enrol(ep string) sandbarv1connect.EnrolServiceClient {
	return sandbarv1connect.NewEnrolServiceClient(c.doer(), "https://"+ep, c.options()...)
}

// Agents returns the agents' stream service at ep.
func (c *Client) Agents(ep string) sandbarv1connect.AgentServiceClient {
	return sandbarv1connect.NewAgentServiceClient(c.doer(), "https://"+ep, c.options()...)
}

// Peers returns the stations' own service at ep.
func (c *Client) Peers(ep string) sandbarv1connect.PeerServiceClient {
	return sandbarv1connect.NewPeerServiceClient(c.doer(), "https://"+ep, c.options()...)
}

// Probes returns a unit's probe service at ep.
func (c *Client) Probes(ep string) sandbarv1connect.ProbeServiceClient {
	return sandbarv1connect.NewProbeServiceClient(c.doer(), "https://"+ep, c.options()...)
}

// bearer adds the token to every call.
type bearer struct{ token string }

func (b bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if b.token != "" {
			req.Header().Set("Authorization", "Bearer "+b.token)
		}
		return next(ctx, req)
	}
}

func (b bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		if b.token != "" {
			conn.RequestHeader().Set("Authorization", "Bearer "+b.token)
		}
		return conn
	}
}

func (b bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// attemptTimeout bounds one try at one station, so that a silent station costs a turn
// and not the whole call.
const attemptTimeout = 8 * time.Second

// Call runs fn against one station after the other until it succeeds, fails for a reason
// that another try can't change, or ctx ends. fn must be safe to repeat: a read, or a
// mutation with a request id. When ctx ends the error's kind is KindUnavailable, or KindUnknown if
// the last station that answered said that it can't tell whether the change happened.
func Call[T any](ctx context.Context, c *Client, fn func(ctx context.Context, ep string) (T, error)) (T, error) {
	wait, strangers, redialled := retryMin, 0, false
	var last error
	for {
		ep := c.Endpoint()
		actx, cancel := context.WithTimeout(ctx, attemptTimeout)
		out, err := fn(actx, ep)
		cancel()
		if err == nil {
			return out, nil
		}
		switch {
		case !redialled && c.replaced(err):
			redialled = true
			c.redial()
			continue
		case stranger(err):
			// One wrong endpoint among good ones is passed over; when all are wrong, it is no use to go on.
			if strangers++; strangers >= len(c.Endpoints()) {
				return out, convert.FromConnect(err)
			}
		case !retriable(err):
			return out, convert.FromConnect(err)
		default:
			strangers = 0
		}
		// A try that ctx cut short says less than the one before it.
		if last == nil || ctx.Err() == nil || connect.IsWireError(err) {
			last = err
		}
		c.Failed(ep)
		select {
		case <-ctx.Done():
			kind := san.KindUnavailable
			if san.KindOf(convert.FromConnect(last)) == san.KindUnknown {
				kind = san.KindUnknown
			}
			return out, san.Errorf(kind, "no station answered in time (tried %s; last: %s): %w", strings.Join(c.Endpoints(), ", "), message(last), ctx.Err())
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, retryMax)
	}
}

// replaced tells whether a station refused who calls where a new connection may help: this one may
// show a certificate that was renewed since.
func (c *Client) replaced(err error) bool {
	return c.token == "" && c.tls != nil && c.tls.GetClientCertificate != nil &&
		connect.IsWireError(err) && connect.CodeOf(err) == connect.CodeUnauthenticated
}

// stranger tells whether TLS refused the other side: no station of the cluster, by its certificate.
func stranger(err error) bool {
	var known *san.Error
	return !connect.IsWireError(err) && errors.As(err, &known) && (known.Kind == san.KindUnauthenticated || known.Kind == san.KindDenied)
}

func message(err error) string {
	var ce *connect.Error
	if errors.As(err, &ce) {
		return ce.Message()
	}
	return err.Error()
}

func retriable(err error) bool {
	var ce *connect.Error
	if convert.IsFinal(err) {
		return false
	}
	if !errors.As(err, &ce) {
		return true // no answer of a station
	}
	switch ce.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
		return true
	case connect.CodeCanceled: // a station that stops cancels what it has not begun
		return true
	}
	return convert.Lost(err)
}
