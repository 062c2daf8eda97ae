package cli

import (
	"context"

	"github.com/spf13/cobra"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/output"
	"github.com/sandbar-san/sandbar/san"
)

type unitClient = sandbarv1connect.UnitServiceClient

func (a *App) unitCommand() *cobra.Command {
	return noun("unit", "Show and approve units; run a unit",
		a.unitRun(), a.unitList(), a.unitShow(), a.unitApprove(), a.unitSet(), a.unitStats())
}

func (a *App) unitList() *cobra.Command {
	return a.verb("list", "List all units, by id", takes(), func(ctx context.Context, s *session, _ []string) error {
		all := &pb.ListUnitsResponse{}
		err := eachPage(func(token string) (string, error) {
			page, err := ask(ctx, s, s.api.Units, unitClient.ListUnits, &pb.ListUnitsRequest{PageSize: pageSize, PageToken: token})
			all.Units = append(all.Units, page.GetUnits()...)
			return page.GetNextPageToken(), err
		})
		if err != nil {
			return err
		}
		return s.out.Print(all, func(p *output.Page) { drawUnits(p, all.Units) })
	})
}

func (a *App) unitShow() *cobra.Command {
	return a.verb("show UNIT", "Show a unit with its media and volumes", takes("UNIT"), func(ctx context.Context, s *session, args []string) error {
		resp, err := ask(ctx, s, s.api.Units, unitClient.GetUnit, &pb.GetUnitRequest{Id: args[0]})
		if err != nil {
			return err
		}
		return s.out.Print(resp.Unit, func(p *output.Page) { drawUnit(p, resp.Unit) })
	})
}

func (a *App) unitApprove() *cobra.Command {
	return a.verb("approve UNIT", "Let a pending unit into the pool", takes("UNIT"), func(ctx context.Context, s *session, args []string) error {
		resp, err := ask(ctx, s, s.api.Units, unitClient.ApproveUnit, &pb.ApproveUnitRequest{RequestId: s.requestID, Id: args[0]})
		if err != nil {
			return err
		}
		return s.out.Print(resp.Unit, func(p *output.Page) { drawUnit(p, resp.Unit) })
	})
}

func (a *App) unitSet() *cobra.Command {
	var spare bool
	var labels map[string]string
	var c *cobra.Command
	c = a.verb("set UNIT [--spare=true|false] [--label KEY=VALUE]", "Change what is decided of a unit", takes("UNIT"),
		func(ctx context.Context, s *session, args []string) error {
			req := &pb.SetUnitRequest{RequestId: s.requestID, Id: args[0], Labels: labels}
			if c.Flags().Changed("spare") {
				req.Spare = &spare
			}
			if req.Spare == nil && len(labels) == 0 {
				return san.Errorf(san.KindInvalid, "nothing to set; give --spare, --spare=false or --label KEY=VALUE")
			}
			resp, err := ask(ctx, s, s.api.Units, unitClient.SetUnit, req)
			if err != nil {
				return err
			}
			return s.out.Print(resp.Unit, func(p *output.Page) { drawUnit(p, resp.Unit) })
		})
	c.Flags().BoolVar(&spare, "spare", false, "keep it free of volumes, to replace a lost unit")
	c.Flags().StringToStringVar(&labels, "label", nil, "KEY=VALUE to set, KEY= to remove; repeatable")
	return c
}

func (a *App) poolCommand() *cobra.Command {
	show := a.verb("show", "Sum up units, media and room", takes(), func(ctx context.Context, s *session, _ []string) error {
		resp, err := ask(ctx, s, s.api.Units, unitClient.GetPool, &pb.GetPoolRequest{})
		if err != nil {
			return err
		}
		return s.out.Print(resp, func(p *output.Page) { drawPool(p, resp) })
	})
	return noun("pool", "Show the virtual storage pool", show)
}
