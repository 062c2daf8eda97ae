package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"github.com/sandbar-san/sandbar/san"
)

// ClusterKeyBytes is the length of the key under which a cluster's secrets are sealed.
const ClusterKeyBytes = 32

// maxSealedBytes bounds what one envelope holds; the largest secret is the CA's key.
const maxSealedBytes = 64 << 10

// An envelope is
//
//	version (1 byte) | key id (4) | nonce (12) | ciphertext | tag (16)
//
// under AES-256-GCM, with version, key id, kind and id as associated data. Nonces are
// random: 2^32 envelopes under one key stay below the bound of NIST SP 800-38D §8.3,
// and a cluster seals one per assignment and CA.
const (
	envelopeVersion = 1
	keyIDBytes      = 4
	headerBytes     = 1 + keyIDBytes
)

// NewClusterKey makes a random cluster key.
func NewClusterKey() []byte {
	key := make([]byte, ClusterKeyBytes)
	rand.Read(key) // never fails: crypto/rand ends the process if the system has no randomness
	return key
}

// Sealer puts secrets into envelopes under the cluster key and takes them out. It is
// safe for concurrent use.
type Sealer struct {
	aead  cipher.AEAD
	keyID [keyIDBytes]byte
}

// NewSealer returns a Sealer under a cluster key of ClusterKeyBytes bytes.
func NewSealer(clusterKey []byte) (*Sealer, error) {
	if len(clusterKey) != ClusterKeyBytes {
		return nil, san.Errorf(san.KindInvalid, "cluster key has %d bytes where %d are needed; restore the station's cluster key file", len(clusterKey), ClusterKeyBytes)
	}
	block, err := aes.NewCipher(clusterKey)
	if err != nil {
		return nil, san.Errorf(san.KindInternal, "set up sealing: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, san.Errorf(san.KindInternal, "set up sealing: %w", err)
	}
	s := &Sealer{aead: aead}
	// The key's id tells "another key" from "damaged"; a hash of 256 random bits gives
	// nothing of them away.
	sum := sha256.Sum256(append([]byte("sandbar cluster key id\x00"), clusterKey...))
	copy(s.keyID[:], sum[:])
	return s, nil
}

// Seal puts plain into an envelope that opens only as the secret of this kind ("chap",
// "ca-key" …) and this id, so that no envelope can be passed off as another's.
func (s *Sealer) Seal(kind, id string, plain []byte) ([]byte, error) {
	if len(plain) > maxSealedBytes {
		return nil, san.Errorf(san.KindInvalid, "secret %s of %s has %d bytes; at most %d can be sealed", kind, id, len(plain), maxSealedBytes)
	}
	out := make([]byte, headerBytes, headerBytes+len(plain)+s.aead.Overhead())
	out[0] = envelopeVersion
	copy(out[1:], s.keyID[:])
	return s.aead.Seal(out, nil, plain, associated(out[:headerBytes], kind, id)), nil
}

// Open takes the secret of kind and id out of its envelope.
func (s *Sealer) Open(kind, id string, envelope []byte) ([]byte, error) {
	switch {
	case len(envelope) < headerBytes+s.aead.Overhead() || len(envelope) > headerBytes+s.aead.Overhead()+maxSealedBytes:
		return nil, san.Errorf(san.KindInternal, "sealed %s of %s has %d bytes, which no envelope has; the table or snapshot that holds it is damaged", kind, id, len(envelope))
	case envelope[0] != envelopeVersion:
		return nil, san.Errorf(san.KindInternal, "sealed %s of %s has format %d, this version reads %d; run the version that wrote it, or a newer one", kind, id, envelope[0], envelopeVersion)
	case [keyIDBytes]byte(envelope[1:headerBytes]) != s.keyID:
		return nil, san.Errorf(san.KindInternal, "sealed %s of %s is under cluster key %x, this station has %x; give it the cluster key of the other stations", kind, id, envelope[1:headerBytes], s.keyID)
	}
	plain, err := s.aead.Open(nil, nil, envelope[headerBytes:], associated(envelope[:headerBytes], kind, id))
	if err != nil {
		return nil, san.Errorf(san.KindInternal, "sealed %s of %s does not open: it was altered, or is another object's: %w", kind, id, err)
	}
	return plain, nil
}

// associated builds the associated data; lengths keep ("a","bc") and ("ab","c") apart.
func associated(header []byte, kind, id string) []byte {
	ad := append([]byte(nil), header...)
	for _, part := range []string{kind, id} {
		ad = binary.BigEndian.AppendUint32(ad, uint32(len(part)))
		ad = append(ad, part...)
	}
	return ad
}
