package cli

import (
	"context"

	"github.com/spf13/cobra"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/output"
)

type hostClient = sandbarv1connect.HostServiceClient

func (a *App) hostCommand() *cobra.Command {
	return noun("host", "Register and show hosts; run a host's agent",
		a.hostRun(), a.hostAdd(), a.hostList(), a.hostShow(), a.hostRemove())
}

func (a *App) hostAdd() *cobra.Command {
	var initiators, allowFrom []string
	c := a.verb("add HOST --initiator NAME", "Register a host that runs no agent, by its initiator names", takes("HOST"),
		func(ctx context.Context, s *session, args []string) error {
			resp, err := ask(ctx, s, s.api.Hosts, hostClient.AddHost,
				&pb.AddHostRequest{RequestId: s.requestID, Id: args[0], Initiators: initiators, AllowFrom: allowFrom})
			if err != nil {
				return err
			}
			return s.out.Print(resp.Host, func(p *output.Page) { drawHost(p, resp.Host) })
		})
	c.Flags().StringSliceVar(&initiators, "initiator", nil, "a name that it may log in with, like iqn.2004-10.com.example:host-1; repeatable")
	c.Flags().StringSliceVar(&allowFrom, "allow-from", nil, "addresses that it may log in from, like 192.0.2.0/24; repeatable; without it: any")
	require(c, "initiator")
	return c
}

func (a *App) hostList() *cobra.Command {
	return a.verb("list", "List all hosts, by id", takes(), func(ctx context.Context, s *session, _ []string) error {
		all := &pb.ListHostsResponse{}
		err := eachPage(func(token string) (string, error) {
			page, err := ask(ctx, s, s.api.Hosts, hostClient.ListHosts, &pb.ListHostsRequest{PageSize: pageSize, PageToken: token})
			all.Hosts = append(all.Hosts, page.GetHosts()...)
			return page.GetNextPageToken(), err
		})
		if err != nil {
			return err
		}
		return s.out.Print(all, func(p *output.Page) { drawHosts(p, all.Hosts) })
	})
}

func (a *App) hostShow() *cobra.Command {
	return a.verb("show HOST", "Show a host", takes("HOST"), func(ctx context.Context, s *session, args []string) error {
		resp, err := ask(ctx, s, s.api.Hosts, hostClient.GetHost, &pb.GetHostRequest{Id: args[0]})
		if err != nil {
			return err
		}
		return s.out.Print(resp.Host, func(p *output.Page) { drawHost(p, resp.Host) })
	})
}

func (a *App) hostRemove() *cobra.Command {
	return a.verb("remove HOST", "Forget a host that has no volumes", takes("HOST"), func(ctx context.Context, s *session, args []string) error {
		resp, err := ask(ctx, s, s.api.Hosts, hostClient.RemoveHost, &pb.RemoveHostRequest{RequestId: s.requestID, Id: args[0]})
		if err != nil {
			return err
		}
		return s.out.Print(resp, func(p *output.Page) { p.Line("host %s is removed", args[0]) })
	})
}
