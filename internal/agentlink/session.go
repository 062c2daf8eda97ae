package agentlink

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// batchReports bounds one message of reports, about 300 KiB with the longest errors.
	batchReports = 500
	// reportsApart is the least time between two messages of reports.
	reportsApart = 20 * time.Millisecond
	// maxErrorBytes bounds a report's text; stations keep no more of it.
	maxErrorBytes = 512

	// maxAnswers bounds the answers that wait to be sent; a station asks no more at a time.
	maxAnswers = 16

	heartbeatDefault = time.Second
	heartbeatMin     = 100 * time.Millisecond
	heartbeatMax     = Silence / 3
)

var (
	errSilent  = san.Errorf(san.KindUnavailable, "the station was silent for %v", Silence)
	errRenewed = san.Errorf(san.KindUnavailable, "the agent's certificate was renewed")
	errClosed  = san.Errorf(san.KindUnavailable, "the station ended the stream")
	errBye     = errors.New("goodbye was said")
)

// session is one stream.
type session struct {
	cfg      Config
	dialer   dialer
	endpoint string
	stream   stream

	welcomed    chan *pb.Welcome
	needStorage chan struct{}
	answers     chan *pb.Answer
	alive       chan struct{} // has a value when something came
	assembler   assembler

	begun    atomic.Bool // a welcome came
	renewing bool        // it was ended for a new certificate
}

// run serves one stream until it breaks, or until ctx ends and goodbye has been said.
func (s *session) run(ctx context.Context) error {
	// The stream outlives ctx, so that goodbye can be said on it. Each of the group's
	// functions that ends the stream does so by its error.
	g, sctx := errgroup.WithContext(context.WithoutCancel(ctx))
	s.stream = s.dialer.open(sctx, s.endpoint)
	g.Go(func() error { return s.watch(sctx) })
	g.Go(func() error { return s.farewell(ctx, sctx) })
	g.Go(func() error {
		err := s.send(ctx, sctx)
		if errors.Is(err, io.EOF) {
			return nil // the stream is broken: receive learns why
		}
		return err
	})
	g.Go(s.receive)
	g.Go(func() error {
		<-sctx.Done()
		// HTTP/2 does not notice the end of a context while a request's body is open, so
		// that this alone ends receive. What closing a broken stream says is of no use.
		_ = s.stream.CloseResponse()
		return nil
	})
	err := g.Wait()
	return convert.FromConnect(err)
}

// watch ends the stream when the station is silent.
func (s *session) watch(ctx context.Context) error {
	t := time.NewTimer(Silence)
	defer t.Stop()
	for {
		select {
		case <-s.alive:
			t.Reset(Silence)
		case <-t.C:
			return errSilent
		case <-ctx.Done():
			return nil
		}
	}
}

// farewell bounds what happens after ctx ended: the time for a goodbye, none if the station
// does not know the agent yet.
func (s *session) farewell(ctx, sctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-sctx.Done():
		return nil
	}
	if s.begun.Load() {
		pause(sctx, GoodbyeWait)
	}
	return errBye
}

// receive takes what the station sends.
func (s *session) receive() error {
	for {
		m, err := s.stream.Receive()
		if errors.Is(err, io.EOF) {
			return errClosed
		}
		if err != nil {
			return err
		}
		select {
		case s.alive <- struct{}{}:
		default:
		}
		switch x := m.Message.(type) {
		case *pb.SessionResponse_Welcome:
			if s.begun.Load() { // the stations have changed
				s.dialer.SetEndpoints(x.Welcome.StationEndpoints)
				if s.cfg.OnWelcome != nil {
					s.cfg.OnWelcome(x.Welcome)
				}
				continue
			}
			select {
			case s.welcomed <- x.Welcome:
			default:
				return san.Errorf(san.KindInvalid, "the station welcomed twice before it was answered")
			}
		case *pb.SessionResponse_NeedStorageInfo:
			select {
			case s.needStorage <- struct{}{}:
			default:
			}
		case *pb.SessionResponse_Question:
			s.answer(x.Question)
		case *pb.SessionResponse_DesiredState:
			whole, err := s.assembler.add(x.DesiredState)
			if err == nil && whole != nil {
				err = s.cfg.OnDesired(whole)
			}
			if err != nil {
				return err
			}
		}
	}
}

// answer queues the answer to a question. A station that asks more than it may gets none.
func (s *session) answer(q *pb.Question) {
	if s.cfg.OnQuestion == nil || len(s.answers) == cap(s.answers) {
		return
	}
	if a := s.cfg.OnQuestion(q); a != nil {
		s.answers <- a // has room: nobody else adds to it
	}
}

// send says hello, then what is due, until sctx ends; with ctx it says goodbye.
func (s *session) send(ctx, sctx context.Context) error {
	if err := s.stream.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: s.cfg.Hello()}}); err != nil {
		return err
	}
	var welcome *pb.Welcome
	select {
	case welcome = <-s.welcomed:
	case <-sctx.Done():
		return nil
	}
	s.begun.Store(true)
	s.dialer.SetEndpoints(welcome.StationEndpoints)
	if s.cfg.OnWelcome != nil {
		s.cfg.OnWelcome(welcome)
	}
	s.cfg.Log.Info("stream to a station", "station", welcome.StationId, "endpoint", s.endpoint)
	return s.talk(ctx, sctx, heartbeatEvery(welcome))
}

func heartbeatEvery(w *pb.Welcome) time.Duration {
	if w.HeartbeatMillis == 0 {
		return heartbeatDefault
	}
	return max(heartbeatMin, min(time.Duration(w.HeartbeatMillis)*time.Millisecond, heartbeatMax))
}

func (s *session) talk(ctx, sctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	// The first report goes at once; those that come while an agent is busy share messages.
	ready := s.cfg.Reports.ready
	rested := time.NewTimer(reportsApart)
	rested.Stop()
	defer rested.Stop()
	var changed <-chan struct{} // once the station has asked: one that has not approved the unit wants nothing
	for sequence := uint64(1); ; {
		var m *pb.SessionRequest
		select {
		case <-tick.C:
			if s.dialer.stale() {
				s.renewing = true
				return errRenewed
			}
			m = &pb.SessionRequest{Message: &pb.SessionRequest_Heartbeat{Heartbeat: &pb.Heartbeat{Sequence: sequence}}}
			sequence++
		case <-s.needStorage:
			if s.cfg.StorageInfo == nil {
				continue
			}
			changed = s.cfg.StorageChanged
			m = s.storageInfo()
		case <-changed:
			m = s.storageInfo()
		case a := <-s.answers:
			m = &pb.SessionRequest{Message: &pb.SessionRequest_Answer{Answer: a}}
		case <-ready:
			if m = s.batch(); m == nil {
				continue
			}
			ready = nil
			rested.Reset(reportsApart)
		case <-rested.C:
			ready = s.cfg.Reports.ready
			continue
		case <-ctx.Done():
			return s.goodbye(sctx)
		case <-sctx.Done():
			return nil
		}
		if err := s.stream.Send(m); err != nil {
			return err
		}
	}
}

func (s *session) storageInfo() *pb.SessionRequest {
	return &pb.SessionRequest{Message: &pb.SessionRequest_StorageInfo{StorageInfo: s.cfg.StorageInfo()}}
}

// batch is the next message of reports, nil if none wait.
func (s *session) batch() *pb.SessionRequest {
	reports := s.cfg.Reports.take(batchReports)
	if len(reports) == 0 {
		return nil
	}
	for i, r := range reports {
		if len(r.Error) > maxErrorBytes {
			reports[i] = &pb.Report{Kind: r.Kind, VolumeId: r.VolumeId, HostId: r.HostId, Generation: r.Generation, Error: clip(r.Error)}
		}
	}
	return &pb.SessionRequest{Message: &pb.SessionRequest_Reports{Reports: &pb.ReportBatch{Reports: reports}}}
}

// goodbye waits a moment for the station to have committed it, which it says by ending
// the stream. Reports that wait go first.
func (s *session) goodbye(sctx context.Context) error {
	for m := s.batch(); m != nil; m = s.batch() {
		if err := s.stream.Send(m); err != nil {
			return err
		}
	}
	if err := s.stream.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Goodbye{Goodbye: &pb.Goodbye{Reason: s.cfg.Reason}}}); err != nil {
		return err
	}
	<-sctx.Done() // the station ends the stream, or farewell does
	return nil
}

// clip cuts text to maxErrorBytes, between characters.
func clip(text string) string {
	end := maxErrorBytes
	for end > 0 && text[end]&0xC0 == 0x80 {
		end--
	}
	return text[:end]
}
