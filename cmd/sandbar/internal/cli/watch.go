package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// annotationEndless marks commands that run until they are ended: they have no timeout
// unless asked, and an interrupt is no failure.
const annotationEndless = "endless"

func isEndless(cmd *cobra.Command) bool { return cmd.Annotations[annotationEndless] != "" }

func (a *App) watchCommand() *cobra.Command {
	var tables []string
	var from uint64
	c := a.verb("watch", "Print changes of the tables as they happen", takes(), func(ctx context.Context, s *session, _ []string) error {
		return s.watch(ctx, &pb.WatchRequest{FromIndex: from, Tables: tables})
	})
	c.Annotations = map[string]string{annotationEndless: "yes"}
	c.Flags().StringSliceVar(&tables, "table", nil, "only this table: stations, units, media, volumes, hosts or assignments; repeatable")
	c.Flags().Uint64Var(&from, "from", 0, "begin after this index; without it: now")
	c.Long = c.Short + ".\n\nIt ends when interrupted or, with --timeout, after that long. With -o json each change is a line.\n" +
		"A station that is lost is replaced by another, without a gap."
	return c
}

// watch follows the changes over one station after the other.
func (s *session) watch(ctx context.Context, req *pb.WatchRequest) error {
	for {
		stream, err := s.openWatch(ctx, req)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		err = s.follow(stream, req)
		switch {
		case ctx.Err() != nil:
			return nil
		case connect.CodeOf(err) == connect.CodeAborted:
			return tooFarBehind(req.FromIndex)
		case err != nil && !isLost(err):
			return convert.FromConnect(err)
		}
		s.api.Failed(stream.endpoint)
		if !pause(ctx, pollMin) {
			return nil
		}
	}
}

func tooFarBehind(index uint64) error {
	return san.Errorf(san.KindConflict, "changes after index %d are not all kept any more; list what there is, then watch again without --from", index)
}

// watchStream is an open watch and the station that serves it.
type watchStream struct {
	*connect.ServerStreamForClient[pb.WatchResponse]
	endpoint string
	cancel   context.CancelFunc
}

func (w watchStream) close() {
	w.cancel()
	_ = w.Close() // the cancelled stream has nothing left to say
}

// openWatch finds a station that serves the watch: one that has sent its first answer.
func (s *session) openWatch(ctx context.Context, req *pb.WatchRequest) (watchStream, error) {
	return stationclient.Call(ctx, s.api, func(try context.Context, ep string) (watchStream, error) {
		// The stream outlives the try, but ends with it as long as nothing has come.
		sctx, cancel := context.WithCancel(ctx)
		detach := context.AfterFunc(try, cancel)
		stream, err := s.api.Stations(ep).Watch(sctx, connect.NewRequest(req))
		if err == nil && stream.Receive() && detach() {
			return watchStream{stream, ep, cancel}, nil
		}
		if err == nil {
			err = stream.Err()
			_ = stream.Close() // stream.Err has said why it ended
		}
		cancel()
		switch {
		case connect.CodeOf(err) == connect.CodeAborted:
			// Not Aborted: of an error made here that would mean a lost connection, and another try.
			err = connect.NewError(connect.CodeFailedPrecondition, tooFarBehind(req.FromIndex))
		case err == nil || connect.CodeOf(err) == connect.CodeCanceled:
			err = connect.NewError(connect.CodeUnavailable, errors.New("the station serves no watch"))
		}
		return watchStream{}, s.judge(ep, err)
	})
}

// follow prints what comes until the stream ends. req keeps how far it came.
func (s *session) follow(stream watchStream, req *pb.WatchRequest) error {
	defer stream.close()
	for first := true; first || stream.Receive(); first = false {
		m := stream.Msg()
		for _, ch := range m.Changes {
			if err := s.out.Event(ch, func() string { return changeLine(ch) }); err != nil {
				return err
			}
		}
		// The first answer has the station's index, which may lie ahead of changes to come.
		if len(m.Changes) > 0 || req.FromIndex == 0 {
			req.FromIndex = max(req.FromIndex, m.Index)
		}
	}
	return stream.Err()
}

// isLost tells of errors after which another station can go on.
func isLost(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return true
	case connect.CodeUnknown:
		var ce *connect.Error
		return errors.As(err, &ce) && !connect.IsWireError(err)
	}
	return false
}

func changeLine(ch *pb.Change) string {
	what := "deleted"
	if !ch.Deleted {
		what = strings.Join(changeFacts(ch), "  ")
	}
	return strings.TrimRight(fmt.Sprintf("%-8d %-12s %s  %s", ch.Index, ch.Table, ch.Id, what), " ")
}

// changeFacts are the few facts of a row that a person follows.
func changeFacts(ch *pb.Change) []string {
	switch row := ch.Row.(type) {
	case *pb.Change_Volume:
		return []string{row.Volume.Name, row.Volume.State, san.FormatSize(row.Volume.SizeBytes)}
	case *pb.Change_Unit:
		return []string{row.Unit.State, row.Unit.Reason}
	case *pb.Change_Medium:
		return []string{row.Medium.UnitId, row.Medium.State, row.Medium.Path}
	case *pb.Change_Host:
		return []string{row.Host.State}
	case *pb.Change_Assignment:
		return []string{row.Assignment.HostId, row.Assignment.State, fmt.Sprintf("generation %d", row.Assignment.Generation)}
	case *pb.Change_Station:
		return []string{row.Station.ApiAddress, row.Station.Version}
	}
	return nil
}
