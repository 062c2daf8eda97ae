package initiator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

func TestLoginOffersAndTakes(t *testing.T) {
	sent := make(chan []pdu.KeyValue, 1)
	cfg := scriptedConfig(t, func(g *scripted) {
		first := g.loginRound(kv("AuthMethod", "None"), kv("TargetAlias", "disk"))
		second := g.loginRound(kv("ImmediateData", "No"), kv("MaxBurstLength", "8192"), kv("FirstBurstLength", "4096"),
			kv("MaxRecvDataSegmentLength", "1024"), kv("X-com.example.mood", "good"))
		if first.CSG != pdu.StageSecurity || first.NSG != pdu.StageOperational || second.NSG != pdu.StageFullFeature || first.TSIH != 0 {
			t.Errorf("stages: %+v, %+v", first, second)
		}
		if second.ExpStatSN != 101 || second.ITT != first.ITT || second.ISID != first.ISID || first.ISID[0]>>6 != 2 {
			t.Errorf("numbers: %+v, %+v", first, second)
		}
		sent <- g.keys
		g.drain()
	})
	s, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if want := (sendParams{false, 4096, 8192, 1024}); s.params != want {
		t.Errorf("got %+v, want %+v", s.params, want)
	}
	keys := <-sent
	for key, want := range map[string]string{
		"InitiatorName": testInitiator, "TargetName": cfg.Target, "SessionType": "Normal", "AuthMethod": "None", "InitialR2T": "Yes",
		"MaxOutstandingR2T": "1", "ErrorRecoveryLevel": "0", "DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes", "MaxConnections": "1",
	} {
		if got, _ := pdu.Find(keys, key); got != want {
			t.Errorf("%s=%q, want %q", key, got, want)
		}
	}
}

// refuse makes a script that answers the first request with a status.
func refuse(status pdu.LoginStatus, keys ...pdu.KeyValue) func(*scripted) {
	return func(g *scripted) {
		var req pdu.LoginRequest
		g.expect(&req)
		req.Transit = false
		g.answerLogin(&req, status, keys...)
		g.drain()
	}
}

func TestLoginRefusals(t *testing.T) {
	for status, kind := range map[pdu.LoginStatus]san.Kind{
		pdu.LoginAuthFailure: san.KindUnauthenticated, pdu.LoginForbidden: san.KindDenied, pdu.LoginNotFound: san.KindNotFound,
		pdu.LoginTargetRemoved: san.KindNotFound, pdu.LoginTooManyConnections: san.KindConflict, pdu.LoginOutOfResources: san.KindUnavailable,
		pdu.LoginInitiatorError: san.KindInvalid, 0x03ff: san.KindUnavailable, 0x07ff: san.KindInvalid,
	} {
		_, err := Dial(t.Context(), scriptedConfig(t, refuse(status)))
		var refused *LoginError
		if !errors.As(err, &refused) || refused.Status != status || san.KindOf(err) != kind || !strings.Contains(err.Error(), "; ") {
			t.Errorf("%v: %v (%v)", status, err, san.KindOf(err))
		}
	}
}

func TestLoginRedirects(t *testing.T) {
	moved := refuse(pdu.LoginTargetMovedTemp, kv("TargetAddress", "[2001:db8::7]:3261,2"))
	cfg := scriptedConfig(t, moved, func(g *scripted) { g.login(); g.drain() })
	inner, portals := cfg.Dial, []string{}
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		portals = append(portals, address)
		return inner(ctx, network, address)
	}
	s, err := Dial(t.Context(), cfg)
	if err != nil || len(portals) != 2 || portals[1] != "[2001:db8::7]:3261" {
		t.Fatalf("%v, dialled %q", err, portals)
	}
	s.Close()
	if _, err := Dial(t.Context(), scriptedConfig(t, moved, moved, moved, moved, moved)); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Errorf("a circle of redirects: %v", err)
	}
	var broken *ProtocolError
	if _, err := Dial(t.Context(), scriptedConfig(t, refuse(pdu.LoginTargetMoved))); !errors.As(err, &broken) {
		t.Errorf("a redirect to nowhere: %v", err)
	}
}

func TestLoginInPieces(t *testing.T) {
	s, err := Dial(t.Context(), scriptedConfig(t, func(g *scripted) {
		g.loginRound(kv("AuthMethod", "None"))
		var req pdu.LoginRequest
		g.expect(&req)
		text := pdu.AppendText(nil, kv("MaxBurstLength", "16384"), kv("MaxRecvDataSegmentLength", "65536"))
		for i, part := range [][]byte{text[:5], text[5:30], text[30:]} {
			more := i < 2
			resp := pdu.LoginResponse{Continue: more, CSG: req.CSG, ISID: req.ISID, ITT: req.ITT}
			g.number(&resp.StatSN, &resp.ExpCmdSN, &resp.MaxCmdSN)
			g.send(&resp, part)
			if data := g.expect(&req); len(data) != 0 || req.Transit == more {
				t.Errorf("after piece %d: %+v with %q", i, req, data)
			}
		}
		g.answerLogin(&req, pdu.LoginSuccess)
		g.drain()
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.params.maxBurstBytes != 16384 || s.params.maxSendBytes != 65536 {
		t.Errorf("%+v", s.params)
	}
}

// raw makes a script that answers every login request with what edit makes of a proper answer.
func raw(edit func(resp *pdu.LoginResponse) []byte) func(*scripted) {
	return func(g *scripted) {
		for {
			var req pdu.LoginRequest
			g.expect(&req)
			resp := pdu.LoginResponse{Transit: req.Transit, CSG: req.CSG, NSG: req.NSG, ISID: req.ISID, ITT: req.ITT}
			g.number(&resp.StatSN, &resp.ExpCmdSN, &resp.MaxCmdSN)
			data := edit(&resp)
			g.send(&resp, data)
		}
	}
}

func TestLoginHostileTargets(t *testing.T) {
	for name, script := range map[string]func(*scripted){
		"another tag":          raw(func(r *pdu.LoginResponse) []byte { r.ITT++; return nil }),
		"another ISID":         raw(func(r *pdu.LoginResponse) []byte { r.ISID[5]++; return nil }),
		"another version":      raw(func(r *pdu.LoginResponse) []byte { r.VersionActive = 1; return nil }),
		"another stage":        raw(func(r *pdu.LoginResponse) []byte { r.CSG = 1; return nil }),
		"too far":              raw(func(r *pdu.LoginResponse) []byte { r.NSG = 3; return nil }),
		"continue and go":      raw(func(r *pdu.LoginResponse) []byte { r.Continue = true; return nil }),
		"never transits":       raw(func(r *pdu.LoginResponse) []byte { r.Transit = false; return nil }),
		"endless text":         raw(func(r *pdu.LoginResponse) []byte { r.Transit, r.Continue = false, true; return make([]byte, 8192) }),
		"no text":              raw(func(r *pdu.LoginResponse) []byte { return []byte("AuthMethod\x00") }),
		"no end of pair":       raw(func(r *pdu.LoginResponse) []byte { return []byte("AuthMethod=None") }),
		"key twice":            raw(func(r *pdu.LoginResponse) []byte { return []byte("TargetAlias=a\x00TargetAlias=b\x00") }),
		"unlawful value":       raw(func(r *pdu.LoginResponse) []byte { return []byte("MaxRecvDataSegmentLength=1\x00") }),
		"long segment":         raw(func(r *pdu.LoginResponse) []byte { return make([]byte, 70000) }),
		"another opcode":       func(g *scripted) { g.receive(); g.send(&pdu.NOPIn{ITT: pdu.NoTag, TTT: 1}, nil) },
		"declined negotiating": func(g *scripted) { g.loginRound(); g.loginRound(kv("InitialR2T", "Reject")) },
	} {
		_, err := Dial(t.Context(), scriptedConfig(t, script))
		var broken *ProtocolError
		if !errors.As(err, &broken) || san.KindOf(err) != san.KindUnavailable {
			t.Errorf("%s: %v (%v)", name, err, san.KindOf(err))
		}
	}
	_, err := Dial(t.Context(), scriptedConfig(t, func(g *scripted) { g.receive() }))
	if san.KindOf(err) != san.KindUnavailable || !strings.Contains(err.Error(), "closed the connection") {
		t.Errorf("hung up: %v", err)
	}
}

func TestLoginTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := Dial(t.Context(), scriptedConfig(t, func(g *scripted) { g.receive(); g.drain() }))
		if san.KindOf(err) != san.KindUnavailable || !strings.Contains(err.Error(), "no login within 15s") {
			t.Errorf("mute target: %v", err)
		}
	})
}

// chapTarget authenticates the initiator and, when asked, itself.
func chapTarget(algorithm pdu.CHAPAlgorithm, check CHAP, prove CHAP) func(*scripted) {
	return func(g *scripted) {
		g.loginRound(kv("AuthMethod", "CHAP"))
		challenge := []byte("0123456789abcdef0123456789abcdef")
		g.loginRound(kv("CHAP_A", fmt.Sprint(algorithm)), kv("CHAP_I", "0x2a"), kv("CHAP_C", pdu.FormatBinary(challenge)))
		var req pdu.LoginRequest
		got, err := pdu.ParseText(g.expect(&req))
		g.must(err)
		user, _ := pdu.Find(got, "CHAP_N")
		text, _ := pdu.Find(got, "CHAP_R")
		proof, err := pdu.ParseBinary(text, 64)
		if err != nil || user != check.User || !algorithm.Verify(proof, 0x2a, check.Secret, challenge) {
			req.Transit = false
			g.answerLogin(&req, pdu.LoginAuthFailure)
			return
		}
		var keys []pdu.KeyValue
		if text, ok := pdu.Find(got, "CHAP_C"); ok && prove.Secret != "" {
			var id uint8
			idText, _ := pdu.Find(got, "CHAP_I")
			fmt.Sscan(idText, &id)
			theirs, err := pdu.ParseBinary(text, 1024)
			g.must(err)
			keys = append(keys, kv("CHAP_N", prove.User), kv("CHAP_R", pdu.FormatBinary(algorithm.Response(id, prove.Secret, theirs))))
		}
		g.answerLogin(&req, pdu.LoginSuccess, keys...)
		g.loginRound()
		g.drain()
	}
}

func TestLoginCHAP(t *testing.T) {
	host, disk := CHAP{"host", "hosts secret"}, CHAP{"disk", "disks secret"}
	for _, c := range []struct {
		name      string
		algorithm pdu.CHAPAlgorithm
		own, peer CHAP
		prove     CHAP
		want      san.Kind
	}{
		{"MD5", pdu.CHAPMD5, host, CHAP{}, CHAP{}, 0},
		{"SHA-256", pdu.CHAPSHA256, host, CHAP{}, CHAP{}, 0},
		{"wrong secret", pdu.CHAPSHA256, CHAP{"host", "x"}, CHAP{}, CHAP{}, san.KindUnauthenticated},
		{"mutual MD5", pdu.CHAPMD5, host, disk, disk, 0},
		{"mutual SHA-256", pdu.CHAPSHA256, host, disk, disk, 0},
		{"target can't prove itself", pdu.CHAPMD5, host, disk, CHAP{"disk", "guess"}, san.KindUnauthenticated},
		{"target proves nothing", pdu.CHAPMD5, host, disk, CHAP{}, san.KindUnauthenticated},
		{"target has another name", pdu.CHAPMD5, host, disk, CHAP{"disc", disk.Secret}, san.KindUnauthenticated},
		{"SHA-1", 6, host, CHAP{}, CHAP{}, san.KindUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := scriptedConfig(t, chapTarget(c.algorithm, host, c.prove))
			cfg.CHAP, cfg.MutualCHAP = c.own, c.peer
			s, err := Dial(t.Context(), cfg)
			if err == nil {
				s.Close()
			}
			if san.KindOf(err) != c.want && err != nil || (err == nil) != (c.want == 0) {
				t.Errorf("%v (%v)", err, san.KindOf(err))
			}
		})
	}
}

// A target that must prove itself can't get out of it by choosing no authentication.
func TestMutualCHAPIsNotNegotiable(t *testing.T) {
	cfg := scriptedConfig(t, func(g *scripted) { g.loginRound(kv("AuthMethod", "None")); g.loginRound(); g.loginRound(); g.drain() })
	cfg.CHAP, cfg.MutualCHAP = CHAP{"host", "one"}, CHAP{"disk", "two"}
	var broken *ProtocolError
	if _, err := Dial(t.Context(), cfg); !errors.As(err, &broken) {
		t.Errorf("a target that proved nothing: %v", err)
	}
}

func TestConfigErrors(t *testing.T) {
	good := Config{Portal: "h", Target: "iqn.2004-10.com.example:t", InitiatorName: testInitiator}
	if c, err := good.prepare(false); err != nil || c.Portal != "h:3260" {
		t.Fatalf("%v, %v", c.Portal, err)
	}
	for name, edit := range map[string]func(*Config){
		"no portal":        func(c *Config) { c.Portal = "" },
		"bad IPv6":         func(c *Config) { c.Portal = "2001:db8::1" },
		"no target":        func(c *Config) { c.Target = "" },
		"long target":      func(c *Config) { c.Target = strings.Repeat("x", 300) },
		"target with NUL":  func(c *Config) { c.Target = "a\x00SessionType=Discovery" },
		"initiator name":   func(c *Config) { c.InitiatorName = "host1" },
		"secret only":      func(c *Config) { c.CHAP.Secret = "x" },
		"user only":        func(c *Config) { c.CHAP.User = "x" },
		"mutual only":      func(c *Config) { c.MutualCHAP = CHAP{"a", "b"} },
		"equal secrets":    func(c *Config) { c.CHAP, c.MutualCHAP = CHAP{"a", "s"}, CHAP{"b", "s"} },
		"secret with NUL":  func(c *Config) { c.CHAP = CHAP{"a", "s\x00t"} },
		"algorithm":        func(c *Config) { c.CHAPAlgorithms = []pdu.CHAPAlgorithm{6} },
		"queue depth":      func(c *Config) { c.Limits.QueueDepth = 5000 },
		"negative timeout": func(c *Config) { c.Limits.PingTimeout = -1 },
		"segment":          func(c *Config) { c.Limits.MaxRecvDataSegmentBytes = 1 << 24 },
	} {
		c := good
		edit(&c)
		if _, err := c.prepare(false); san.KindOf(err) != san.KindInvalid || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	secret := Config{CHAP: CHAP{"u", "hidden one"}, MutualCHAP: CHAP{"v", "hidden two"}}
	if text := fmt.Sprintf("%v %+v %s", secret, secret, secret.CHAP); strings.Contains(text, "hidden o") || strings.Contains(text, "hidden t") {
		t.Errorf("secrets are printed: %s", text)
	}
}
