package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/sandbar-san/sandbar/san"
)

// Files of an identity folder.
const (
	certFile    = "cert.pem"
	keyFile     = "key.pem"
	nextKeyFile = "key.next.pem"
	caFile      = "ca.pem"
	metaFile    = "meta.json"
)

// maxSecretBytes bounds a secret that PutSecret keeps.
const maxSecretBytes = 4 << 10

// Holder says whose identity folder it is. A zero field is not known yet and not checked.
type Holder struct {
	Cluster san.ClusterID `json:"cluster"`
	Role    san.Role      `json:"role"`
	ID      string        `json:"id"`
}

// Store is a part's identity folder:
//
//	cert.pem      the part's certificate; the folder is enrolled once it is there
//	key.pem       its private key
//	key.next.pem  the key of a request that is under way
//	ca.pem        the cluster CA's certificate
//	meta.json     the Holder
//	NAME.secret   what PutSecret keeps
//
// Two files cannot be replaced at once, so a new key stays in key.next.pem until its
// certificate, whose rename is the commit point, is there; Load finishes what a
// crash cut short. One process at a time may use a folder: its owner holds the lock of the
// data folder around it.
type Store struct {
	dir   string
	files fileOps
	mu    sync.Mutex // holds together the steps of one change
	want  Holder     // grows from what OpenStore was told to what meta.json says
}

// OpenStore opens the identity folder dir, and makes it if there is none. A folder that
// belongs to another cluster or part than want is refused.
func OpenStore(dir string, want Holder) (*Store, error) {
	if err := makeDir(dir); err != nil {
		return nil, san.Errorf(san.KindInternal, "make identity folder: %w", err)
	}
	return openStore(dir, want, diskFiles{})
}

func openStore(dir string, want Holder, files fileOps) (*Store, error) {
	s := &Store{dir: dir, files: files, want: want}
	data, err := s.files.read(s.path(metaFile), maxPEMBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, s.failed("read", metaFile, err)
	}
	var has Holder
	if err := json.Unmarshal(data, &has); err != nil {
		return nil, san.Errorf(san.KindInvalid, "%s is damaged: %w; restore it, or empty the folder and join again", s.path(metaFile), err)
	}
	if err := s.checkHolder(has); err != nil {
		return nil, err
	}
	s.want = has
	return s, nil
}

// checkHolder compares what a folder or certificate says with what the store is for.
func (s *Store) checkHolder(has Holder) error {
	switch w := s.want; {
	case w.Cluster != "" && has.Cluster != w.Cluster:
		return san.Errorf(san.KindConflict, "identity folder %s: cluster %s is in it or offered to it, cluster %s is asked for; use another data folder, or empty this one to join that cluster", s.dir, has.Cluster, w.Cluster)
	case w.Role != "" && has.Role != w.Role, w.ID != "" && has.ID != w.ID:
		return san.Errorf(san.KindConflict, "identity folder %s: %s %s is in it or offered to it, %s %s is asked for; use the right data folder or name", s.dir, has.Role, has.ID, w.Role, w.ID)
	}
	return nil
}

// Holder returns whose folder it is, as far as is known.
func (s *Store) Holder() Holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want
}

// Load returns the identity in the folder; san.KindNotFound if it was never enrolled.
func (s *Store) Load() (*Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	certPEM, err := s.files.read(s.path(certFile), maxPEMBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, san.Errorf(san.KindNotFound, "identity folder %s has no certificate yet; join the cluster with a join token", s.dir)
	}
	if err != nil {
		return nil, s.failed("read", certFile, err)
	}
	caPEM, err := s.files.read(s.path(caFile), maxPEMBytes)
	if err != nil {
		return nil, s.failed("read", caFile, err)
	}
	cert, err := parseCertPEM(certPEM)
	if err != nil {
		return nil, s.failed("read", certFile, err)
	}
	key, err := s.keyFor(cert)
	if err != nil {
		return nil, err
	}
	id, err := newIdentity(certPEM, key, caPEM)
	if err != nil {
		return nil, san.Wrap("identity folder "+s.dir, err)
	}
	return id, s.checkHolder(holderOf(id.Self()))
}

func holderOf(p Peer) Holder { return Holder{Cluster: p.Cluster, Role: p.Role, ID: p.ID} }

// keyFor returns the key of cert, from key.pem or, if a crash came between the
// certificate and its key, from key.next.pem, which it then puts in its place.
func (s *Store) keyFor(cert *x509.Certificate) (*ecdsa.PrivateKey, error) {
	key, err := s.readKey(keyFile)
	if err != nil {
		return nil, err
	}
	if matches(cert, key) {
		return key, nil
	}
	next, err := s.readKey(nextKeyFile)
	if err != nil {
		return nil, err
	}
	if !matches(cert, next) {
		return nil, san.Errorf(san.KindInvalid, "identity folder %s: no key in it belongs to its certificate; restore the folder whole, or empty it and join again", s.dir)
	}
	if err := s.files.rename(s.path(nextKeyFile), s.path(keyFile)); err != nil {
		return nil, s.failed("rename", nextKeyFile, err)
	}
	return next, nil
}

// readKey returns the key in name, nil if there is none.
func (s *Store) readKey(name string) (*ecdsa.PrivateKey, error) {
	text, err := s.files.read(s.path(name), maxPEMBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.failed("read", name, err)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, s.failed("read", name, err)
	}
	if info, err := os.Stat(s.path(name)); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, san.Errorf(san.KindDenied, "%s can be read by others (mode %04o); set its mode to 0600, and join again if somebody may have read it", s.path(name), info.Mode().Perm())
	}
	return key, nil
}

// PendingCSR returns a signing request (DER) for the key that the next certificate is to have. The
// key is on disk before the request exists and stays the same until Install, so
// that a request whose answer was lost can be sent again as the same.
func (s *Store) PendingCSR() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := s.readKey(nextKeyFile)
	if err != nil {
		return nil, err
	}
	if key == nil {
		if key, err = NewKey(); err != nil {
			return nil, err
		}
		text, err := encodeKey(key)
		if err != nil {
			return nil, err
		}
		if err := s.files.replace(s.path(nextKeyFile), text); err != nil {
			return nil, s.failed("write", nextKeyFile, err)
		}
	}
	return NewCSR(key)
}

// Install puts the certificate that answered PendingCSR, and the CA's, in the folder, and
// returns the identity. After a crash or an error in it, the folder holds the former
// identity (or none) or the new one, whole.
func (s *Store) Install(certPEM, caPEM []byte) (*Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := s.readKey(nextKeyFile)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, san.Errorf(san.KindConflict, "identity folder %s has asked for no certificate; begin with a signing request", s.dir)
	}
	id, err := newIdentity(certPEM, key, caPEM)
	if err != nil {
		return nil, san.Wrap("certificate for identity folder "+s.dir, err)
	}
	holder := holderOf(id.Self())
	if err := s.checkHolder(holder); err != nil {
		return nil, err
	}
	if err := s.checkSameCA(id); err != nil {
		return nil, err
	}
	meta, err := json.MarshalIndent(holder, "", "  ")
	if err != nil {
		return nil, s.failed("encode", metaFile, err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{caFile, id.CAPEM()}, {metaFile, append(meta, '\n')}, {certFile, certPEM}} {
		if err := s.files.replace(s.path(f.name), f.data); err != nil {
			return nil, s.failed("write", f.name, err)
		}
	}
	s.want = holder
	if err := s.files.rename(s.path(nextKeyFile), s.path(keyFile)); err != nil {
		return nil, s.failed("rename", nextKeyFile, err)
	}
	return id, nil
}

// checkSameCA refuses another CA than the one in the folder: its cluster id may be the same,
// but whoever signs with another key is somebody else.
func (s *Store) checkSameCA(id *Identity) error {
	old, err := s.files.read(s.path(caFile), maxPEMBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return s.failed("read", caFile, err)
	}
	cert, _, err := ParseCA(old)
	if err != nil {
		return s.failed("read", caFile, err)
	}
	if has := FingerprintOf(cert); !has.Equal(id.CAFingerprint()) {
		return san.Errorf(san.KindConflict, "identity folder %s trusts the CA with fingerprint %s, the new certificate is from %s; empty the folder to join that cluster", s.dir, has, id.CAFingerprint())
	}
	return nil
}

// Renew gets id a new key and certificate: request sends a signing request (DER) to a
// station and returns the certificate (PEM). Configurations made from id show it from
// the next handshake on.
func (s *Store) Renew(ctx context.Context, id *Identity, request func(ctx context.Context, csrDER []byte) ([]byte, error)) error {
	csr, err := s.PendingCSR()
	if err != nil {
		return err
	}
	certPEM, err := request(ctx, csr)
	if err != nil {
		return san.Wrap("renew certificate", err)
	}
	renewed, err := s.Install(certPEM, id.CAPEM())
	if err != nil {
		return err
	}
	id.current.Store(renewed.current.Load())
	return nil
}

// PutSecret keeps a secret of the part (the cluster key, the gossip key) in the folder.
func (s *Store) PutSecret(name string, secret []byte) error {
	if err := san.CheckName("secret", name); err != nil {
		return err
	}
	if len(secret) == 0 || len(secret) > maxSecretBytes {
		return san.Errorf(san.KindInvalid, "secret %s has %d bytes; 1 to %d can be kept", name, len(secret), maxSecretBytes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.files.replace(s.path(name+".secret"), secret); err != nil {
		return s.failed("write", name+".secret", err)
	}
	return nil
}

// Secret returns what PutSecret kept; san.KindNotFound if it kept nothing of this name.
func (s *Store) Secret(name string) ([]byte, error) {
	if err := san.CheckName("secret", name); err != nil {
		return nil, err
	}
	data, err := s.files.read(s.path(name+".secret"), maxSecretBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, san.Errorf(san.KindNotFound, "identity folder %s has no secret %s; restore the folder, or join again", s.dir, name)
	}
	if err != nil {
		return nil, s.failed("read", name+".secret", err)
	}
	return data, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// failed says which act on which file failed; a damaged file keeps its error's kind.
func (s *Store) failed(act, name string, err error) error {
	return san.Wrap(act+" "+s.path(name), err)
}
