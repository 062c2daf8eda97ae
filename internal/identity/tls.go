package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// Protocols that a TLS link can be for (ALPN, RFC 7301).
const (
	// ALPNHTTP2 is what every client of the API speaks.
	ALPNHTTP2 = "h2"
	// ALPNHTTP1 is offered by servers beside it, for scripts whose HTTP library knows no h2.
	ALPNHTTP1 = "http/1.1"
)

// Allow judges a peer whose certificate is valid and of this cluster. An error refuses the
// connection and says why. It runs once per handshake, possibly at the same time for several.
type Allow func(Peer) error

// Member is an Allow that admits every part of the cluster.
func Member(Peer) error { return nil }

// Roles returns an Allow that admits parts of the given roles.
func Roles(roles ...san.Role) Allow {
	roles = slices.Clone(roles)
	return func(p Peer) error {
		if slices.Contains(roles, p.Role) {
			return nil
		}
		names := make([]string, len(roles))
		for i, r := range roles {
			names[i] = string(r)
		}
		return san.Errorf(san.KindDenied, "peer is %s %s where a %s is expected; check the address", p.Role, p.ID, strings.Join(names, " or "))
	}
}

// Exactly returns an Allow that admits one part only.
func Exactly(role san.Role, id string) Allow {
	return func(p Peer) error {
		if p.Role == role && p.ID == id {
			return nil
		}
		return san.Errorf(san.KindDenied, "peer is %s %s where %s %s is expected; check the address", p.Role, p.ID, role, id)
	}
}

// ClientAuth says whether a server's clients need a certificate.
type ClientAuth uint8

const (
	// ClientCertRequired refuses clients without a certificate. It is the zero value.
	ClientCertRequired ClientAuth = iota
	// ClientCertOptional lets clients in that show none (operators with tokens, browsers,
	// parts that join); one that is shown must be valid and allowed.
	ClientCertOptional
)

// ServerTLS returns the configuration of a server that is id and admits peers that
// allow admits; a nil allow admits none. TLS 1.3 only. NextProtos is h2 and http/1.1;
// the caller of a link that is no HTTP (raft, mirrors) sets its own name on both ends,
// so that no link can be mistaken for another. In TLS 1.3 a client's handshake ends
// before the server judges it: a refused client learns it at its first read.
func ServerTLS(id *Identity, clientAuth ClientAuth, allow Allow) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(id.ca.cert)
	ask := tls.RequireAnyClientCert
	if clientAuth == ClientCertOptional {
		ask = tls.RequestClientCert
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{ALPNHTTP2, ALPNHTTP1},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return id.current.Load(), nil
		},
		// The chain is verified by VerifyConnection, whose errors tell operators more than
		// the standard ones. ClientCAs is the hint that keeps browsers from asking their
		// users for a certificate that they don't have.
		ClientAuth: ask,
		ClientCAs:  pool,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 && clientAuth == ClientCertOptional {
				return nil
			}
			return verify(cs, id.ca, x509.ExtKeyUsageClientAuth, allow)
		},
		// Every handshake is a full one: a peer is judged by what the tables say now.
		SessionTicketsDisabled: true,
	}
}

// ClientTLS returns the configuration of a client that is id and talks only to servers
// of its cluster that expect admits (Roles, Exactly); a nil expect admits none.
func ClientTLS(id *Identity, expect Allow) *tls.Config {
	cfg := clientConfig(id.ca, expect)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return id.current.Load(), nil
	}
	return cfg
}

// CATLS returns the configuration of a client without a certificate (the CLI, a program
// with a token) that talks only to stations of the cluster whose CA certificate is caPEM.
func CATLS(caPEM []byte) (*tls.Config, error) {
	ca, err := parseAuthority(caPEM)
	if err != nil {
		return nil, err
	}
	return clientConfig(ca, Roles(san.RoleStation)), nil
}

func clientConfig(ca authority, expect Allow) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{ALPNHTTP2},
		// Off is only the check of host names against the certificate; VerifyConnection
		// holds the chain to the one CA and the peer to its role.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verify(cs, ca, x509.ExtKeyUsageServerAuth, expect)
		},
	}
}

// PinnedClientTLS returns the configuration of a client that joins a cluster of which it
// knows only the CA's fingerprint, from its join token. It talks only to a station whose
// certificate was signed by the CA with that fingerprint, which the station must send.
func PinnedClientTLS(pin Fingerprint) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{ALPNHTTP2},
		// There is no root to verify against before the pinned CA was found in the chain.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			cert, err := PinnedCA(cs, pin)
			if err != nil {
				return err
			}
			ca, err := newAuthority(cert)
			if err != nil {
				return err
			}
			return verify(cs, ca, x509.ExtKeyUsageServerAuth, Roles(san.RoleStation))
		},
	}
}

// PinnedCA returns the CA certificate with fingerprint pin among those that the peer sent.
func PinnedCA(cs tls.ConnectionState, pin Fingerprint) (*x509.Certificate, error) {
	for _, cert := range cs.PeerCertificates {
		if FingerprintOf(cert).Equal(pin) {
			return cert, nil
		}
	}
	return nil, san.Errorf(san.KindUnauthenticated, "the server has no certificate of the cluster that the join token is for (CA fingerprint %s); check the endpoint, or make a join token in that cluster", pin)
}

// PeerOf returns the peer at the other end of a connection that one of this package's
// configurations let in, and false if it showed no certificate.
func PeerOf(cs *tls.ConnectionState) (Peer, bool, error) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return Peer{}, false, nil
	}
	peer, err := Parse(cs.PeerCertificates[0])
	if err != nil {
		return Peer{}, false, err
	}
	return peer, true, nil
}

// verify holds the peer of cs to ca, to ca's cluster, to its dates and to allow.
func verify(cs tls.ConnectionState, ca authority, usage x509.ExtKeyUsage, allow Allow) error {
	if len(cs.PeerCertificates) == 0 {
		return san.Errorf(san.KindUnauthenticated, "peer shows no certificate")
	}
	leaf := cs.PeerCertificates[0]
	peer, err := Parse(leaf)
	if err != nil {
		return err
	}
	// Judged before the chain only because it makes the better message.
	if peer.Cluster != ca.cluster {
		return foreign(peer, ca.cluster)
	}
	if err := verifyChain(leaf, ca.cert, usage, time.Now()); err != nil {
		return san.Errorf(san.KindUnauthenticated, "certificate of %s %s: %w", peer.Role, peer.ID, err)
	}
	if allow == nil {
		return san.Errorf(san.KindDenied, "%s %s: this link admits nobody", peer.Role, peer.ID)
	}
	return allow(peer)
}

// verifyChain checks leaf's signature by ca, its dates and its usage.
func verifyChain(leaf, ca *x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("it expired at %s (it is %s here); let it be renewed, or set the clocks", leaf.NotAfter.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	if now.Before(leaf.NotBefore) {
		return fmt.Errorf("it is valid from %s on (it is %s here); set the clocks", leaf.NotBefore.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}
