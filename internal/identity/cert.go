package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/san"
)

// uriScheme is the scheme of the URI SAN that names a part.
const uriScheme = "sandbar"

// maxPEMBytes bounds every PEM text that is parsed; ours have about 1 KiB.
const maxPEMBytes = 64 << 10

// PEM block types (RFC 7468).
const (
	pemCertificate = "CERTIFICATE"
	pemPrivateKey  = "PRIVATE KEY"
)

// Peer is what a part's certificate says of its holder.
type Peer struct {
	Cluster san.ClusterID
	Role    san.Role
	// ID is the station's, unit's or host's name.
	ID string
	// Serial is the certificate's serial number in lower-case hex: the certificate's id
	// in reports and in the audit.
	Serial string
	// NotAfter is when the certificate expires. A connection outlives it unless its
	// owner ends it.
	NotAfter time.Time
}

// String renders the peer as its URI.
func (p Peer) String() string { return peerURI(p.Cluster, p.Role, p.ID).String() }

// Fingerprint is the SHA-256 of a CA certificate's DER bytes.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of cert.
func FingerprintOf(cert *x509.Certificate) Fingerprint { return sha256.Sum256(cert.Raw) }

// ParseFingerprint reads 64 hex digits; colons between them are allowed, because that
// is how openssl prints them.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	if len(s) > 3*len(f) {
		return f, san.Errorf(san.KindInvalid, "CA fingerprint has %d characters; give the %d hex digits of a SHA-256", len(s), 2*len(f))
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(raw) != len(f) {
		return f, san.Errorf(san.KindInvalid, "CA fingerprint %q is not the %d hex digits of a SHA-256", s, 2*len(f))
	}
	copy(f[:], raw)
	return f, nil
}

// String renders the fingerprint as 64 lower-case hex digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Equal compares in constant time.
func (f Fingerprint) Equal(o Fingerprint) bool { return subtle.ConstantTimeCompare(f[:], o[:]) == 1 }

// Parse returns what cert's URI SAN says of its holder. It verifies no signature and
// no date: use it on a certificate that one of this package's TLS configurations let in.
func Parse(cert *x509.Certificate) (Peer, error) {
	if cert.IsCA {
		return Peer{}, san.Errorf(san.KindUnauthenticated, "certificate %s is a CA's, not a part's", serialText(cert.SerialNumber))
	}
	cluster, path, err := parseURISAN(cert)
	if err != nil {
		return Peer{}, err
	}
	role, id, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok || !san.Role(role).Valid() {
		return Peer{}, san.Errorf(san.KindUnauthenticated, "certificate %s names %q, not a station, unit or host", serialText(cert.SerialNumber), path)
	}
	if err := san.CheckName(role, id); err != nil {
		return Peer{}, san.Errorf(san.KindUnauthenticated, "certificate %s: %w", serialText(cert.SerialNumber), err)
	}
	return Peer{Cluster: cluster, Role: san.Role(role), ID: id, Serial: serialText(cert.SerialNumber), NotAfter: cert.NotAfter}, nil
}

// authority is a cluster CA's certificate that was found well-formed, with its cluster.
type authority struct {
	cert    *x509.Certificate
	cluster san.ClusterID
}

// ParseCA reads a cluster CA's certificate and the id of its cluster.
func ParseCA(caPEM []byte) (*x509.Certificate, san.ClusterID, error) {
	ca, err := parseAuthority(caPEM)
	return ca.cert, ca.cluster, err
}

func parseAuthority(caPEM []byte) (authority, error) {
	cert, err := parseCertPEM(caPEM)
	if err != nil {
		return authority{}, san.Wrap("CA certificate", err)
	}
	return newAuthority(cert)
}

func newAuthority(cert *x509.Certificate) (authority, error) {
	if !cert.IsCA || cert.CheckSignatureFrom(cert) != nil {
		return authority{}, san.Errorf(san.KindInvalid, "certificate of %q is no cluster CA; give the file ca.pem that a station holds", cert.Subject.CommonName)
	}
	cluster, path, err := parseURISAN(cert)
	if err != nil {
		return authority{}, err
	}
	if path != "" {
		return authority{}, san.Errorf(san.KindInvalid, "CA certificate names %q beside its cluster; this is no Sandbar CA", path)
	}
	return authority{cert: cert, cluster: cluster}, nil
}

// parseURISAN takes the one URI SAN of ours apart. Anything that the form does not
// have (user, port, query, escapes) is refused, so that one holder has one spelling.
func parseURISAN(cert *x509.Certificate) (san.ClusterID, string, error) {
	if len(cert.URIs) != 1 {
		return "", "", san.Errorf(san.KindUnauthenticated, "certificate %s has %d URI names where Sandbar's have one; it was not signed by a Sandbar cluster", serialText(cert.SerialNumber), len(cert.URIs))
	}
	u := cert.URIs[0]
	plain := (&url.URL{Scheme: uriScheme, Host: u.Host, Path: u.Path}).String()
	cluster := san.ClusterID(u.Host)
	if u.Scheme != uriScheme || u.String() != plain || CheckClusterID(cluster) != nil {
		return "", "", san.Errorf(san.KindUnauthenticated, "certificate %s names %q, which is not sandbar://CLUSTER/ROLE/ID; it was not signed by a Sandbar cluster", serialText(cert.SerialNumber), u.String())
	}
	return cluster, u.Path, nil
}

// CheckClusterID reports whether c is a UUID in its usual lower-case form.
func CheckClusterID(c san.ClusterID) error {
	if id, err := uuid.Parse(string(c)); err != nil || id.String() != string(c) {
		return san.Errorf(san.KindInvalid, "cluster id %q is not a lower-case UUID", c)
	}
	return nil
}

func peerURI(c san.ClusterID, r san.Role, id string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: string(c), Path: "/" + string(r) + "/" + id}
}

func serialText(n *big.Int) string {
	if n == nil {
		return "without serial"
	}
	return n.Text(16)
}

// parseCertPEM reads exactly one certificate.
func parseCertPEM(text []byte) (*x509.Certificate, error) {
	der, err := decodePEM(text, pemCertificate)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "not a readable X.509 certificate: %w", err)
	}
	return cert, nil
}

func decodePEM(text []byte, want string) ([]byte, error) {
	if len(text) > maxPEMBytes {
		return nil, san.Errorf(san.KindInvalid, "PEM text has %d bytes; at most %d are read", len(text), maxPEMBytes)
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, san.Errorf(san.KindInvalid, "no PEM block of type %s in it", want)
	case block.Type != want:
		return nil, san.Errorf(san.KindInvalid, "PEM block is of type %q where %q is wanted", block.Type, want)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, san.Errorf(san.KindInvalid, "there is more than one PEM block of type %s", want)
	}
	return block.Bytes, nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
