package initiator

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// scripted is the target's end of a connection, driven by a test's script. Its methods
// end the script's goroutine when the line breaks, as it does when a test ends.
type scripted struct {
	t       testing.TB
	conn    net.Conn
	rd      *pdu.Reader
	digests pdu.Digests
	statSN  uint32
	// What responses tell of the command window.
	expCmdSN, maxCmdSN uint32
	keys               []pdu.KeyValue // all that the initiator sent in login
}

// lineBroken ends a script; the harness recovers it.
type lineBroken struct{ err error }

// scriptedDial gives a Dial whose n-th call is served by the n-th script, and waits for the scripts at
// the test's end.
func scriptedDial(t testing.TB, scripts ...func(*scripted)) DialFunc {
	next := 0
	return func(context.Context, string, string) (net.Conn, error) {
		if next == len(scripts) {
			return nil, errors.New("no more scripts")
		}
		script := scripts[next]
		next++
		client, server := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer server.Close()
			defer func() {
				if r := recover(); r != nil {
					if _, ok := r.(lineBroken); !ok {
						panic(r)
					}
				}
			}()
			script(&scripted{t: t, conn: server, rd: pdu.NewReader(server, 1<<20, 0), statSN: 100, expCmdSN: 1, maxCmdSN: 64})
		}()
		t.Cleanup(func() { client.Close(); <-done })
		return client, nil
	}
}

func scriptedConfig(t testing.TB, scripts ...func(*scripted)) Config {
	return Config{
		Portal: "target.example:3260", Target: "iqn.2026-11.io.sandbar.test:scripted", InitiatorName: testInitiator,
		Dial: scriptedDial(t, scripts...), Limits: Limits{PingInterval: time.Hour},
	}
}

// dialScripted logs in to a target that logs the initiator in with keys, then follows script.
func dialScripted(t testing.TB, limits Limits, keys []pdu.KeyValue, script func(*scripted)) *Session {
	t.Helper()
	cfg := scriptedConfig(t, func(g *scripted) {
		g.login(keys...)
		script(g)
		g.drain()
	})
	if limits.PingInterval == 0 {
		limits.PingInterval = time.Hour
	}
	cfg.Limits = limits
	s, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (g *scripted) must(err error) {
	if err != nil {
		panic(lineBroken{err})
	}
}

func (g *scripted) receive() *pdu.PDU {
	p, err := g.rd.ReadPDU()
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		g.t.Errorf("scripted target: %v", err)
	}
	g.must(err)
	return p
}

// drain reads until the initiator goes.
func (g *scripted) drain() {
	for {
		g.receive()
	}
}

// expect reads the next PDU into h, whose type it must be, and returns its data.
func (g *scripted) expect(h pdu.Header) []byte {
	p := g.receive()
	if p.BHS.Opcode() != h.Op() {
		g.t.Errorf("the initiator sent %v, not %v", p.BHS.Opcode(), h.Op())
		panic(lineBroken{errors.New("script failed")})
	}
	h.Decode(&p.BHS)
	return p.Data
}

func (g *scripted) send(h pdu.Header, data []byte) { g.must(g.digests.WritePDU(g.conn, h, data)) }

// number gives a response its serial numbers.
func (g *scripted) number(statSN, expCmdSN, maxCmdSN *uint32) {
	*statSN, *expCmdSN, *maxCmdSN = g.statSN, g.expCmdSN, g.maxCmdSN
	g.statSN++
}

// loginRound answers one login request: it agrees to the transition asked for and sends keys.
func (g *scripted) loginRound(keys ...pdu.KeyValue) pdu.LoginRequest {
	var req pdu.LoginRequest
	got, err := pdu.ParseText(g.expect(&req))
	g.must(err)
	g.keys = append(g.keys, got...)
	g.answerLogin(&req, pdu.LoginSuccess, keys...)
	return req
}

func (g *scripted) answerLogin(req *pdu.LoginRequest, status pdu.LoginStatus, keys ...pdu.KeyValue) {
	resp := pdu.LoginResponse{Transit: req.Transit, CSG: req.CSG, NSG: req.NSG, ISID: req.ISID, TSIH: 7, ITT: req.ITT, Status: status}
	g.number(&resp.StatSN, &resp.ExpCmdSN, &resp.MaxCmdSN)
	g.send(&resp, pdu.AppendText(nil, keys...))
}

// login conducts a login without authentication and answers the negotiation with keys.
func (g *scripted) login(keys ...pdu.KeyValue) {
	g.loginRound(kv("AuthMethod", "None"), kv("TargetPortalGroupTag", "1"))
	g.loginRound(keys...)
}

func kv(key, value string) pdu.KeyValue { return pdu.KeyValue{Key: key, Value: value} }

// command reads a SCSI command and its immediate data.
func (g *scripted) command() (pdu.SCSICommand, []byte) {
	var c pdu.SCSICommand
	data := g.expect(&c)
	g.expCmdSN = c.CmdSN + 1
	g.maxCmdSN = max(g.maxCmdSN, c.CmdSN+32)
	return c, data
}

func (g *scripted) respond(itt uint32, status uint8, sense []byte) {
	r := pdu.SCSIResponse{ITT: itt, Status: status}
	g.number(&r.StatSN, &r.ExpCmdSN, &r.MaxCmdSN)
	var data []byte
	if sense != nil {
		data = pdu.AppendSense(nil, sense)
	}
	g.send(&r, data)
}

// dataIn answers a read with one Data-In that carries GOOD.
func (g *scripted) dataIn(itt uint32, data []byte) {
	h := pdu.DataIn{Final: true, HasStatus: true, ITT: itt, TTT: pdu.NoTag}
	g.number(&h.StatSN, &h.ExpCmdSN, &h.MaxCmdSN)
	g.send(&h, data)
}

// r2t asks for a part of a write and returns the Data-Out PDUs that answer it.
func (g *scripted) r2t(itt, ttt, r2tSN, offset, length uint32) {
	g.send(&pdu.R2T{ITT: itt, TTT: ttt, StatSN: g.statSN, ExpCmdSN: g.expCmdSN, MaxCmdSN: g.maxCmdSN, R2TSN: r2tSN, BufferOffset: offset, DesiredLength: length}, nil)
}

// serve answers commands by h until the line breaks.
func (g *scripted) serve(h func(c *pdu.SCSICommand, data []byte) (status uint8, sense *cdb.Sense, in []byte)) {
	for {
		p := g.receive()
		switch p.BHS.Opcode() {
		case pdu.OpSCSICommand:
			var c pdu.SCSICommand
			c.Decode(&p.BHS)
			g.expCmdSN, g.maxCmdSN = c.CmdSN+1, max(g.maxCmdSN, c.CmdSN+32)
			status, sense, in := h(&c, p.Data)
			switch {
			case sense != nil:
				g.respond(c.ITT, status, sense.Fixed())
			case status == cdb.StatusGood && len(in) > 0:
				g.dataIn(c.ITT, in[:min(len(in), int(c.ExpectedLength))])
			default:
				g.respond(c.ITT, status, nil)
			}
		case pdu.OpLogoutReq:
			var req pdu.LogoutRequest
			req.Decode(&p.BHS)
			resp := pdu.LogoutResponse{ITT: req.ITT}
			g.number(&resp.StatSN, &resp.ExpCmdSN, &resp.MaxCmdSN)
			g.send(&resp, nil)
		}
	}
}

func readCommand(n int) *Command {
	return &Command{CDB: cdb.Read16(0, uint32(n/512), false), In: make([]byte, n)}
}

func writeCommand(n int) *Command {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(i) ^ byte(i>>8)
	}
	return &Command{CDB: cdb.Write16(0, uint32(n/512), false), Out: out}
}
