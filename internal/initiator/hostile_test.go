package initiator

import (
	"errors"
	"runtime"
	"testing"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// yield lets others run; for loops that wait for a state that no channel tells.
func yield() { runtime.Gosched() }

func (s *Session) refusalNow() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal()
}

// hostileAnswer breaks the protocol while a read or a write of 4096 bytes is in flight.
type hostileAnswer struct {
	name  string
	write bool
	act   func(g *scripted, itt uint32)
}

func hostileAnswers() []hostileAnswer {
	dataIn := func(edit func(*pdu.DataIn), n int) func(*scripted, uint32) {
		return func(g *scripted, itt uint32) {
			h := pdu.DataIn{ITT: itt, TTT: pdu.NoTag}
			edit(&h)
			g.send(&h, make([]byte, n))
		}
	}
	r2t := func(sn, offset, length uint32) func(*scripted, uint32) {
		return func(g *scripted, itt uint32) { g.r2t(itt, 1, sn, offset, length) }
	}
	send := func(h pdu.Header, n int) func(*scripted, uint32) {
		return func(g *scripted, itt uint32) { g.send(h, make([]byte, n)) }
	}
	none := func(*pdu.DataIn) {}
	return []hostileAnswer{
		{"more data than asked for", false, dataIn(none, 4097)},
		{"data beyond the end", false, func(g *scripted, itt uint32) {
			dataIn(none, 4096)(g, itt)
			dataIn(func(h *pdu.DataIn) { h.DataSN, h.BufferOffset = 1, 4096 }, 1)(g, itt)
		}},
		{"wrong DataSN", false, dataIn(func(h *pdu.DataIn) { h.DataSN = 1 }, 512)},
		{"wrong offset", false, dataIn(func(h *pdu.DataIn) { h.BufferOffset = 512 }, 512)},
		{"offset near 2^32", false, dataIn(func(h *pdu.DataIn) { h.BufferOffset = 1<<32 - 512 }, 512)},
		{"slot that does not exist", false, dataIn(func(h *pdu.DataIn) { h.ITT = 0xfff0 }, 512)},
		{"tag of our own requests", false, dataIn(func(h *pdu.DataIn) { h.ITT = controlTag | 1 }, 512)},
		{"reserved tag", false, dataIn(func(h *pdu.DataIn) { h.ITT = pdu.NoTag }, 512)},
		{"data for a write", true, dataIn(none, 512)},
		{"R2T for a read", false, r2t(0, 0, 512)},
		{"R2T of nothing", true, r2t(0, 0, 0)},
		{"R2T number", true, r2t(1, 0, 512)},
		{"R2T offset", true, r2t(0, 512, 512)},
		{"R2T beyond the burst", true, r2t(0, 0, 2049)},
		{"R2T beyond the end", true, func(g *scripted, itt uint32) {
			for i := range uint32(2) {
				g.r2t(itt, i, i, i*2048, 2048)
				var out pdu.DataOut
				g.expect(&out)
			}
			g.r2t(itt, 3, 2, 4096, 1)
		}},
		{"R2T without tag", true, func(g *scripted, itt uint32) { g.r2t(itt, pdu.NoTag, 0, 0, 512) }},
		{"R2T with data", true, func(g *scripted, itt uint32) {
			g.send(&pdu.R2T{ITT: itt, TTT: 1, DesiredLength: 512}, make([]byte, 4))
		}},
		{"segment longer than declared", false, dataIn(none, 8193)},
		{"sense longer than its segment", false, func(g *scripted, itt uint32) {
			g.send(&pdu.SCSIResponse{ITT: itt, Status: cdb.StatusCheckCondition}, []byte{0xff, 0xff, 0x70, 0, 5})
		}},
		{"huge sense", false, func(g *scripted, itt uint32) {
			g.send(&pdu.SCSIResponse{ITT: itt}, make([]byte, smallSegmentBytes+1))
		}},
		{"answer to nobody", false, send(&pdu.SCSIResponse{ITT: 999}, 0)},
		{"abort answered that was not asked", false, send(&pdu.TaskResponse{ITT: controlTag | 5}, 0)},
		{"logout answered that was not asked", false, send(&pdu.LogoutResponse{ITT: pdu.NoTag}, 0)},
		{"login answer in full feature phase", false, send(&pdu.LoginResponse{}, 0)},
		{"text answer", false, send(&pdu.TextResponse{}, 0)},
		{"an initiator's PDU", false, send(&pdu.SCSICommand{}, 0)},
		{"reject", false, func(g *scripted, itt uint32) {
			var b pdu.BHS
			(&pdu.SCSICommand{ITT: itt}).Encode(&b)
			g.send(&pdu.Reject{Reason: pdu.RejectProtocolError}, b[:])
		}},
	}
}

// Each hostile answer ends the session, which says how, and the request fails.
func TestHostileAnswers(t *testing.T) {
	for _, c := range hostileAnswers() {
		t.Run(c.name, func(t *testing.T) {
			keys := []pdu.KeyValue{kv("ImmediateData", "No"), kv("MaxBurstLength", "2048"), kv("MaxRecvDataSegmentLength", "8192")}
			s := dialScripted(t, Limits{MaxRecvDataSegmentBytes: 8192}, keys, func(g *scripted) {
				cmd, _ := g.command()
				c.act(g, cmd.ITT)
			})
			cmd := readCommand(4096)
			if c.write {
				cmd = writeCommand(4096)
			}
			_, err := s.Execute(t.Context(), cmd)
			var broken *ProtocolError
			if !errors.As(err, &broken) || MayHaveTakenEffect(err) != c.write {
				t.Errorf("the request: %v", err)
			}
			<-s.Done()
			if !errors.As(s.Err(), &broken) {
				t.Errorf("the session: %v", s.Err())
			}
		})
	}
}

// A second R2T for a write whose first still waits to be sent is one too many. The session here
// never gets to write, as if the line were full.
func TestSecondR2TAtOnce(t *testing.T) {
	s := stuckSession(t)
	if _, err := s.start(t.Context(), writeCommand(4096)); err != nil {
		t.Fatal(err)
	}
	c := s.slots[0].call
	c.state, s.queue = callSent, nil
	r2t := func(sn, offset uint32) error {
		var b pdu.BHS
		(&pdu.R2T{ITT: c.itt, TTT: sn, R2TSN: sn, BufferOffset: offset, DesiredLength: 512}).Encode(&b)
		return s.onR2T(&b)
	}
	var broken *ProtocolError
	if first, second := r2t(0, 0), r2t(1, 512); first != nil || !errors.As(second, &broken) || len(s.bursts) != 1 {
		t.Errorf("%v, %v, %d bursts", first, second, len(s.bursts))
	}
}

// stuckSession is a session without goroutines whose writer seems busy.
func stuckSession(t *testing.T) *Session {
	cfg, err := scriptedConfig(t).prepare(false)
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(&connection{params: pdu.Params{MaxBurstLength: 2048, MaxSendDataSegmentLength: 2048}, cmdSN: 1, maxCmdSN: 64}, cfg)
	s.writing = true
	return s
}

// A target that pings without reading the answers can't make us hoard them.
func TestPingFlood(t *testing.T) {
	s := dialScripted(t, Limits{}, nil, func(g *scripted) {
		for i := range uint32(10 * maxReplies) {
			g.send(&pdu.NOPIn{ITT: pdu.NoTag, TTT: i}, nil)
		}
	})
	<-s.Done()
	var broken *ProtocolError
	if !errors.As(s.Err(), &broken) {
		t.Errorf("%v", s.Err())
	}
}

func TestDamagedDigest(t *testing.T) {
	for _, part := range []string{"header", "data"} {
		cfg := scriptedConfig(t, func(g *scripted) {
			g.login(kv("HeaderDigest", "CRC32C"), kv("DataDigest", "CRC32C"))
			on := pdu.Digests{Header: true, Data: true}
			g.digests, g.rd.Digests = on, on
			c, _ := g.command()
			g.dataIn(c.ITT, make([]byte, 512))
			c, _ = g.command()
			h := pdu.DataIn{Final: true, HasStatus: true, ITT: c.ITT, TTT: pdu.NoTag}
			wire, err := on.Append(nil, &h, nil, make([]byte, 512))
			g.must(err)
			wire[map[string]int{"header": 40, "data": 300}[part]] ^= 1
			_, err = g.conn.Write(wire)
			g.must(err)
			g.drain()
		})
		cfg.HeaderDigest, cfg.DataDigest = DigestRequired, DigestRequired
		s, err := Dial(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Execute(t.Context(), readCommand(512)); err != nil {
			t.Errorf("undamaged: %v", err)
		}
		_, err = s.Execute(t.Context(), readCommand(512))
		var broken *ProtocolError
		if !errors.As(err, &broken) {
			t.Errorf("damaged %s: %v", part, err)
		}
		s.Close()
	}
}
