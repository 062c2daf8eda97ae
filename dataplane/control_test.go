package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
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

// brokenFolder takes nothing until it is mended.
type brokenFolder struct {
	mended atomic.Bool
	writes atomic.Int32
}

func (*brokenFolder) ReadJSON(string, any) (bool, error) { return false, nil }

func (b *brokenFolder) WriteJSON(string, any) error {
	b.writes.Add(1)
	if !b.mended.Load() {
		return syscall.ENOSPC
	}
	return nil
}

// The unit's own state is tried again until it is on disk, or the unit stops; the log says so now and then.
func TestTheStateIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		folder := &brokenFolder{}
		st, err := readState(folder, "u1")
		if err != nil {
			t.Fatal(err)
		}
		u := &unit{log: slog.New(slog.NewTextHandler(&text, nil)), states: folder, state: st}
		u.begin()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if u.awaitKept(ctx) {
			t.Error("a state is kept that can't be written")
		}
		if n := strings.Count(text.String(), "level=ERROR"); n < 10 || n > 11 || folder.writes.Load() < 590 {
			t.Errorf("%d tries are told of in %d lines", folder.writes.Load(), n)
		}
		time.AfterFunc(10*time.Second, func() { folder.mended.Store(true) })
		began := time.Now()
		if !u.awaitKept(t.Context()) || time.Since(began) > 10*time.Second+2*stateRetry {
			t.Errorf("not kept after %v", time.Since(began))
		}
		if !strings.Contains(text.String(), `alarm="data folder" over=true`) {
			t.Errorf("the log does not say that it is over:\n%s", text.String())
		}
		if u.state.Incarnation != 1 {
			t.Errorf("one start is counted as %d", u.state.Incarnation)
		}
	})
}
