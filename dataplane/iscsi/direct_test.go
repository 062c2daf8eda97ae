package iscsi

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// holdReader has the reader of a session stay in its next write until open is closed.
func (r *rig) holdReader() (entered chan uint32, open chan struct{}) {
	entered, open = make(chan uint32, 100), make(chan struct{})
	r.lu.setNow(func(t *scsi.Task) bool {
		if t.CDB[0] == 0x8a {
			entered <- t.Tag
			<-open
		}
		return true
	})
	return entered, open
}

func (c *client) ping(itt uint32) {
	c.t.Helper()
	c.send(&pdu.NOPOut{Immediate: true, ITT: itt, TTT: pdu.NoTag, CmdSN: c.cmdSN}, nil)
	if nop, _ := expect[pdu.NOPIn](c); nop.ITT != itt {
		c.t.Errorf("answer to ping %d, want %d", nop.ITT, itt)
	}
}

func TestTheReaderExecutesWhatNeedsNoWaiting(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.dial().login(wishes())
	c.idle()
	data := pattern(64*blockSize, 9)
	var all bytes.Buffer
	for i := range 64 {
		if err := c.d.WritePDU(&all, c.write(i, 1), data[i*blockSize:(i+1)*blockSize]); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.d.WritePDU(&all, c.read(0, 64), nil); err != nil {
		t.Fatal(err)
	}
	// What the connection brings in one piece is executed in one go, and answered in order.
	if _, err := c.conn.Write(all.Bytes()); err != nil {
		t.Fatal(err)
	}
	for i := range 64 {
		if resp, _ := expect[pdu.SCSIResponse](c); resp.ITT != uint32(i+1) || resp.Status != cdb.StatusGood {
			t.Fatalf("%+v", resp)
		}
	}
	if in, got := expect[pdu.DataIn](c); !in.HasStatus || !bytes.Equal(got, data) {
		t.Errorf("%+v with other data", in)
	}
	s := r.only()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, most := r.lu.seen(); s.workers != 0 || most != 1 || len(s.tasks) != 0 {
		t.Errorf("%d workers, %d commands at a time, %d left", s.workers, most, len(s.tasks))
	}
}

func TestWhatHasToWaitGoesToWorkers(t *testing.T) {
	r := newRig(t, Limits{})
	r.lu.setNow(func(*scsi.Task) bool { return false })
	c := r.dial().login(wishes())
	data := pattern(512, 1)
	c.send(c.write(7, 1), data)
	if resp, _ := expect[pdu.SCSIResponse](c); resp.Status != cdb.StatusGood {
		t.Errorf("%+v", resp)
	}
	c.send(c.read(7, 1), nil)
	if _, got := expect[pdu.DataIn](c); !bytes.Equal(got, data) {
		t.Error("other data than were written")
	}
}

// However long the reader is at a command, the session is read on.
func TestAReaderThatIsHeldUpIsReplaced(t *testing.T) {
	r := newRig(t, Limits{})
	entered, open := r.holdReader()
	c := r.dial().login(wishes())
	h := c.write(0, 1)
	c.send(h, pattern(512, 1))
	<-entered
	c.ping(500)
	// Then workers take what comes, for a while.
	c.send(c.read(8, 1), nil)
	expect[pdu.DataIn](c)
	abort := &pdu.TaskRequest{Immediate: true, Function: pdu.TaskAbort, ITT: 501, RefTag: h.ITT, RefCmdSN: h.CmdSN, CmdSN: c.cmdSN}
	c.send(abort, nil)
	c.ping(502)
	close(open)
	if resp, _ := expect[pdu.TaskResponse](c); resp.Response != pdu.TaskComplete || resp.ITT != 501 {
		t.Errorf("%+v", resp)
	}
	c.send(c.read(0, 1), nil)
	if _, got := expect[pdu.DataIn](c); !bytes.Equal(got, pattern(512, 1)) {
		t.Error("what was executed while it was aborted has no effect")
	}
}

// The one that was replaced has its answer still to give, while the other waits for input.
func TestAReaderThatWasReplacedAnswers(t *testing.T) {
	r := newRig(t, Limits{})
	entered, open := r.holdReader()
	c := r.dial().login(wishes())
	h := c.write(0, 1)
	c.send(h, pattern(512, 1))
	<-entered
	c.ping(500)
	close(open)
	if resp, _ := expect[pdu.SCSIResponse](c); resp.ITT != h.ITT || resp.Status != cdb.StatusGood {
		t.Errorf("%+v", resp)
	}
}

// A session is not over while its reader executes a command, replaced or not.
func TestASessionIsClosedWhileItsReaderIsHeldUp(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		r := newRig(t, Limits{})
		entered, open := r.holdReader()
		c := r.dial().login(wishes())
		c.send(c.write(0, 1), pattern(512, 1))
		<-entered
		if replaced {
			c.ping(500)
		}
		closed := make(chan error, 1)
		go func() {
			closed <- r.srv.CloseSessions(context.Background(), func(SessionInfo) bool { return true })
		}()
		c.closed()
		select {
		case err := <-closed:
			t.Errorf("closed with a command executing: %v", err)
		default:
		}
		close(open)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		r.stop()
	}
}

// An initiator may send all that the window allows before it takes its first answer.
func TestAnswersThatNobodyTakesDoNotStopTheReader(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.dial()
	if err := c.conn.(*net.TCPConn).SetReadBuffer(128 << 10); err != nil {
		t.Fatal(err)
	}
	c.login(wishes())
	c.idle()
	if err := r.only().conn.(*net.TCPConn).SetWriteBuffer(128 << 10); err != nil {
		t.Fatal(err)
	}
	const reads, writes, blocks = 60, 60, 128
	data := pattern(blocks*blockSize, 5)
	for range reads {
		c.send(c.read(0, blocks), nil)
	}
	for range writes {
		c.send(c.write(blocks, blocks), data) // 4 MiB in all
	}
	for answers := 0; answers < reads+writes; {
		switch h, _ := c.next(); d := h.(type) {
		case *pdu.DataIn:
			if d.HasStatus {
				answers++
			}
		case *pdu.SCSIResponse:
			if d.Status != cdb.StatusGood {
				t.Fatalf("%+v", d)
			}
			answers++
		default:
			t.Fatalf("%s %+v", h.Op(), h)
		}
	}
}

func TestADefectInTheReadersCommand(t *testing.T) {
	r := newRig(t, Limits{})
	r.lu.setNow(func(*scsi.Task) bool { panic("a defect") })
	c := r.dial().login(wishes())
	c.send(c.read(0, 1), nil)
	if resp, _ := expect[pdu.SCSIResponse](c); resp.Status != cdb.StatusCheckCondition {
		t.Errorf("%+v", resp)
	}
	r.lu.setNow(nil)
	c.send(c.read(0, 1), nil)
	expect[pdu.DataIn](c)
}

// A logout, which waits for all commands, may be next after one that came late.
func TestAnEarlyLogoutWaitsForTheLateCommand(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.dial().login(wishes())
	c.idle()
	late := c.read(0, 1)
	c.send(&pdu.LogoutRequest{Reason: pdu.LogoutCloseSession, ITT: 90, CmdSN: c.cmdSN}, nil)
	c.send(late, nil)
	if in, _ := expect[pdu.DataIn](c); !in.HasStatus {
		t.Errorf("%+v", in)
	}
	expect[pdu.LogoutResponse](c)
	c.closed()
}

func TestMinder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer(Config{Directory: &directory{}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		one, endOne := context.WithCancel(ctx)
		ended := make(chan struct{}, 2)
		for _, ctx := range []context.Context{one, ctx} {
			go func() { srv.mind(ctx); ended <- struct{}{} }()
		}
		here, there := net.Pipe()
		s := newSession(srv, here, bufio.NewReader(here), SessionInfo{ID: 1})
		s.reader = pdu.NewReader(s.in, 8192, 0)
		srv.sessions[1] = s
		time.Sleep(time.Second)
		if srv.minder.awake.Load() {
			t.Error("the minder is awake though there is nothing to do")
		}
		// A reader that is quick is left alone, and the minder sleeps afterwards.
		if turn := s.leave(); !s.regain(turn) || !srv.minder.awake.Load() {
			t.Errorf("turn %d, awake: %v", turn, srv.minder.awake.Load())
		}
		time.Sleep(time.Second)
		if srv.minder.awake.Load() {
			t.Error("the minder stays awake")
		}
		// One that is not is replaced; the other listener's minder does it where the first has gone.
		turn := s.leave()
		synctest.Wait()
		endOne()
		<-ended
		time.Sleep(3 * mindInterval)
		if s.regain(turn) {
			t.Error("nobody took over")
		}
		_ = there.Close()
		if err := <-s.direct.ended; err != io.EOF {
			t.Errorf("the new reader ended with %v", err)
		}
		cancel()
		<-ended
		s.finish()
	})
}

// A ping behind a read that is not answered yet finds more in the queue than pings may add to.
func TestAPingBehindUnsentData(t *testing.T) {
	r := newRig(t, Limits{})
	w := wishes()
	w.MaxRecvDataSegmentLength = 256 << 10
	c := r.dial().login(w)
	c.idle()
	var both bytes.Buffer
	const blocks = directBytes / blockSize
	if err := c.d.WritePDU(&both, c.read(0, blocks), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.d.WritePDU(&both, &pdu.NOPOut{Immediate: true, ITT: 500, TTT: pdu.NoTag, CmdSN: c.cmdSN}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.conn.Write(both.Bytes()); err != nil {
		t.Fatal(err)
	}
	expect[pdu.DataIn](c)
	expect[pdu.NOPIn](c)
}
