package identity

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

var unitA = Holder{Cluster: clusterA, Role: san.RoleUnit, ID: "u1"}

// signer answers requests like a station.
func signer(ca *CA) func(context.Context, []byte) ([]byte, error) {
	return func(_ context.Context, csr []byte) ([]byte, error) {
		return ca.Sign(csr, Subject{Role: san.RoleUnit, ID: "u1"}, time.Now())
	}
}

// enrol brings the folder to its first identity.
func enrol(s *Store, ca *CA) (*Identity, error) {
	csr, err := s.PendingCSR()
	if err != nil {
		return nil, err
	}
	certPEM, err := signer(ca)(context.Background(), csr)
	if err != nil {
		return nil, err
	}
	return s.Install(certPEM, ca.CertPEM())
}

func mustOpen(t testing.TB, dir string, want Holder) *Store {
	t.Helper()
	s, err := OpenStore(dir, want)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStoreLife(t *testing.T) {
	ca, dir := newTestCA(t, clusterA), filepath.Join(t.TempDir(), "data", "identity")
	s := mustOpen(t, dir, Holder{Role: san.RoleUnit, ID: "u1"})
	_, err := s.Load()
	wantError(t, err, san.KindNotFound, dir, "join token")

	id, err := enrol(s, ca)
	if err != nil {
		t.Fatal(err)
	}
	if s.Holder() != unitA {
		t.Errorf("folder is of %+v", s.Holder())
	}
	first := id.Self()
	if err := s.Renew(context.Background(), id, signer(ca)); err != nil {
		t.Fatal(err)
	}
	if id.Self().Serial == first.Serial {
		t.Error("renewal kept the certificate")
	}
	again, err := mustOpen(t, dir, Holder{}).Load()
	if err != nil || again.Self() != id.Self() || again.CAFingerprint() != ca.Fingerprint() {
		t.Fatalf("folder holds %v, %v; want %v", again, err, id.Self())
	}
	if got := connect(t, ServerTLS(again, ClientCertRequired, Member), ClientTLS(id, Member)); got.client != nil {
		t.Errorf("link with the stored identity: %v, %v", got.client, got.server)
	}

	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if got := strings.Join(names, " "); got != "ca.pem cert.pem key.pem meta.json" {
		t.Errorf("folder holds %s", got)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder has mode %v, %v", info.Mode(), err)
	}
}

func TestStoreRefusesOthers(t *testing.T) {
	ca, dir := newTestCA(t, clusterA), t.TempDir()
	s := mustOpen(t, dir, unitA)
	if _, err := enrol(s, ca); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		want Holder
		says []string
	}{
		{"another cluster", Holder{Cluster: clusterB}, []string{dir, string(clusterA), string(clusterB)}},
		{"another role", Holder{Role: san.RoleHost, ID: "u1"}, []string{"unit u1", "host u1"}},
		{"another name", Holder{Cluster: clusterA, Role: san.RoleUnit, ID: "u2"}, []string{"unit u1", "unit u2"}},
	} {
		_, err := OpenStore(dir, c.want)
		wantError(t, err, san.KindConflict, c.says...)
	}

	// Certificates that must not get in.
	for _, c := range []struct {
		name    string
		ca      *CA
		subject Subject
		kind    san.Kind
		says    []string
	}{
		{"another cluster", newTestCA(t, clusterB), Subject{Role: san.RoleUnit, ID: "u1"}, san.KindConflict, []string{string(clusterA), string(clusterB)}},
		{"another CA", newTestCA(t, clusterA), Subject{Role: san.RoleUnit, ID: "u1"}, san.KindConflict, []string{"fingerprint", ca.Fingerprint().String()}},
		{"another name", ca, Subject{Role: san.RoleUnit, ID: "u2"}, san.KindConflict, []string{"u1", "u2"}},
	} {
		csr, err := s.PendingCSR()
		if err != nil {
			t.Fatal(err)
		}
		certPEM, err := c.ca.Sign(csr, c.subject, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Install(certPEM, c.ca.CertPEM())
		wantError(t, err, c.kind, c.says...)
	}
	otherKey := issue(t, ca, Subject{Role: san.RoleUnit, ID: "u1"}, time.Now()).current.Load().Leaf
	_, err := s.Install(encodePEM(pemCertificate, otherKey.Raw), ca.CertPEM())
	wantError(t, err, san.KindInvalid, "does not belong")
	if _, err := mustOpen(t, dir, unitA).Load(); err != nil {
		t.Errorf("the refused certificates harmed the folder: %v", err)
	}
	_, err = mustOpen(t, t.TempDir(), unitA).Install(nil, nil)
	wantError(t, err, san.KindConflict, "signing request")
}

func TestStoreDamage(t *testing.T) {
	ca := newTestCA(t, clusterA)
	alien, _ := NewKey()
	alienPEM, err := encodeKey(alien)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), data, 0o600) }
	}
	for _, c := range []struct {
		name string
		harm func(dir string) error
		says string
	}{
		{"empty meta", write(metaFile, nil), "meta.json is damaged"},
		{"meta of another cluster", write(metaFile, []byte(`{"cluster":"`+string(clusterB)+`","role":"unit","id":"u1"}`)), string(clusterB)},
		{"cut certificate", write(certFile, []byte("-----BEGIN CERT")), "cert.pem"},
		{"huge certificate", write(certFile, make([]byte, maxPEMBytes+1)), "no file of Sandbar's"},
		{"cut CA", write(caFile, nil), "CA certificate"},
		{"no CA", func(dir string) error { return os.Remove(filepath.Join(dir, caFile)) }, "ca.pem"},
		{"another CA", write(caFile, newTestCA(t, clusterA).CertPEM()), "not signed by the CA"},
		{"cut key", write(keyFile, []byte("x")), "key.pem"},
		{"another key", write(keyFile, alienPEM), "no key in it belongs"},
		{"no key", func(dir string) error { return os.Remove(filepath.Join(dir, keyFile)) }, "no key in it belongs"},
		{"open key", func(dir string) error { return os.Chmod(filepath.Join(dir, keyFile), 0o640) }, "0600"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := enrol(mustOpen(t, dir, Holder{}), ca); err != nil {
				t.Fatal(err)
			}
			if err := c.harm(dir); err != nil {
				t.Fatal(err)
			}
			s, err := OpenStore(dir, Holder{})
			if err == nil {
				_, err = s.Load()
			}
			wantError(t, err, san.KindOf(err), dir, c.says)
		})
	}
}

var errPower = errors.New("power is gone")

// failingFiles ends after a number of changes, as a crash does: the change that it stops at
// and all later ones do not happen.
type failingFiles struct {
	diskFiles
	left int
}

func (f *failingFiles) spend() error {
	if f.left == 0 {
		return errPower
	}
	f.left--
	return nil
}

func (f *failingFiles) replace(path string, data []byte) error {
	if err := f.spend(); err != nil {
		// What a real crash may leave beside the untouched file.
		return errors.Join(err, os.WriteFile(path+".tmp", data[:len(data)/2], 0o600))
	}
	return f.diskFiles.replace(path, data)
}

func (f *failingFiles) rename(from, to string) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.diskFiles.rename(from, to)
}

// Wherever a crash falls in enrolment and in a renewal, the folder then holds the former
// identity, or none, or the new one, and the same act done again succeeds.
func TestStoreCrashes(t *testing.T) {
	ca := newTestCA(t, clusterA)
	for _, enrolled := range []bool{false, true} {
		for crashAt := 0; ; crashAt++ {
			dir, former := t.TempDir(), ""
			if enrolled {
				id, err := enrol(mustOpen(t, dir, unitA), ca)
				if err != nil {
					t.Fatal(err)
				}
				former = id.Self().Serial
			}
			s, err := openStore(dir, unitA, &failingFiles{left: crashAt})
			if err != nil {
				t.Fatal(err)
			}
			_, crash := enrol(s, ca)
			if crash != nil && !errors.Is(crash, errPower) {
				t.Fatalf("crash at %d: %v", crashAt, crash)
			}
			id, err := mustOpen(t, dir, unitA).Load()
			switch {
			case err != nil && (enrolled || san.KindOf(err) != san.KindNotFound):
				t.Fatalf("crash at %d, enrolled %v: folder is broken: %v", crashAt, enrolled, err)
			case err == nil && crash == nil && id.Self().Serial == former:
				t.Fatalf("crash at %d: an acknowledged renewal is lost", crashAt)
			}
			again, err := enrol(mustOpen(t, dir, unitA), ca)
			if err != nil {
				t.Fatalf("crash at %d, enrolled %v: it cannot be done again: %v", crashAt, enrolled, err)
			}
			if id, err := mustOpen(t, dir, unitA).Load(); err != nil || id.Self() != again.Self() {
				t.Fatalf("crash at %d: %v", crashAt, err)
			}
			if crash == nil {
				if crashAt < 5 {
					t.Fatalf("only %d changes were tried", crashAt)
				}
				break
			}
		}
	}
}

// A request whose answer was lost is sent again with the same key, even by a new process.
func TestPendingKeyStays(t *testing.T) {
	dir := t.TempDir()
	var keys []*ecdsa.PublicKey
	for range 2 {
		csr, err := mustOpen(t, dir, unitA).PendingCSR()
		if err != nil {
			t.Fatal(err)
		}
		pub, err := parseCSR(csr)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, pub)
	}
	if !keys[0].Equal(keys[1]) {
		t.Error("the second request is for another key")
	}
}

func TestStoreSecrets(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, unitA)
	_, err := s.Secret("cluster-key")
	wantError(t, err, san.KindNotFound, "cluster-key")
	for _, v := range []string{"one", "two"} {
		if err := s.PutSecret("cluster-key", []byte(v)); err != nil {
			t.Fatal(err)
		}
		if got, err := mustOpen(t, dir, unitA).Secret("cluster-key"); err != nil || string(got) != v {
			t.Errorf("got %q, %v; want %q", got, err, v)
		}
	}
	wantError(t, s.PutSecret("../x", []byte("v")), san.KindInvalid, "secret name")
	wantError(t, s.PutSecret("x", nil), san.KindInvalid, "0 bytes")
	wantError(t, s.PutSecret("x", make([]byte, maxSecretBytes+1)), san.KindInvalid, "bytes")
	_, err = s.Secret("../" + filepath.Base(dir) + "/cluster-key")
	wantError(t, err, san.KindInvalid, "secret name")
}

func TestOpenStoreNeedsAFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := OpenStore(file, Holder{})
	wantError(t, err, san.KindInternal, "identity folder", file)
	var path *fs.PathError
	if !errors.As(err, &path) {
		t.Errorf("%v hides its cause", err)
	}
}

// The renewer asks first when a third of the life is left, goes on after failures, and ends
// with its context.
func TestRenewer(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ca := newTestCA(t, clusterA)
		s := mustOpen(t, dir, unitA)
		id, err := enrol(s, ca)
		if err != nil {
			t.Fatal(err)
		}
		first, due := id.Self(), id.RenewAt()
		var asked []time.Time
		ctx, cancel := context.WithCancel(t.Context())
		r := Renewer{Store: s, Identity: id, Log: slog.New(slog.DiscardHandler), Request: func(ctx context.Context, csr []byte) ([]byte, error) {
			asked = append(asked, time.Now())
			if len(asked) <= 3 {
				return nil, san.Errorf(san.KindUnavailable, "no station answers")
			}
			return signer(ca)(ctx, csr)
		}}
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		<-time.After(time.Until(due) + 24*time.Hour) // the bubble's clock
		synctest.Wait()
		if len(asked) != 4 {
			t.Fatalf("asked %d times, want 3 failures and a success", len(asked))
		}
		if asked[0].Before(due) || asked[0].After(due.Add(renewalCheckInterval)) {
			t.Errorf("asked first at %v, due at %v", asked[0], due)
		}
		if now := id.Self(); now.Serial == first.Serial || !now.NotAfter.After(first.NotAfter) {
			t.Errorf("certificate is still %+v", now)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
