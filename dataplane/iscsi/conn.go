package iscsi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/iscsi/meter"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// loginConn carries a login's PDUs over a connection.
type loginConn struct {
	conn   net.Conn
	reader *pdu.Reader
	joiner pdu.TextJoiner
	limits Limits
	bytes  int
	pdus   int
	statSN uint32
	cmdSN  uint32
}

// loginRecvLength is MaxRecvDataSegmentLength before it is negotiated (RFC 7143 §13.12).
const loginRecvLength = 8192

// login conducts the login phase. It returns a session when one was registered, which the
// caller unregisters whether or not there is an error besides.
func (srv *Server) login(ctx context.Context, conn net.Conn, in *bufio.Reader, from netip.AddrPort) (s *session, err error) {
	defer func() {
		if defect := recover(); defect != nil {
			srv.logger.Error("iscsi login ended by a defect; please report it", "from", from, "defect", defect, "stack", string(debug.Stack()))
			err = fmt.Errorf("defect: %v", defect)
		}
	}()
	deadline := time.Now().Add(srv.limits.LoginTimeout)
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	l := newLogin(srv.directory, from.Addr(), srv.limits, srv.logger)
	lc := &loginConn{conn: conn, reader: pdu.NewReader(in, loginRecvLength, 0), limits: srv.limits,
		joiner: pdu.TextJoiner{Max: srv.limits.MaxLoginBytes}}
	for {
		req, keys, err := lc.receive(l)
		if err != nil {
			return nil, lc.fail(req, err)
		}
		if keys == nil && req.Continue {
			continue
		}
		resp, answers, err := srv.step(l, req, keys)
		if err != nil {
			return nil, lc.fail(req, err)
		}
		if !l.finished {
			if err := lc.send(&resp, answers); err != nil {
				return nil, err
			}
			continue
		}
		fresh := newSession(srv, conn, in, l.info(from))
		old, err := srv.register(fresh)
		if err != nil {
			return nil, lc.fail(req, err)
		}
		s = fresh
		if err := srv.enter(ctx, s, old, l); err != nil {
			return s, lc.fail(req, err)
		}
		resp.TSIH = s.info.TSIH
		if err := lc.send(&resp, answers); err != nil {
			return s, err
		}
		s.begin(l, lc.statSN)
		return s, conn.SetDeadline(time.Time{})
	}
}

// step is one step of the login, and judges a login that wants to join a session: there
// is one connection to a session, so none can.
func (srv *Server) step(l *login, req *pdu.LoginRequest, keys []pdu.KeyValue) (pdu.LoginResponse, []pdu.KeyValue, error) {
	if l.initiator == "" && req.TSIH != 0 {
		name, _ := pdu.Find(keys, pdu.KeyInitiatorName)
		if !srv.hasSession(name, req.ISID, req.TSIH) {
			return pdu.LoginResponse{}, nil, refuse(pdu.LoginNoSession, "no session with handle %d", req.TSIH)
		}
		return pdu.LoginResponse{}, nil, refuse(pdu.LoginTooManyConnections, "session %d has its one connection", req.TSIH)
	}
	return l.step(req, keys)
}

// info describes the session that a login has led to.
func (l *login) info(from netip.AddrPort) SessionInfo {
	return SessionInfo{ISID: l.first.ISID, Discovery: l.discovery, Target: l.target, Initiator: l.initiator, Host: l.admission.Host,
		Volume: l.admission.Volume, Generation: l.admission.Generation, RemoteAddr: from, Since: time.Now()}
}

// enter waits for the end of the session that this one reinstates and asks again for
// admission, now that CloseSessions can see the session.
func (srv *Server) enter(ctx context.Context, s, old *session, l *login) error {
	if old != nil {
		old.kill()
		select {
		case <-old.done:
		case <-s.killed:
			return refuse(pdu.LoginUnavailable, "closed or reinstated while logging in")
		case <-ctx.Done():
			return refuse(pdu.LoginUnavailable, "the session to be reinstated has commands that do not end")
		}
	}
	if l.discovery {
		return nil
	}
	again, err := l.dir.Admit(l.target, l.initiator, l.from)
	if err != nil {
		return admitFailed(l.initiator, l.target, l.from, err)
	}
	was := l.admission
	if again.LU != was.LU || again.Generation != was.Generation || again.Host != was.Host || !again.CHAP.equal(was.CHAP) || again.RedirectTo != "" {
		return refuse(pdu.LoginUnavailable, "the assignment changed during the login")
	}
	srv.mu.Lock()
	s.lu = was.LU
	s.quick, _ = was.LU.(QuickUnit)
	srv.mu.Unlock()
	if again.Meter == nil {
		again.Meter = meter.NewTarget()
	}
	s.meter = again.Meter.Open(meter.Peer{Initiator: l.initiator, Address: s.info.RemoteAddr, Host: was.Host, Since: s.info.Since})
	s.nexus = was.LU.OpenNexus(fmt.Sprintf("%s,i,%s", l.initiator, l.first.ISID))
	s.nexus.OnAbort(s.preempted)
	return nil
}

// receive reads one login request. keys is nil while the text goes on.
func (c *loginConn) receive(l *login) (*pdu.LoginRequest, []pdu.KeyValue, error) {
	var b pdu.BHS
	if _, err := c.reader.ReadHeader(&b); err != nil {
		return nil, nil, err
	}
	if b.Opcode() != pdu.OpLoginReq {
		return nil, nil, &protocolError{b.Opcode().String() + " before the login"}
	}
	req := &pdu.LoginRequest{}
	req.Decode(&b)
	c.cmdSN = req.CmdSN
	c.pdus++
	c.bytes += pdu.BHSLength + b.DataLength()
	if c.pdus > c.limits.MaxLoginPDUs || c.bytes > c.limits.MaxLoginBytes {
		return req, nil, refuse(pdu.LoginInitiatorError, "login of more than %d steps or %d bytes", c.limits.MaxLoginPDUs, c.limits.MaxLoginBytes)
	}
	data := make([]byte, b.DataLength())
	if err := c.reader.ReadData(data); err != nil {
		return nil, nil, err
	}
	if err := l.check(req); err != nil {
		return req, nil, err
	}
	keys, err := c.joiner.Add(data, req.Continue)
	if err != nil {
		return req, nil, refuse(pdu.LoginInitiatorError, "%w", err)
	}
	if req.Continue {
		// An empty answer asks for the rest (RFC 7143 §6.2).
		return req, nil, c.send(&pdu.LoginResponse{CSG: req.CSG, ISID: req.ISID, TSIH: req.TSIH, ITT: req.ITT}, nil)
	}
	if keys == nil {
		keys = []pdu.KeyValue{}
	}
	return req, keys, nil
}

// send sends one login response with all its text; the answers are small and fit one PDU.
func (c *loginConn) send(r *pdu.LoginResponse, keys []pdu.KeyValue) error {
	r.StatSN, r.ExpCmdSN, r.MaxCmdSN = c.statSN, c.cmdSN, c.cmdSN+uint32(c.limits.QueueDepth)-1
	c.statSN++
	text := pdu.AppendText(nil, keys...)
	if len(text) > loginRecvLength {
		return &protocolError{"more keys than answers fit one login response"}
	}
	return pdu.Digests{}.WritePDU(c.conn, r, text)
}

// fail tells the initiator why the login ends, if it was a login at all, and returns the reason.
func (c *loginConn) fail(req *pdu.LoginRequest, err error) error {
	if req == nil {
		return err
	}
	le := asLoginError(err)
	resp := &pdu.LoginResponse{CSG: req.CSG, ISID: req.ISID, TSIH: req.TSIH, ITT: req.ITT, Status: le.status}
	var keys []pdu.KeyValue
	if le.redirect != "" {
		keys = append(keys, pdu.KeyValue{Key: pdu.KeyTargetAddress, Value: le.redirect})
	}
	if err := c.send(resp, keys); err != nil {
		return err
	}
	c.linger()
	return le
}

// linger lets the initiator read its answer: closing with unread input would reset the
// connection and could throw the answer away.
func (c *loginConn) linger() {
	if tcp, ok := c.conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
		_ = tcp.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.CopyN(io.Discard, tcp, int64(c.limits.MaxLoginBytes))
	}
}
