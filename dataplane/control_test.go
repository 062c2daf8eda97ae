package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A part that fails is started again, more and more rarely, sooner once it lasted; the log says that it failed and that it works again.
func TestPartsThatFailAreStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		u := &unit{log: slog.New(slog.NewTextHandler(&text, nil))}
		ctx, cancel := context.WithCancel(t.Context())
		var starts []time.Time
		runs := 0
		part := func(ctx context.Context, up func()) error {
			starts = append(starts, time.Now())
			switch runs++; {
			case runs <= 10:
				return errors.New("port is gone")
			case runs == 11:
				up()
				time.Sleep(2 * partSettled)
				return errors.New("gone again")
			}
			up()
			<-ctx.Done()
			return errors.New("slow to leave")
		}
		ended := make(chan struct{})
		go func() { defer close(ended); u.keepUp(ctx, "gossip", part) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(starts) != 12 {
			t.Fatalf("started %d times", len(starts))
		}
		for i := 1; i < len(starts); i++ {
			wait, most := starts[i].Sub(starts[i-1]), min(partRetryMin<<(i-1), partRetryMax)
			if i == 11 {
				wait, most = wait-2*partSettled, partRetryMin
			}
			if wait < most/2 || wait > most {
				t.Errorf("start %d came after %v, want %v to %v", i, wait, most/2, most)
			}
		}
		cancel()
		<-ended
		log := text.String()
		if n := strings.Count(log, "alarm=gossip retryIn="); n != 11 || strings.Count(log, "level=ERROR") != 11 {
			t.Errorf("%d failures are logged:\n%s", n, log)
		}
		if n := strings.Count(log, "alarm=gossip over=true"); n != 2 {
			t.Errorf("it works again %d times:\n%s", n, log)
		}
		if !strings.Contains(log, "level=WARN msg=\"a part of the unit did not end in order\" part=gossip") {
			t.Errorf("the end is not logged:\n%s", log)
		}
	})
}

func TestAPartThatWaitsEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unit{log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithTimeout(t.Context(), partRetryMin/4)
		defer cancel()
		began := time.Now()
		u.keepUp(ctx, "probes", func(context.Context, func()) error { return errors.New("no") })
		if took := time.Since(began); took != partRetryMin/4 {
			t.Errorf("it ended after %v", took)
		}
	})
}
