package agents

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

// asked is a stream as those see it who ask its agent.
func asked() *session {
	return &session{hub: NewHub(HubConfig{Self: "s1"}), key: agentKey{san.RoleUnit, "u1"}, questions: newQuestions()}
}

func TestAnswersGoToWhoAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := asked()
		s.hub.enter(s)
		answers := make(chan string, 2)
		for _, volume := range []string{"a", "b"} {
			go func() {
				q := &pb.Question{Question: &pb.Question_VolumeStats{VolumeStats: &pb.VolumeStatsQuestion{VolumeId: volume}}}
				a, err := s.hub.Ask(t.Context(), "u1", q)
				if err != nil || a.GetVolumeStats().GetStats().GetVolumeId() != volume {
					t.Errorf("asked for %s: %v, %v", volume, a, err)
				}
				answers <- volume
			}()
		}
		first, second := <-s.questions.send, <-s.questions.send
		if first.Id == second.Id {
			t.Error("two questions have one number")
		}
		for _, q := range []*pb.Question{second, first} {
			a := &pb.Answer{Id: q.Id, Answer: &pb.Answer_VolumeStats{VolumeStats: &pb.VolumeStatsAnswer{Stats: &pb.VolumeStats{VolumeId: q.GetVolumeStats().VolumeId}}}}
			s.questions.answered(a)
			s.questions.answered(a)                      // nobody waits any more
			s.questions.answered(&pb.Answer{Id: 100000}) // nobody ever did
			<-answers
		}
		s.questions.answered(nil)
		if len(s.questions.open) != 0 {
			t.Errorf("%d questions are still open", len(s.questions.open))
		}
	})
}

func TestAnAgentThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := asked()
		s.hub.enter(s)
		ask := func(ctx context.Context) error {
			_, err := s.hub.Ask(ctx, "u1", &pb.Question{})
			return err
		}
		began := time.Now()
		if err := ask(t.Context()); san.KindOf(err) != san.KindUnavailable || time.Since(began) != answerWait {
			t.Errorf("a silent agent: %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := ask(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that gave up: %v", err)
		}
		if _, err := s.hub.Ask(t.Context(), "u2", &pb.Question{}); san.KindOf(err) != san.KindNotFound {
			t.Errorf("a unit without a stream: %v", err)
		}

		// So many questions and no more.
		results := make(chan error, maxQuestions)
		for range maxQuestions {
			go func() { results <- ask(t.Context()) }()
		}
		synctest.Wait()
		began = time.Now()
		if err := ask(t.Context()); san.KindOf(err) != san.KindUnavailable || time.Since(began) != 0 {
			t.Errorf("one question too many: %v after %v", err, time.Since(began))
		}
		close(s.questions.over)
		for range maxQuestions {
			if err := <-results; san.KindOf(err) != san.KindUnavailable || time.Since(began) != 0 {
				t.Errorf("when the stream ended: %v after %v", err, time.Since(began))
			}
		}
	})
}
