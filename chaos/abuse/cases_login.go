package abuse

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sandbar-san/sandbar/internal/pdu"
)

// beforeLogin are cases about what comes instead of a login.
func beforeLogin() []attack {
	return []attack{
		each("before login: every opcode but login", fresh, opcodesBut(pdu.OpLoginReq), func(c *client, op uint8) {
			c.send(&bare{op, 0x80}, []byte("abc"))
			c.eof(fmt.Sprintf("opcode %#02x before the login", op))
		}),
		each("before login: bytes of other protocols", fresh, []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\xff\xff\x01",
			strings.Repeat("\xff", 1<<20), strings.Repeat("\x00", 1<<20), strings.Repeat("\x43\x87\x00\x00", 1<<18)}, func(c *client, s string) {
			c.raw([]byte(s))
			_ = c.conn.CloseWrite()
			c.eof("bytes of another protocol")
		}),
		each("before login: lengths of 16 MiB and AHS", fresh, [][2]int{{0, 1<<24 - 1}, {0, 8193}, {4, 0}, {1020, 1<<24 - 1}}, func(c *client, n [2]int) {
			c.lies(c.loginRequest(true, 1, 3), n[0], n[1])
			c.eof("a login request with lengths that no login has")
		}),
		{name: "before login: half-open connections", long: true, run: halfOpen},
		{name: "before login: slow senders", long: true, run: slowLogins},
	}
}

func opcodesBut(skip ...pdu.Opcode) []uint8 {
	var list []uint8
next:
	for op := range uint8(64) {
		for _, s := range skip {
			if op == uint8(s) {
				continue next
			}
		}
		list = append(list, op)
	}
	return list
}

// halfOpen takes all places for logins from some addresses and says nothing. Others still get in, and the
// unit ends what leads to nothing.
func halfOpen(ctx context.Context, r *rig) error {
	return fillLogins(ctx, r, func(*client) {})
}

// slowLogins sends a login request a byte at a time.
func slowLogins(ctx context.Context, r *rig) error {
	return fillLogins(ctx, r, func(c *client) {
		b, err := c.d.Append(nil, c.loginRequest(true, 1, 3), nil, pdu.AppendText(nil, c.names()...))
		c.note(err)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for i := range b {
			<-tick.C
			if _, err := c.conn.Write(b[i : i+1]); err != nil {
				return
			}
		}
	})
}

// fillLogins opens more connections than the unit lets log in at a time, from several addresses, has f use
// them, and expects them to end within the login's time limit. Meanwhile somebody else logs in.
func fillLogins(ctx context.Context, r *rig, f func(c *client)) error {
	ended := make(chan error, 1)
	go func() { // ends with its connections, which the unit or their deadline ends
		ended <- many(400, func(i int) error {
			d := r.prey
			a := d.from.As4()
			a[3] = byte(2 + i/60)
			d.from = addr(a)
			c := d.dial(ctx)
			return on(c, func(c *client) {
				f(c)
				c.eof("a login that does not go on")
			})
		})
	}()
	err := error(nil)
	for range 20 {
		if err = on(r.other.dial(ctx).numbered(1).login(wishes()), func(*client) {}); err != nil {
			err = fmt.Errorf("another host's login meanwhile: %w", err)
			break
		}
	}
	if lost := <-ended; lost != nil {
		return lost
	}
	return err
}

// duringLogin are cases about logins that go wrong.
func duringLogin() []attack {
	return []attack{
		dialled("login: TSIH of no session", func(c *client) {
			c.tsih = 4242
			resp, _ := c.step(true, 1, 3, c.names()...)
			c.refused("a TSIH of no session", resp, pdu.LoginNoSession)
		}),
		each("login: stages that are none, and jumps", fresh, [][3]uint8{{2, 3, 1}, {3, 0, 0}, {3, 3, 1}, {1, 1, 1}, {1, 0, 1}, {1, 2, 1}, {0, 2, 1}}, func(c *client, v [3]uint8) {
			resp, _ := c.step(v[2] == 1, v[0], v[1], c.names()...)
			c.refused(fmt.Sprintf("stage %d to %d", v[0], v[1]), resp)
		}),
		dialled("login: T and C together", func(c *client) {
			h := c.loginRequest(true, 1, 3)
			h.Continue = true
			c.send(h, pdu.AppendText(nil, c.names()...))
			resp, _ := want[pdu.LoginResponse](c)
			c.refused("T and C together", resp)
		}),
		dialled("login: back to a stage that is over", func(c *client) {
			c.authenticate(c.secret)
			resp, _ := c.step(true, 0, 1)
			c.refused("the security stage again", resp)
		}),
		dialled("login: a version that is none", func(c *client) {
			h := c.loginRequest(true, 1, 3)
			h.VersionMin, h.VersionMax = 9, 9
			c.send(h, nil)
			resp, _ := want[pdu.LoginResponse](c)
			c.refused("version 9", resp, pdu.LoginBadVersion)
		}),
		each("login: identity that changes on the way", fresh, []func(h *pdu.LoginRequest){
			func(h *pdu.LoginRequest) { h.ISID[5]++ }, func(h *pdu.LoginRequest) { h.TSIH++ },
			func(h *pdu.LoginRequest) { h.CID++ }, func(h *pdu.LoginRequest) { h.ITT++ },
		}, func(c *client, spoil func(*pdu.LoginRequest)) {
			c.step(false, 0, 0, append(c.names(), keys("AuthMethod=CHAP")...)...)
			h := c.loginRequest(false, 0, 0)
			spoil(h)
			c.send(h, pdu.AppendText(nil, keys("CHAP_A=5")...))
			resp, _ := want[pdu.LoginResponse](c)
			c.refused("another identity in the second step", resp)
		}),
		each("login: text that is none", fresh, []string{"InitiatorName=iqn.a.b", "\x00=\x00", "nothing\x00", "a b=c\x00", strings.Repeat("k", 64) + "=v\x00",
			"X=" + strings.Repeat("v", 8190)}, func(c *client, text string) {
			c.send(c.loginRequest(true, 1, 3), []byte(text))
			resp, _ := want[pdu.LoginResponse](c)
			c.refused(fmt.Sprintf("%.20q", text), resp)
		}),
		dialled("login: a key twice", func(c *client) {
			resp, _ := c.step(true, 0, 1, append(c.names(), keys("AuthMethod=CHAP", "MaxBurstLength=512", "MaxBurstLength=1024")...)...)
			c.refused("MaxBurstLength twice", resp)
		}),
		dialled("login: text without an end", func(c *client) {
			h := c.loginRequest(false, 0, 0)
			h.Continue = true
			status := pdu.LoginSuccess
			for n := 0; status == 0 && c.err == nil; n++ {
				c.send(h, pattern(8192, 1))
				resp, _ := want[pdu.LoginResponse](c)
				if status = resp.Status; n > 40 {
					c.failf("%d PDUs of text, and no end", n)
				}
			}
			c.ended("text without an end")
		}),
		dialled("login: steps without an end", func(c *client) {
			for n := 0; c.err == nil; n++ {
				if resp, _ := c.step(false, 1, 0, c.names()...); resp.Status != 0 {
					c.ended("steps without an end")
					return
				}
				if n > 100 {
					c.failf("%d steps, and no end", n)
				}
			}
		}),
		{name: "login: who is nobody", run: strangers},
		{name: "login: wrong secrets", run: wrongSecrets},
		{name: "login: another's ISID", run: stolenISID},
	}
}

// strangers logs in with names that are unknown, missing, or not both one host's.
func strangers(ctx context.Context, r *rig) error {
	for _, x := range []struct {
		names []string
		want  pdu.LoginStatus
	}{
		{[]string{"TargetName=" + r.prey.target}, pdu.LoginMissingParameter},
		{[]string{"InitiatorName=" + r.prey.initiator}, pdu.LoginMissingParameter},
		{[]string{"InitiatorName=" + r.prey.initiator, "TargetName=iqn.2026-11.example:none"}, pdu.LoginNotFound},
		{[]string{"InitiatorName=" + r.prey.initiator, "TargetName=" + r.other.target}, pdu.LoginForbidden},
		{[]string{"InitiatorName=iqn.2026-11.example:nobody", "TargetName=" + r.prey.target}, pdu.LoginForbidden},
		{[]string{"InitiatorName=" + r.prey.initiator, "TargetName=" + r.prey.target, "SessionType=Odd"}, pdu.LoginBadSessionType},
		{[]string{"InitiatorName=" + r.prey.initiator, "TargetName=" + r.prey.target}, pdu.LoginAuthFailure}, // without CHAP
	} {
		err := on(r.prey.dial(ctx), func(c *client) {
			resp, _ := c.step(true, 1, 3, keys(x.names...)...)
			c.refused(strings.Join(x.names, " "), resp, x.want)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// wrongSecrets answers challenges wrongly, and not at all.
func wrongSecrets(ctx context.Context, r *rig) error {
	for _, user := range []string{r.prey.user, "nobody", ""} {
		d := r.prey
		d.user = user
		err := on(d.dial(ctx), func(c *client) { c.refused("a wrong secret", c.authenticate("not the secret"), pdu.LoginAuthFailure) })
		if err != nil {
			return err
		}
	}
	for _, answer := range []string{"CHAP_R=0x", "CHAP_R=zz", "CHAP_R=0x" + strings.Repeat("ff", 2000), "CHAP_N=" + strings.Repeat("n", 4000), "CHAP_A=5"} {
		err := on(r.prey.dial(ctx), func(c *client) {
			c.step(false, 0, 0, append(c.names(), keys("AuthMethod=CHAP")...)...)
			c.step(false, 0, 0, keys("CHAP_A=5")...)
			resp, _ := c.step(true, 0, 1, keys("CHAP_N="+c.user, answer)...)
			c.refused(answer, resp)
		})
		if err != nil {
			return err
		}
	}
	return on(r.prey.dial(ctx), func(c *client) {
		c.step(false, 0, 0, append(c.names(), keys("AuthMethod=CHAP")...)...)
		_, got := c.step(false, 0, 0, keys("CHAP_A=7")...)
		theirs, _ := pdu.Find(got, pdu.KeyCHAPChallenge)
		resp, _ := c.step(true, 0, 1, keys("CHAP_N="+c.user, "CHAP_R=0x00", "CHAP_I=1", "CHAP_C="+theirs)...)
		c.refused("the unit's own challenge sent back", resp, pdu.LoginAuthFailure)
	})
}

// stolenISID logs in with the initiator name and ISID of a session that is there. Without the secret that must not
// touch it; with the secret it reinstates it (RFC 7143 §6.3.5).
func stolenISID(ctx context.Context, r *rig) error {
	return on(r.prey.dial(ctx).login(wishes()), func(mine *client) {
		for range 5 {
			mine.note(on(r.prey.dial(ctx), func(c *client) { c.refused("a wrong secret", c.authenticate("wrong"), pdu.LoginAuthFailure) }))
			mine.note(on(r.prey.dial(ctx), func(c *client) {
				c.tsih = mine.tsih
				resp, _ := c.step(false, 0, 1, append(c.names(), keys("AuthMethod=CHAP")...)...)
				c.refused("a second connection of the session", resp, pdu.LoginTooManyConnections)
			}))
		}
		mine.alive("logins with its ISID and no secret")
		mine.note(on(r.prey.dial(ctx).login(wishes()), func(c *client) {
			mine.ended("reinstatement")
			c.alive("reinstatement")
		}))
	})
}
