package initiator

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

type outcome struct {
	resp Response
	err  error
}

// begin runs a command in the background.
func begin(ctx context.Context, s *Session, cmd *Command) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		r, err := s.Execute(ctx, cmd)
		c <- outcome{r, err}
	}()
	return c
}

func TestImmediateAndSolicitedData(t *testing.T) {
	cmd := writeCommand(10 << 10)
	got := make([]byte, 0, len(cmd.Out))
	s := dialScripted(t, Limits{}, []pdu.KeyValue{kv("FirstBurstLength", "2048"), kv("MaxBurstLength", "4096"), kv("MaxRecvDataSegmentLength", "1536")}, func(g *scripted) {
		c, data := g.command()
		if !c.Write || c.Read || !c.Final || c.ExpectedLength != 10<<10 || len(data) != 1536 || c.CDB != cmd.CDB || c.Attr != pdu.AttrSimple {
			t.Errorf("command %+v with %d bytes", c, len(data))
		}
		got = append(got, data...)
		for r2tSN := uint32(0); len(got) < len(cmd.Out); r2tSN++ {
			want := min(4096, len(cmd.Out)-len(got))
			g.r2t(c.ITT, 7+r2tSN, r2tSN, uint32(len(got)), uint32(want))
			for dataSN := uint32(0); want > 0; dataSN++ {
				var out pdu.DataOut
				data := g.expect(&out)
				want -= len(data)
				if out.TTT != 7+r2tSN || out.ITT != c.ITT || out.DataSN != dataSN || out.BufferOffset != uint32(len(got)) || out.Final != (want == 0) || len(data) > 1536 || out.ExpStatSN != g.statSN {
					t.Errorf("Data-Out %+v with %d bytes, %d to come, StatSN %d", out, len(data), want, g.statSN)
				}
				got = append(got, data...)
			}
		}
		g.respond(c.ITT, cdb.StatusGood, nil)
	})
	if r, err := s.Execute(t.Context(), cmd); err != nil || r.Err("write") != nil {
		t.Fatal(err, r)
	}
	if !bytes.Equal(got, cmd.Out) {
		t.Error("the target got other bytes")
	}
}

func TestDataInAndResiduals(t *testing.T) {
	sense := cdb.Sense{Key: cdb.KeyMediumError, ASC: cdb.ASCUnrecoveredReadError, Information: 77, InformationValid: true}
	s := dialScripted(t, Limits{}, nil, func(g *scripted) {
		c, _ := g.command()
		for i := range uint32(3) {
			g.send(&pdu.DataIn{ITT: c.ITT, TTT: pdu.NoTag, DataSN: i, BufferOffset: i * 100, ExpCmdSN: g.expCmdSN, MaxCmdSN: g.maxCmdSN}, bytes.Repeat([]byte{byte(i + 1)}, 100))
		}
		last := pdu.DataIn{Final: true, HasStatus: true, Underflow: true, Residual: 200, ITT: c.ITT, TTT: pdu.NoTag, DataSN: 3, BufferOffset: 300}
		g.number(&last.StatSN, &last.ExpCmdSN, &last.MaxCmdSN)
		g.send(&last, []byte{4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4})

		c, _ = g.command()
		if c.ExpStatSN != g.statSN {
			t.Errorf("ExpStatSN %d, want %d", c.ExpStatSN, g.statSN)
		}
		g.respond(c.ITT, cdb.StatusCheckCondition, sense.Descriptor())
		c, _ = g.command()
		g.respond(c.ITT, cdb.StatusReservationConflict, nil)
		c, _ = g.command()
		r := pdu.SCSIResponse{ITT: c.ITT, Response: pdu.ResponseTargetFailure}
		g.number(&r.StatSN, &r.ExpCmdSN, &r.MaxCmdSN)
		g.send(&r, nil)
	})
	cmd := readCommand(512)
	r, err := s.Execute(t.Context(), cmd)
	if err != nil || r.InBytes != 312 || !r.Underflow || r.Residual != 200 || cmd.In[0] != 1 || cmd.In[299] != 3 || cmd.In[311] != 4 || cmd.In[312] != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	r, err = s.Execute(t.Context(), readCommand(512))
	var got *SenseError
	if failed := r.Err("READ(16)"); err != nil || !errors.As(failed, &got) || got.Sense != sense || san.KindOf(failed) != san.KindInternal {
		t.Errorf("%v, %+v", err, failed)
	}
	for _, want := range []san.Kind{san.KindDenied, san.KindInternal} {
		r, err = s.Execute(t.Context(), readCommand(512))
		var status *StatusError
		if failed := r.Err("READ(16)"); err != nil || !errors.As(failed, &status) || san.KindOf(failed) != want {
			t.Errorf("%v, %+v", err, failed)
		}
	}
}

// Many requests are in flight at once, are answered in any order, and never exceed the command window.
func TestManyInFlightWithinTheWindow(t *testing.T) {
	const window, rounds = 8, 5
	s := dialScripted(t, Limits{QueueDepth: 32}, nil, func(g *scripted) {
		g.maxCmdSN = window
		g.expCmdSN = 1
		for round := range uint32(rounds) {
			var tags []uint32
			for i := range uint32(window) {
				p := g.receive()
				var c pdu.SCSICommand
				c.Decode(&p.BHS)
				if c.CmdSN != 1+round*window+i {
					t.Errorf("CmdSN %d in place of %d", c.CmdSN, 1+round*window+i)
				}
				tags = append(tags, c.ITT)
			}
			g.expCmdSN = 1 + (round+1)*window
			for i := range tags {
				if i == len(tags)-1 {
					g.maxCmdSN += window // opens only now
				}
				g.dataIn(tags[len(tags)-1-i], bytes.Repeat([]byte{byte(tags[len(tags)-1-i])}, 512))
			}
		}
	})
	s.mu.Lock()
	s.maxCmdSN = window // the login told more
	s.mu.Unlock()
	var all []<-chan outcome
	for range window * rounds {
		all = append(all, begin(t.Context(), s, readCommand(512)))
	}
	for i, c := range all {
		if o := <-c; o.err != nil || o.resp.InBytes != 512 {
			t.Errorf("request %d: %v, %+v", i, o.err, o.resp)
		}
	}
}

func TestConnectionLossTellsWhatMayHaveHappened(t *testing.T) {
	sent := make(chan struct{})
	cut := make(chan struct{})
	s := dialScripted(t, Limits{}, nil, func(g *scripted) {
		g.command()
		g.command()
		close(sent)
		<-cut
		g.conn.Close()
	})
	s.mu.Lock()
	s.maxCmdSN = s.cmdSN + 1 // two may go
	s.mu.Unlock()
	write := begin(t.Context(), s, writeCommand(512))
	for len(s.free) > 127 { // until it holds its slot, so that it goes first
		yield()
	}
	read := begin(t.Context(), s, readCommand(512))
	<-sent
	queued := begin(t.Context(), s, writeCommand(512))
	for len(s.free) > 125 {
		yield()
	}
	close(cut)
	for _, c := range []struct {
		name string
		out  outcome
		may  bool
		kind san.Kind
	}{{"sent write", <-write, true, san.KindUnknown}, {"sent read", <-read, false, san.KindUnavailable}, {"queued write", <-queued, false, san.KindUnavailable}} {
		var re *RequestError
		if !errors.As(c.out.err, &re) || MayHaveTakenEffect(c.out.err) != c.may || san.KindOf(c.out.err) != c.kind {
			t.Errorf("%s: %v", c.name, c.out.err)
		}
	}
	<-s.Done()
	if _, err := s.Execute(t.Context(), writeCommand(512)); err == nil || MayHaveTakenEffect(err) || s.Err() == nil {
		t.Errorf("after the end: %v, %v", err, s.Err())
	}
}

func TestCloseFailsWhatIsPending(t *testing.T) {
	sent := make(chan struct{})
	s := dialScripted(t, Limits{}, nil, func(g *scripted) { g.command(); close(sent) })
	write := begin(t.Context(), s, writeCommand(512))
	<-sent
	s.Close()
	s.Close()
	if o := <-write; !errors.Is(o.err, ErrClosed) || !MayHaveTakenEffect(o.err) || !errors.Is(s.Err(), ErrClosed) {
		t.Errorf("%v, %v", o.err, s.Err())
	}
}

func TestCancelQueued(t *testing.T) {
	s := dialScripted(t, Limits{}, nil, func(g *scripted) {
		c, _ := g.command()
		if c.CmdSN != 1 || c.Write {
			t.Errorf("the cancelled command left a trace: %+v", c)
		}
		g.dataIn(c.ITT, make([]byte, 512))
	})
	s.mu.Lock()
	s.maxCmdSN = s.cmdSN - 1 // closed
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Execute(ctx, writeCommand(512)); !errors.Is(err, context.Canceled) || MayHaveTakenEffect(err) {
		t.Errorf("%v", err)
	}
	s.mu.Lock()
	s.maxCmdSN = s.cmdSN
	s.mu.Unlock()
	if _, err := s.Execute(t.Context(), readCommand(512)); err != nil {
		t.Error(err)
	}
}

// A cancelled write is aborted at the target; its slot stays taken until the target agrees, R2Ts
// and late answers for it are ignored, and not one byte of the caller's buffer is sent any more.
func TestCancelSent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan struct{})
	s := dialScripted(t, Limits{QueueDepth: 1}, []pdu.KeyValue{kv("ImmediateData", "No"), kv("MaxBurstLength", "8192")}, func(g *scripted) {
		c, _ := g.command()
		g.r2t(c.ITT, 1, 0, 0, 4096)
		var out pdu.DataOut
		g.expect(&out)
		cancel()
		<-returned
		var abort pdu.TaskRequest
		g.expect(&abort)
		if abort.Function != pdu.TaskAbort || abort.RefTag != c.ITT || abort.RefCmdSN != c.CmdSN || !abort.Immediate {
			t.Errorf("%+v", abort)
		}
		g.r2t(c.ITT, 2, 1, 4096, 4096)
		resp := pdu.TaskResponse{ITT: abort.ITT}
		g.number(&resp.StatSN, &resp.ExpCmdSN, &resp.MaxCmdSN)
		g.send(&resp, nil)
		g.respond(c.ITT, cdb.StatusGood, nil) // too late
		next, _ := g.command()
		if next.ITT == c.ITT {
			t.Error("the next command has the tag of the aborted one")
		}
		g.respond(c.ITT, cdb.StatusGood, nil) // much too late
		g.dataIn(next.ITT, make([]byte, 512))
	})
	cmd := writeCommand(8192)
	_, err := s.Execute(ctx, cmd)
	clear(cmd.Out) // with -race this shows that nobody else touches it
	close(returned)
	if !errors.Is(err, context.Canceled) || !MayHaveTakenEffect(err) {
		t.Errorf("%v", err)
	}
	if _, err := s.Execute(t.Context(), readCommand(512)); err != nil {
		t.Error(err)
	}
}

func TestRequestTimesOutAndSessionAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dialScripted(t, Limits{RequestTimeout: 10 * time.Second, AbortTimeout: 5 * time.Second}, nil, func(g *scripted) {
			g.command()
			var abort pdu.TaskRequest
			g.expect(&abort)
		})
		began := time.Now()
		_, err := s.Execute(t.Context(), writeCommand(512))
		if took := time.Since(began); !errors.Is(err, ErrTimedOut) || !MayHaveTakenEffect(err) || took < 10*time.Second || took > 13*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		<-s.Done()
		if took := time.Since(began); !errors.Is(s.Err(), ErrTimedOut) || took < 15*time.Second || took > 20*time.Second {
			t.Errorf("%v after %v", s.Err(), took)
		}
	})
}

func TestKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const answered = 50
		s := dialScripted(t, Limits{PingInterval: 2 * time.Second, PingTimeout: 2 * time.Second}, nil, func(g *scripted) {
			for range answered {
				var out pdu.NOPOut
				g.expect(&out)
				if !out.Immediate || out.TTT != pdu.NoTag || out.ITT == pdu.NoTag || out.CmdSN != 1 {
					t.Errorf("%+v", out)
				}
				in := pdu.NOPIn{ITT: out.ITT, TTT: pdu.NoTag}
				g.number(&in.StatSN, &in.ExpCmdSN, &in.MaxCmdSN)
				g.send(&in, nil)
			}
		})
		began := time.Now()
		<-s.Done()
		alive := time.Since(began)
		if !errors.Is(s.Err(), ErrKeepalive) || alive < answered*2*time.Second || alive > (answered+1)*3*time.Second+2*time.Second {
			t.Errorf("%v after %v", s.Err(), alive)
		}
	})
}

// The last ping's silence must end the session soon, since hosts wait for it to change paths.
func TestSilentCutIsNoticedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dialScripted(t, Limits{PingInterval: time.Second, PingTimeout: time.Second}, nil, func(g *scripted) {
			g.command()
			<-t.Context().Done() // neither reads nor writes nor closes
		})
		began := time.Now()
		_, err := s.Execute(t.Context(), writeCommand(512))
		if took := time.Since(began); !errors.Is(err, ErrKeepalive) || !MayHaveTakenEffect(err) || took > 3*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestTargetPingIsAnswered(t *testing.T) {
	s := dialScripted(t, Limits{}, nil, func(g *scripted) {
		c, _ := g.command()
		g.send(&pdu.NOPIn{ITT: pdu.NoTag, TTT: 99, LUN: 5, StatSN: g.statSN, ExpCmdSN: g.expCmdSN, MaxCmdSN: g.maxCmdSN}, nil)
		var out pdu.NOPOut
		g.expect(&out)
		if out.TTT != 99 || out.LUN != 5 || out.ITT != pdu.NoTag || !out.Immediate || out.ExpStatSN != g.statSN {
			t.Errorf("%+v", out)
		}
		g.dataIn(c.ITT, make([]byte, 512))
	})
	if _, err := s.Execute(t.Context(), readCommand(512)); err != nil {
		t.Error(err)
	}
}

func TestLogoutWaitsForWhatIsInFlight(t *testing.T) {
	received, answer := make(chan struct{}), make(chan struct{})
	s := dialScripted(t, Limits{}, nil, func(g *scripted) {
		c, _ := g.command()
		close(received)
		<-answer
		g.dataIn(c.ITT, make([]byte, 512))
		g.serve(nil)
	})
	read := begin(t.Context(), s, readCommand(512))
	<-received
	left := make(chan error, 1)
	go func() { left <- s.Logout(t.Context()) }()
	for s.refusalNow() == nil {
		yield()
	}
	if _, err := s.Execute(t.Context(), readCommand(512)); !errors.Is(err, ErrClosed) {
		t.Errorf("a new command while logging out: %v", err)
	}
	close(answer)
	if o := <-read; o.err != nil {
		t.Errorf("the command in flight: %v", o.err)
	}
	if err := <-left; err != nil {
		t.Error(err)
	}
	<-s.Done()
}

func TestLogoutWithoutAnswerEndsAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dialScripted(t, Limits{}, nil, func(g *scripted) {})
		if err := s.Logout(t.Context()); !errors.Is(err, ErrTimedOut) {
			t.Errorf("%v", err)
		}
		<-s.Done()
	})
}

func TestAsynchronousMessages(t *testing.T) {
	async := func(g *scripted, event uint8) {
		m := pdu.Async{Event: event, Parameter3: 5}
		g.number(&m.StatSN, &m.ExpCmdSN, &m.MaxCmdSN)
		g.send(&m, nil)
	}
	for _, event := range []uint8{pdu.AsyncLogoutRequest, pdu.AsyncNegotiate, pdu.AsyncDropConnection, pdu.AsyncDropSession} {
		s := dialScripted(t, Limits{}, nil, func(g *scripted) {
			c, _ := g.command()
			async(g, pdu.AsyncSCSI) // changes nothing
			g.dataIn(c.ITT, make([]byte, 512))
			async(g, event)
			g.serve(nil) // answers the logout where one comes
		})
		if _, err := s.Execute(t.Context(), readCommand(512)); err != nil {
			t.Error(err)
		}
		<-s.Done()
		if !errors.Is(s.Err(), ErrTargetAsked) {
			t.Errorf("event %d: %v", event, s.Err())
		}
	}
}
