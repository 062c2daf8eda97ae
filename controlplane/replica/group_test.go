package replica

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// group is some stations' replicas in one process.
type group struct {
	t       testing.TB
	ca      *identity.CA
	mem     *memNet // nil: loopback TCP
	timing  Timing
	adjust  func(*Config)
	dir     string
	members map[san.StationID]*member
	addrs   map[san.StationID]string // outlive the members
}

// member is one station; its folder outlives its replica.
type member struct {
	*Replica
	id      san.StationID
	addr    string
	machine *fsm.Machine
	stop    context.CancelFunc
	ended   chan error
	gone    atomic.Bool // ended was read by end
}

func newGroup(t testing.TB, mem *memNet, timing Timing, adjust func(*Config)) *group {
	ca, err := identity.NewCA("0b5ad9f0-2c5e-4d43-9b39-6f8a5c1d3e70", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	g := &group{t: t, ca: ca, mem: mem, timing: timing, adjust: adjust, dir: t.TempDir(),
		members: make(map[san.StationID]*member), addrs: make(map[san.StationID]string)}
	t.Cleanup(g.endAll)
	return g
}

// stationTLS makes the TLS configurations of one part of a cluster.
func stationTLS(t testing.TB, ca *identity.CA, role san.Role, id string) (server, client *tls.Config) {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	cert := signed(t, ca, key, identity.Subject{Role: role, ID: id})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CertPEM())
	verify := func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("no certificate")
		}
		peer, err := identity.Parse(cs.PeerCertificates[0])
		if err != nil {
			return err
		}
		if peer.Role != san.RoleStation {
			return fmt.Errorf("%s is no station", peer)
		}
		_, err = cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err
	}
	server = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, VerifyConnection: verify}
	client = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, VerifyConnection: verify}
	return server, client
}

func signed(t testing.TB, ca *identity.CA, key *ecdsa.PrivateKey, subject identity.Subject) tls.Certificate {
	t.Helper()
	csr, err := identity.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, err := ca.Sign(csr, subject, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(certPEM)
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

func peerID(cs tls.ConnectionState) (san.StationID, error) {
	peer, err := identity.Parse(cs.PeerCertificates[0])
	return san.StationID(peer.ID), err
}

// config makes the configuration of station id.
func (g *group) config(id san.StationID) Config {
	cfg := Config{ID: id, Dir: filepath.Join(g.dir, string(id)), PeerID: peerID, Machine: fsm.New(), Timing: g.timing,
		Logger: slog.New(slog.NewTextHandler(g.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})).With("at", id)}
	cfg.ServerTLS, cfg.ClientTLS = stationTLS(g.t, g.ca, san.RoleStation, string(id))
	if g.mem != nil {
		cfg.Advertise = string(id) + ":1"
		cfg.Listener, cfg.Dial = g.mem.listen(cfg.Advertise), g.mem.dialer(cfg.Advertise)
		cfg.noSync = true
	} else {
		addr := "127.0.0.1:0"
		if known := g.addrs[id]; known != "" {
			addr = known
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			g.t.Fatal(err)
		}
		cfg.Listener, cfg.Advertise = l, l.Addr().String()
		g.addrs[id] = cfg.Advertise
	}
	if g.adjust != nil {
		g.adjust(&cfg)
	}
	return cfg
}

// start opens and runs station id.
func (g *group) start(id san.StationID) *member {
	g.t.Helper()
	cfg := g.config(id)
	r, err := Open(cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{Replica: r, id: id, addr: cfg.Advertise, machine: cfg.Machine, stop: cancel, ended: make(chan error, 1)}
	g.members[id] = m
	go func() { m.ended <- r.Run(ctx) }()
	return m
}

// found starts n stations s1… as one group.
func (g *group) found(n int) []*member {
	g.t.Helper()
	var servers []Server
	var all []*member
	for i := range n {
		m := g.start(san.StationID(fmt.Sprintf("s%d", i+1)))
		all = append(all, m)
		servers = append(servers, Server{ID: m.id, Addr: m.addr, Voter: true})
	}
	if err := all[0].Bootstrap(servers); err != nil {
		g.t.Fatal(err)
	}
	return all
}

// end stops a station as SIGTERM does.
func (m *member) end(t testing.TB) {
	t.Helper()
	m.stop()
	if m.gone.Swap(true) {
		return
	}
	if err := <-m.ended; err != nil {
		t.Errorf("%s: %v", m.id, err)
	}
}

// crash ends a station without a word to the others: they see its connections break.
func (g *group) crash(m *member) {
	m.failed.set(errors.New("crashed by the test"))
	<-m.ended
	delete(g.members, m.id)
}

func (g *group) endAll() {
	var wg sync.WaitGroup
	for _, m := range g.members {
		wg.Go(func() { m.end(g.t) })
	}
	wg.Wait()
}

// leader waits for a leader that is ready, among the stations that are not excluded.
func (g *group) leader(not ...san.StationID) *member {
	g.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(deadline) {
	next:
		for _, m := range g.members {
			for _, x := range not {
				if m.id == x {
					continue next
				}
			}
			if now, _ := m.tenure.get(); now.readable && m.IsLeader() {
				return m
			}
		}
		<-tick.C
	}
	g.t.Fatal("no leader within 30s")
	return nil
}

// request is a change that leaves request id behind.
func request(id string) fsm.Command {
	return &fsm.AddHost{H: fsm.Header{At: time.Unix(1e9, 0).UTC(), Principal: "test", RequestID: san.RequestID(id), Fingerprint: []byte(id)},
		ID: san.HostID(id), Initiators: []string{"iqn.2026-01.test:" + id}}
}

func has(v fsm.View, id string) bool { return v.Request("test", san.RequestID(id)) != nil }

func (m *member) mustPropose(t testing.TB, id string) fsm.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	res, err := m.Propose(ctx, request(id))
	if err != nil {
		t.Fatalf("%s: propose %s: %v", m.id, id, err)
	}
	return res
}

// commit proposes id to whoever leads until it is in, as a client does: a busy machine may cost a leader its
// lease at any moment.
func (g *group) commit(id string) fsm.Result {
	g.t.Helper()
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		res, err := g.leader().Propose(ctx, request(id))
		cancel()
		if err == nil {
			return res
		}
		if k := san.KindOf(err); k != san.KindUnavailable && k != san.KindUnknown {
			g.t.Fatalf("propose %s: %v", id, err)
		}
	}
	g.t.Fatalf("%s was never committed", id)
	return fsm.Result{}
}

// inBubble runs test with a fake clock and a network in memory; stations must have ended when it returns.
func inBubble(t *testing.T, timing Timing, adjust func(*Config), test func(t *testing.T, g *group)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, newGroup(t, newMemNet(), timing, adjust))
	})
}
