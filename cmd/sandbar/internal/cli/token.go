package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/output"
	"github.com/sandbar-san/sandbar/san"
)

type tokenClient = sandbarv1connect.TokenServiceClient

func (a *App) tokenCommand() *cobra.Command {
	return noun("token", "Make and revoke tokens", a.tokenCreate(), a.tokenList(), a.tokenDelete())
}

func (a *App) tokenCreate() *cobra.Command {
	var role, host, ttl string
	c := a.verb("create NAME --role ROLE", "Make an operator token and print it, once", takes("NAME"),
		func(ctx context.Context, s *session, args []string) error {
			seconds, err := parseTTL(ttl)
			if err != nil {
				return err
			}
			resp, err := ask(ctx, s, s.api.Tokens, tokenClient.CreateToken,
				&pb.CreateTokenRequest{RequestId: s.requestID, Name: args[0], Role: role, HostId: host, TtlSeconds: seconds})
			if err != nil {
				return err
			}
			return s.out.Print(resp, func(p *output.Page) { s.drawSecret(p, resp.Token, resp.Secret) })
		})
	fs := c.Flags()
	fs.StringVar(&role, "role", "", "admin, operator, viewer or provisioner")
	fs.StringVar(&host, "host", "", "the host that a provisioner acts for")
	fs.StringVar(&ttl, "ttl", "", "how long it is valid, like 12h or 90d; without it: until it is deleted")
	require(c, "role")
	return c
}

// drawSecret prints the token alone, so that it can be sent to a file; about it, on stderr.
func (s *session) drawSecret(p *output.Page, t *pb.Token, secret string) {
	until := "until it is deleted"
	if t.GetExpiresAt() != nil {
		until = "until " + when(t.ExpiresAt)
	}
	fmt.Fprintln(s.stderr, output.Clean(fmt.Sprintf("token %s (%s, %s) is valid %s and is shown only this once", t.GetId(), t.GetName(), t.GetRole(), until)))
	p.Line("%s", secret)
}

func (a *App) tokenList() *cobra.Command {
	return a.verb("list", "List operator and join tokens, without their secrets", takes(), func(ctx context.Context, s *session, _ []string) error {
		all := &pb.ListTokensResponse{}
		err := eachPage(func(token string) (string, error) {
			page, err := ask(ctx, s, s.api.Tokens, tokenClient.ListTokens, &pb.ListTokensRequest{PageSize: pageSize, PageToken: token})
			all.Tokens = append(all.Tokens, page.GetTokens()...)
			return page.GetNextPageToken(), err
		})
		if err != nil {
			return err
		}
		return s.out.Print(all, func(p *output.Page) { drawTokens(p, all.Tokens) })
	})
}

func (a *App) tokenDelete() *cobra.Command {
	return a.verb("delete TOKEN-ID", "Revoke an operator or join token", takes("TOKEN-ID"), func(ctx context.Context, s *session, args []string) error {
		resp, err := ask(ctx, s, s.api.Tokens, tokenClient.DeleteToken, &pb.DeleteTokenRequest{RequestId: s.requestID, Id: args[0]})
		if err != nil {
			return err
		}
		return s.out.Print(resp, func(p *output.Page) { p.Line("token %s is revoked", args[0]) })
	})
}

func (a *App) joinTokenCommand() *cobra.Command {
	return noun("join-token", "Make tokens that let stations, units and hosts join", a.joinTokenCreate())
}

func (a *App) joinTokenCreate() *cobra.Command {
	var role, ttl string
	var approve bool
	var uses uint32
	c := a.verb("create NAME --role ROLE", "Make a join token and print it, once", takes("NAME"),
		func(ctx context.Context, s *session, args []string) error {
			seconds, err := parseTTL(ttl)
			if err != nil {
				return err
			}
			resp, err := ask(ctx, s, s.api.Tokens, tokenClient.CreateJoinToken, &pb.CreateJoinTokenRequest{
				RequestId: s.requestID, Name: args[0], Role: role, TtlSeconds: seconds, Approve: approve, MaxUses: uses,
			})
			if err != nil {
				return err
			}
			return s.out.Print(resp, func(p *output.Page) { s.drawSecret(p, resp.Token, resp.Secret) })
		})
	fs := c.Flags()
	fs.StringVar(&role, "role", "", "station, unit or host")
	fs.StringVar(&ttl, "ttl", "", "how long it is valid, like 12h or 90d; without it: a day")
	fs.BoolVar(&approve, "approve", false, "who joins with it needs no approval by hand")
	fs.Uint32Var(&uses, "max-uses", 0, "how many may join with it; 0 for any number")
	require(c, "role")
	return c
}

// parseTTL reads a lifetime in whole seconds; days may be written as 90d.
func parseTTL(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int64
		n, err = strconv.ParseInt(days, 10, 32)
		d = time.Duration(min(n, maxTTLDays)) * 24 * time.Hour
	}
	if err != nil || d < time.Second {
		return 0, san.Errorf(san.KindInvalid, "--ttl %q is not a lifetime of at least a second; write it like 30m, 12h or 90d", s)
	}
	return int64(d / time.Second), nil
}

// maxTTLDays keeps a time.Duration from overflowing; it is over 100 years.
const maxTTLDays = 40000
