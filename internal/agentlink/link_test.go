package agentlink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStream is one stream as both ends see it.
type fakeStream struct {
	ctx      context.Context
	endpoint string
	at       time.Time
	out      chan *pb.SessionRequest  // the agent's
	in       chan *pb.SessionResponse // the station's; closed: the station ended it
	err      error                    // what Receive returns at the end, io.EOF if nil
	closed   chan struct{}            // by CloseResponse, which alone ends Receive
}

func (f *fakeStream) Send(m *pb.SessionRequest) error {
	select {
	case f.out <- m:
		return nil
	case <-f.ctx.Done():
		return io.EOF
	}
}

func (f *fakeStream) Receive() (*pb.SessionResponse, error) {
	select {
	case m, ok := <-f.in:
		if ok {
			return m, nil
		}
		if f.err != nil {
			return nil, f.err
		}
		return nil, io.EOF
	case <-f.closed:
		return nil, f.ctx.Err()
	}
}

func (f *fakeStream) CloseResponse() error {
	close(f.closed)
	return nil
}

// fakeDialer hands each stream to the test.
type fakeDialer struct {
	streams chan *fakeStream

	mu        sync.Mutex
	endpoints []string
	current   int
	old       bool
	renewals  int
}

func newFakeDialer(endpoints ...string) *fakeDialer {
	return &fakeDialer{endpoints: endpoints, streams: make(chan *fakeStream, 100)}
}

func (d *fakeDialer) Endpoint() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.endpoints[d.current%len(d.endpoints)]
}

func (d *fakeDialer) Failed(string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current++
}

func (d *fakeDialer) SetEndpoints(e []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(e) > 0 {
		d.endpoints = e
	}
}

func (d *fakeDialer) open(ctx context.Context, endpoint string) stream {
	f := &fakeStream{ctx: ctx, endpoint: endpoint, at: time.Now(), out: make(chan *pb.SessionRequest), in: make(chan *pb.SessionResponse), closed: make(chan struct{})}
	d.streams <- f
	return f
}

func (d *fakeDialer) stale() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.old
}

func (d *fakeDialer) renew() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.old = false
	d.renewals++
	return nil
}

func (d *fakeDialer) close() {}

// harness runs a link against a scripted station, in a bubble.
type harness struct {
	t       *testing.T
	dialer  *fakeDialer
	outbox  *Outbox
	changed chan struct{}
	desired []*pb.DesiredState
	refuse  error // what OnDesired returns
	stop    context.CancelFunc
	done    chan error
}

func bubble(t *testing.T, f func(t *testing.T, h *harness)) {
	synctest.Test(t, func(t *testing.T) {
		h := &harness{t: t, dialer: newFakeDialer("s1:1", "s2:1", "s3:1"), outbox: NewOutbox(), changed: make(chan struct{}, 1), done: make(chan error, 1)}
		ctx, cancel := context.WithCancel(context.Background())
		h.stop = cancel
		cfg := Config{
			Hello:          func() *pb.Hello { return &pb.Hello{Incarnation: 7} },
			StorageInfo:    func() *pb.StorageInfo { return &pb.StorageInfo{Media: []*pb.MediumInfo{{Id: "m"}}} },
			OnDesired:      func(m *pb.DesiredState) error { h.desired = append(h.desired, m); return h.refuse },
			StorageChanged: h.changed,
			OnQuestion: func(q *pb.Question) *pb.Answer {
				if q.GetVolumeStats() == nil {
					return nil
				}
				return &pb.Answer{Id: q.Id}
			},
			Reports: h.outbox, Reason: "shutdown", Log: slog.New(slog.DiscardHandler),
		}
		go func() { h.done <- run(ctx, cfg, h.dialer) }()
		f(t, h)
		cancel()
		for running := true; running; {
			select {
			case <-h.done:
				running = false
			case s := <-h.dialer.streams:
				go func() { // takes the goodbye
					for {
						select {
						case <-s.out:
						case <-s.ctx.Done():
							return
						}
					}
				}()
			}
		}
	})
}

func response(m any) *pb.SessionResponse {
	switch x := m.(type) {
	case *pb.Welcome:
		return &pb.SessionResponse{Message: &pb.SessionResponse_Welcome{Welcome: x}}
	case *pb.DesiredState:
		return &pb.SessionResponse{Message: &pb.SessionResponse_DesiredState{DesiredState: x}}
	case *pb.Question:
		return &pb.SessionResponse{Message: &pb.SessionResponse_Question{Question: x}}
	case *pb.NeedStorageInfo:
		return &pb.SessionResponse{Message: &pb.SessionResponse_NeedStorageInfo{NeedStorageInfo: x}}
	}
	return &pb.SessionResponse{Message: &pb.SessionResponse_HeartbeatAck{HeartbeatAck: &pb.HeartbeatAck{}}}
}

// welcome takes the next stream's hello and welcomes it.
func (h *harness) welcome() *fakeStream {
	h.t.Helper()
	s := <-h.dialer.streams
	if hello := (<-s.out).GetHello(); hello.GetIncarnation() != 7 {
		h.t.Fatalf("the first message is no hello: %v", hello)
	}
	s.in <- response(&pb.Welcome{StationId: "s", HeartbeatMillis: 1000})
	return s
}

// next takes messages until one passes, acknowledging heartbeats.
func next(s *fakeStream, pass func(*pb.SessionRequest) bool) *pb.SessionRequest {
	for m := range s.out {
		if pass(m) {
			return m
		}
		if m.GetHeartbeat() != nil {
			s.in <- response(nil)
		}
	}
	return nil
}

func isReports(m *pb.SessionRequest) bool { return m.GetReports() != nil }

// live keeps a stream acknowledged for a while.
func live(s *fakeStream, d time.Duration) (heartbeats int) {
	end := time.After(d)
	for {
		select {
		case m := <-s.out:
			if m.GetHeartbeat() != nil {
				heartbeats++
				s.in <- response(nil)
			}
		case <-end:
			return heartbeats
		}
	}
}

func TestHeartbeatsKeepAStream(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		s := h.welcome()
		if n := live(s, 60*time.Second+time.Millisecond); n != 60 {
			t.Errorf("%d heartbeats in a minute", n)
		}
		if len(h.dialer.streams) > 0 || s.ctx.Err() != nil {
			t.Error("a stream that lives was given up")
		}
	})
}

func TestASilentStationIsLeft(t *testing.T) {
	for name, welcomed := range map[string]bool{"after the welcome": true, "before it": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *harness) {
				var s *fakeStream
				if welcomed {
					s = h.welcome()
				} else {
					s = <-h.dialer.streams
				}
				began := time.Now()
				go func() { // reads, and never says a word
					for {
						select {
						case <-s.out:
						case <-s.ctx.Done():
							return
						}
					}
				}()
				next := <-h.dialer.streams
				if took := time.Since(began); took < Silence || took > Silence+2*backoffMin {
					t.Errorf("given up after %v", took)
				}
				if next.endpoint == s.endpoint {
					t.Error("the silent station was dialled again")
				}
			})
		})
	}
}

func TestAStreamThatBreaksIsRedialledAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		s := h.welcome()
		live(s, 10*time.Second)
		began := time.Now()
		close(s.in)
		s = h.welcome()
		if took := s.at.Sub(began); took > 0 {
			t.Errorf("redialled after %v", took)
		}
	})
}

func TestRefusalsAreAskedAgainMoreAndMoreRarely(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		var last time.Time
		var waits []time.Duration
		var asked []string
		for range 12 {
			s := h.welcome()
			s.err = san.Errorf(san.KindDenied, "not approved")
			close(s.in)
			if !last.IsZero() {
				waits = append(waits, s.at.Sub(last))
			}
			last = s.at
			asked = append(asked, s.endpoint)
		}
		if waits[0] < backoffMin/2 || slices.Max(waits) > backoffMax || waits[len(waits)-1] < backoffMax/2 {
			t.Errorf("waited %v", waits)
		}
		if !slices.Equal(asked[:4], []string{"s1:1", "s2:1", "s3:1", "s1:1"}) {
			t.Errorf("asked %v", asked)
		}
	})
}

func TestReportsGoInBatchesNewestOnly(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		for i := range 2 * batchReports {
			h.outbox.Put(&pb.Report{Kind: pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY, VolumeId: fmt.Sprint(i), HostId: "h", Generation: 1})
		}
		h.outbox.Put(&pb.Report{Kind: pb.ReportKind_REPORT_KIND_RELEASED, VolumeId: "0", HostId: "h", Generation: 2, Error: strings.Repeat("ä", 400)})
		h.outbox.Put(&pb.Report{Kind: pb.ReportKind_REPORT_KIND_REPLICA_READY, VolumeId: "0"})
		s := h.welcome()
		var got []*pb.Report
		for _, want := range []int{batchReports, batchReports, 1} {
			batch := next(s, isReports).GetReports().Reports
			if len(batch) != want {
				t.Fatalf("a batch of %d reports, want %d", len(batch), want)
			}
			got = append(got, batch...)
		}
		if got[0].Generation != 2 || got[2*batchReports].Kind != pb.ReportKind_REPORT_KIND_REPLICA_READY {
			t.Errorf("first %v, last %v", got[0], got[2*batchReports])
		}
		if n := len(got[0].Error); n != maxErrorBytes || !strings.HasSuffix(got[0].Error, "ä") {
			t.Errorf("an error text of %d bytes was sent", n)
		}
	})
}

func TestGoodbyeFollowsTheLastReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bubbleless := &harness{t: t, dialer: newFakeDialer("s1:1"), outbox: NewOutbox(), done: make(chan error, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cfg := Config{Hello: func() *pb.Hello { return &pb.Hello{Incarnation: 7} }, Reports: bubbleless.outbox, Reason: "shutdown", Log: slog.New(slog.DiscardHandler)}
		go func() { bubbleless.done <- run(ctx, cfg, bubbleless.dialer) }()
		s := bubbleless.welcome()
		synctest.Wait()
		bubbleless.outbox.Put(&pb.Report{VolumeId: "v"})
		cancel()
		if m := next(s, isReports); len(m.GetReports().Reports) != 1 {
			t.Errorf("reports: %v", m)
		}
		m := next(s, func(m *pb.SessionRequest) bool { return m.GetGoodbye() != nil })
		if m.GetGoodbye().Reason != "shutdown" {
			t.Errorf("goodbye: %v", m)
		}
		synctest.Wait()
		select {
		case <-bubbleless.done:
			t.Error("the link ended before the station had the goodbye")
		default:
		}
		close(s.in)
		if err := <-bubbleless.done; err != nil {
			t.Error(err)
		}
	})
}

func TestAGoodbyeThatNobodyTakesIsBounded(t *testing.T) {
	for name, begin := range map[string]func(*harness){
		"welcomed": func(h *harness) { h.welcome() },
		"dialling": func(h *harness) { <-h.dialer.streams },
		"waiting":  func(h *harness) { h.welcome(); time.Sleep(2 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &harness{t: t, dialer: newFakeDialer("s1:1"), outbox: NewOutbox(), done: make(chan error, 1)}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				cfg := Config{Hello: func() *pb.Hello { return &pb.Hello{Incarnation: 7} }, Reports: h.outbox, Log: slog.New(slog.DiscardHandler)}
				go func() { h.done <- run(ctx, cfg, h.dialer) }()
				begin(h)
				synctest.Wait()
				began := time.Now()
				cancel()
				if err := <-h.done; err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > GoodbyeWait {
					t.Errorf("the end took %v", took)
				}
			})
		})
	}
}

func TestStorageInfoIsGivenWhenAskedFor(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		s := h.welcome()
		s.in <- response(&pb.NeedStorageInfo{})
		m := next(s, func(m *pb.SessionRequest) bool { return m.GetStorageInfo() != nil })
		if m.GetStorageInfo().Media[0].Id != "m" {
			t.Errorf("storage info %v", m)
		}
	})
}

// A station that did not ask, because the unit is not approved, would end the stream for it.
func TestStorageInfoIsToldAgainToWhoAskedForIt(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		isStorage := func(m *pb.SessionRequest) bool { return m.GetStorageInfo() != nil }
		s := h.welcome()
		h.changed <- struct{}{}
		if live(s, 5*time.Second+time.Millisecond) != 5 || len(h.changed) != 1 {
			t.Error("it was told to a station that had not asked")
		}
		s.in <- response(&pb.NeedStorageInfo{})
		next(s, isStorage) // the answer
		next(s, isStorage) // the change
		h.changed <- struct{}{}
		next(s, isStorage)
		close(s.in)
		s = h.welcome() // and the next station has not asked either
		h.changed <- struct{}{}
		if live(s, 5*time.Second+time.Millisecond) != 5 || len(h.changed) != 1 {
			t.Error("it was told to the next station, which had not asked")
		}
	})
}

func state(full, more bool, index uint64, volumes ...string) *pb.DesiredState {
	m := &pb.DesiredState{Full: full, More: more, Stamp: &pb.Stamp{ClusterGeneration: 1, Index: index}}
	for _, v := range volumes {
		m.Replicas = append(m.Replicas, &pb.DesiredReplica{VolumeId: v})
		m.Assignments = append(m.Assignments, &pb.DesiredAssignment{VolumeId: v, HostId: "h"})
	}
	return m
}

func TestFullStatesArePutTogether(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		s := h.welcome()
		s.in <- response(state(true, true, 5, "a"))
		s.in <- response(state(true, true, 5, "b"))
		synctest.Wait()
		if len(h.desired) != 0 {
			t.Fatal("half a full state was taken for a whole one")
		}
		s.in <- response(state(true, false, 5))
		s.in <- response(state(false, false, 6, "c"))
		s.in <- response(state(true, false, 7, "d"))
		synctest.Wait()
		if len(h.desired) != 3 {
			t.Fatalf("%d states", len(h.desired))
		}
		if m := h.desired[0]; !m.Full || len(m.Replicas) != 2 || len(m.Assignments) != 2 {
			t.Errorf("the full state is %v", m)
		}
		if m := h.desired[1]; m.Full || len(m.Replicas) != 1 {
			t.Errorf("the change is %v", m)
		}
		if m := h.desired[2]; !m.Full || len(m.Replicas) != 1 {
			t.Errorf("the second full state is %v", m)
		}
	})
}

func TestStatesThatMakeNoSenseEndTheStream(t *testing.T) {
	for name, states := range map[string][]*pb.DesiredState{
		"a change first":             {state(false, false, 5, "a")},
		"a change amid a full state": {state(true, true, 5, "a"), state(false, false, 6, "b")},
		"two full states in one":     {state(true, true, 5, "a"), state(true, false, 6, "b")},
		"half a state, then the end": {state(true, true, 5, "a")},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *harness) {
				s := h.welcome()
				for _, m := range states {
					s.in <- response(m)
				}
				if name == "half a state, then the end" {
					close(s.in)
				}
				h.welcome()
				if len(h.desired) != 0 {
					t.Errorf("states were taken: %v", h.desired)
				}
			})
		})
	}
}

func TestAStationWhoseStateIsRefusedIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		h.refuse = errors.New("behind")
		s := h.welcome()
		s.in <- response(state(true, false, 5, "a"))
		if again := h.welcome(); again.endpoint == s.endpoint {
			t.Error("the same station was asked again")
		}
	})
}

func TestARenewedCertificateIsShownToTheSameStation(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		s := h.welcome()
		live(s, 3500*time.Millisecond) // between two heartbeats: one under way would block for want of a reader
		h.dialer.mu.Lock()
		h.dialer.old = true
		h.dialer.mu.Unlock()
		again := h.welcome()
		if again.endpoint != s.endpoint || h.dialer.renewals != 1 {
			t.Errorf("from %s to %s with %d renewals", s.endpoint, again.endpoint, h.dialer.renewals)
		}
	})
}

func isAnswer(m *pb.SessionRequest) bool { return m.GetAnswer() != nil }

func TestQuestionsAreAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		s := h.welcome()
		ask := func(id uint64) {
			s.in <- response(&pb.Question{Id: id, Question: &pb.Question_VolumeStats{VolumeStats: &pb.VolumeStatsQuestion{}}})
		}
		s.in <- response(&pb.Question{Id: 1}) // of a later version
		ask(2)
		if a := next(s, isAnswer).GetAnswer(); a.Id != 2 {
			t.Errorf("answer %v", a)
		}
		// A station that asks and does not listen gets no more answers than it may have.
		for id := range uint64(10 * maxAnswers) {
			ask(100 + id)
		}
		synctest.Wait()
		end := time.After(500 * time.Millisecond)
		answers := 0
		for listening := true; listening; {
			select {
			case m := <-s.out:
				if isAnswer(m) {
					answers++
				}
			case <-end:
				listening = false
			}
		}
		if answers < maxAnswers || answers > maxAnswers+1 { // one may be on its way
			t.Errorf("%d answers to a station that does not listen", answers)
		}
	})
}
