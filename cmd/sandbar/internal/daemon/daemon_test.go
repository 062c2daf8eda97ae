package daemon

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/config"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// values loads keys from flags alone.
func values(t *testing.T, keys config.Keys, args ...string) *config.Values {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	keys.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	v, err := config.Load(keys, fs, "", false)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tokenFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "join-token")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// enrolled makes a data folder that looks like an enrolled part's.
func enrolled(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "identity"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, certificateFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestStationGetsWhatItWasTold(t *testing.T) {
	token := identity.NewJoinToken(identity.Fingerprint{1}).Reveal()
	var log bytes.Buffer
	cfg, err := Station(values(t, StationKeys(), "--id=s1", "--data=/d", "--api-listen=127.0.0.1:1", "--api-advertise=192.0.2.1:1",
		"--raft-listen=127.0.0.1:2", "--gossip-listen=127.0.0.1:3", "--bootstrap-expect=5", "--join=a:1,b:2",
		"--join-token-file="+tokenFile(t, token+"\n"), "--raft-timing=lan", "--gossip-timing=fast", "--log-format=json", "--log-level=warn"), "v9", &log)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.ID != "s1" || cfg.Data != "/d" || cfg.APIListen != "127.0.0.1:1" || cfg.APIAdvertise != "192.0.2.1:1" ||
		cfg.RaftListen != "127.0.0.1:2" || cfg.GossipListen != "127.0.0.1:3" || cfg.BootstrapExpect != 5 ||
		!slices.Equal(cfg.Join, []string{"a:1", "b:2"}) || cfg.JoinToken != token || cfg.RaftTiming != replica.LAN() ||
		!cfg.FastGossip || cfg.Version != "v9" {
		t.Errorf("got %+v", cfg)
	}
	cfg.Log.Info("quiet")
	cfg.Log.Warn("loud")
	if s := log.String(); strings.Contains(s, "quiet") || !strings.Contains(s, `"msg":"loud"`) {
		t.Errorf("log has %q", s)
	}
}

func TestStationsThatMayNotStart(t *testing.T) {
	token := identity.NewJoinToken(identity.Fingerprint{1}).Reveal()
	admin := identity.NewOperatorToken().Reveal()
	for _, c := range []struct {
		name string
		args []string
		says []string // nil: it may
	}{
		{"no name", nil, []string{"id is not set", "--id"}},
		{"bad name", []string{"--id=a b"}, []string{"station name", "a b"}},
		{"founder", []string{"--id=a"}, nil},
		{"join without a token", []string{"--id=a", "--join=x:1"}, []string{"no join token", "leave out join"}},
		{"join with a token", []string{"--id=a", "--join=x:1", "--join-token-file=" + tokenFile(t, token)}, nil},
		{"token file missing", []string{"--id=a", "--join=x:1", "--join-token-file=/nonexistent/t"}, []string{"join-token-file", "/nonexistent/t", "join-token create"}},
		{"token file missing, founder", []string{"--id=a", "--join-token-file=/nonexistent/t"}, []string{"/nonexistent/t"}},
		{"token of another kind", []string{"--id=a", "--join=x:1", "--join-token-file=" + tokenFile(t, admin)}, []string{"operator token", "join token is wanted"}},
		{"enrolled, token gone", []string{"--id=a", "--data=" + enrolled(t), "--join=x:1", "--join-token-file=/nonexistent/t"}, nil},
		{"enrolled, no token", []string{"--id=a", "--data=" + enrolled(t), "--join=x:1"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Station(values(t, StationKeys(), append(c.args, "--log-level=error")...), "v", os.Stderr)
			if c.says == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if san.KindOf(err) != san.KindInvalid {
				t.Fatalf("error %v is of kind %v", err, san.KindOf(err))
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("error %q does not say %q", err, s)
				}
			}
			if strings.Contains(err.Error(), admin) {
				t.Error("a secret in an error")
			}
		})
	}
}

func TestAdvertisedAddress(t *testing.T) {
	one := []netip.Addr{netip.MustParseAddr("192.0.2.7")}
	six := []netip.Addr{netip.MustParseAddr("2001:db8::7")}
	for _, c := range []struct {
		name, listen, given string
		machine             []netip.Addr
		want                string
	}{
		{"given", "0.0.0.0:1", "x:2", one, "x:2"},
		{"one address", "0.0.0.0:1", "", one, "192.0.2.7:1"},
		{"one IPv6 address", "[::]:1", "", six, "[2001:db8::7]:1"},
		{"no host", ":1", "", one, "192.0.2.7:1"},
		{"two addresses", "0.0.0.0:1", "", append(one, six...), ""},
		{"none", "0.0.0.0:1", "", nil, ""},
		{"listens on one", "127.0.0.1:1", "", one, ""},
		{"a name", "localhost:1", "", one, ""},
		{"no port", "0.0.0.0", "", one, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := values(t, StationKeys(), "--api-listen="+c.listen, "--api-advertise="+c.given)
			if got := advertised(v, "api", func() []netip.Addr { return c.machine }); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	for _, a := range machineAddrs() {
		if a.IsLoopback() || a.IsLinkLocalUnicast() {
			t.Errorf("%v is no address for others", a)
		}
	}
}

// TestSampleConfigsAreUnderstood holds what is installed to what is read.
func TestSampleConfigsAreUnderstood(t *testing.T) {
	for _, keys := range []config.Keys{StationKeys(), UnitKeys(), HostKeys()} {
		fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
		keys.AddFlags(fs)
		v, err := config.Load(keys, fs, "../../../../deploy/config/"+keys.Role+".yaml", false)
		if err != nil {
			t.Error(err)
			continue
		}
		if v.Text(keyData) != "/var/lib/sandbar/"+keys.Role || v.Text(keyID) == "" {
			t.Errorf("%s: data %q, id %q", keys.Role, v.Text(keyData), v.Text(keyID))
		}
	}
}
