package iscsi

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

func kvs(pairs ...string) []pdu.KeyValue {
	var list []pdu.KeyValue
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		list = append(list, pdu.KeyValue{Key: k, Value: v})
	}
	return list
}

// exchange is one step of a login's transcript: what the initiator sends, and what
// the target must answer. T is written as ">NSG" after the stage.
type exchange struct {
	stage   string // "0", "0>1", "1>3" …
	send    string // keys, separated by spaces
	status  pdu.LoginStatus
	transit bool
	answer  string
}

const who = "InitiatorName=" + goodInitiator + " TargetName=" + someTarget

// The responses below are MD5 and SHA-256 of identifier 7, the secret, and the challenge of 16
// (32) bytes 7, by md5sum and sha256sum.
var transcripts = []struct {
	name  string
	chap  *CHAP
	err   error
	steps []exchange
}{
	{"no authentication, in one step", nil, nil, []exchange{
		{"1>3", who + " MaxBurstLength=4096 HeaderDigest=CRC32C,None", 0, true, "MaxBurstLength=4096 HeaderDigest=CRC32C TargetPortalGroupTag=1 MaxRecvDataSegmentLength=262144"}}},
	{"no authentication, by the security stage", nil, nil, []exchange{
		{"0>1", who + " AuthMethod=CHAP,None", 0, true, "AuthMethod=None TargetPortalGroupTag=1"},
		{"1", "InitialR2T=No ImmediateData=Yes", 0, false, "InitialR2T=No ImmediateData=Yes MaxRecvDataSegmentLength=262144"},
		{"1>3", "ErrorRecoveryLevel=2", 0, true, "ErrorRecoveryLevel=0"}}},
	{"from security straight to full feature", nil, nil, []exchange{
		{"0>3", who + " AuthMethod=None", 0, true, "AuthMethod=None TargetPortalGroupTag=1"}}},
	{"names again in the next stage", nil, nil, []exchange{
		{"0>1", who, 0, true, "TargetPortalGroupTag=1"},
		{"1>3", who, 0, true, "MaxRecvDataSegmentLength=262144"}}},
	{"CHAP with MD5", &CHAP{User: "u", Secret: "twelve bytes"}, nil, []exchange{
		{"0>1", who + " AuthMethod=CHAP,None", 0, false, "AuthMethod=CHAP TargetPortalGroupTag=1"},
		{"0", "CHAP_A=5", 0, false, "CHAP_A=5 CHAP_I=7 CHAP_C=0x07070707070707070707070707070707"},
		{"0>1", "CHAP_N=u CHAP_R=MD5RESPONSE", 0, true, ""},
		{"1>3", "", 0, true, "MaxRecvDataSegmentLength=262144"}}},
	{"CHAP with SHA-256, mutual", &CHAP{"u", "twelve bytes", "t", "another secret"}, nil, []exchange{
		{"0>1", who + " AuthMethod=CHAP", 0, false, "AuthMethod=CHAP TargetPortalGroupTag=1"},
		{"0", "CHAP_A=7,5", 0, false, "CHAP_A=7 CHAP_I=7 CHAP_C=0x" + strings.Repeat("07", 32)},
		{"0>3", "CHAP_N=u CHAP_R=SHARESPONSE CHAP_I=9 CHAP_C=0x010203", 0, true, "CHAP_N=t CHAP_R=MUTUALRESPONSE"}}},
	{"wrong secret", &CHAP{User: "u", Secret: "twelve bytes"}, nil, []exchange{
		{"0>1", who + " AuthMethod=CHAP", 0, false, "AuthMethod=CHAP TargetPortalGroupTag=1"},
		{"0", "CHAP_A=5", 0, false, "CHAP_A=5 CHAP_I=7 CHAP_C=0x07070707070707070707070707070707"},
		{"0>1", "CHAP_N=u CHAP_R=0x00112233445566778899aabbccddeeff", pdu.LoginAuthFailure, false, ""}}},
	{"wrong user", &CHAP{User: "u", Secret: "twelve bytes"}, nil, []exchange{
		{"0>1", who + " AuthMethod=CHAP", 0, false, "AuthMethod=CHAP TargetPortalGroupTag=1"},
		{"0", "CHAP_A=5", 0, false, "CHAP_A=5 CHAP_I=7 CHAP_C=0x07070707070707070707070707070707"},
		{"0>1", "CHAP_N=v CHAP_R=MD5RESPONSE", pdu.LoginAuthFailure, false, ""}}},
	{"mutual CHAP without a mutual secret", &CHAP{User: "u", Secret: "twelve bytes"}, nil, []exchange{
		{"0>1", who + " AuthMethod=CHAP", 0, false, "AuthMethod=CHAP TargetPortalGroupTag=1"},
		{"0", "CHAP_A=5", 0, false, "CHAP_A=5 CHAP_I=7 CHAP_C=0x07070707070707070707070707070707"},
		{"0>1", "CHAP_N=u CHAP_R=MD5RESPONSE CHAP_I=1 CHAP_C=0x01", pdu.LoginAuthFailure, false, ""}}},
	{"our challenge sent back", &CHAP{"u", "twelve bytes", "t", "another secret"}, nil, []exchange{
		{"0>1", who + " AuthMethod=CHAP", 0, false, "AuthMethod=CHAP TargetPortalGroupTag=1"},
		{"0", "CHAP_A=5", 0, false, "CHAP_A=5 CHAP_I=7 CHAP_C=0x07070707070707070707070707070707"},
		{"0>1", "CHAP_N=u CHAP_R=MD5RESPONSE CHAP_I=7 CHAP_C=0x07070707070707070707070707070707", pdu.LoginAuthFailure, false, ""}}},
	{"CHAP refused by the initiator", &CHAP{User: "u", Secret: "s"}, nil, []exchange{
		{"0>1", who + " AuthMethod=None", pdu.LoginAuthFailure, false, ""}}},
	{"CHAP skipped", &CHAP{User: "u", Secret: "s"}, nil, []exchange{
		{"1>3", who, pdu.LoginAuthFailure, false, ""}}},
	{"CHAP asked for, security stage left without", &CHAP{User: "u", Secret: "s"}, nil, []exchange{
		{"0>3", who, 0, false, "TargetPortalGroupTag=1"},
		{"0>3", "", 0, false, ""}}},
	{"unknown algorithm", &CHAP{User: "u", Secret: "s"}, nil, []exchange{
		{"0>1", who + " AuthMethod=CHAP", 0, false, "AuthMethod=CHAP TargetPortalGroupTag=1"},
		{"0", "CHAP_A=6", pdu.LoginAuthFailure, false, ""}}},
	{"only CHAP offered, none set", nil, nil, []exchange{
		{"0>1", who + " AuthMethod=CHAP", pdu.LoginAuthFailure, false, ""}}},
	{"another initiator", nil, nil, []exchange{
		{"1>3", "InitiatorName=iqn.2004-10.com.example:other TargetName=" + someTarget, pdu.LoginForbidden, false, ""}}},
	{"another target", nil, nil, []exchange{
		{"1>3", "InitiatorName=" + goodInitiator + " TargetName=iqn.2004-10.com.example:none", pdu.LoginNotFound, false, ""}}},
	{"names in capitals", nil, nil, []exchange{
		{"1>3", "InitiatorName=IQN.2004-10.com.example:GOOD TargetName=" + strings.ToUpper(someTarget), 0, true, "TargetPortalGroupTag=1 MaxRecvDataSegmentLength=262144"}}},
	{"unit not ready", nil, san.Errorf(san.KindUnavailable, "not yet"), []exchange{{"1>3", who, pdu.LoginUnavailable, false, ""}}},
	{"no initiator name", nil, nil, []exchange{{"1>3", "TargetName=" + someTarget, pdu.LoginMissingParameter, false, ""}}},
	{"no target name", nil, nil, []exchange{{"1>3", "InitiatorName=" + goodInitiator, pdu.LoginMissingParameter, false, ""}}},
	{"a name that is none", nil, nil, []exchange{{"1>3", "InitiatorName=me TargetName=" + someTarget, pdu.LoginInitiatorError, false, ""}}},
	{"unknown session type", nil, nil, []exchange{{"1>3", who + " SessionType=Odd", pdu.LoginBadSessionType, false, ""}}},
	{"a key twice", nil, nil, []exchange{{"1>3", who + " MaxBurstLength=512 MaxBurstLength=512", pdu.LoginInitiatorError, false, ""}}},
	{"a transition to nowhere", nil, nil, []exchange{{"1>1", who, pdu.LoginInitiatorError, false, ""}}},
	{"a stage that is none", nil, nil, []exchange{{"3", who, pdu.LoginInitiatorError, false, ""}}},
	{"a jump", nil, nil, []exchange{
		{"0>1", who, 0, true, "TargetPortalGroupTag=1"},
		{"0>1", "", pdu.LoginInitiatorError, false, ""}}},
	{"discovery by a stranger", nil, nil, []exchange{
		{"1>3", "InitiatorName=iqn.2004-10.com.example:other SessionType=Discovery InitialR2T=Yes", 0, true, "InitialR2T=Irrelevant MaxRecvDataSegmentLength=262144"}}},
	{"discovery with CHAP, wrong secret", &CHAP{User: "u", Secret: "twelve bytes"}, nil, []exchange{
		{"0>1", "InitiatorName=" + goodInitiator + " SessionType=Discovery AuthMethod=CHAP,None", 0, false, "AuthMethod=CHAP"},
		{"0", "CHAP_A=5", 0, false, "CHAP_A=5 CHAP_I=7 CHAP_C=0x07070707070707070707070707070707"},
		{"0>3", "CHAP_N=u CHAP_R=0x00", pdu.LoginAuthFailure, false, ""}}},
}

func TestLoginTranscripts(t *testing.T) {
	limits, err := Limits{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	sevens := bytes.Repeat([]byte{7}, 32)
	fill := strings.NewReplacer(
		"MD5RESPONSE", pdu.FormatBinary(pdu.CHAPMD5.Response(7, "twelve bytes", sevens[:16])),
		"SHARESPONSE", pdu.FormatBinary(pdu.CHAPSHA256.Response(7, "twelve bytes", sevens)),
		"MUTUALRESPONSE", pdu.FormatBinary(pdu.CHAPSHA256.Response(9, "another secret", []byte{1, 2, 3})))
	for _, tr := range transcripts {
		dir := &directory{lu: &memoryLU{}, chap: tr.chap, refuse: tr.err}
		l := newLogin(dir, netip.MustParseAddr("127.0.0.1"), limits, slog.New(slog.DiscardHandler))
		l.random = func(b []byte) { copy(b, bytes.Repeat([]byte{7}, len(b))) }
		for i, x := range tr.steps {
			req := &pdu.LoginRequest{CSG: x.stage[0] - '0', ITT: 1}
			if len(x.stage) == 3 {
				req.Transit, req.NSG = true, x.stage[2]-'0'
			}
			var resp pdu.LoginResponse
			var answers []pdu.KeyValue
			err := l.check(req)
			if err == nil {
				resp, answers, err = l.step(req, kvs(strings.Fields(fill.Replace(x.send))...))
			}
			status := pdu.LoginSuccess
			if err != nil {
				status = asLoginError(err).status
			}
			var got []string
			for _, kv := range answers {
				got = append(got, kv.Key+"="+kv.Value)
			}
			if status != x.status || resp.Transit != x.transit || strings.Join(got, " ") != fill.Replace(x.answer) {
				t.Errorf("%s, step %d: %s (%v), T %v, %q\nwant %s, T %v, %q", tr.name, i+1, status, err, resp.Transit, got, x.status, x.transit, fill.Replace(x.answer))
				break
			}
		}
	}
}

func TestLoginOverTheWire(t *testing.T) {
	r := newRig(t, Limits{MaxLoginPDUs: 5})
	refused := func(what string, want pdu.LoginStatus, c *client, keys ...pdu.KeyValue) {
		t.Helper()
		resp, _ := c.loginStep(true, 1, 3, keys...)
		if resp.Status != want {
			t.Errorf("%s: %s, want %s", what, resp.Status, want)
		}
		c.closed()
	}
	c := r.dial()
	c.tsih = 7
	refused("a handle of no session", pdu.LoginNoSession, c, names()...)
	first := r.dial().login(wishes())
	c = r.dial()
	c.tsih = r.srv.Sessions()[0].TSIH
	refused("a second connection", pdu.LoginTooManyConnections, c, names()...)
	refused("another initiator", pdu.LoginForbidden, r.dial(), kvs("InitiatorName=iqn.a.b", "TargetName="+someTarget)...)

	c = r.dial()
	c.send(&pdu.LoginRequest{CSG: 1, VersionMin: 1, VersionMax: 2}, nil)
	if resp, _ := expect[pdu.LoginResponse](c); resp.Status != pdu.LoginBadVersion {
		t.Errorf("%+v", resp)
	}
	c = r.dial()
	for range 6 {
		c.send(&pdu.LoginRequest{Continue: true, CSG: 1}, []byte("X-a=1"))
	}
	for i := range 6 {
		if resp, _ := expect[pdu.LoginResponse](c); (resp.Status == 0) != (i < 5) {
			t.Errorf("step %d: %+v", i, resp)
		}
	}
	c.closed()
	// Anything but a login before the login, or a header with nonsense in it.
	for _, h := range []pdu.Header{&pdu.NOPOut{}, &pdu.SCSICommand{}, &raw{0x3f}} {
		c = r.dial()
		c.send(h, []byte("abc"))
		c.closed()
	}
	c = r.dial()
	var b pdu.BHS
	(&pdu.LoginRequest{}).Encode(&b)
	b.SetLengths(0, 1<<24-1)
	if _, err := c.conn.Write(b[:]); err != nil {
		t.Fatal(err)
	}
	c.closed()
	// All this has not hurt the one who was there.
	if _, status := first.readAll(first.read(0, 1)); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestLoginTextInPieces(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.dial()
	text := pdu.AppendText(nil, names()...)
	c.send(&pdu.LoginRequest{Continue: true, CSG: 1, ITT: 1, CID: 1, CmdSN: 100}, text[:20])
	if resp, data := expect[pdu.LoginResponse](c); resp.Status != 0 || resp.Transit || len(data) != 0 {
		t.Fatalf("%+v %q", resp, data)
	}
	c.send(&pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3, ITT: 1, CID: 1, CmdSN: 100}, text[20:])
	if resp, _ := expect[pdu.LoginResponse](c); resp.Status != 0 || !resp.Transit {
		t.Fatalf("%+v", resp)
	}
}

func TestRedirect(t *testing.T) {
	r := newRig(t, Limits{})
	r.dir.set(func(d *directory) {
		d.admit = func(a Admission) Admission { a.RedirectTo = "192.0.2.1:3260"; return a }
	})
	resp, keys := r.dial().loginStep(true, 1, 3, names()...)
	if v, _ := pdu.Find(keys, pdu.KeyTargetAddress); resp.Status != pdu.LoginTargetMovedTemp || v != "192.0.2.1:3260" {
		t.Errorf("%+v %v", resp, keys)
	}
}

func TestDiscovery(t *testing.T) {
	r := newRig(t, Limits{})
	for _, x := range []struct{ initiator, want string }{
		{goodInitiator, "TargetName=" + someTarget + "\x00TargetAddress=127.0.0.1:3260,1\x00TargetAddress=[::1]:3260,1\x00"},
		{"iqn.2004-10.com.example:stranger", ""},
	} {
		w := wishes()
		w.MaxRecvDataSegmentLength = 512
		c := r.dial().login(w, kvs("InitiatorName="+x.initiator, "SessionType=Discovery")...)
		c.send(&pdu.TextRequest{Final: true, ITT: 2, TTT: pdu.NoTag, CmdSN: c.cmdSN}, []byte("SendTargets=All\x00"))
		c.cmdSN++
		if resp, data := expect[pdu.TextResponse](c); !resp.Final || resp.TTT != pdu.NoTag || string(data) != x.want {
			t.Errorf("%s: %+v %q", x.initiator, resp, data)
		}
		c.send(c.read(0, 1), nil)
		if rej, _ := expect[pdu.Reject](c); rej.Reason != pdu.RejectNotSupported {
			t.Errorf("a read in a discovery session: %+v", rej)
		}
	}
}

// The list of many targets goes out in several responses.
func TestLongDiscovery(t *testing.T) {
	r := newRig(t, Limits{})
	r.dir.set(func(d *directory) { d.many = 100 })
	w := wishes()
	w.MaxRecvDataSegmentLength = 512
	c := r.dial().login(w, kvs("InitiatorName="+goodInitiator, "SessionType=Discovery")...)
	var text []byte
	data := []byte("SendTargets=All\x00")
	tag := pdu.NoTag
	for {
		c.send(&pdu.TextRequest{Final: true, ITT: 2, TTT: tag, CmdSN: c.cmdSN}, data)
		c.cmdSN++
		resp, part := expect[pdu.TextResponse](c)
		if len(part) > 512 {
			t.Fatalf("%d bytes", len(part))
		}
		text = append(text, part...)
		if resp.Final {
			break
		}
		if !resp.Continue || resp.TTT == pdu.NoTag {
			t.Fatalf("%+v", resp)
		}
		tag, data = resp.TTT, nil
	}
	keys, err := pdu.ParseText(text)
	if err != nil || len(keys) != 200 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

func TestReinstatementWaitsForCommands(t *testing.T) {
	r := newRig(t, Limits{})
	running, let := make(chan struct{}), make(chan struct{})
	r.lu.setHold(func(_ context.Context, t *scsi.Task) {
		if t.CDB[0] == 0x8a {
			close(running)
			<-let
		}
	})
	old := r.dial().login(wishes())
	h := old.write(0, 1)
	old.send(h, pattern(512, 1))
	<-running
	fresh := r.dial()
	fresh.send(&pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3, ISID: fresh.isid, ITT: 1, CID: 1, CmdSN: fresh.cmdSN}, pdu.AppendText(nil, names()...))
	old.closed() // the old session is thrown out …
	if n := len(r.srv.Sessions()); n != 2 {
		t.Fatalf("%d sessions", n)
	}
	close(let) // … and only when its command has ended does the new one begin
	if resp, _ := expect[pdu.LoginResponse](fresh); resp.Status != 0 {
		t.Fatalf("%+v", resp)
	}
	if list := r.srv.Sessions(); len(list) != 1 || list[0].Initiator != goodInitiator || list[0].Volume != "vol" || list[0].Generation != 1 {
		t.Errorf("%+v", list)
	}
	r.lu.mu.Lock()
	opened := slices.Clone(r.lu.opened)
	r.lu.mu.Unlock()
	if len(opened) != 2 || opened[0] != goodInitiator+",i,0x800102030405" {
		t.Errorf("%q", opened)
	}
	// Another ISID is another session.
	other := r.dial()
	other.isid[5] = 99
	other.login(wishes())
	if n := len(r.srv.Sessions()); n != 2 {
		t.Errorf("%d sessions", n)
	}
}

func TestLoginTimesOut(t *testing.T) {
	r := newRig(t, Limits{LoginTimeout: 20 * time.Millisecond})
	c := r.dial()
	if _, err := c.conn.Write([]byte{0x43}); err != nil {
		t.Fatal(err)
	}
	c.closed()
}

func TestConnectionLimits(t *testing.T) {
	r := newRig(t, Limits{MaxLoginsPerAddress: 2, MaxConnections: 3})
	a, b := r.dial(), r.dial()
	// Each is known to be counted once it has been answered.
	for _, c := range []*client{a, b} {
		c.loginStep(false, 1, 0, names()...)
	}
	r.dial().closed()
	for i, c := range []*client{a, b} {
		c.isid[0] = byte(i)
	}
	a.conn.Close()
	b.conn.Close()
}

// FuzzLogin takes logins through their steps, each of the input's parts a request's text: whatever is
// sent, a login that asks for CHAP never ends without it, every answer fits its PDU, and what was
// negotiated is lawful (RFC 7143 §6.2, §13).
func FuzzLogin(f *testing.F) {
	f.Add("\x87"+who+" MaxBurstLength=4096 HeaderDigest=CRC32C,None", false)
	f.Add("\x81"+who+" AuthMethod=CHAP,None|\x00CHAP_A=5,7|\x81CHAP_N=u CHAP_R=0x00|\x87", true)
	f.Add("\x83"+who+" AuthMethod=CHAP|\x00CHAP_A=7|\x83CHAP_N=u CHAP_R=0bAAAA CHAP_I=1 CHAP_C=0x07070707070707070707070707070707", true)
	f.Add("\x87"+who+" FirstBurstLength=512 MaxRecvDataSegmentLength=512 X-a=b IFMarker=Yes OFMarkInt=1~2 TaskReporting=FastAbort", false)
	f.Add("\x40"+who+"|\x04MaxBurstLength=512|\x87MaxBurstLength=512", true)
	f.Add("\x83InitiatorName="+goodInitiator+" SessionType=Discovery AuthMethod=None", true)
	limits, err := Limits{}.withDefaults()
	if err != nil {
		f.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, in string, chap bool) {
		dir := &directory{lu: &memoryLU{}}
		if chap {
			dir.chap = &CHAP{"u", "twelve bytes", "t", "another secret"}
		}
		l := newLogin(dir, netip.MustParseAddr("127.0.0.1"), limits, logger)
		for part := range strings.SplitSeq(in, "|") {
			if part == "" || l.finished {
				break
			}
			flags := part[0]
			req := &pdu.LoginRequest{Transit: flags&0x80 != 0, Continue: flags&0x40 != 0, CSG: flags >> 2 & 3, NSG: flags & 3, ITT: 1}
			if l.check(req) != nil {
				return
			}
			keys, err := pdu.ParseText([]byte(strings.ReplaceAll(part[1:], " ", "\x00") + "\x00"))
			if err != nil {
				return
			}
			resp, answers, err := l.step(req, keys)
			if err != nil {
				if asLoginError(err).status == pdu.LoginSuccess {
					t.Fatalf("refused with success: %v", err)
				}
				return
			}
			if resp.Transit && !req.Transit || len(answers) > len(keys)+4 {
				t.Fatalf("%+v and %v to %+v and %v", resp, answers, req, keys)
			}
		}
		if !l.finished {
			return
		}
		if chap && !l.discovery {
			t.Fatalf("got in without a secret: %q", in)
		}
		if p := l.neg.Params(); p.FirstBurstLength > p.MaxBurstLength || p.MaxBurstLength > limits.MaxBurstLength || p.MaxSendDataSegmentLength < 512 ||
			p.MaxConnections != 1 || p.ErrorRecoveryLevel != 0 || !p.DataPDUInOrder || !p.DataSequenceInOrder || p.MaxOutstandingR2T > limits.MaxOutstandingR2T {
			t.Fatalf("%q came to %+v", in, p)
		}
	})
}

// Connections that never log in keep nobody from another address out; one host can't take all sessions.
func TestAFloodKeepsNobodyOut(t *testing.T) {
	r := newRig(t, Limits{MaxLogins: 4, MaxSessionsPerHost: 2})
	flood := make([]*client, 4)
	for i := range flood {
		flood[i] = r.dial()
		flood[i].loginStep(false, 1, 0, names()...) // it is known to be counted now
	}
	r.dial().closed()
	from := func(i int) *client {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		conn, err := d.DialContext(t.Context(), "tcp", r.addr)
		if err != nil {
			t.Fatalf("call from another loopback address: %v", err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		c := &client{t: t, conn: conn, r: pdu.NewReader(conn, 1<<24-1, 0), cmdSN: 100, isid: pdu.ISID{0x80, byte(i)}}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}
	from(1).login(wishes())
	flood[0].closed() // the one that had the most time
	flood[1].loginStep(true, 1, 3)
	if resp, _ := from(3).loginStep(true, 1, 3, names()...); resp.Status != pdu.LoginOutOfResources {
		t.Errorf("a third session of one host: %+v", resp)
	}
	from(1).login(wishes()) // reinstates the first
}
