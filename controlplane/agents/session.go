package agents

import (
	"context"
	"errors"
	"io"
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
)

type agentStream = connect.BidiStream[pb.SessionRequest, pb.SessionResponse]

// session is one agent's stream.
type session struct {
	hub         *Hub
	key         agentKey
	serial      string
	incarnation san.Incarnation
	stream      *agentStream
	cancel      context.CancelCauseFunc
	lastHeard   atomic.Int64 // unix nanoseconds
	sendMu      sync.Mutex
}

func (s *session) heard() time.Time { return time.Unix(0, s.lastHeard.Load()) }

func (s *session) send(m *pb.SessionResponse) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	return s.stream.Send(m)
}

// Session implements AgentService. It returns once all that it started has ended.
func (h *Hub) Session(ctx context.Context, stream *agentStream) error {
	peer, ok, err := identity.PeerFrom(ctx)
	if err != nil || !ok || peer.Role != san.RoleUnit && peer.Role != san.RoleHost {
		return convert.ToConnect(san.Errorf(san.KindUnauthenticated, "an agent's stream needs the certificate of a unit or host; enrol with a join token"))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{hub: h, key: agentKey{peer.Role, peer.ID}, serial: peer.Serial, stream: stream, cancel: cancel}
	hello, err := s.hello(ctx)
	if err != nil {
		return convert.ToConnect(err)
	}
	s.incarnation = san.Incarnation(hello.Incarnation)
	s.lastHeard.Store(time.Now().UnixNano())
	if err := h.enter(s); err != nil {
		return convert.ToConnect(err)
	}
	err = s.run(ctx, hello)
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
	go func() { // ends with the stream, which ends when Session returns
		m, err := s.stream.Receive()
		got <- result{m, err}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			return nil, r.err
		}
		if r.m.GetHello() == nil {
			return nil, san.Errorf(san.KindInvalid, "the first message of a stream must be a hello")
		}
		return r.m.GetHello(), nil
	case <-time.After(helloWait):
		return nil, san.Errorf(san.KindInvalid, "no hello came within %v", helloWait)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *session) message() *pb.AgentMessage {
	return &pb.AgentMessage{Role: string(s.key.role), Id: s.key.id, CertSerial: s.serial, Incarnation: uint64(s.incarnation)}
}

// run brings the agent in (Fig. 3a–e) and serves it until the stream ends.
func (s *session) run(ctx context.Context, hello *pb.Hello) error {
	m := s.message()
	m.Message = &pb.AgentMessage_Hello{Hello: hello}
	if err := s.hub.cfg.Submit.Submit(ctx, m); err != nil {
		return err
	}
	welcome := &pb.Welcome{StationId: string(s.hub.cfg.Self), StationEndpoints: s.hub.cfg.Endpoints(), HeartbeatMillis: uint32(HeartbeatEvery.Milliseconds())}
	if err := s.send(&pb.SessionResponse{Message: &pb.SessionResponse_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	if s.key.role == san.RoleUnit {
		if err := s.send(&pb.SessionResponse{Message: &pb.SessionResponse_NeedStorageInfo{NeedStorageInfo: &pb.NeedStorageInfo{}}}); err != nil {
			return err
		}
	}
	queue := make(chan *pb.AgentMessage, queueLength)
	received := make(chan error, 1)
	go func() { received <- s.receive(ctx, queue) }() // ends when Session returns, with the stream
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.submit(gctx, queue) })
	g.Go(func() error { return s.pump(gctx) })
	g.Go(func() error { return s.watchSilence(gctx, received) })
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
			if errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		s.lastHeard.Store(time.Now().UnixNano())
		m := s.message()
		switch x := in.Message.(type) {
		case *pb.SessionRequest_Heartbeat:
			ack := &pb.HeartbeatAck{Sequence: x.Heartbeat.GetSequence()}
			if err := s.send(&pb.SessionResponse{Message: &pb.SessionResponse_HeartbeatAck{HeartbeatAck: ack}}); err != nil {
				return err
			}
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

// watchSilence ends the stream when receiving ended or nothing came for long.
func (s *session) watchSilence(ctx context.Context, received <-chan error) error {
	tick := time.NewTicker(HeartbeatEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-received:
			return err
		case <-tick.C:
			if time.Since(s.heard()) > silence {
				return errSilent
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pump sends the desired state: all of it, then what changes.
func (s *session) pump(ctx context.Context) error {
	d := &desired{role: s.key.role, id: s.key.id, sealer: s.hub.cfg.Sealer, log: s.hub.cfg.Log}
	for {
		if err := s.follow(ctx, d); !errors.Is(err, fsm.ErrResync) {
			return err
		}
	}
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
		m, again := d.changes(v, batch)
		switch {
		case again:
			err = s.sendFull(d, v)
		case m != nil:
			err = s.send(&pb.SessionResponse{Message: &pb.SessionResponse_DesiredState{DesiredState: m}})
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) sendFull(d *desired, v fsm.View) error {
	for _, m := range d.full(v) {
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
