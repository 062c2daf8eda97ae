package iscsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

const (
	goodInitiator = "iqn.2004-10.com.example:good"
	someTarget    = "iqn.2026-11.io.sandbar:vol:unit"
	blockSize     = 512
)

// memoryLU is a logical unit in memory that knows READ(16), WRITE(16) and TEST UNIT READY.
type memoryLU struct {
	dataMu sync.RWMutex
	data   []byte
	// hold, when set, is asked before each command and may block it.
	hold func(ctx context.Context, t *scsi.Task)
	// now, when set, judges what ExecuteNow does; it may block it. Otherwise that does all that nothing holds.
	now func(t *scsi.Task) bool

	mu      sync.Mutex
	running int
	most    int // the most commands seen running at a time
	resets  []scsi.ResetCause
	opened  []string
	nexuses int
}

func (m *memoryLU) OpenNexus(port string) *scsi.Nexus {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opened = append(m.opened, port)
	m.nexuses++
	return &scsi.Nexus{}
}

func (m *memoryLU) CloseNexus(*scsi.Nexus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nexuses--
}

func (m *memoryLU) Reset(cause scsi.ResetCause, _ *scsi.Nexus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resets = append(m.resets, cause)
}

func (m *memoryLU) Execute(ctx context.Context, t *scsi.Task) scsi.Result {
	m.count(1)
	defer m.count(-1)
	m.mu.Lock()
	hold := m.hold
	m.mu.Unlock()
	if hold != nil {
		hold(ctx, t)
	}
	if ctx.Err() != nil {
		return scsi.Result{Status: cdb.StatusTaskAborted}
	}
	switch t.CDB[0] {
	case cdb.OpTestUnitReady:
		return scsi.Result{}
	case 0xff:
		panic("a defect")
	}
	off := int(binary.BigEndian.Uint64(t.CDB[2:])) * blockSize
	n := int(binary.BigEndian.Uint32(t.CDB[10:])) * blockSize
	if off+n > len(m.data) {
		return checkCondition(cdb.KeyIllegalRequest, cdb.ASCLBAOutOfRange)
	}
	if t.CDB[0] == 0x8a {
		m.dataMu.Lock()
		defer m.dataMu.Unlock()
		copy(m.data[off:off+n], t.DataOut)
		return scsi.Result{DataOutTotal: n}
	}
	m.dataMu.RLock()
	defer m.dataMu.RUnlock()
	return scsi.Result{DataIn: bytes.Clone(m.data[off : off+min(n, t.DataInLimit)]), DataInTotal: n}
}

func (m *memoryLU) ExecuteNow(t *scsi.Task) (scsi.Result, bool) {
	m.mu.Lock()
	now, held := m.now, m.hold != nil
	m.mu.Unlock()
	if now == nil && held || now != nil && !now(t) {
		return scsi.Result{}, false
	}
	return m.Execute(context.Background(), t), true
}

func (m *memoryLU) setNow(f func(*scsi.Task) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = f
}

func (m *memoryLU) setHold(f func(context.Context, *scsi.Task)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hold = f
}

// seen returns how many commands are running and how many ran at a time.
func (m *memoryLU) seen() (running, most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running, m.most
}

func (m *memoryLU) count(d int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running += d
	m.most = max(m.most, m.running)
}

// directory admits goodInitiator to someTarget.
type directory struct {
	mu     sync.Mutex
	lu     LogicalUnit
	chap   *CHAP
	refuse error
	admit  func(Admission) Admission
	asked  int
	caller string // who asked last
	many   int    // targets to be discovered
	// everyone has goodInitiator's rights.
	everyone bool
}

func (d *directory) Discover(initiator string, _ netip.Addr) []Target {
	d.mu.Lock()
	defer d.mu.Unlock()
	if initiator != goodInitiator && !d.everyone {
		return nil
	}
	if d.many > 0 {
		return slices.Repeat([]Target{{Name: someTarget, Portals: []string{"127.0.0.1:3260,1"}}}, d.many)
	}
	return []Target{{Name: someTarget, Portals: []string{"127.0.0.1:3260,1", "[::1]:3260,1"}}}
}

func (d *directory) DiscoveryCHAP(initiator, user string, _ netip.Addr) []CHAP {
	d.mu.Lock()
	defer d.mu.Unlock()
	if initiator != goodInitiator && !d.everyone || d.chap == nil || user != d.chap.User {
		return nil
	}
	// Of another target of the same host; and one that lets nobody in.
	return []CHAP{{User: user, Secret: "the secret of another volume"}, *d.chap, {User: user}}
}

func (d *directory) Admit(target, initiator string, _ netip.Addr) (Admission, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	d.caller = initiator
	switch {
	case d.refuse != nil:
		return Admission{}, d.refuse
	case target != someTarget:
		return Admission{}, san.Errorf(san.KindNotFound, "no target %s here", target)
	case initiator != goodInitiator && !d.everyone:
		return Admission{}, san.Errorf(san.KindDenied, "initiator %s has no right to %s", initiator, target)
	}
	a := Admission{Volume: "vol", Host: "host", Generation: 1, CHAP: d.chap, PortalGroup: 1, LU: d.lu}
	if d.admit != nil {
		a = d.admit(a)
	}
	return a, nil
}

func (d *directory) set(change func(*directory)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

// rig is a server on a free port with one target.
type rig struct {
	t    testing.TB
	srv  *Server
	dir  *directory
	lu   *memoryLU
	addr string
	stop func()
}

func newRig(t testing.TB, limits Limits) *rig {
	t.Helper()
	r := &rig{t: t, lu: &memoryLU{data: make([]byte, 8<<20)}}
	r.dir = &directory{lu: r.lu}
	srv, err := NewServer(Config{Directory: r.dir, Limits: limits, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.srv = srv
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, ln) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if running, _ := r.lu.seen(); r.lu.nexuses != 0 || running != 0 || len(srv.Sessions()) != 0 {
			t.Errorf("left behind: %d nexuses, %d commands, %d sessions", r.lu.nexuses, running, len(srv.Sessions()))
		}
	})
	t.Cleanup(r.stop)
	return r
}

// client is a bare initiator: each method sends or expects one thing.
type client struct {
	t      testing.TB
	conn   net.Conn
	r      *pdu.Reader
	d      pdu.Digests
	cmdSN  uint32
	itt    uint32
	params pdu.Params
	isid   pdu.ISID
	tsih   uint16
}

func (r *rig) dial() *client {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{t: r.t, conn: conn, r: pdu.NewReader(conn, 1<<24-1, 0), cmdSN: 100, isid: pdu.ISID{0x80, 1, 2, 3, 4, 5}}
}

// send sends h with data.
func (c *client) send(h pdu.Header, data []byte) {
	c.t.Helper()
	if err := c.d.WritePDU(c.conn, h, data); err != nil {
		c.t.Fatal(err)
	}
}

// next reads one PDU.
func (c *client) next() (pdu.Header, []byte) {
	c.t.Helper()
	p, err := c.r.ReadPDU()
	if err != nil {
		c.t.Fatalf("reading an answer: %v", err)
	}
	h, err := pdu.Parse(&p.BHS)
	if err != nil {
		c.t.Fatal(err)
	}
	return h, p.Data
}

// expect reads one PDU of type H.
func expect[H any](c *client) (*H, []byte) {
	c.t.Helper()
	h, data := c.next()
	got, ok := h.(any).(*H)
	if !ok {
		c.t.Fatalf("got %s %+v, want %T", h.Op(), h, got)
	}
	return got, data
}

// closed expects the end of the connection.
func (c *client) closed() {
	c.t.Helper()
	if p, err := c.r.ReadPDU(); err == nil {
		c.t.Fatalf("got %s, want the end of the connection", p.BHS.Opcode())
	}
}

func (c *client) loginStep(transit bool, csg, nsg uint8, keys ...pdu.KeyValue) (*pdu.LoginResponse, []pdu.KeyValue) {
	c.t.Helper()
	c.send(&pdu.LoginRequest{Transit: transit, CSG: csg, NSG: nsg, ISID: c.isid, TSIH: c.tsih, ITT: 1, CID: 1, CmdSN: c.cmdSN},
		pdu.AppendText(nil, keys...))
	resp, data := expect[pdu.LoginResponse](c)
	got, err := pdu.ParseText(data)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, got
}

func names(extra ...pdu.KeyValue) []pdu.KeyValue {
	return append([]pdu.KeyValue{{Key: "InitiatorName", Value: goodInitiator}, {Key: "TargetName", Value: someTarget}}, extra...)
}

// login logs in without authentication in one step.
func (c *client) login(w pdu.Wishes, keys ...pdu.KeyValue) *client {
	c.t.Helper()
	if keys == nil {
		keys = names()
	}
	neg := pdu.NewNegotiator(pdu.Initiator, w)
	resp, answers := c.loginStep(true, pdu.StageOperational, pdu.StageFullFeature, append(keys, neg.Offer()...)...)
	if resp.Status != pdu.LoginSuccess || !resp.Transit || resp.NSG != pdu.StageFullFeature || resp.TSIH == 0 {
		c.t.Fatalf("login: %+v", resp)
	}
	if _, err := neg.Receive(answers); err != nil {
		c.t.Fatal(err)
	}
	c.params = neg.Params()
	c.d = pdu.Digests{Header: c.params.HeaderDigest, Data: c.params.DataDigest}
	c.r.Digests = c.d
	return c
}

// wishes is what test initiators ask for unless they say otherwise.
func wishes() pdu.Wishes {
	w := pdu.DefaultWishes()
	w.InitialR2T, w.MaxRecvDataSegmentLength = false, 64<<10
	return w
}

// command builds a SCSI command with the next numbers.
func (c *client) command(cdb [16]byte, expected int) *pdu.SCSICommand {
	c.itt++
	h := &pdu.SCSICommand{Final: true, Attr: pdu.AttrSimple, ITT: c.itt, ExpectedLength: uint32(expected), CmdSN: c.cmdSN, CDB: cdb}
	c.cmdSN++
	return h
}

func rw16(op byte, lba, blocks int) (c [16]byte) {
	c[0] = op
	binary.BigEndian.PutUint64(c[2:], uint64(lba))
	binary.BigEndian.PutUint32(c[10:], uint32(blocks))
	return c
}

func (c *client) read(lba, blocks int) *pdu.SCSICommand {
	h := c.command(rw16(0x88, lba, blocks), blocks*blockSize)
	h.Read = true
	return h
}

func (c *client) write(lba, blocks int) *pdu.SCSICommand {
	h := c.command(rw16(0x8a, lba, blocks), blocks*blockSize)
	h.Write = true
	return h
}

// pattern is n bytes that differ from place to place.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*7 ^ byte(i>>16)*13 ^ seed
	}
	return b
}
