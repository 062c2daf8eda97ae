package abuse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/sandbar-san/sandbar/internal/pdu"
)

// patience is how long the unit has for an answer, on a machine that is busy.
const patience = 20 * time.Second

// blockSize is the volumes' block size in bytes.
const blockSize = 512

// door says where and as whom to log in.
type door struct {
	portal, target, initiator string
	user, secret              string
	// from is the address that connections come from; loopback has many.
	from netip.Addr
}

// client is a bare initiator that sends what it is told. Its first error sticks: all that is done after it
// has no effect, and err tells it.
type client struct {
	door
	conn   *net.TCPConn
	r      *pdu.Reader
	d      pdu.Digests
	isid   pdu.ISID
	tsih   uint16
	cmdSN  uint32
	itt    uint32
	params pdu.Params
	err    error
}

func (d door) dial(ctx context.Context) *client {
	c := &client{door: d, cmdSN: 1, isid: pdu.ISID{0x80, 1, 2, 3, 4, 5}}
	dialer := net.Dialer{Timeout: patience}
	if d.from.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.from, 0))
	}
	conn, err := dialer.DialContext(ctx, "tcp", d.portal)
	if err != nil {
		c.err = err
		return c
	}
	c.conn = conn.(*net.TCPConn)
	c.patient()
	c.r = pdu.NewReader(conn, pdu.MaxDataSegmentLength, 0)
	return c
}

// patient gives the unit all of its time again.
func (c *client) patient() {
	if c.conn != nil {
		c.note(c.conn.SetDeadline(time.Now().Add(patience)))
	}
}

func (c *client) note(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *client) failf(format string, args ...any) { c.note(fmt.Errorf(format, args...)) }

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

// reset closes the connection with a RST, as a machine that lost its power and came back does.
func (c *client) reset() {
	if c.conn != nil {
		_ = c.conn.SetLinger(0)
		_ = c.conn.Close()
	}
}

// raw sends bytes as they are. That the unit has closed the connection meanwhile is no error: reading tells.
func (c *client) raw(b []byte) {
	if c.err != nil {
		return
	}
	if _, err := c.conn.Write(b); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		c.failf("the unit takes no more bytes, and does not end the connection: %w", err)
	}
}

func (c *client) send(h pdu.Header, data []byte) { c.sendAHS(h, nil, data) }

func (c *client) sendAHS(h pdu.Header, ahs, data []byte) {
	b, err := c.d.Append(nil, h, ahs, data)
	c.note(err)
	c.raw(b)
}

// lies sends a header whose lengths are what they are told to be, whatever follows.
func (c *client) lies(h pdu.Header, ahs, data int) {
	var b pdu.BHS
	h.Encode(&b)
	b.SetLengths(ahs, data)
	c.raw(c.d.AppendHeader(nil, &b, nil))
}

// next reads one PDU; nil after an error.
func (c *client) next() *pdu.PDU {
	if c.err != nil {
		return nil
	}
	p, err := c.r.ReadPDU()
	if err != nil {
		c.failf("no answer: %w", err)
		return nil
	}
	return p
}

// want reads PDUs up to one of type H, past pings, and returns it with its data; never nil.
func want[H any, P interface {
	*H
	pdu.Header
}](c *client) (P, []byte) {
	h := P(new(H))
	for {
		p := c.next()
		if p == nil {
			return h, nil
		}
		if p.BHS.Opcode() == pdu.OpNOPIn && p.BHS.ITT() == pdu.NoTag {
			continue // a ping of the unit's
		}
		if p.BHS.Opcode() != h.Op() {
			c.failf("the unit answers with %s, want %s", p.BHS.Opcode(), h.Op())
			return h, nil
		}
		h.Decode(&p.BHS)
		return h, p.Data
	}
}

// rejected expects a Reject for one of the reasons.
func (c *client) rejected(what string, reasons ...uint8) {
	r, _ := want[pdu.Reject](c)
	for _, reason := range reasons {
		if r.Reason == reason {
			return
		}
	}
	c.failf("%s: rejected with reason %#02x, want one of %#02x", what, r.Reason, reasons)
}

// ended expects the end of the connection, whatever is answered before it.
func (c *client) ended(what string) {
	for c.err == nil {
		if _, err := c.r.ReadPDU(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.failf("%s: the connection stays open", what)
			}
			return
		}
	}
}

// eof expects the end of the connection; unlike ended it takes no offence at bytes that are no PDU.
func (c *client) eof(what string) {
	if c.err != nil {
		return
	}
	if _, err := io.Copy(io.Discard, c.conn); errors.Is(err, os.ErrDeadlineExceeded) {
		c.failf("%s: the connection stays open", what)
	}
}

// alive proves that the session still works: a ping comes back, and a block can be read.
func (c *client) alive(what string) {
	if c.err != nil {
		return
	}
	c.itt++
	c.send(&pdu.NOPOut{Immediate: true, ITT: c.itt, TTT: pdu.NoTag, CmdSN: c.cmdSN}, []byte("there?"))
	if h, data := want[pdu.NOPIn](c); h.ITT != c.itt || string(data) != "there?" {
		c.failf("a ping came back as %+v with %q", h, data)
	}
	if status, _ := c.readBlocks(0, 1); status != 0 {
		c.failf("a read is answered with status %#02x", status)
	}
	if c.err != nil {
		c.err = fmt.Errorf("after %s the session is broken: %w", what, c.err)
	}
}

// keys makes pairs of "key=value" strings.
func keys(pairs ...string) []pdu.KeyValue {
	var list []pdu.KeyValue
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		list = append(list, pdu.KeyValue{Key: k, Value: v})
	}
	return list
}

func (c *client) loginRequest(transit bool, csg, nsg uint8) *pdu.LoginRequest {
	return &pdu.LoginRequest{Transit: transit, CSG: csg, NSG: nsg, ISID: c.isid, TSIH: c.tsih, ITT: 1, CID: 1, CmdSN: c.cmdSN}
}

// step does one step of a login.
func (c *client) step(transit bool, csg, nsg uint8, list ...pdu.KeyValue) (*pdu.LoginResponse, []pdu.KeyValue) {
	c.send(c.loginRequest(transit, csg, nsg), pdu.AppendText(nil, list...))
	resp, data := want[pdu.LoginResponse](c)
	got, err := pdu.ParseText(data)
	c.note(err)
	return resp, got
}

// refused expects a login's last response to be a refusal with one of the statuses, and the connection's end.
func (c *client) refused(what string, resp *pdu.LoginResponse, statuses ...pdu.LoginStatus) {
	ok := len(statuses) == 0 && resp.Status>>8 == 2
	for _, s := range statuses {
		ok = ok || resp.Status == s
	}
	if !ok {
		c.failf("%s: %s, want %v", what, resp.Status, statuses)
	}
	c.ended(what)
}

func (c *client) names() []pdu.KeyValue {
	return keys("InitiatorName="+c.initiator, "TargetName="+c.target)
}

// authenticate does the security stage, up to but not including the operational one.
func (c *client) authenticate(secret string) *pdu.LoginResponse {
	resp, _ := c.step(false, 0, 0, append(c.names(), keys("AuthMethod=CHAP,None")...)...)
	if c.err != nil || resp.Status != 0 {
		return resp
	}
	resp, got := c.step(false, 0, 0, keys("CHAP_A=5")...)
	if c.err != nil || resp.Status != 0 {
		return resp
	}
	id, _ := pdu.Find(got, pdu.KeyCHAPIdentifier)
	var n uint8
	_, err := fmt.Sscan(id, &n)
	c.note(err)
	text, _ := pdu.Find(got, pdu.KeyCHAPChallenge)
	challenge, err := pdu.ParseBinary(text, pdu.MaxCHAPBytes)
	c.note(err)
	resp, _ = c.step(true, 0, 1, keys("CHAP_N="+c.user, "CHAP_R="+pdu.FormatBinary(pdu.CHAPMD5.Response(n, secret, challenge)))...)
	return resp
}

// wishes is what cases ask for unless they say otherwise.
func wishes() pdu.Wishes {
	w := pdu.DefaultWishes()
	w.InitialR2T, w.MaxRecvDataSegmentLength, w.MaxBurstLength = false, 64<<10, 64<<10
	w.MaxOutstandingR2T = 4
	return w
}

// login takes a connection into full feature phase and past what the first command is told.
func (c *client) login(w pdu.Wishes) *client {
	c.logIn(w)
	c.ready()
	return c
}

// ready sends a nexus's first command, which is told that the nexus is new (SAM-5 §5.14): no case wants to hear that.
func (c *client) ready() {
	h := c.command([16]byte{}, 0)
	c.send(h, nil)
	c.result(h)
}

// logIn does the login alone.
func (c *client) logIn(w pdu.Wishes) {
	if c.err != nil {
		return
	}
	if resp := c.authenticate(c.secret); c.err == nil && resp.Status != 0 {
		c.failf("login: %s", resp.Status)
	}
	neg := pdu.NewNegotiator(pdu.Initiator, w)
	resp, got := c.step(true, 1, 3, neg.Offer()...)
	if c.err != nil || resp.Status != 0 || !resp.Transit {
		c.failf("login: %s", resp.Status)
		return
	}
	_, err := neg.Receive(got)
	c.note(err)
	c.params, c.tsih = neg.Params(), resp.TSIH
	c.d = pdu.Digests{Header: c.params.HeaderDigest, Data: c.params.DataDigest}
	c.r.Digests = c.d
	c.patient()
}

// command makes a SCSI command with the next numbers.
func (c *client) command(cdb [16]byte, expected int) *pdu.SCSICommand {
	c.itt++
	h := &pdu.SCSICommand{Final: true, Attr: pdu.AttrSimple, ITT: c.itt, ExpectedLength: uint32(expected), CmdSN: c.cmdSN, CDB: cdb}
	c.cmdSN++
	return h
}

// cdb16 is a READ (16), WRITE (16) or the like.
func cdb16(op byte, lba uint64, blocks uint32) (b [16]byte) {
	b[0] = op
	binary.BigEndian.PutUint64(b[2:], lba)
	binary.BigEndian.PutUint32(b[10:], blocks)
	return b
}

func (c *client) read(lba, blocks int) *pdu.SCSICommand {
	h := c.command(cdb16(0x88, uint64(lba), uint32(blocks)), blocks*blockSize)
	h.Read = true
	return h
}

func (c *client) write(lba, blocks int) *pdu.SCSICommand {
	h := c.command(cdb16(0x8a, uint64(lba), uint32(blocks)), blocks*blockSize)
	h.Write = true
	return h
}

// readBlocks reads and returns the status and the data.
func (c *client) readBlocks(lba, blocks int) (uint8, []byte) {
	h := c.read(lba, blocks)
	c.send(h, nil)
	return c.result(h)
}

// result gathers a command's data-in and status, past answers to others.
func (c *client) result(h *pdu.SCSICommand) (status uint8, data []byte) {
	for {
		p := c.next()
		if p == nil {
			return 0xff, nil
		}
		switch {
		case p.BHS.ITT() != h.ITT:
		case p.BHS.Opcode() == pdu.OpDataIn:
			var in pdu.DataIn
			in.Decode(&p.BHS)
			data = append(data, p.Data...)
			if in.HasStatus {
				return in.Status, data
			}
		case p.BHS.Opcode() == pdu.OpSCSIResponse:
			var r pdu.SCSIResponse
			r.Decode(&p.BHS)
			return r.Status, data
		}
	}
}

// pattern is n bytes that differ from place to place and from seed to seed.
func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := 0; i+8 <= n; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	return b
}

// stuck sends bytes that the unit may not take: it then returns an error soon.
func (c *client) stuck(b []byte) error {
	if c.err != nil {
		return c.err
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}
