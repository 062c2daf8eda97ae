package dataplane

import (
	"log/slog"
	"slices"
	"testing"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
)

// The next start goes by the addresses that are kept, and must not be kept from starting by them.
func TestOnlyUsableAddressesAreKept(t *testing.T) {
	dir, err := datadir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	}()
	m := &membership{dir: dir, log: slog.New(slog.DiscardHandler)}
	good := []string{"192.0.2.1:7000", "[2001:db8::1]:7000"}
	m.welcomed(&pb.Welcome{StationEndpoints: good})
	m.welcomed(&pb.Welcome{StationEndpoints: []string{"192.0.2.2:7000", "station3"}})
	m.welcomed(&pb.Welcome{})
	kept, err := enrol.Load(dir)
	if err != nil || !slices.Equal(kept.Endpoints, good) || !slices.Equal(m.endpoints(), good) {
		t.Errorf("%v are kept, %v are used, %v", kept.Endpoints, m.endpoints(), err)
	}
}
