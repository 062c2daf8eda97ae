package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/output"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// The flags of every command that asks stations.
const (
	flagEndpoint  = "endpoint"
	flagTokenFile = "token-file"
	flagCAFile    = "ca-file"
	flagOutput    = "output"
	flagWait      = "wait"
	flagTimeout   = "timeout"

	defaultTimeout = 60 * time.Second
	// maxSmallFileBytes bounds token and CA files.
	maxSmallFileBytes = 64 << 10
)

func addClientFlags(root *cobra.Command) {
	fs := root.PersistentFlags()
	fs.StringSlice(flagEndpoint, nil, "host:port of a station; repeat it to name several (SANDBAR_ENDPOINT)")
	fs.String(flagTokenFile, "", "file with the operator token (SANDBAR_TOKEN_FILE)")
	fs.String(flagCAFile, "", "file with the cluster's CA certificate (SANDBAR_CA_FILE)")
	fs.StringP(flagOutput, "o", string(output.FormatTable), "table, json or yaml")
	fs.Bool(flagWait, false, "wait until what was asked for is done, not only accepted")
	fs.Duration(flagTimeout, defaultTimeout, "give up after this long; 0 for never")
}

// session is one command's conversation with the stations.
type session struct {
	api    *stationclient.Client
	out    *output.Printer
	stderr io.Writer
	wait   bool
	// requestID makes the command's change safe to retry: one id for all tries.
	requestID string

	mu      sync.Mutex
	refused []string // endpoints at which the TLS handshake fails for good
}

func (a *App) printer(cmd *cobra.Command) (*output.Printer, error) {
	name, err := cmd.Flags().GetString(flagOutput)
	if err != nil {
		return nil, err
	}
	format, err := output.ParseFormat(name)
	if err != nil {
		return nil, err
	}
	return output.New(a.Stdout, format), nil
}

// verb makes a command of fn, which asks stations.
func (a *App) verb(use, short string, args cobra.PositionalArgs, fn func(ctx context.Context, s *session, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: runE(func(cmd *cobra.Command, args []string) error {
		s, err := a.open(cmd)
		if err != nil {
			return err
		}
		defer s.api.Close()
		ctx, cancel, err := bounded(cmd)
		if err != nil {
			return err
		}
		defer cancel()
		return fn(ctx, s, args)
	})}
}

// bounded returns the command's context, which ends with --timeout. A watch has none unless asked.
func bounded(cmd *cobra.Command) (context.Context, context.CancelFunc, error) {
	d, err := cmd.Flags().GetDuration(flagTimeout)
	switch {
	case err != nil:
		return nil, nil, err
	case d < 0:
		return nil, nil, san.Errorf(san.KindInvalid, "--timeout %v is negative; give a duration like 30s, or 0 for none", d)
	case d == 0 || isEndless(cmd) && !cmd.Flags().Changed(flagTimeout):
		ctx, cancel := context.WithCancel(cmd.Context())
		return ctx, cancel, nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), d)
	return ctx, cancel, nil
}

// open reads who asks, and whom.
func (a *App) open(cmd *cobra.Command) (*session, error) {
	p, err := a.printer(cmd)
	if err != nil {
		return nil, err
	}
	cfg, err := clientConfig(cmd.Flags())
	if err != nil {
		return nil, err
	}
	wait, err := cmd.Flags().GetBool(flagWait)
	if err != nil {
		return nil, err
	}
	api, err := stationclient.New(cfg)
	if err != nil {
		return nil, err
	}
	return &session{api: api, out: p, stderr: a.Stderr, wait: wait, requestID: uuid.NewString()}, nil
}

// clientConfig takes each setting from its flag or else its variable.
func clientConfig(flags *pflag.FlagSet) (stationclient.Config, error) {
	v := viper.New()
	for _, name := range []string{flagEndpoint, flagTokenFile, flagCAFile} {
		if err := errors.Join(v.BindPFlag(name, flags.Lookup(name)), v.BindEnv(name, envOf(name))); err != nil {
			return stationclient.Config{}, fmt.Errorf("bind --%s: %w", name, err)
		}
	}
	cfg := stationclient.Config{Endpoints: endpoints(v.Get(flagEndpoint))}
	if len(cfg.Endpoints) == 0 {
		return cfg, notSet(flagEndpoint, "the host:port of a station")
	}
	token, err := smallFile(v.GetString(flagTokenFile), flagTokenFile, "a file with an operator token, such as the founding station's admin.token")
	if err != nil {
		return cfg, err
	}
	if _, err := identity.ParseOperatorToken(string(token)); err != nil {
		return cfg, san.Errorf(san.KindOf(err), "token file %s: %w", v.GetString(flagTokenFile), err)
	}
	cfg.Token = strings.TrimSpace(string(token))
	ca, err := smallFile(v.GetString(flagCAFile), flagCAFile, "a file with the cluster's CA certificate, the founding station's ca.pem")
	if err != nil {
		return cfg, err
	}
	if cfg.TLS, err = identity.CATLS(ca); err != nil {
		return cfg, san.Errorf(san.KindInvalid, "CA file %s: %w", v.GetString(flagCAFile), err)
	}
	return cfg, nil
}

func envOf(flag string) string {
	return "SANDBAR_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func notSet(flag, what string) error {
	return san.Errorf(san.KindInvalid, "no %s: set --%s or %s to %s", strings.ReplaceAll(flag, "-", " "), flag, envOf(flag), what)
}

// endpoints splits what a variable holds; a flag's value is split already.
func endpoints(raw any) []string {
	var list []string
	switch v := raw.(type) {
	case []string:
		list = v
	case string:
		list = strings.Split(v, ",")
	}
	return slices.DeleteFunc(list, func(s string) bool { return strings.TrimSpace(s) == "" })
}

func smallFile(name, flag, what string) ([]byte, error) {
	if name == "" {
		return nil, notSet(flag, what)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "--%s: %w; give %s", flag, err, what)
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxSmallFileBytes+1))
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "--%s: %w; give %s", flag, err, what)
	}
	if len(text) > maxSmallFileBytes {
		return nil, san.Errorf(san.KindInvalid, "--%s: %s has more than %d bytes; give %s", flag, name, maxSmallFileBytes, what)
	}
	return text, nil
}

// ask makes one call of a service at any station.
func ask[C, Req, Resp any](ctx context.Context, s *session, service func(ep string) C, method func(C, context.Context, *connect.Request[Req]) (*connect.Response[Resp], error), m *Req) (*Resp, error) {
	resp, err := stationclient.Call(ctx, s.api, func(ctx context.Context, ep string) (*connect.Response[Resp], error) {
		resp, err := method(service(ep), ctx, connect.NewRequest(m))
		return resp, s.judge(ep, err)
	})
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// judge ends the tries once no station is one of the cluster that --ca-file names: another
// try can't change that, and its reason is better than a timeout.
func (s *session) judge(ep string, err error) error {
	var se *san.Error
	if err == nil || connect.IsWireError(err) || !errors.As(err, &se) {
		return err
	}
	if k := se.Kind; k != san.KindUnauthenticated && k != san.KindDenied {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.refused, ep) {
		s.refused = append(s.refused, ep)
	}
	if len(s.refused) < len(s.api.Endpoints()) {
		return err
	}
	return connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("station %s: %w", ep, se))
}
