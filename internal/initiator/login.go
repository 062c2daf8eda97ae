package initiator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// readBufferBytes holds several small answers, so that they cost one system call.
	// Data longer than it goes straight to the caller's buffer.
	readBufferBytes = 64 << 10
	// loginRounds bounds a login's exchanges; the longest honest one takes about six.
	loginRounds = 32
	// defaultSegmentBytes is what a peer takes before it declares more (RFC 7143 §13.12).
	defaultSegmentBytes = 8192
)

// connection is a logged-in connection before a session or discovery takes it over.
type connection struct {
	conn   net.Conn
	rd     *pdu.Reader
	count  *countingReader
	params pdu.Params
	tsih   uint16
	// Serial numbers as they stand after login.
	cmdSN, expStatSN, maxCmdSN uint32
}

// countingReader counts reads that brought something, so that the watchdog sees a slow line from a dead one.
type countingReader struct {
	src io.Reader
	n   atomic.Uint64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	if n > 0 {
		r.n.Add(1)
	}
	return n, err
}

// redirectError is a target's wish that we log in elsewhere.
type redirectError struct{ portal string }

func (e *redirectError) Error() string { return "the target moved to " + e.portal }

// connect dials and logs in, and follows redirects.
func connect(ctx context.Context, cfg Config, discovery bool) (*connection, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Limits.LoginTimeout, fmt.Errorf("no login within %v", cfg.Limits.LoginTimeout))
	defer cancel()
	for range cfg.Limits.Redirects + 1 {
		c, err := connectOnce(ctx, cfg, discovery)
		var moved *redirectError
		if !errors.As(err, &moved) {
			return c, err
		}
		cfg.Logger.Info("the target sends the login to another portal", "target", cfg.Target, "portal", cfg.Portal, "to", moved.portal)
		cfg.Portal = moved.portal
	}
	return nil, san.Errorf(san.KindUnavailable, "log in to %v: redirected more than %d times; the portals of the target send initiators in a circle", cfg, cfg.Limits.Redirects)
}

func connectOnce(ctx context.Context, cfg Config, discovery bool) (*connection, error) {
	conn, err := cfg.Dial(ctx, "tcp", cfg.Portal)
	if err != nil {
		return nil, san.Errorf(san.KindUnavailable, "connect to portal %s: %w; check that the target runs and is reachable", cfg.Portal, causeOf(ctx, err))
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	c, err := login(conn, cfg, discovery)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		var moved *redirectError
		if errors.As(err, &moved) {
			return nil, err
		}
		return nil, loginFailure(cfg, causeOf(ctx, err))
	}
	return c, nil
}

// causeOf prefers the reason for which ctx ended to the error that followed from it.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// loginFailure gives a failed login its kind and context.
func loginFailure(cfg Config, err error) error {
	kind := san.KindUnavailable
	var refused *LoginError
	var kinded *san.Error
	switch {
	case errors.As(err, &refused):
		kind = refused.Kind()
	case errors.As(err, &kinded):
		kind = kinded.Kind
	}
	return san.Errorf(kind, "log in to %v: %w", cfg, err)
}

// loginState is one login in progress.
type loginState struct {
	cfg       Config
	discovery bool
	c         *connection
	neg       *pdu.Negotiator
	header    pdu.LoginRequest
}

// login conducts the login phase (RFC 7143 §6.3). It does not close conn.
func login(conn net.Conn, cfg Config, discovery bool) (*connection, error) {
	count := &countingReader{src: conn}
	c := &connection{conn: conn, count: count, cmdSN: 1}
	c.rd = pdu.NewReader(bufio.NewReaderSize(count, readBufferBytes), cfg.Limits.LoginTextBytes, pdu.MaxAHSLength)
	l := &loginState{cfg: cfg, discovery: discovery, c: c, neg: pdu.NewNegotiator(pdu.Initiator, wishes(cfg))}
	l.neg.SetDiscovery(discovery)
	l.header = pdu.LoginRequest{ISID: cfg.ISID, CmdSN: c.cmdSN}
	if err := l.security(); err != nil {
		return nil, err
	}
	if err := l.operational(); err != nil {
		return nil, err
	}
	c.params = l.neg.Params()
	for _, d := range []struct {
		key    string
		mode   DigestMode
		agreed bool
	}{{pdu.KeyHeaderDigest, cfg.HeaderDigest, c.params.HeaderDigest}, {pdu.KeyDataDigest, cfg.DataDigest, c.params.DataDigest}} {
		if d.mode == DigestRequired && !d.agreed {
			return nil, san.Errorf(san.KindConflict, "the target does not do %s=CRC32C, which this session requires", d.key)
		}
	}
	c.rd.Digests = pdu.Digests{Header: c.params.HeaderDigest, Data: c.params.DataDigest}
	c.rd.MaxData = int(c.params.MaxRecvDataSegmentLength)
	return c, nil
}

func wishes(cfg Config) pdu.Wishes {
	// Even where CRC32C is required None is offered too: a target without CRC32C then says
	// so instead of breaking off, and login can tell the user.
	digest := map[DigestMode]pdu.DigestChoice{DigestNone: pdu.DigestNever, DigestPreferred: pdu.DigestPrefer, DigestRequired: pdu.DigestPrefer}
	w := pdu.DefaultWishes() // among them InitialR2T, in-order data, MaxOutstandingR2T and MaxConnections 1, ErrorRecoveryLevel 0
	w.HeaderDigest, w.DataDigest = digest[cfg.HeaderDigest], digest[cfg.DataDigest]
	w.MaxRecvDataSegmentLength = uint32(cfg.Limits.MaxRecvDataSegmentBytes)
	w.MaxBurstLength = uint32(cfg.Limits.MaxBurstBytes)
	w.FirstBurstLength = uint32(cfg.Limits.FirstBurstBytes)
	return w
}

// security is the first stage: names, and CHAP when we have a user.
func (l *loginState) security() error {
	keys := []pdu.KeyValue{{Key: pdu.KeyInitiatorName, Value: l.cfg.InitiatorName}}
	if l.discovery {
		keys = append(keys, pdu.KeyValue{Key: pdu.KeySessionType, Value: pdu.SessionDiscovery})
	} else {
		keys = append(keys, pdu.KeyValue{Key: pdu.KeySessionType, Value: pdu.SessionNormal}, pdu.KeyValue{Key: pdu.KeyTargetName, Value: l.cfg.Target})
	}
	if l.cfg.CHAP.User == "" {
		_, err := l.stage(pdu.StageSecurity, pdu.StageOperational, append(keys, pdu.KeyValue{Key: pdu.KeyAuthMethod, Value: "None"}))
		return err
	}
	method := "CHAP,None"
	if l.cfg.mutual() {
		method = "CHAP" // or else the target could spare itself the proof
	}
	got, transit, err := l.round(pdu.StageSecurity, pdu.StageOperational, false, append(keys, pdu.KeyValue{Key: pdu.KeyAuthMethod, Value: method}))
	if err != nil || transit {
		return firstOf(err, protocolErrorf("it left the security stage unasked"))
	}
	chosen, _ := pdu.Find(got, pdu.KeyAuthMethod)
	switch {
	case chosen == "CHAP":
		return l.chap()
	case chosen == "None" && !l.cfg.mutual():
		_, err := l.stage(pdu.StageSecurity, pdu.StageOperational, nil)
		return err
	}
	return protocolErrorf("it answered AuthMethod=%s with %.32q", method, chosen)
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (l *loginState) chap() error {
	x := &chapExchange{algorithms: l.cfg.CHAPAlgorithms, own: l.cfg.CHAP, peer: l.cfg.MutualCHAP, mutual: l.cfg.mutual()}
	got, transit, err := l.round(pdu.StageSecurity, pdu.StageOperational, false, []pdu.KeyValue{x.offer()})
	if err != nil || transit {
		return firstOf(err, protocolErrorf("it left the security stage before CHAP was done"))
	}
	proof, err := x.answer(got)
	if err != nil {
		return err
	}
	got, err = l.stage(pdu.StageSecurity, pdu.StageOperational, proof)
	if err != nil {
		return err
	}
	if x.mutual {
		return x.verify(got)
	}
	return nil
}

// operational is the second stage: the negotiation.
func (l *loginState) operational() error {
	_, err := l.stage(pdu.StageOperational, pdu.StageFullFeature, l.neg.Offer())
	return err
}

// stage sends keys, asks to go on to next, and answers the target until it agrees. It returns all that the target sent.
func (l *loginState) stage(csg, next uint8, keys []pdu.KeyValue) ([]pdu.KeyValue, error) {
	var all []pdu.KeyValue
	for range loginRounds {
		got, transit, err := l.round(csg, next, true, keys)
		if err != nil {
			return nil, err
		}
		if all = append(all, got...); len(all) > pdu.MaxKeys {
			return nil, protocolErrorf("more than %d keys in one login", pdu.MaxKeys)
		}
		answers, err := l.neg.Receive(got)
		if err != nil {
			return nil, &ProtocolError{What: "login negotiation", Err: err}
		}
		if transit {
			return all, nil // nothing that still needs an answer may come with the transition (RFC 7143 §6.2)
		}
		keys = answers
	}
	return nil, protocolErrorf("no end of the login after %d rounds", loginRounds)
}

// round sends one request and returns the keys of the answer, which may come in several PDUs,
// and whether the target makes the transition.
func (l *loginState) round(csg, next uint8, transit bool, keys []pdu.KeyValue) (got []pdu.KeyValue, moved bool, err error) {
	text := pdu.AppendText(nil, keys...)
	if len(text) > defaultSegmentBytes {
		return nil, false, san.Errorf(san.KindInvalid, "the login to %v needs %d bytes of text, more than %d; use shorter names", l.cfg, len(text), defaultSegmentBytes)
	}
	joiner := pdu.TextJoiner{Max: l.cfg.Limits.LoginTextBytes}
	for range loginRounds {
		resp, data, err := l.exchange(csg, next, transit, text)
		if err != nil {
			return nil, false, err
		}
		if resp.Continue && resp.Transit {
			return nil, false, protocolErrorf("a login response that both continues and transits")
		}
		got, err := joiner.Add(data, resp.Continue)
		if err != nil {
			return nil, false, &ProtocolError{What: "login text", Err: err}
		}
		if err := l.status(resp.Status, got); err != nil {
			return nil, false, err
		}
		if resp.Continue {
			transit, text = false, nil // ask for the rest
			continue
		}
		return got, resp.Transit, l.checkTransit(resp, csg, next, transit)
	}
	return nil, false, protocolErrorf("a login text in more than %d PDUs", loginRounds)
}

func (l *loginState) checkTransit(resp *pdu.LoginResponse, csg, next uint8, asked bool) error {
	switch {
	case resp.CSG != csg:
		return protocolErrorf("a login response for stage %d in stage %d", resp.CSG, csg)
	case resp.Transit && (!asked || resp.NSG != next):
		return protocolErrorf("a login transition to stage %d that was not asked for", resp.NSG)
	}
	if resp.Transit && next == pdu.StageFullFeature {
		l.c.tsih = resp.TSIH
	}
	return nil
}

// status turns a login status into its error.
func (l *loginState) status(status pdu.LoginStatus, got []pdu.KeyValue) error {
	switch status >> 8 {
	case 0:
		return nil
	case 1:
		address, _ := pdu.Find(got, pdu.KeyTargetAddress)
		portal, err := normalizePortal(address)
		if err != nil {
			return protocolErrorf("a redirect to %.64q, which is no portal", address)
		}
		return &redirectError{portal: portal}
	}
	return &LoginError{Status: status}
}

// exchange sends one login request PDU and reads its response.
func (l *loginState) exchange(csg, next uint8, transit bool, text []byte) (*pdu.LoginResponse, []byte, error) {
	h := l.header
	h.CSG, h.Transit, h.ExpStatSN = csg, transit, l.c.expStatSN
	if transit {
		h.NSG = next
	}
	if err := (pdu.Digests{}).WritePDU(l.c.conn, &h, text); err != nil {
		return nil, nil, err
	}
	p, err := l.c.rd.ReadPDU()
	if err != nil {
		return nil, nil, readError(err)
	}
	if op := p.BHS.Opcode(); op != pdu.OpLoginResp {
		return nil, nil, protocolErrorf("%v during login", op)
	}
	var resp pdu.LoginResponse
	resp.Decode(&p.BHS)
	switch {
	case resp.ITT != h.ITT || resp.ISID != h.ISID && resp.Status == pdu.LoginSuccess:
		return nil, nil, protocolErrorf("a login response to another request")
	case resp.VersionActive != 0 && resp.Status == pdu.LoginSuccess:
		return nil, nil, protocolErrorf("protocol version %d in use", resp.VersionActive)
	}
	l.c.expStatSN, l.c.maxCmdSN = resp.StatSN+1, resp.MaxCmdSN
	return &resp, p.Data, nil
}

// readError tells a broken line from a broken protocol.
func readError(err error) error {
	if errors.Is(err, pdu.ErrTooLong) || errors.Is(err, pdu.ErrHeaderDigest) || errors.Is(err, pdu.ErrDataDigest) {
		return &ProtocolError{What: "framing", Err: err}
	}
	return lostError(err)
}

// lostError says that the connection is gone.
func lostError(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the target closed the connection")
	}
	return fmt.Errorf("the connection was lost: %w", err)
}
