package cli

import (
	"context"

	"github.com/spf13/cobra"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/output"
)

type stationClient = sandbarv1connect.StationServiceClient

// Bounds of the audit list.
const (
	auditPage    = 1000 // entries in one call, the most that a station gives
	auditDefault = 200  // entries shown
)

func (a *App) stationCommand() *cobra.Command {
	list := a.verb("list", "List the stations and who leads", takes(), func(ctx context.Context, s *session, _ []string) error {
		resp, err := ask(ctx, s, s.api.Stations, stationClient.ListStations, &pb.ListStationsRequest{})
		if err != nil {
			return err
		}
		return s.out.Print(resp, func(p *output.Page) { drawStations(p, resp) })
	})
	transfer := a.verb("transfer-leadership [STATION]", "Hand the leadership to a station, or to any other", cobra.MaximumNArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			req := &pb.TransferLeadershipRequest{}
			if len(args) > 0 {
				req.StationId = args[0]
			}
			resp, err := ask(ctx, s, s.api.Stations, stationClient.TransferLeadership, req)
			if err != nil {
				return err
			}
			return s.out.Print(resp, func(p *output.Page) { p.Line("the leadership is handed over") })
		})
	return noun("station", "Show the stations; run a station", a.stationRun(), list, transfer)
}

func (a *App) auditCommand() *cobra.Command {
	var from uint64
	var limit int
	list := a.verb("list", "Show who changed what, newest last", takes(), func(ctx context.Context, s *session, _ []string) error {
		all, err := s.audit(ctx, from)
		if err != nil {
			return err
		}
		if limit > 0 && len(all.Entries) > limit {
			all.Entries = all.Entries[len(all.Entries)-limit:]
		}
		return s.out.Print(all, func(p *output.Page) { drawAudit(p, all.Entries) })
	})
	list.Flags().Uint64Var(&from, "from", 0, "only entries after this index")
	list.Flags().IntVar(&limit, "limit", auditDefault, "at most this many, the newest; 0 for all that are kept")
	return noun("audit", "Show who changed what", list)
}

// audit reads all entries after index from, page by page.
func (s *session) audit(ctx context.Context, from uint64) (*pb.ListAuditResponse, error) {
	all := &pb.ListAuditResponse{}
	for {
		page, err := ask(ctx, s, s.api.Stations, stationClient.ListAudit, &pb.ListAuditRequest{FromIndex: from, Limit: auditPage})
		if err != nil {
			return nil, err
		}
		before := from
		for _, e := range page.Entries {
			if e.Index > from {
				all.Entries, from = append(all.Entries, e), e.Index
			}
		}
		if len(page.Entries) < auditPage || from == before {
			return all, nil
		}
	}
}
