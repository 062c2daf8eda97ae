package dataplane_test

import (
	"bytes"
	"net"
	"os"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane"
	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

// What keeps a first start from serving is found out before the stations hear of the unit, and once it is put right, the
// second start works.
func TestAFirstStartThatFailsLeavesNothingAtTheStations(t *testing.T) {
	taken := func(at func(*dataplane.Config) *string, key string) func(*testing.T, *dataplane.Config) (san.Kind, string, func()) {
		return func(t *testing.T, cfg *dataplane.Config) (san.Kind, string, func()) {
			ln, err := net.Listen("tcp", *at(cfg))
			if err != nil {
				t.Fatal(err)
			}
			*at(cfg) = ln.Addr().String()
			return san.KindConflict, key, func() { ln.Close() }
		}
	}
	file := func(kind san.Kind, says string, spoil func(*os.File) error) func(*testing.T, *dataplane.Config) (san.Kind, string, func()) {
		return func(t *testing.T, cfg *dataplane.Config) (san.Kind, string, func()) {
			f, err := os.Create(cfg.Media[0])
			if err == nil {
				err = f.Truncate(cfg.MediumSizeBytes)
			}
			if err == nil {
				err = spoil(f)
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			return kind, says, func() { os.Remove(cfg.Media[0]) }
		}
	}
	for name, fault := range map[string]func(*testing.T, *dataplane.Config) (kind san.Kind, says string, mend func()){
		"the portal's port taken": taken(func(c *dataplane.Config) *string { return &c.PortalListen }, "portal-listen"),
		"the probes' port taken":  taken(func(c *dataplane.Config) *string { return &c.APIListen }, "api-listen"),
		"the gossip's port taken": taken(func(c *dataplane.Config) *string { return &c.GossipListen }, "gossip-listen"),
		"a medium with garbage where its superblock is": file(san.KindInternal, "give the right one", func(f *os.File) error {
			_, err := f.WriteAt(bytes.Repeat([]byte{0xFF}, 1*mib), 0)
			return err
		}),
		"a medium with somebody's data": file(san.KindConflict, "not all zero", func(f *os.File) error {
			_, err := f.WriteAt([]byte("mine"), 70_000)
			return err
		}),
		"a medium that is too small": file(san.KindInvalid, "too small", func(f *os.File) error { return f.Truncate(2 * mib) }),
		"a medium in use": func(t *testing.T, cfg *dataplane.Config) (san.Kind, string, func()) {
			f, err := disk.Open(cfg.Media[0], disk.OpenOptions{Create: true, SizeBytes: cfg.MediumSizeBytes})
			if err != nil {
				t.Fatal(err)
			}
			return san.KindConflict, "open in another process", func() { f.Close() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStation(t, clusterID)
			w := &world{t: t, station: s, cfg: unitConfig(t, s)}
			kind, says, mend := fault(t, &w.cfg)
			wantError(t, run(t, w.cfg), kind, says)
			s.mu.Lock()
			issued := s.issued
			s.mu.Unlock()
			if issued != 0 {
				t.Errorf("the unit was enrolled %d times", issued)
			}
			mend()
			w.start()
			w.give(volumeA, "a", hostA, 4*mib)
			w.mustLogin(volumeA, "a", hostA)
			w.shutdown()
			if s.issued != 1 {
				t.Errorf("the unit was enrolled %d times", s.issued)
			}
		})
	}
}
