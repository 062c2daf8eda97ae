package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

func TestNewCARefusesBadClusterID(t *testing.T) {
	for _, c := range []san.ClusterID{"", "prod", "11111111-2222-4333-8444-55555555555", "AAAAAAAA-BBBB-4CCC-8DDD-EEEEEEEEEEEE", "{11111111-2222-4333-8444-555555555555}"} {
		_, err := NewCA(c, time.Now())
		wantError(t, err, san.KindInvalid, "lower-case UUID")
	}
}

func TestSignAndParse(t *testing.T) {
	now := time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)
	ca, err := NewCA(clusterA, now)
	if err != nil {
		t.Fatal(err)
	}
	subject := Subject{Role: san.RoleStation, ID: "s1.rack-2", DNSNames: []string{"s1.example.org"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fd00::1")}}
	id := issue(t, ca, subject, now)
	leaf := id.current.Load().Leaf
	if got, want := leaf.URIs[0].String(), "sandbar://"+string(clusterA)+"/station/s1.rack-2"; got != want {
		t.Errorf("URI SAN is %s, want %s", got, want)
	}
	want := Peer{Cluster: clusterA, Role: san.RoleStation, ID: "s1.rack-2", Serial: leaf.SerialNumber.Text(16), NotAfter: now.Add(DefaultLifetime)}
	if got := id.Self(); got != want {
		t.Errorf("Self is %+v, want %+v", got, want)
	}
	if !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) || leaf.KeyUsage != x509.KeyUsageDigitalSignature || leaf.IsCA {
		t.Errorf("usages are %v, %v, CA %v", leaf.ExtKeyUsage, leaf.KeyUsage, leaf.IsCA)
	}
	// What curl and browsers check: chain and host name, by the standard rules.
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	for _, name := range []string{"s1.example.org", "127.0.0.1", "fd00::1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now}); err != nil {
			t.Errorf("host name %s: %v", name, err)
		}
	}
}

func TestSignRefusesSubjects(t *testing.T) {
	ca := newTestCA(t, clusterA)
	key, _ := NewKey()
	csr, err := NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr("10.0.0.1")
	for _, c := range []struct {
		name    string
		subject Subject
		says    string
	}{
		{"no role", Subject{ID: "x"}, "role"},
		{"odd role", Subject{Role: "king", ID: "x"}, "king"},
		{"empty id", Subject{Role: san.RoleUnit}, "empty"},
		{"path in id", Subject{Role: san.RoleUnit, ID: "a/b"}, "position 2"},
		{"long id", Subject{Role: san.RoleUnit, ID: strings.Repeat("a", 300)}, "300"},
		{"unit with address", Subject{Role: san.RoleUnit, ID: "u1", IPs: []netip.Addr{ip}}, "only stations"},
		{"host with name", Subject{Role: san.RoleHost, ID: "h1", DNSNames: []string{"s1"}}, "only stations"},
		{"wildcard", Subject{Role: san.RoleStation, ID: "s1", DNSNames: []string{"*.example.org"}}, "wildcard"},
		{"empty name", Subject{Role: san.RoleStation, ID: "s1", DNSNames: []string{""}}, "DNS name"},
		{"zero address", Subject{Role: san.RoleStation, ID: "s1", IPs: []netip.Addr{{}}}, "address"},
		{"any address", Subject{Role: san.RoleStation, ID: "s1", IPs: []netip.Addr{netip.IPv4Unspecified()}}, "address"},
		{"many addresses", Subject{Role: san.RoleStation, ID: "s1", IPs: slices.Repeat([]netip.Addr{ip}, maxAltNames+1)}, "at most 32"},
		{"negative lifetime", Subject{Role: san.RoleStation, ID: "s1", Lifetime: -1}, "negative"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ca.Sign(csr, c.subject, time.Now())
			wantError(t, err, san.KindInvalid, c.says)
		})
	}
}

func TestSignRefusesRequests(t *testing.T) {
	ca := newTestCA(t, clusterA)
	request := func(key any) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := NewKey()
	good, err := NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	for _, c := range []struct {
		name string
		csr  []byte
		says string
	}{
		{"empty", nil, "PKCS #10"},
		{"garbage", []byte("hello"), "PKCS #10"},
		{"a certificate", ca.cert.Raw, "PKCS #10"},
		{"two", append(bytes.Clone(good), good...), "PKCS #10"},
		{"huge", bytes.Repeat([]byte("a"), maxCSRBytes+1), "at most"},
		{"RSA", request(rsaKey), "P-256"},
		{"P-384", request(p384), "P-256"},
		{"forged signature", forged, "signed by the key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ca.Sign(c.csr, Subject{Role: san.RoleUnit, ID: "u1"}, time.Now())
			wantError(t, err, san.KindInvalid, c.says)
		})
	}
	if _, err := ca.Sign(good, Subject{Role: san.RoleUnit, ID: "u1"}, time.Now()); err != nil {
		t.Errorf("the request that the bad ones were made from: %v", err)
	}
}

// A request's own wishes never reach the certificate.
func TestSignIgnoresWishes(t *testing.T) {
	ca := newTestCA(t, clusterA)
	key, _ := NewKey()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root"},
		URIs:     []*url.URL{peerURI(clusterA, san.RoleStation, "s1")},
		DNSNames: []string{"s1"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, err := ca.Sign(der, Subject{Role: san.RoleHost, ID: "h1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := parseCertPEM(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := Parse(cert)
	if err != nil || peer.Role != san.RoleHost || peer.ID != "h1" || len(cert.DNSNames) != 0 || cert.Subject.CommonName != "h1" {
		t.Errorf("got %+v, names %v, %v", peer, cert.DNSNames, err)
	}
}

func TestLifetimeEndsWithCA(t *testing.T) {
	start := time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)
	ca, err := NewCA(clusterA, start)
	if err != nil {
		t.Fatal(err)
	}
	late := start.Add(caLifetime - time.Hour)
	if got := issue(t, ca, Subject{Role: san.RoleUnit, ID: "u1"}, late).Self().NotAfter; !got.Equal(start.Add(caLifetime)) {
		t.Errorf("certificate ends at %v, the CA at %v", got, start.Add(caLifetime))
	}
	key, _ := NewKey()
	csr, _ := NewCSR(key)
	_, err = ca.Sign(csr, Subject{Role: san.RoleUnit, ID: "u1"}, start.Add(caLifetime))
	wantError(t, err, san.KindInternal, "expired", string(clusterA))
}

func TestLoadCA(t *testing.T) {
	ca, other := newTestCA(t, clusterA), newTestCA(t, clusterA)
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadCA(ca.CertPEM(), keyPEM)
	if err != nil || again.Cluster() != clusterA || again.Fingerprint() != ca.Fingerprint() {
		t.Fatalf("loaded CA is of %v, %v", again, err)
	}
	issue(t, again, Subject{Role: san.RoleUnit, ID: "u1"}, time.Now())
	_, err = LoadCA(other.CertPEM(), keyPEM)
	wantError(t, err, san.KindInvalid, "does not belong")
	_, err = LoadCA(ca.CertPEM(), ca.CertPEM())
	wantError(t, err, san.KindInvalid, "CA key")
	leaf := issue(t, ca, Subject{Role: san.RoleUnit, ID: "u1"}, time.Now()).current.Load().Leaf
	_, _, err = ParseCA(encodePEM(pemCertificate, leaf.Raw))
	wantError(t, err, san.KindInvalid, "no cluster CA")
	// A CA below another one is nobody's root.
	template := *ca.cert
	below, err := create(&template, other.cert, &ca.key.PublicKey, other.key)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = ParseCA(encodePEM(pemCertificate, below.Raw))
	wantError(t, err, san.KindInvalid, "no cluster CA")
}

func TestParseRefusesOddNames(t *testing.T) {
	base := "sandbar://" + string(clusterA)
	for _, names := range [][]string{
		{}, {base + "/unit/u1", base + "/unit/u2"},
		{"spiffe://" + string(clusterA) + "/unit/u1"}, {"sandbar://prod/unit/u1"}, {"sandbar:unit/u1"},
		{base}, {base + "/"}, {base + "/unit"}, {base + "/unit/"}, {base + "/king/u1"}, {base + "/unit/u1/x"},
		{base + "/unit/u1?x=1"}, {base + "/unit/u1#x"}, {base + "/unit/%75%31"}, {"sandbar://me@" + string(clusterA) + "/unit/u1"},
		{base + ":1/unit/u1"}, {"sandbar://" + strings.ToUpper(string(clusterB)) + "/unit/u1"}, {base + "/unit/.u1"},
		{base + "/unit/" + strings.Repeat("a", 64)},
	} {
		cert := &x509.Certificate{SerialNumber: big.NewInt(77)}
		for _, n := range names {
			u, err := url.Parse(n)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, u)
		}
		if peer, err := Parse(cert); err == nil {
			t.Errorf("%q parsed as %+v", names, peer)
		} else {
			wantError(t, err, san.KindUnauthenticated, "4d")
		}
	}
	good, _ := url.Parse(base + "/unit/u1")
	if _, err := Parse(&x509.Certificate{SerialNumber: big.NewInt(1), URIs: []*url.URL{good}}); err != nil {
		t.Errorf("the form that the others miss: %v", err)
	}
	_, err := Parse(&x509.Certificate{IsCA: true, SerialNumber: big.NewInt(1), URIs: []*url.URL{good}})
	wantError(t, err, san.KindUnauthenticated, "CA")
}

func TestFingerprintText(t *testing.T) {
	f := newTestCA(t, clusterA).Fingerprint()
	colons := strings.ToUpper(f.String()[:2])
	for i := 2; i < 64; i += 2 {
		colons += ":" + strings.ToUpper(f.String()[i:i+2])
	}
	for _, s := range []string{f.String(), colons} {
		if got, err := ParseFingerprint(s); err != nil || !got.Equal(f) {
			t.Errorf("%s parses as %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "00", f.String() + "00", f.String()[:63] + "g", strings.Repeat(":", 1000)} {
		_, err := ParseFingerprint(s)
		wantError(t, err, san.KindInvalid, "fingerprint")
	}
}

func TestRenewalDue(t *testing.T) {
	now := time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)
	ca, err := NewCA(clusterA, now)
	if err != nil {
		t.Fatal(err)
	}
	id := issue(t, ca, Subject{Role: san.RoleUnit, ID: "u1", Lifetime: 300 * time.Hour}, now)
	for _, c := range []struct {
		at    time.Duration
		renew bool
		valid string
	}{
		{-2 * time.Hour, false, "clock"}, {0, false, ""}, {199 * time.Hour, false, ""}, {201 * time.Hour, true, ""}, {301 * time.Hour, true, "join again"},
	} {
		if got := id.NeedsRenewal(now.Add(c.at)); got != c.renew {
			t.Errorf("at %v: needs renewal %v, want %v", c.at, got, c.renew)
		}
		err := id.CheckValid(now.Add(c.at))
		if c.valid != "" {
			wantError(t, err, san.KindUnauthenticated, "u1", c.valid)
		} else if err != nil {
			t.Errorf("at %v: %v", c.at, err)
		}
	}
}
