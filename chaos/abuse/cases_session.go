package abuse

import (
	"context"
	"fmt"
	"strings"

	"github.com/sandbar-san/sandbar/internal/pdu"
)

// inSession are cases about PDUs that are no commands, in full feature phase.
func inSession() []attack {
	known := []pdu.Opcode{pdu.OpNOPOut, pdu.OpSCSICommand, pdu.OpTaskRequest, pdu.OpLoginReq, pdu.OpTextReq, pdu.OpDataOut, pdu.OpLogoutReq, pdu.OpSNACK}
	return []attack{
		loggedIn("session: unknown opcodes", func(c *client) {
			for _, op := range opcodesBut(known...) {
				c.send(&bare{op | 0x40, 0x80}, pattern(100, 1))
				c.rejected(fmt.Sprintf("opcode %#02x", op), pdu.RejectNotSupported, pdu.RejectProtocolError, pdu.RejectInvalidField)
			}
			c.alive("unknown opcodes")
		}),
		loggedIn("session: SNACK at ErrorRecoveryLevel 0", func(c *client) {
			for kind := range uint8(4) {
				c.send(&bare{uint8(pdu.OpSNACK), 0x80 | kind}, nil)
				c.rejected("SNACK", pdu.RejectSNACK, pdu.RejectNotSupported, pdu.RejectProtocolError)
			}
			c.alive("SNACK")
		}),
		loggedIn("session: a login in full feature phase", func(c *client) {
			c.send(c.loginRequest(true, 1, 3), pdu.AppendText(nil, c.names()...))
			c.rejected("a login", pdu.RejectProtocolError)
			c.ended("a login in full feature phase")
		}),
		each("session: lengths above the limit", session, [][2]int{{0, 1<<24 - 1}, {0, 256<<10 + 1}, {1020, 1<<24 - 1}}, func(c *client, n [2]int) {
			c.lies(&pdu.NOPOut{Immediate: true, ITT: 1, TTT: pdu.NoTag, CmdSN: c.cmdSN}, n[0], n[1])
			c.ended("a data segment above MaxRecvDataSegmentLength")
		}),
		loggedIn("session: text that is out of place", textOutOfPlace),
		loggedIn("session: text without an end", func(c *client) {
			rejected := false
			for n := 0; !rejected && c.err == nil; n++ {
				c.itt++
				h := &pdu.TextRequest{Continue: true, ITT: c.itt, TTT: pdu.NoTag, CmdSN: c.cmdSN}
				if n > 0 {
					h.TTT = 1 // what the unit answers with
				}
				c.send(h, pattern(8192, 2))
				c.cmdSN++
				p := c.next()
				if p == nil {
					return
				}
				if rejected = p.BHS.Opcode() == pdu.OpReject; n > 1000 {
					c.failf("%d PDUs of text, and no end", n)
				}
			}
			c.alive("text without an end")
		}),
		{name: "session: digests that are wrong", run: wrongDigests},
		{name: "session: pings that nobody reads", run: unreadPings},
	}
}

// inOrder are cases about additional headers, logouts, and the order of commands.
func inOrder() []attack {
	return []attack{
		each("session: headers of additional lengths", session, [][]byte{{0, 0, 1, 0}, {0xff, 0xff, 1, 0}, {0, 9, 1, 0, 1, 2, 3, 4}, make([]byte, 1020), {0, 1, 99, 0}}, func(c *client, ahs []byte) {
			c.sendAHS(c.read(0, 1), ahs, nil)
			p := c.next() // served, where the header is one that means nothing; or refused; or the end
			if p == nil {
				c.err = nil
			}
		}),
		loggedIn("session: a CDB of 1,000 bytes", func(c *client) {
			h := c.read(0, 1)
			c.sendAHS(h, pdu.AppendAHS(nil, pdu.AHS{Type: pdu.AHSExtendedCDB, Specific: 0, Data: pattern(1000, 3)}), nil)
			c.result(h)
			c.alive("a long CDB")
		}),
		loggedIn("session: logout of what is not there", func(c *client) {
			for _, x := range []struct {
				reason uint8
				cid    uint16
				want   uint8
			}{{pdu.LogoutCloseConnection, 999, pdu.LogoutCIDNotFound}, {pdu.LogoutForRecovery, 1, pdu.LogoutNoRecovery}} {
				c.itt++
				c.send(&pdu.LogoutRequest{Immediate: true, Reason: x.reason, CID: x.cid, ITT: c.itt, CmdSN: c.cmdSN}, nil)
				if r, _ := want[pdu.LogoutResponse](c); r.Response != x.want {
					c.failf("logout for reason %d of connection %d is answered %d, want %d", x.reason, x.cid, r.Response, x.want)
				}
			}
			c.send(&pdu.LogoutRequest{Immediate: true, Reason: 77, ITT: 1, CmdSN: c.cmdSN}, nil)
			c.rejected("logout for reason 77", pdu.RejectProtocolError, pdu.RejectInvalidField)
			c.alive("logouts that mean nothing")
		}),
		loggedIn("session: CmdSN out of the window", func(c *client) {
			sn := c.cmdSN
			for _, off := range []uint32{1 << 31, 1<<31 - 1, 1 << 20, ^uint32(0), ^uint32(99), 200} {
				h := c.read(0, 1)
				h.CmdSN, c.cmdSN = sn+off, sn
				c.send(h, nil) // ignored without a word (RFC 7143 §4.2.2.1)
			}
			c.alive("commands out of the window")
		}),
		loggedIn("session: commands before their turn", func(c *client) {
			sn := c.cmdSN
			for i := 20; i > 0; i-- {
				h := c.read(0, 1)
				h.CmdSN = sn + uint32(i)
				c.send(h, nil)
			}
			last := c.read(0, 1)
			last.CmdSN = sn
			c.send(last, nil)
			for range 21 {
				if in, _ := want[pdu.DataIn](c); !in.HasStatus || in.Status != 0 {
					c.failf("%+v", in)
				}
			}
			c.cmdSN = sn + 21
			c.alive("commands in disorder")
		}),
		loggedIn("session: a gap that is never filled", func(c *client) {
			for i := range 200 {
				h := c.write(0, 64)
				h.CmdSN = c.cmdSN + uint32(i%100)
				c.send(h, pattern(64*blockSize, 3))
			}
			c.ended("commands that wait for one that does not come")
		}),
	}
}

func textOutOfPlace(c *client) {
	ask := func(h *pdu.TextRequest, text string) *pdu.PDU {
		c.itt++
		h.ITT, h.CmdSN = c.itt, c.cmdSN
		c.cmdSN++
		c.send(h, []byte(text))
		if p := c.next(); p != nil {
			return p
		}
		return &pdu.PDU{}
	}
	for _, x := range []struct{ send, want string }{
		{"SendTargets=All\x00", "SendTargets=Reject\x00"},
		{"MaxBurstLength=512\x00", "MaxBurstLength=Reject\x00"},
		{"InitiatorName=iqn.a.b\x00", "InitiatorName=Reject\x00"},
		{"X-org.example.a=b\x00", "X-org.example.a=NotUnderstood\x00"},
		{"MaxRecvDataSegmentLength=1\x00", "MaxRecvDataSegmentLength=Reject\x00"},
		{"", ""},
	} {
		if p := ask(&pdu.TextRequest{Final: true, TTT: pdu.NoTag}, x.send); p.BHS.Opcode() != pdu.OpTextResp || string(p.Data) != x.want {
			c.failf("%q is answered %s %q, want %q", x.send, p.BHS.Opcode(), p.Data, x.want)
		}
	}
	for what, h := range map[string]*pdu.TextRequest{
		"F and C together": {Final: true, Continue: true, TTT: pdu.NoTag}, "a tag of no exchange": {Final: true, TTT: 77}, "tag 0 of no exchange": {Final: true},
	} {
		if p := ask(h, "a=b\x00"); p.BHS.Opcode() != pdu.OpReject {
			c.failf("%s: answered %s", what, p.BHS.Opcode())
		}
	}
	for _, text := range []string{"nothing\x00", "a=b", strings.Repeat("a=b\x00", 1000)} {
		if p := ask(&pdu.TextRequest{Final: true, TTT: pdu.NoTag}, text); p.BHS.Opcode() != pdu.OpReject {
			c.failf("%.20q: answered %s", text, p.BHS.Opcode())
		}
	}
	c.alive("text out of place")
}

// wrongDigests damages headers and data of a session with digests.
func wrongDigests(ctx context.Context, r *rig) error {
	w := wishes()
	w.HeaderDigest, w.DataDigest = pdu.DigestRequire, pdu.DigestRequire
	for _, at := range []int{0, 20, pdu.BHSLength, pdu.BHSLength + pdu.DigestLength + 9, -1} {
		err := on(r.prey.dial(ctx).login(w), func(c *client) {
			if !c.params.HeaderDigest || !c.params.DataDigest {
				c.failf("digests were asked for and not agreed on")
			}
			c.alive("the login with digests")
			b, err := c.d.Append(nil, c.write(100, 1), nil, pattern(blockSize, 99))
			c.note(err)
			if at < 0 {
				at = len(b) - 1
			}
			b[at] ^= 0x10
			c.raw(b)
			if at > pdu.BHSLength+pdu.DigestLength {
				c.rejected("damaged data", pdu.RejectDataDigest)
			}
			c.ended("a digest that is wrong")
		})
		if err != nil {
			return err
		}
		if err := untouched(ctx, r, 100, 1, 99); err != nil {
			return err
		}
	}
	return nil
}

// untouched expects that blocks don't hold what a command that must have no effect would have written.
func untouched(ctx context.Context, r *rig, lba, blocks int, seed uint64) error {
	return on(r.prey.dial(ctx).numbered(900).login(wishes()), func(c *client) {
		status, data := c.readBlocks(lba, blocks)
		if status != 0 {
			c.failf("read: status %#02x", status)
		}
		if string(data[:min(len(data), blockSize)]) == string(pattern(blocks*blockSize, seed)[:blockSize]) {
			c.failf("data of a command that was damaged or never complete has been written")
		}
	})
}

// unreadPings sends pings with data and reads no answer: the unit stops reading, and holds little.
func unreadPings(ctx context.Context, r *rig) error {
	return many(8, func(i int) error {
		return on(r.prey.dial(ctx).numbered(i).login(wishes()), func(c *client) {
			c.note(c.conn.SetReadBuffer(4096))
			for n := range 20000 {
				b, err := c.d.Append(nil, &pdu.NOPOut{Immediate: true, ITT: uint32(n), TTT: pdu.NoTag, CmdSN: c.cmdSN}, nil, pattern(64<<10, 1))
				c.note(err)
				if err := c.stuck(b); err != nil {
					return
				}
			}
			c.failf("the unit takes 20,000 pings of 64 KiB though nobody reads its answers")
		})
	})
}
