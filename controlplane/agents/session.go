package agents

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

var (
	errReplaced = errors.New("the agent opened a newer stream")
	errSilent   = errors.New("the agent was silent for too long")
	errGoodbye  = errors.New("the agent said goodbye")
	errDisowned = san.Errorf(san.KindUnavailable, "the stations took the agent for lost although this one hears it; dial another")
)

// sendWait bounds how long an agent may take to accept a message.
const sendWait = 10 * time.Second

type agentStream = connect.BidiStream[pb.SessionRequest, pb.SessionResponse]

// session is one agent's stream.
type session struct {
	hub         *Hub
	key         agentKey
	serial      string
	incarnation san.Incarnation
	stream      *agentStream
	ctx         context.Context // the request's; for its deadlines alone
	cancel      context.CancelCauseFunc
	began       time.Duration // on the hub's clock
	lastHeard   atomic.Int64  // on the hub's clock
	sendMu      sync.Mutex
	questions   questions
}

func (s *session) hear() { s.lastHeard.Store(int64(s.hub.clock())) }

// silentFor is how long ago the agent was heard.
func (s *session) silentFor() time.Duration {
	return s.hub.clock() - time.Duration(s.lastHeard.Load())
}

func (s *session) send(m *pb.SessionResponse) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	return SendWithin(s.ctx, sendWait, func() error { return s.stream.Send(m) })
}

// Session implements AgentService. It returns once all that it started has ended. It must be behind
// Interruptible.
func (h *Hub) Session(ctx context.Context, stream *agentStream) error {
	peer, ok, err := identity.PeerFrom(ctx)
	if err != nil || !ok || peer.Role != san.RoleUnit && peer.Role != san.RoleHost {
		return convert.ToConnect(san.Errorf(san.KindUnauthenticated, "an agent's stream needs the certificate of a unit or host; enrol with a join token"))
	}
	if err := h.admit(); err != nil {
		return convert.ToConnect(err)
	}
	defer h.dismiss()
	sctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{hub: h, key: agentKey{peer.Role, peer.ID}, serial: peer.Serial, stream: stream, ctx: ctx, cancel: cancel, began: h.clock(), questions: newQuestions()}
	hello, err := s.hello(sctx)
	if err != nil {
		return convert.ToConnect(err)
	}
	s.incarnation = san.Incarnation(hello.Incarnation)
	s.hear()
	// The leader judges the agent before its stream takes the place of one that it may have: an
	// old copy of its folder, or a certificate that was replaced, must not push it out.
	m := s.message()
	m.Message = &pb.AgentMessage_Hello{Hello: hello}
	if err := h.cfg.Submit.Submit(sctx, m); err != nil {
		return convert.ToConnect(err)
	}
	s.hear() // it could not speak while the leader was asked
	h.enter(s)
	err = s.run(sctx)
	close(s.questions.over)
	if h.leave(s) && !errors.Is(err, errGoodbye) {
		s.lost()
	}
	if errors.Is(err, errGoodbye) {
		return nil
	}
	return convert.ToConnect(err)
}

// hello waits for the first message, a bounded time.
func (s *session) hello(ctx context.Context) (*pb.Hello, error) {
	type result struct {
		m   *pb.SessionRequest
		err error
	}
	got := make(chan result, 1)
	go func() {
		m, err := s.stream.Receive()
		got <- result{m, err}
	}()
	timer := time.NewTimer(helloWait)
	defer timer.Stop()
	select {
	case r := <-got:
		if r.err != nil {
			return nil, r.err
		}
		if r.m.GetHello() == nil {
			return nil, san.Errorf(san.KindInvalid, "the first message of a stream must be a hello")
		}
		return r.m.GetHello(), nil
	case <-timer.C:
		stopReading(s.ctx)
		<-got
		return nil, san.Errorf(san.KindInvalid, "no hello came within %v", helloWait)
	case <-ctx.Done():
		stopReading(s.ctx)
		<-got
		return nil, ctx.Err()
	}
}

func (s *session) message() *pb.AgentMessage {
	return &pb.AgentMessage{Role: string(s.key.role), Id: s.key.id, CertSerial: s.serial, Incarnation: uint64(s.incarnation)}
}

// run serves an agent whose hello is committed (Fig. 3a/b) until the stream ends.
func (s *session) run(ctx context.Context) error {
	if err := s.welcome(); err != nil {
		return err
	}
	queue := make(chan *pb.AgentMessage, queueLength)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.receive(gctx, queue) })
	g.Go(func() error { return s.submit(gctx, queue) })
	g.Go(func() error { return s.pump(gctx) })
	g.Go(func() error { return s.watch(gctx) })
	g.Go(func() error { return s.put(gctx) })
	g.Go(func() error {
		<-gctx.Done()
		stopReading(s.ctx)
		return nil
	})
	err := g.Wait()
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	return err
}

// receive reads the stream: heartbeats are answered at once, the rest is queued in order.
func (s *session) receive(ctx context.Context, queue chan<- *pb.AgentMessage) error {
	for {
		in, err := s.stream.Receive()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause // the reading was stopped because of it
			}
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		s.hear()
		m := s.message()
		switch x := in.Message.(type) {
		case *pb.SessionRequest_Heartbeat:
			ack := &pb.HeartbeatAck{Sequence: x.Heartbeat.GetSequence()}
			if err := s.send(&pb.SessionResponse{Message: &pb.SessionResponse_HeartbeatAck{HeartbeatAck: ack}}); err != nil {
				return err
			}
			continue
		case *pb.SessionRequest_Answer:
			s.questions.answered(x.Answer)
			continue
		case *pb.SessionRequest_StorageInfo:
			m.Message = &pb.AgentMessage_StorageInfo{StorageInfo: x.StorageInfo}
		case *pb.SessionRequest_Reports:
			m.Message = &pb.AgentMessage_Reports{Reports: x.Reports}
		case *pb.SessionRequest_Goodbye:
			m.Message = &pb.AgentMessage_Goodbye{Goodbye: x.Goodbye}
		default:
			return san.Errorf(san.KindInvalid, "the agent sent a message that has no place in a running stream")
		}
		select {
		case queue <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// submit commits what the agent sent, in order.
func (s *session) submit(ctx context.Context, queue <-chan *pb.AgentMessage) error {
	for {
		select {
		case m := <-queue:
			if err := s.hub.cfg.Submit.Submit(ctx, m); err != nil {
				return err
			}
			if m.GetGoodbye() != nil {
				return errGoodbye
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watch ends the stream when nothing came for long, or when the stations' tables still call the
// agent lost after it was brought in here: they had not heard of it then, and a new hello tells them.
func (s *session) watch(ctx context.Context) error {
	tick := time.NewTicker(HeartbeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			switch {
			case s.silentFor() > silence:
				return errSilent
			case s.hub.clock()-s.began > 2*HeartbeatLease && s.calledLost(s.hub.cfg.Machine.View()):
				return errDisowned
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// calledLost tells whether v has the agent, as of this very start, as lost.
func (s *session) calledLost(v fsm.View) bool {
	if s.key.role == san.RoleUnit {
		u := v.Unit(san.UnitID(s.key.id))
		return u != nil && u.State == fsm.UnitUnreachable && u.Incarnation == s.incarnation
	}
	h := v.Host(san.HostID(s.key.id))
	return h != nil && h.State == fsm.HostOffline && h.Incarnation == s.incarnation
}

// pump sends the desired state: all of it, then what changes.
func (s *session) pump(ctx context.Context) error {
	d := &desired{role: s.key.role, id: s.key.id, sealer: s.hub.cfg.Sealer}
	for {
		err := s.follow(ctx, d)
		if errors.Is(err, errSecret) {
			s.hub.cfg.Log.Error("an agent is sent to another station, because this one can't open a secret", "role", s.key.role, "id", s.key.id, "err", err)
		}
		if !errors.Is(err, fsm.ErrResync) {
			return err
		}
	}
}

// welcome tells the agent which stations there are.
func (s *session) welcome() error {
	w := &pb.Welcome{StationId: string(s.hub.cfg.Self), StationEndpoints: s.hub.cfg.Endpoints(), HeartbeatMillis: uint32(HeartbeatEvery.Milliseconds())}
	return s.send(&pb.SessionResponse{Message: &pb.SessionResponse_Welcome{Welcome: w}})
}

func (s *session) follow(ctx context.Context, d *desired) error {
	v, sub, err := s.hub.cfg.Machine.Watch()
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := s.sendFull(d, v); err != nil {
		return err
	}
	for {
		batch, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		v := s.hub.cfg.Machine.View()
		if slices.ContainsFunc(batch, func(ch fsm.Change) bool { return ch.Table == fsm.TableStations }) {
			if err := s.welcome(); err != nil {
				return err
			}
		}
		out, again, err := d.changes(v, batch)
		if err == nil && again {
			err = s.sendFull(d, v)
		}
		if err == nil {
			err = s.sendDesired(out)
		}
		if err != nil {
			return err
		}
		if again || out != nil {
			// The first change goes at once; those that follow closely share a message.
			select {
			case <-time.After(changesApart):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// sendFull asks a unit that was let in for what it has (Fig. 3c) and sends all that v has for the
// agent. One that nobody approved is asked for nothing and given nothing.
func (s *session) sendFull(d *desired, v fsm.View) error {
	all, err := d.full(v)
	if err != nil {
		return err
	}
	if s.key.role == san.RoleUnit && d.approved(v) {
		if err := s.send(&pb.SessionResponse{Message: &pb.SessionResponse_NeedStorageInfo{NeedStorageInfo: &pb.NeedStorageInfo{}}}); err != nil {
			return err
		}
	}
	return s.sendDesired(all)
}

func (s *session) sendDesired(messages []*pb.DesiredState) error {
	for _, m := range messages {
		if err := s.send(&pb.SessionResponse{Message: &pb.SessionResponse_DesiredState{DesiredState: m}}); err != nil {
			return err
		}
	}
	return nil
}

// lost has the leader told that the stream ended without a goodbye: a hint to probe. When
// many are lost at once some hints may be dropped; the leader's own rounds find those.
func (s *session) lost() {
	m := s.message()
	m.Message = &pb.AgentMessage_StreamLost{StreamLost: &pb.StreamLost{}}
	select {
	case s.hub.lost <- m:
	default:
	}
}
