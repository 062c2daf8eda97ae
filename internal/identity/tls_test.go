package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

const handshakeTimeout = 5 * time.Second

// link is what each end made of one connection.
type link struct {
	client, server error
	// state is the server's view.
	state tls.ConnectionState
}

// connect makes a real connection over loopback and has one byte go each way, without
// which a TLS 1.3 client does not learn that it was refused.
func connect(t *testing.T, server, client *tls.Config) link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var out link
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			out.server = err
			return
		}
		conn := tls.Server(raw, server)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(handshakeTimeout))
		if out.server = conn.Handshake(); out.server != nil {
			return
		}
		out.state = conn.ConnectionState()
		buf := make([]byte, 1)
		if _, out.server = io.ReadFull(conn, buf); out.server == nil {
			_, out.server = conn.Write(buf)
		}
	}()
	out.client = talk(l.Addr().String(), client)
	<-done
	return out
}

func talk(addr string, cfg *tls.Config) error {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: handshakeTimeout}, Config: cfg}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(handshakeTimeout))
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

func station(t *testing.T, ca *CA) *Identity {
	return issue(t, ca, Subject{Role: san.RoleStation, ID: "s1"}, time.Now())
}

func unit(t *testing.T, ca *CA) *Identity {
	return issue(t, ca, Subject{Role: san.RoleUnit, ID: "u1"}, time.Now())
}

func TestLinksThatWork(t *testing.T) {
	ca := newTestCA(t, clusterA)
	s, u := station(t, ca), unit(t, ca)
	caTLS, err := CATLS(ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		peer           string // what the server knows of the client
	}{
		{"unit to station", ServerTLS(s, ClientCertRequired, Roles(san.RoleUnit, san.RoleHost)), ClientTLS(u, Roles(san.RoleStation)), "u1"},
		{"unit to unit", ServerTLS(u, ClientCertRequired, Exactly(san.RoleUnit, "u1")), ClientTLS(u, Exactly(san.RoleUnit, "u1")), "u1"},
		{"certificate shown where optional", ServerTLS(s, ClientCertOptional, Member), ClientTLS(u, Member), "u1"},
		{"CLI", ServerTLS(s, ClientCertOptional, Member), caTLS, ""},
		{"enrolment", ServerTLS(s, ClientCertOptional, Member), PinnedClientTLS(ca.Fingerprint()), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := connect(t, c.server, c.client)
			if got.client != nil || got.server != nil {
				t.Fatalf("client: %v; server: %v", got.client, got.server)
			}
			if got.state.Version != tls.VersionTLS13 || got.state.NegotiatedProtocol != ALPNHTTP2 {
				t.Errorf("version %x, protocol %q", got.state.Version, got.state.NegotiatedProtocol)
			}
			peer, shown, err := PeerOf(&got.state)
			if err != nil || shown != (c.peer != "") || peer.ID != c.peer {
				t.Errorf("server takes the client for %+v, %v, %v", peer, shown, err)
			}
		})
	}
}

func TestLinksThatAreRefused(t *testing.T) {
	now := time.Now()
	ca, foreignCA, twinCA := newTestCA(t, clusterA), newTestCA(t, clusterB), newTestCA(t, clusterA)
	s, u := station(t, ca), unit(t, ca)
	expiredUnit := issue(t, ca, Subject{Role: san.RoleUnit, ID: "u1", Lifetime: time.Hour}, now.Add(-2*time.Hour))
	expiredStation := issue(t, ca, Subject{Role: san.RoleStation, ID: "s1", Lifetime: time.Hour}, now.Add(-2*time.Hour))
	future := issue(t, ca, Subject{Role: san.RoleUnit, ID: "u1"}, now.Add(2*backdate))
	server := func(id *Identity) *tls.Config { return ServerTLS(id, ClientCertRequired, Member) }
	open := func(id *Identity) *tls.Config { return ServerTLS(id, ClientCertOptional, Member) }
	caTLS, err := CATLS(ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	stations := Roles(san.RoleStation)
	tls12 := ClientTLS(u, stations)
	tls12.MinVersion, tls12.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	leafOnly := withChain(open(s), s, nil)
	// A station of another cluster that hangs the true CA, which is public, behind its own leaf.
	borrowed := withChain(open(s), station(t, twinCA), ca)
	const atClient, atServer = "client", "server"
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		end            string // who refuses
		says           []string
	}{
		{"client of a foreign cluster", server(s), ClientTLS(unit(t, foreignCA), Member), atClient, []string{string(clusterA), string(clusterB)}},
		{"foreign client that trusts anything", server(s), trusting(ClientTLS(unit(t, foreignCA), Member)), atServer, []string{string(clusterA), string(clusterB), "unit u1"}},
		{"same cluster id, other CA", server(s), trusting(ClientTLS(unit(t, twinCA), Member)), atServer, []string{"unit u1", "unknown authority"}},
		{"server of a foreign cluster", server(station(t, foreignCA)), ClientTLS(u, stations), atClient, []string{string(clusterA), string(clusterB), "station s1"}},
		{"CLI to a foreign cluster", open(station(t, foreignCA)), caTLS, atClient, []string{string(clusterB)}},
		{"unit poses as a station", server(u), ClientTLS(u, stations), atClient, []string{"peer is unit u1 where a station"}},
		{"unit poses as a station to the CLI", open(u), caTLS, atClient, []string{"peer is unit u1 where a station"}},
		{"unit poses as a station to one that joins", open(u), PinnedClientTLS(ca.Fingerprint()), atClient, []string{"peer is unit u1 where a station"}},
		{"unit dials a link between stations", ServerTLS(s, ClientCertRequired, stations), ClientTLS(u, stations), atServer, []string{"peer is unit u1 where a station"}},
		{"another unit than meant", server(u), ClientTLS(s, Exactly(san.RoleUnit, "u2")), atClient, []string{"unit u1 where unit u2"}},
		{"no client certificate", server(s), caTLS, atServer, []string{"didn't provide a certificate"}},
		{"expired client", server(s), ClientTLS(expiredUnit, stations), atServer, []string{"unit u1", "expired at"}},
		{"expired client where optional", open(s), ClientTLS(expiredUnit, stations), atServer, []string{"expired at"}},
		{"expired server", server(expiredStation), ClientTLS(u, stations), atClient, []string{"station s1", "expired at"}},
		{"not yet valid client", server(s), ClientTLS(future, stations), atServer, []string{"valid from", "clocks"}},
		{"removed from the tables", ServerTLS(s, ClientCertRequired, func(p Peer) error {
			return san.Errorf(san.KindDenied, "%s was removed", p.ID)
		}), ClientTLS(u, stations), atServer, []string{"u1 was removed"}},
		{"nobody is allowed", ServerTLS(s, ClientCertRequired, nil), ClientTLS(u, stations), atServer, []string{"admits nobody"}},
		{"nobody is expected", server(s), ClientTLS(u, nil), atClient, []string{"admits nobody"}},
		{"TLS 1.2", server(s), tls12, atServer, []string{"version"}},
		{"fingerprint of another CA", open(s), PinnedClientTLS(twinCA.Fingerprint()), atClient, []string{"join token", twinCA.Fingerprint().String()}},
		{"CA left out of the chain", leafOnly, PinnedClientTLS(ca.Fingerprint()), atClient, []string{"join token"}},
		{"pinned CA did not sign the leaf", borrowed, PinnedClientTLS(ca.Fingerprint()), atClient, []string{"unknown authority"}},
		{"pin is the leaf's own", open(s), PinnedClientTLS(FingerprintOf(s.current.Load().Leaf)), atClient, []string{"no cluster CA"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := connect(t, c.server, c.client)
			if got.client == nil {
				t.Fatal("the client was let in")
			}
			err := got.client
			if c.end == atServer {
				err = got.server
			}
			kind := san.KindOf(err)
			if c.end == atClient && kind == san.KindInternal {
				t.Errorf("error has no kind: %v", err)
			}
			wantError(t, err, kind, c.says...)
		})
	}
}

// withChain makes a server show id's leaf with ca behind it, or with nothing.
func withChain(cfg *tls.Config, id *Identity, ca *CA) *tls.Config {
	own := id.current.Load()
	chain := own.Certificate[:1:1]
	if ca != nil {
		chain = append(chain, ca.cert.Raw)
	}
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: chain, PrivateKey: own.PrivateKey}, nil
	}
	return cfg
}

// trusting makes a client that takes any server, to see that the server refuses it.
func trusting(cfg *tls.Config) *tls.Config {
	cfg.VerifyConnection = nil
	return cfg
}

// A certificate for one end of a link is none for the other: a CA that signs
// server-only certificates gives no clients.
func TestUsageIsChecked(t *testing.T) {
	ca := newTestCA(t, clusterA)
	s := station(t, ca)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	template := *unit(t, ca).current.Load().Leaf
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.PublicKey = nil
	leaf, err := create(&template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	serverOnly := &Identity{ca: authority{cert: ca.cert, cluster: clusterA}}
	serverOnly.adopt(leaf, key)
	got := connect(t, ServerTLS(s, ClientCertRequired, Member), ClientTLS(serverOnly, Member))
	if got.client == nil {
		t.Fatal("a server-only certificate was taken from a client")
	}
	wantError(t, got.server, san.KindUnauthenticated, "key usage")
	if got := connect(t, ServerTLS(serverOnly, ClientCertRequired, Member), ClientTLS(s, Member)); got.client != nil || got.server != nil {
		t.Errorf("the same certificate as a server's: %v, %v", got.client, got.server)
	}
}

// Errors of a refused handshake keep their kind, so that a client can tell "join again"
// from "try later".
func TestRefusalKeepsItsKind(t *testing.T) {
	ca := newTestCA(t, clusterA)
	got := connect(t, ServerTLS(station(t, newTestCA(t, clusterB)), ClientCertRequired, Member), ClientTLS(unit(t, ca), Member))
	wantError(t, got.client, san.KindUnauthenticated, string(clusterB))
	var e *san.Error
	if !errors.As(got.client, &e) {
		t.Errorf("%v hides its cause", got.client)
	}
}

// The standard HTTP client and server work with the configurations, by h2 and, for
// clients that know no h2, by HTTP/1.1 with an ordinary check of the host name.
func TestHTTP(t *testing.T) {
	ca := newTestCA(t, clusterA)
	s := issue(t, ca, Subject{Role: san.RoleStation, ID: "s1", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, time.Now())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{TLSConfig: ServerTLS(s, ClientCertOptional, Member), Handler: WithConnection(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, shown, err := PeerFrom(r.Context())
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
		if shown {
			io.WriteString(w, r.Proto+" "+peer.ID)
			return
		}
		io.WriteString(w, r.Proto+" nobody")
	}))}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(l, "", "") }()
	defer func() {
		srv.Close()
		<-served
	}()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	for _, c := range []struct {
		name string
		cfg  *tls.Config
		h2   bool
		want string
	}{
		{"unit", ClientTLS(unit(t, ca), Roles(san.RoleStation)), true, "HTTP/2.0 u1"},
		{"like curl", &tls.Config{RootCAs: roots}, false, "HTTP/1.1 nobody"},
	} {
		tr := &http.Transport{TLSClientConfig: c.cfg, ForceAttemptHTTP2: c.h2}
		resp, err := (&http.Client{Transport: tr, Timeout: handshakeTimeout}).Get("https://" + l.Addr().String())
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		tr.CloseIdleConnections()
		if err != nil || string(body) != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.name, body, err, c.want)
		}
	}
}

// Configurations show a renewed certificate from the next handshake on.
func TestConfigFollowsRenewal(t *testing.T) {
	ca := newTestCA(t, clusterA)
	s, u := station(t, ca), unit(t, ca)
	server, client := ServerTLS(s, ClientCertRequired, Member), ClientTLS(u, Member)
	before := connect(t, server, client)
	renewed := unit(t, ca)
	u.current.Store(renewed.current.Load())
	after := connect(t, server, client)
	if before.client != nil || after.client != nil {
		t.Fatal(before.client, after.client)
	}
	got, _, err := PeerOf(&after.state)
	if old, _, _ := PeerOf(&before.state); err != nil || got.Serial != renewed.Self().Serial || old.Serial == got.Serial {
		t.Errorf("after renewal the client shows %s, its certificate is %s", got.Serial, renewed.Self().Serial)
	}
}

func TestPeerOfNothing(t *testing.T) {
	if _, shown, err := PeerFrom(t.Context()); shown || err != nil {
		t.Errorf("no request: %v, %v", shown, err)
	}
	if _, shown, err := PeerOf(nil); shown || err != nil {
		t.Errorf("no connection: %v, %v", shown, err)
	}
	cert := &x509.Certificate{PublicKey: &ecdsa.PublicKey{}}
	_, _, err := PeerOf(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}})
	wantError(t, err, san.KindUnauthenticated, "not signed by a Sandbar cluster")
}

func TestRolesCopiesItsList(t *testing.T) {
	list := []san.Role{san.RoleStation}
	allow := Roles(slices.Clone(list)...)
	shared := Roles(list...)
	list[0] = san.RoleUnit
	for _, a := range []Allow{allow, shared} {
		if a(Peer{Role: san.RoleStation}) != nil || a(Peer{Role: san.RoleUnit}) == nil {
			t.Error("the caller's list changed what is allowed")
		}
	}
}
