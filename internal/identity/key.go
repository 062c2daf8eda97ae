package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"

	"github.com/sandbar-san/sandbar/san"
)

// maxCSRBytes bounds a signing request from the network; ours have about 200 bytes.
const maxCSRBytes = 16 << 10

// NewKey makes a part's private key, ECDSA on P-256.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, san.Errorf(san.KindInternal, "make private key: %w", err)
	}
	return key, nil
}

// NewCSR makes a signing request (PKCS #10, DER) for key. It proves possession of the
// key and asks for nothing: who its holder is to be, the signer decides.
func NewCSR(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, san.Errorf(san.KindInternal, "make signing request: %w", err)
	}
	return der, nil
}

// parseCSR returns the public key that csrDER asks to have signed, after checking that
// its sender has the private one.
func parseCSR(csrDER []byte) (*ecdsa.PublicKey, error) {
	if len(csrDER) > maxCSRBytes {
		return nil, san.Errorf(san.KindInvalid, "signing request has %d bytes; at most %d are accepted", len(csrDER), maxCSRBytes)
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "signing request is not readable PKCS #10: %w", err)
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, san.Errorf(san.KindInvalid, "signing request has a key of type %v; use ECDSA on P-256", csr.PublicKeyAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, san.Errorf(san.KindInvalid, "signing request is not signed by the key in it: %w", err)
	}
	return pub, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, san.Errorf(san.KindInternal, "encode private key: %w", err)
	}
	return encodePEM(pemPrivateKey, der), nil
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	der, err := decodePEM(text, pemPrivateKey)
	if err != nil {
		return nil, err
	}
	any, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "not a readable PKCS #8 private key: %w", err)
	}
	key, ok := any.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, san.Errorf(san.KindInvalid, "private key is of type %T; Sandbar's are ECDSA on P-256", any)
	}
	return key, nil
}

// matches reports whether cert was made for key.
func matches(cert *x509.Certificate, key *ecdsa.PrivateKey) bool {
	return key != nil && key.PublicKey.Equal(cert.PublicKey)
}
