package rpc

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/access"
	"github.com/sandbar-san/sandbar/controlplane/agents"
	"github.com/sandbar-san/sandbar/controlplane/wire"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// watchBytes is where a message of changes is cut.
	watchBytes = 1 << 20
	// watchProgress is after how many entries of no interest a watcher is told the index, so that
	// it can resume where others would be too far behind.
	watchProgress = 1000
	// watchSendWait bounds how long a watcher may take to accept a message.
	watchSendWait = 30 * time.Second
)

// watchable are the tables that a watch may follow.
var watchable = []fsm.Table{fsm.TableStations, fsm.TableUnits, fsm.TableMedia, fsm.TableVolumes, fsm.TableHosts, fsm.TableAssignments}

// watch is one watcher's stream.
type watch struct {
	server *Server
	header http.Header
	send   func(*pb.WatchResponse) error
	tables []fsm.Table
	at     san.Index // every change up to it was sent
	told   san.Index // the index that the watcher knows
}

// Watch implements StationService, from this station's own tables.
func (s *Server) Watch(ctx context.Context, req *connect.Request[pb.WatchRequest], stream *connect.ServerStream[pb.WatchResponse]) error {
	w := &watch{server: s, header: req.Header(), at: san.Index(req.Msg.FromIndex)}
	w.send = func(m *pb.WatchResponse) error {
		return agents.SendWithin(ctx, watchSendWait, func() error { return stream.Send(m) })
	}
	agents.KeepReading(ctx)
	if err := w.authorize(ctx); err != nil {
		return convert.ToConnect(err)
	}
	var err error
	if w.tables, err = watchTables(req.Msg.Tables); err != nil {
		return convert.ToConnect(err)
	}
	sub, err := w.subscribe()
	if err != nil {
		return watchError(err)
	}
	defer sub.Close()
	// An answer at once: the watcher knows that the watch stands and from where.
	if err := w.tell(&pb.WatchResponse{}); err != nil {
		return err
	}
	for {
		changes, err := sub.Next(ctx)
		if err == nil {
			err = w.authorize(ctx) // the token may have been revoked meanwhile
		}
		if err != nil {
			return watchError(err)
		}
		if err := w.deliver(changes); err != nil {
			return err
		}
	}
}

func (w *watch) authorize(ctx context.Context) error {
	c, err := w.server.auth.callerOf(ctx, w.header, w.server.replica.View(), nil)
	if err != nil {
		return err
	}
	return access.Authorize(c.Principal, access.ActionRead, clusterObject)
}

// subscribe begins after w.at, or now if that is 0.
func (w *watch) subscribe() (*fsm.Subscription, error) {
	if w.at > 0 {
		return w.server.machine.Subscribe(w.at)
	}
	v, sub, err := w.server.machine.Watch()
	w.at = v.Index()
	return sub, err
}

func (w *watch) tell(m *pb.WatchResponse) error {
	m.Index = uint64(w.at)
	w.told = w.at
	return w.send(m)
}

// deliver sends changes, which end with a whole entry. A message carries the index up to which
// everything was sent: one that had to be cut within an entry, that of the entry before.
func (w *watch) deliver(changes []fsm.Change) error {
	v := w.server.replica.View()
	out, size := &pb.WatchResponse{}, 0
	for i, ch := range changes {
		if slices.Contains(w.tables, ch.Table) {
			pc := wire.Change(v, ch)
			out.Changes, size = append(out.Changes, pc), size+proto.Size(pc)
		}
		if i+1 == len(changes) || changes[i+1].Index != ch.Index {
			w.at = ch.Index
		}
		if size >= watchBytes {
			if err := w.tell(out); err != nil {
				return err
			}
			out, size = &pb.WatchResponse{}, 0
		}
	}
	if len(out.Changes) > 0 || w.at >= w.told+watchProgress {
		return w.tell(out)
	}
	return nil
}

func watchTables(names []string) ([]fsm.Table, error) {
	if len(names) == 0 {
		return watchable, nil
	}
	var out []fsm.Table
	for _, n := range names {
		i := slices.IndexFunc(watchable, func(t fsm.Table) bool { return t.String() == n })
		if i < 0 {
			return nil, san.Errorf(san.KindInvalid, "table %q can't be watched; use stations, units, media, volumes, hosts or assignments", clip(n))
		}
		out = append(out, watchable[i])
	}
	return out, nil
}

func watchError(err error) error {
	if errors.Is(err, fsm.ErrResync) {
		return connect.NewError(connect.CodeAborted, err)
	}
	return convert.ToConnect(err)
}
