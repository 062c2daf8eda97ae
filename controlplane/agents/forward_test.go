package agents

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// leaderless is stations without a leader.
type leaderless struct{}

func (leaderless) IsLeader() bool                { return false }
func (leaderless) Leader() (san.StationID, bool) { return "", false }

// TestForwarderToldToEnd: one that finds no leader goes on until its context ends, and then says so by
// that context's error, by which a station that is shut down knows that nothing failed.
func TestForwarderToldToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		f := &Forwarder{Leader: leaderless{}, Proposer: &log{}}
		done := make(chan error, 1)
		go func() { done <- f.Propose(ctx, &fsm.PutStation{}) }()
		<-time.After(time.Minute)
		select {
		case err := <-done:
			t.Fatalf("it gave up: %v", err)
		default:
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || san.KindOf(err) != san.KindUnavailable {
			t.Errorf("it ended with %v of kind %v", err, san.KindOf(err))
		}
	})
}
