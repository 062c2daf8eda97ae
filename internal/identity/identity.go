package identity

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// Identity is a part's own certificate, key and CA in memory. The TLS configurations
// made from it always show its newest certificate, so that a renewal needs no restart. It
// is safe for concurrent use.
type Identity struct {
	ca      authority
	current atomic.Pointer[tls.Certificate]
}

// newIdentity joins certificate, key and CA, after checking that they belong together. Dates
// are not checked: a part must be able to load an expired certificate to say so.
func newIdentity(certPEM []byte, key *ecdsa.PrivateKey, caPEM []byte) (*Identity, error) {
	ca, err := parseAuthority(caPEM)
	if err != nil {
		return nil, err
	}
	id := &Identity{ca: ca}
	cert, err := parseCertPEM(certPEM)
	if err != nil {
		return nil, err
	}
	if err := checkIssued(cert, ca); err != nil {
		return nil, err
	}
	if !matches(cert, key) {
		return nil, san.Errorf(san.KindInvalid, "private key does not belong to certificate %s", serialText(cert.SerialNumber))
	}
	id.adopt(cert, key)
	return id, nil
}

// checkIssued reports whether ca signed cert, for a part of ca's cluster.
func checkIssued(cert *x509.Certificate, ca authority) error {
	peer, err := Parse(cert)
	if err != nil {
		return err
	}
	if peer.Cluster != ca.cluster {
		return foreign(peer, ca.cluster)
	}
	if err := cert.CheckSignatureFrom(ca.cert); err != nil {
		return san.Errorf(san.KindUnauthenticated, "certificate %s of %s was not signed by the CA of cluster %s: %w", peer.Serial, peer, ca.cluster, err)
	}
	return nil
}

func foreign(peer Peer, ours san.ClusterID) error {
	return san.Errorf(san.KindUnauthenticated, "%s %s is of cluster %s, but this is cluster %s; parts of different clusters never talk", peer.Role, peer.ID, peer.Cluster, ours)
}

// adopt makes cert the one that new handshakes show. The CA goes behind it: see the
// package's doc on names.
func (id *Identity) adopt(cert *x509.Certificate, key *ecdsa.PrivateKey) {
	id.current.Store(&tls.Certificate{Certificate: [][]byte{cert.Raw, id.ca.cert.Raw}, PrivateKey: key, Leaf: cert})
}

// Self returns what the newest certificate says of its holder.
func (id *Identity) Self() Peer {
	// newIdentity and Store.Renew let only certificates in that Parse accepts.
	peer, _ := Parse(id.current.Load().Leaf)
	return peer
}

// CAPEM returns the cluster CA's certificate.
func (id *Identity) CAPEM() []byte { return encodePEM(pemCertificate, id.ca.cert.Raw) }

// CAFingerprint returns the SHA-256 of the cluster CA's certificate.
func (id *Identity) CAFingerprint() Fingerprint { return FingerprintOf(id.ca.cert) }

// CheckValid reports whether the newest certificate is valid at now.
func (id *Identity) CheckValid(now time.Time) error {
	leaf, self := id.current.Load().Leaf, id.Self()
	switch {
	case now.After(leaf.NotAfter):
		return san.Errorf(san.KindUnauthenticated, "certificate %s of %s %s expired at %s; remove its identity folder and join again with a new join token", self.Serial, self.Role, self.ID, leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return san.Errorf(san.KindUnauthenticated, "certificate %s of %s %s is valid from %s on, but it is %s here; set this machine's clock", self.Serial, self.Role, self.ID, leaf.NotBefore.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	return nil
}

// RenewAt returns when the newest certificate should be renewed: when a third of its life is
// left, which gives months of failed attempts before anything stops.
func (id *Identity) RenewAt() time.Time {
	leaf := id.current.Load().Leaf
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// NeedsRenewal reports whether less than a third of the certificate's life is left at now.
func (id *Identity) NeedsRenewal(now time.Time) bool { return now.After(id.RenewAt()) }
