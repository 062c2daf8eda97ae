package identity

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sandbar-san/sandbar/san"
)

const (
	clusterA san.ClusterID = "11111111-2222-4333-8444-555555555555"
	clusterB san.ClusterID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTestCA(t testing.TB, cluster san.ClusterID) *CA {
	t.Helper()
	ca, err := NewCA(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue makes an identity of ca signed at the given time.
func issue(t testing.TB, ca *CA, subject Subject, at time.Time) *Identity {
	t.Helper()
	id, err := ca.Issue(subject, at)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// wantError checks an error's kind and that it says all of says.
func wantError(t testing.TB, err error, kind san.Kind, says ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one of kind %q that says %q", kind, says)
	}
	if san.KindOf(err) != kind {
		t.Errorf("error %q is of kind %q, want %q", err, san.KindOf(err), kind)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}
