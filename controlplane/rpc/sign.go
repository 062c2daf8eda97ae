package rpc

import (
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// SignMember makes the certificate that an enrolment asks for and tells its serial number.
// A station's gets loopback and the names it listens on, for curl and browsers.
func SignMember(ca *identity.CA, m *pb.EnrolRequest, now time.Time) (certPEM []byte, serial string, err error) {
	certPEM, err = ca.Sign(m.CsrDer, Subject(san.Role(m.Role), m.Id, m.Addresses), now)
	if err != nil {
		return nil, "", err
	}
	block, _ := pem.Decode(certPEM)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, "", err
	}
	peer, err := identity.Parse(cert)
	return certPEM, peer.Serial, err
}

// ParseCSR reads a certificate request and checks that its sender has the key.
func ParseCSR(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "the certificate request can't be read: %w", err)
	}
	return csr, nil
}

// Subject names a member as its certificate shall.
func Subject(role san.Role, id string, addresses []string) identity.Subject {
	sub := identity.Subject{Role: role, ID: id}
	if role != san.RoleStation {
		return sub
	}
	sub.DNSNames = []string{"localhost"}
	sub.IPs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	for _, a := range addresses {
		if ip, err := netip.ParseAddr(a); err == nil {
			sub.IPs = append(sub.IPs, ip)
		} else {
			sub.DNSNames = append(sub.DNSNames, a)
		}
	}
	return sub
}
