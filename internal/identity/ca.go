package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// Lifetimes.
const (
	// DefaultLifetime is how long a part's certificate is valid.
	DefaultLifetime = 365 * 24 * time.Hour
	// caLifetime outlives the hardware that the first station runs on.
	caLifetime = 20 * 365 * 24 * time.Hour
	// backdate is how far the past a new certificate is valid, so that a part whose clock
	// is behind the signer's can use it at once.
	backdate = time.Hour
)

// maxAltNames bounds the DNS names and addresses in one certificate.
const maxAltNames = 32

// CA is the cluster's certificate authority: a certificate and its private key. It
// is safe for concurrent use.
type CA struct {
	cluster san.ClusterID
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// NewCA makes the CA of cluster, an ECDSA P-256 key with a self-signed certificate that
// may sign parts' certificates and no further CAs.
func NewCA(cluster san.ClusterID, now time.Time) (*CA, error) {
	if err := CheckClusterID(cluster); err != nil {
		return nil, err
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Sandbar"}, CommonName: "Sandbar cluster " + string(cluster)},
		URIs:                  []*url.URL{{Scheme: uriScheme, Host: string(cluster)}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := create(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &CA{cluster: cluster, cert: cert, key: key}, nil
}

// LoadCA puts a CA together again from what CertPEM and KeyPEM gave.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	cert, cluster, err := ParseCA(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, san.Wrap("CA key", err)
	}
	if !matches(cert, key) {
		return nil, san.Errorf(san.KindInvalid, "CA key does not belong to the CA certificate of cluster %s", cluster)
	}
	return &CA{cluster: cluster, cert: cert, key: key}, nil
}

// Cluster returns the id of the CA's cluster.
func (c *CA) Cluster() san.ClusterID { return c.cluster }

// CertPEM returns the CA's certificate, which is public.
func (c *CA) CertPEM() []byte { return encodePEM(pemCertificate, c.cert.Raw) }

// KeyPEM returns the CA's private key (PKCS #8). It must leave memory only in an
// envelope of a Sealer.
func (c *CA) KeyPEM() ([]byte, error) { return encodeKey(c.key) }

// Fingerprint returns the SHA-256 of the CA's certificate.
func (c *CA) Fingerprint() Fingerprint { return FingerprintOf(c.cert) }

// Subject says for whom a certificate is signed.
type Subject struct {
	Role san.Role
	// ID is the station's, unit's or host's name (san.CheckName).
	ID string
	// DNSNames and IPs are for clients that know host names only (curl, browsers). Only a
	// station may have them: any such client would take their holder for a station.
	DNSNames []string
	IPs      []netip.Addr
	// Lifetime is DefaultLifetime if zero; the CA's own end cuts it short.
	Lifetime time.Duration
}

func (s Subject) check() error {
	if !s.Role.Valid() {
		return san.Errorf(san.KindInvalid, "role %q is unknown; certificates are for a station, unit or host", s.Role)
	}
	if err := san.CheckName(string(s.Role), s.ID); err != nil {
		return err
	}
	n := len(s.DNSNames) + len(s.IPs)
	switch {
	case n > 0 && s.Role != san.RoleStation:
		return san.Errorf(san.KindInvalid, "%s %s asks for DNS names or addresses in its certificate; only stations have them", s.Role, s.ID)
	case n > maxAltNames:
		return san.Errorf(san.KindInvalid, "%s %s asks for %d DNS names and addresses in its certificate; at most %d are allowed", s.Role, s.ID, n, maxAltNames)
	case s.Lifetime < 0:
		return san.Errorf(san.KindInvalid, "certificate lifetime %v is negative", s.Lifetime)
	}
	for _, name := range s.DNSNames {
		if err := checkDNSName(name); err != nil {
			return err
		}
	}
	for _, ip := range s.IPs {
		if !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() {
			return san.Errorf(san.KindInvalid, "address %v cannot be in a certificate; give one that clients dial", ip)
		}
	}
	return nil
}

// Sign makes a certificate for the key in csrDER, valid from now on for both ends of a
// TLS link. Nothing else of the request is used. It returns the certificate as PEM.
func (c *CA) Sign(csrDER []byte, subject Subject, now time.Time) ([]byte, error) {
	if err := subject.check(); err != nil {
		return nil, err
	}
	pub, err := parseCSR(csrDER)
	if err != nil {
		return nil, err
	}
	if !now.Before(c.cert.NotAfter) {
		return nil, san.Errorf(san.KindInternal, "the CA of cluster %s expired at %s; check this station's clock", c.cluster, c.cert.NotAfter.Format(time.RFC3339))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	lifetime := subject.Lifetime
	if lifetime == 0 {
		lifetime = DefaultLifetime
	}
	notAfter := now.Add(lifetime)
	if notAfter.After(c.cert.NotAfter) {
		notAfter = c.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Sandbar"}, OrganizationalUnit: []string{string(subject.Role)}, CommonName: subject.ID},
		URIs:                  []*url.URL{peerURI(c.cluster, subject.Role, subject.ID)},
		DNSNames:              subject.DNSNames,
		NotBefore:             now.Add(-backdate),
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, ip := range subject.IPs {
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	cert, err := create(template, c.cert, pub, c.key)
	if err != nil {
		return nil, err
	}
	return encodePEM(pemCertificate, cert.Raw), nil
}

// Issue makes a key and signs a certificate for it, for a part that lives in this very
// process and keeps no folder (simulated agents). All others ask with a request of their own, so
// that their key never leaves them.
func (c *CA) Issue(subject Subject, now time.Time) (*Identity, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := NewCSR(key)
	if err != nil {
		return nil, err
	}
	certPEM, err := c.Sign(csr, subject, now)
	if err != nil {
		return nil, err
	}
	return newIdentity(certPEM, key, c.CertPEM())
}

func create(template, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, san.Errorf(san.KindInternal, "sign certificate of %s: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, san.Errorf(san.KindInternal, "read back certificate of %s: %w", template.Subject.CommonName, err)
	}
	return cert, nil
}

// newSerial returns a random serial number of 127 bits, positive and within the 20
// octets of RFC 5280 §4.1.2.2.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, san.Errorf(san.KindInternal, "make certificate serial: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// checkDNSName accepts host names as clients dial them (RFC 1123 §2.1); no wildcards.
func checkDNSName(name string) error {
	bad := name == "" || len(name) > 253
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			bad = true
			break
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				bad = true
			}
		}
	}
	if bad {
		return san.Errorf(san.KindInvalid, "%.300q is no DNS name that a certificate can have; give a host name without wildcard", name)
	}
	return nil
}
