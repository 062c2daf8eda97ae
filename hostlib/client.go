package hostlib

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

const (
	defaultRetryLimit     = 2 * time.Minute
	defaultUnflushedBytes = 32 << 20
	minUnflushedBytes     = 1 << 20
	// maxSmallFileBytes bounds token and CA files.
	maxSmallFileBytes = 64 << 10
	// reloadEvery bounds how often the agent's certificate is looked at for a newer one.
	reloadEvery = time.Minute
)

// Config says on whose behalf a program asks for storage, and whom. Either DataDir is set, or
// Endpoints, CAFile and TokenFile are.
type Config struct {
	// Endpoints are stations, host:port. With DataDir they are added to those that the agent knows.
	Endpoints []string
	// CAFile has the cluster's CA certificate, TokenFile an operator token; a host-scoped provisioner's is enough.
	CAFile    string
	TokenFile string
	// DataDir is the data folder of this host's agent ('sandbar host run'), whose certificate, names and
	// assignments are used. The program must run as the agent's user.
	DataDir string
	// Host is this host's name in the cluster; with DataDir it may be left out.
	Host string
	// Initiator is the iSCSI name to log in with; left out, it is the host's first.
	Initiator string

	// RetryLimit is how long a request without a deadline of its own waits for a volume that can't be
	// reached; 0 is two minutes.
	RetryLimit time.Duration
	// UnflushedBytes bounds the memory, per volume, for what was written and is not flushed; 0 is 32 MiB, the least is
	// 1 MiB. When half of it is used the library flushes by itself.
	UnflushedBytes int64
	// Logger hears of connections that come and go, never of single requests; nil is silent.
	Logger *slog.Logger
}

// timing is how long a client waits for what.
type timing struct {
	agent         time.Duration // stations may keep silent before the agent's own word is taken
	refusal       time.Duration // Open goes on after a unit refused the login
	watchAgent    time.Duration // between looks at the agent's folder: a read of one small local file
	watchStations time.Duration // between questions to stations, which cost them a read
}

// Client asks for storage and opens volumes on behalf of one host. It is safe for concurrent use.
type Client struct {
	cfg    Config
	host   san.HostID
	log    *slog.Logger
	timing timing

	mu        sync.Mutex
	api       *stationclient.Client
	store     *identity.Store    // with DataDir
	identity  *identity.Identity // with DataDir
	loadedAt  time.Time
	initiator string // "" until it was looked up
	volumes   map[*Volume]struct{}
	closed    bool
}

// New makes a client. It connects when first used.
func New(cfg Config) (*Client, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.settle(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, host: san.HostID(cfg.Host), log: cfg.Logger, initiator: cfg.Initiator, volumes: map[*Volume]struct{}{}}
	c.timing = timing{agent: 3 * time.Second, refusal: 5 * time.Second, watchAgent: 200 * time.Millisecond, watchStations: 2 * time.Second}
	var err error
	if cfg.DataDir != "" {
		err = c.byAgent()
	} else {
		err = c.byToken()
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// settle fills in defaults and checks the rest.
func (cfg *Config) settle() error {
	if cfg.RetryLimit == 0 {
		cfg.RetryLimit = defaultRetryLimit
	}
	if cfg.UnflushedBytes == 0 {
		cfg.UnflushedBytes = defaultUnflushedBytes
	}
	switch {
	case cfg.RetryLimit < 0:
		return san.Errorf(san.KindInvalid, "RetryLimit %v is negative; leave it out for %v", cfg.RetryLimit, defaultRetryLimit)
	case cfg.UnflushedBytes < minUnflushedBytes:
		return san.Errorf(san.KindInvalid, "UnflushedBytes %d is less than %d; leave it out for %d", cfg.UnflushedBytes, minUnflushedBytes, defaultUnflushedBytes)
	case cfg.DataDir != "" && (cfg.TokenFile != "" || cfg.CAFile != ""):
		return san.Errorf(san.KindInvalid, "both DataDir and TokenFile or CAFile are set; an agent's folder has its own certificate, so set one or the other")
	case cfg.DataDir == "" && (cfg.TokenFile == "" || cfg.CAFile == "" || len(cfg.Endpoints) == 0):
		return san.Errorf(san.KindInvalid, "set DataDir to the host agent's folder, or Endpoints, CAFile and TokenFile")
	}
	if cfg.Host != "" {
		if err := san.CheckName("host", cfg.Host); err != nil {
			return err
		}
	} else if cfg.DataDir == "" {
		return san.Errorf(san.KindInvalid, "set Host to this host's name in the cluster")
	}
	if cfg.Initiator == "" {
		return nil
	}
	cfg.Initiator = san.NormalizeInitiator(cfg.Initiator)
	return san.CheckInitiatorName(cfg.Initiator)
}

// byAgent uses the folder of the host's agent.
func (c *Client) byAgent() error {
	h, err := state.ReadHost(c.cfg.DataDir)
	if err != nil {
		return err
	}
	if c.host != "" && c.host != h.ID {
		return san.Errorf(san.KindConflict, "%s is the folder of host %s, but Host is %s; leave Host out, or name the right folder", c.cfg.DataDir, h.ID, c.host)
	}
	c.host = h.ID
	if c.initiator == "" && len(h.Initiators) > 0 {
		c.initiator = h.Initiators[0]
	}
	c.store, err = identity.OpenStore(filepath.Join(c.cfg.DataDir, state.IdentityFolder), identity.Holder{Role: san.RoleHost, ID: string(h.ID)})
	if err != nil {
		return err
	}
	if c.identity, err = c.store.Load(); err != nil {
		return err
	}
	c.loadedAt = time.Now()
	eps := slices.Clone(h.Endpoints)
	for _, ep := range c.cfg.Endpoints {
		if !slices.Contains(eps, ep) {
			eps = append(eps, ep)
		}
	}
	return c.connect(eps, identity.ClientTLS(c.identity, identity.Roles(san.RoleStation)), "")
}

// byToken uses an operator token.
func (c *Client) byToken() error {
	token, err := smallFile("TokenFile", c.cfg.TokenFile)
	if err != nil {
		return err
	}
	if _, err := identity.ParseOperatorToken(string(token)); err != nil {
		return san.Wrap("TokenFile "+c.cfg.TokenFile, err)
	}
	ca, err := smallFile("CAFile", c.cfg.CAFile)
	if err != nil {
		return err
	}
	tlsConfig, err := identity.CATLS(ca)
	if err != nil {
		return san.Wrap("CAFile "+c.cfg.CAFile, err)
	}
	return c.connect(c.cfg.Endpoints, tlsConfig, strings.TrimSpace(string(token)))
}

func (c *Client) connect(endpoints []string, t *tls.Config, token string) (err error) {
	c.api, err = stationclient.New(stationclient.Config{Endpoints: endpoints, TLS: t, Token: token})
	return err
}

func smallFile(key, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "%s can't be read: %w", key, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxSmallFileBytes+1))
	if err == nil && len(text) > maxSmallFileBytes {
		err = errors.New("it is too long")
	}
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "%s %s can't be read: %w", key, name, err)
	}
	return text, nil
}

// Host is the name of the host on whose behalf the client acts.
func (c *Client) Host() string { return string(c.host) }

// Close closes the volumes that are still open and drops the connections. Its error is that of the
// first volume that could not be closed in order.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	var open []*Volume
	for v := range c.volumes {
		open = append(open, v)
	}
	c.mu.Unlock()
	var first error
	for _, v := range open {
		if err := v.Close(); err != nil && first == nil {
			first = err
		}
	}
	c.stations().Close()
	return first
}

// adopt makes v one of the client's volumes.
func (c *Client) adopt(v *Volume) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return san.Errorf(san.KindConflict, "the client of host %s: %w", c.host, ErrClosed)
	}
	c.volumes[v] = struct{}{}
	return nil
}

func (c *Client) forget(v *Volume) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.volumes, v)
}

// stations returns the connections to the stations, with the newest certificate that the agent has.
func (c *Client) stations() *stationclient.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.store == nil || !c.identity.NeedsRenewal(now) || now.Sub(c.loadedAt) < reloadEvery {
		return c.api
	}
	c.loadedAt = now
	id, err := c.store.Load()
	if err != nil || id.Self().Serial == c.identity.Self().Serial {
		return c.api // the old one is good for a while yet
	}
	old, eps := c.api, c.api.Endpoints()
	if err := c.connect(eps, identity.ClientTLS(id, identity.Roles(san.RoleStation)), ""); err != nil {
		c.api = old
		return old
	}
	c.identity = id
	old.Close()
	return c.api
}

// call asks the stations until one answers for good or ctx ends.
func call[T any](ctx context.Context, c *Client, fn func(ctx context.Context, api *stationclient.Client, ep string) (*connect.Response[T], error)) (*T, error) {
	api := c.stations()
	resp, err := stationclient.Call(ctx, api, func(ctx context.Context, ep string) (*connect.Response[T], error) { return fn(ctx, api, ep) })
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}
