package agents

import (
	"context"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// Leader tells who leads.
type Leader interface {
	IsLeader() bool
	Leader() (san.StationID, bool)
}

// Forwarder brings messages and the station's own commands to the leader, here or
// elsewhere, and tries until it is reached. If ctx ends first, errors.Is finds its error.
type Forwarder struct {
	Leader   Leader
	Intake   *Intake
	Proposer Proposer
	Address  func(san.StationID) string
	Client   *stationclient.Client
}

// attempt bounds one try; after it the leader may be another.
const attempt = 5 * time.Second

// Submit implements Submitter.
func (f *Forwarder) Submit(ctx context.Context, m *pb.AgentMessage) error {
	return f.retry(ctx, func(ctx context.Context) error {
		return f.Intake.Submit(ctx, m)
	}, func(ctx context.Context, ep string) error {
		resp, err := f.Client.Peers(ep).Submit(ctx, connect.NewRequest(&pb.SubmitRequest{Messages: []*pb.AgentMessage{m}}))
		if err != nil {
			return convert.FromConnect(err)
		}
		if e := resp.Msg.Errors; len(e) == 1 && e[0] != "" {
			return san.Errorf(san.KindConflict, "%s", e[0])
		}
		return nil
	})
}

// Propose commits a command of this station itself. It must be one that may be applied twice.
func (f *Forwarder) Propose(ctx context.Context, cmd fsm.Command) error {
	return f.retry(ctx, func(ctx context.Context) error {
		res, err := f.Proposer.Propose(ctx, cmd)
		if err != nil {
			return err
		}
		return res.Err
	}, func(ctx context.Context, ep string) error {
		b, err := fsm.Encode(cmd)
		if err != nil {
			return err
		}
		_, err = f.Client.Peers(ep).Propose(ctx, connect.NewRequest(&pb.ProposeRequest{Command: b}))
		return convert.FromConnect(err)
	})
}

func (f *Forwarder) retry(ctx context.Context, here func(context.Context) error, there func(context.Context, string) error) error {
	for {
		err := f.once(ctx, here, there)
		k := san.KindOf(err)
		if err == nil || k != san.KindUnavailable && k != san.KindUnknown {
			return err
		}
		select {
		case <-ctx.Done():
			// With ctx's own error: a caller that was told to end must not take it for a failure.
			return san.Errorf(k, "%w: %w", ctx.Err(), err)
		case <-time.After(20*time.Millisecond + rand.N(80*time.Millisecond)):
		}
	}
}

func (f *Forwarder) once(ctx context.Context, here func(context.Context) error, there func(context.Context, string) error) error {
	actx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	var err error
	if f.Leader.IsLeader() {
		err = here(actx)
	} else if id, ok := f.Leader.Leader(); !ok || f.Address(id) == "" {
		return san.Errorf(san.KindUnavailable, "no leader")
	} else {
		err = there(actx, f.Address(id))
	}
	if err != nil && actx.Err() != nil && ctx.Err() == nil {
		return san.Errorf(san.KindUnavailable, "the leader did not answer in %v: %w", attempt, err)
	}
	return err
}
