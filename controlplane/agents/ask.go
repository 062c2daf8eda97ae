package agents

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// maxQuestions bounds what one agent is asked at a time; it keeps no more answers waiting.
	maxQuestions = 16
	// answerWait bounds how long an agent may take to answer.
	answerWait = 2 * time.Second
)

// questions are those that one stream's agent has not answered yet.
type questions struct {
	send chan *pb.Question // to whom writes the stream
	over chan struct{}     // closed when the stream is

	mu   sync.Mutex
	last uint64
	open map[uint64]chan *pb.Answer
}

func newQuestions() questions {
	return questions{send: make(chan *pb.Question, maxQuestions), over: make(chan struct{}), open: map[uint64]chan *pb.Answer{}}
}

// begin takes a number and a place for an answer; ok is false when there are too many.
func (q *questions) begin() (id uint64, answer chan *pb.Answer, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.open) >= maxQuestions {
		return 0, nil, false
	}
	q.last++
	answer = make(chan *pb.Answer, 1)
	q.open[q.last] = answer
	return q.last, answer, true
}

func (q *questions) end(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.open, id)
}

// answered hands an answer to who asked; one that nobody waits for any more is dropped.
func (q *questions) answered(a *pb.Answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c := q.open[a.GetId()]; c != nil {
		delete(q.open, a.GetId())
		c <- a // has room: nobody else finds it
	}
}

// ask puts a question to the session's agent and waits for its answer.
func (s *session) ask(ctx context.Context, text *pb.Question) (*pb.Answer, error) {
	id, answer, ok := s.questions.begin()
	if !ok {
		return nil, san.Errorf(san.KindUnavailable, "%s %s is being asked %d things already; ask again in a moment", s.key.role, s.key.id, maxQuestions)
	}
	defer s.questions.end(id)
	late := time.NewTimer(answerWait)
	defer late.Stop()
	q := &pb.Question{Id: id, Question: text.GetQuestion()}
	select {
	case s.questions.send <- q:
	case <-s.questions.over:
		return nil, s.wentAway()
	case <-late.C:
		return nil, s.didNotAnswer()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case a := <-answer:
		return a, nil
	case <-s.questions.over:
		return nil, s.wentAway()
	case <-late.C:
		return nil, s.didNotAnswer()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *session) wentAway() error {
	return san.Errorf(san.KindUnavailable, "%s %s lost its stream to station %s while it was asked; ask again", s.key.role, s.key.id, s.hub.cfg.Self)
}

func (s *session) didNotAnswer() error {
	return san.Errorf(san.KindUnavailable, "%s %s did not answer station %s within %v; if it is of an older version, upgrade it", s.key.role, s.key.id, s.hub.cfg.Self, answerWait)
}

// put sends the questions, until the stream ends.
func (s *session) put(ctx context.Context) error {
	for {
		select {
		case q := <-s.questions.send:
			if err := s.send(&pb.SessionResponse{Message: &pb.SessionResponse_Question{Question: q}}); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Ask puts a question to a unit whose stream this station holds; KindNotFound: it holds none.
func (h *Hub) Ask(ctx context.Context, unit san.UnitID, q *pb.Question) (*pb.Answer, error) {
	h.mu.Lock()
	s := h.live[agentKey{san.RoleUnit, string(unit)}]
	h.mu.Unlock()
	if s == nil {
		return nil, san.Errorf(san.KindNotFound, "station %s holds no stream of unit %s", h.cfg.Self, unit)
	}
	return s.ask(ctx, q)
}

// Asker asks units, whichever station holds their streams.
type Asker struct {
	Hub *Hub
	// Others are the API addresses of the other stations.
	Others func() []string
	Client *stationclient.Client
}

// Ask puts a question to a unit. It fails with KindNotFound if no station that can be reached holds its stream,
// with KindUnavailable if the unit did not answer.
func (a *Asker) Ask(ctx context.Context, unit san.UnitID, q *pb.Question) (*pb.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWait+time.Second)
	defer cancel()
	answer, err := a.Hub.Ask(ctx, unit, q)
	if san.KindOf(err) != san.KindNotFound {
		return answer, err
	}
	type result struct {
		answer *pb.Answer
		err    error
	}
	others := a.Others()
	results := make(chan result, len(others))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel() // before Wait: one answer is enough
	for _, ep := range others {
		asking.Go(func() {
			resp, err := a.Client.Peers(ep).Ask(ctx, connect.NewRequest(&pb.AskRequest{UnitId: string(unit), Question: q}))
			switch {
			case convert.Lost(err), connect.CodeOf(err) == connect.CodeUnimplemented:
				// This station can't be reached, or is of an older version. It may hold the stream or not: what the
				// others say counts for more.
				results <- result{}
			case err != nil:
				results <- result{err: convert.FromConnect(err)}
			default:
				results <- result{answer: resp.Msg.Answer}
			}
		})
	}
	worst := san.Errorf(san.KindNotFound, "unit %s has no stream to any station; see to its process and its network ('sandbar unit show %s')", unit, unit)
	for range others {
		r := <-results
		switch {
		case r.answer != nil:
			return r.answer, nil
		case r.err != nil && san.KindOf(r.err) != san.KindNotFound:
			worst = r.err
		}
	}
	return nil, worst
}
