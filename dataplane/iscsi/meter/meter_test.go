package meter

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// do counts one command that takes so long.
func do(s *Session, opcode, status byte, bytes int, took time.Duration) {
	at := s.Begin()
	time.Sleep(took) // on a synctest clock
	s.Answered(at, opcode, status, bytes)
}

func TestFiguresOfLiveAndEndedSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := NewTarget()
		exposed := time.Now()
		a, b := target.Open(Peer{Initiator: "a", Host: "h"}), target.Open(Peer{Initiator: "b"})
		for range 99 {
			do(a, cdb.OpRead16, cdb.StatusGood, 4096, time.Millisecond)
		}
		do(a, cdb.OpRead10, cdb.StatusCheckCondition, 0, 50*time.Millisecond)
		do(b, cdb.OpWrite10, cdb.StatusGood, 512, 2*time.Millisecond)
		do(b, cdb.OpSynchronizeCache10, cdb.StatusGood, 0, time.Second)
		b.Begin()
		b.Aborted()
		b.Close()
		b.Close() // once is enough
		st := target.Stats()
		if !st.Since.Equal(exposed) || !st.At.Equal(time.Now()) {
			t.Errorf("from %v to %v", st.Since, st.At)
		}
		want := [classes]Count{{100, 99 * 4096, 1}, {1, 512, 0}, {1, 0, 0}}
		for i, f := range st.Class {
			if f.Count != want[i] {
				t.Errorf("class %d: %+v, want %+v", i, f.Count, want[i])
			}
		}
		if st.Aborted != 1 || st.Depth != 0 || st.DepthMax != 1 {
			t.Errorf("%d aborted, depth %d of %d", st.Aborted, st.Depth, st.DepthMax)
		}
		if p50 := st.Reads.Quantile(0.5); p50 < time.Millisecond || p50 > time.Millisecond+time.Millisecond/32 {
			t.Errorf("median %v", p50)
		}
		if st.Reads.Max() != 50*time.Millisecond || st.Writes.Max() != 2*time.Millisecond || st.Writes.N() != 1 {
			t.Errorf("longest read %v, write %v", st.Reads.Max(), st.Writes.Max())
		}
		twice := target.Stats().IO
		twice.Add(st.IO)
		if twice.Class[Read].Count != (Count{200, 2 * 99 * 4096, 2}) || twice.Reads.N() != 200 || twice.Aborted != 2 || twice.DepthMax != 1 {
			t.Errorf("with itself: %+v", twice)
		}
		if len(st.Sessions) != 1 || st.Sessions[0].Initiator != "a" || st.Sessions[0].Class[Read].Commands != 100 || st.Sessions[0].Writes.N() != 0 {
			t.Errorf("sessions: %+v", st.Sessions)
		}
	})
}

func TestRatesAreThoseOfTheLastWholeInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := NewTarget()
		s := target.Open(Peer{})
		read := func(n int) {
			for range n {
				do(s, cdb.OpRead16, cdb.StatusGood, 1000, time.Millisecond)
			}
		}
		read(70) // before the first whole interval
		target.Sample()
		read(100)
		if io := target.Stats(); io.Interval != 0 || io.Class[Read].CommandsPerSecond != 0 {
			t.Errorf("rates before the first interval's end: %+v", io.Class[Read])
		}
		time.Sleep(900 * time.Millisecond)
		target.Sample()
		read(50) // belongs to an interval that is not whole yet
		for _, io := range []IO{target.Stats().IO, target.Stats().Sessions[0].IO} {
			if f := io.Class[Read]; io.Interval != time.Second || f.CommandsPerSecond != 100 || f.BytesPerSecond != 100_000 || f.Commands != 220 {
				t.Errorf("after a second: %+v over %v", f, io.Interval)
			}
		}
		time.Sleep(1950 * time.Millisecond)
		s.Close()
		target.Sample()
		if io := target.Stats(); io.Interval != 2*time.Second || io.Class[Read].CommandsPerSecond != 25 {
			t.Errorf("with a session that ended: %+v over %v", io.Class[Read], io.Interval)
		}
		time.Sleep(time.Second)
		target.Sample()
		if io := target.Stats(); io.Class[Read].CommandsPerSecond != 0 || io.Class[Read].Commands != 220 {
			t.Errorf("idle: %+v", io.Class[Read])
		}
	})
}

func TestQueueDepthIsTheSumOfTheSessions(t *testing.T) {
	target := NewTarget()
	a, b := target.Open(Peer{}), target.Open(Peer{})
	at := a.Begin()
	a.Begin()
	b.Begin()
	st := target.Stats()
	if st.Depth != 3 || st.DepthMax != 3 || st.Sessions[0].Depth != 2 || st.Sessions[1].DepthMax != 1 {
		t.Errorf("%+v", st)
	}
	a.Answered(at, cdb.OpRead16, cdb.StatusGood, 1)
	b.Close() // with a command that nobody ended
	if st = target.Stats(); st.Depth != 1 || st.DepthMax != 3 {
		t.Errorf("depth %d of %d", st.Depth, st.DepthMax)
	}
}

func TestManyAtOnce(t *testing.T) {
	target := NewTarget()
	done := make(chan struct{})
	var watching, working sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				target.Sample()
				target.Stats()
			}
		}
	})
	for range 4 {
		working.Go(func() {
			for range 5 {
				s := target.Open(Peer{})
				for range 200 {
					s.Answered(s.Begin(), cdb.OpWrite16, cdb.StatusGood, 10)
				}
				s.Close()
			}
		})
	}
	working.Wait()
	close(done)
	watching.Wait()
	if st := target.Stats(); st.Class[Write].Count != (Count{Commands: 4000, Bytes: 40_000}) || st.Writes.N() != 4000 || st.Depth != 0 || len(st.Sessions) != 0 {
		t.Errorf("%+v", st.Class[Write])
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	s := NewTarget().Open(Peer{})
	if n := testing.AllocsPerRun(100, func() { s.Answered(s.Begin(), cdb.OpRead16, cdb.StatusGood, 4096) }); n != 0 {
		t.Errorf("%v allocations a command", n)
	}
}

// BenchmarkCommand is what counting adds to one command.
func BenchmarkCommand(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		s := NewTarget().Open(Peer{})
		b.ReportAllocs()
		for range b.N {
			s.Answered(s.Begin(), cdb.OpRead16, cdb.StatusGood, 4096)
		}
	})
	b.Run("session-per-core", func(b *testing.B) {
		target := NewTarget()
		b.RunParallel(func(pb *testing.PB) {
			s := target.Open(Peer{})
			for pb.Next() {
				s.Answered(s.Begin(), cdb.OpRead16, cdb.StatusGood, 4096)
			}
		})
	})
}
