package scenario

import (
	"context"
	"errors"
	"testing"

	"github.com/sandbar-san/sandbar/chaos/lab"
	"github.com/sandbar-san/sandbar/internal/initiator"
)

// login is how a host's initiator reaches a volume.
func (c *cluster) login(volume, host, iqn string) initiator.Config {
	c.t.Helper()
	v := c.volume(volume)
	if len(v.Assignments) != 1 || len(v.Assignments[0].Paths) != 1 {
		c.t.Fatalf("volume %s has assignments %+v, want one with one path", volume, v.Assignments)
	}
	cred, err := c.Credentials(c.t.Context(), volume, host)
	if err != nil {
		c.t.Fatal(err)
	}
	p := v.Assignments[0].Paths[0]
	return initiator.Config{
		Portal: p.Portal, Target: p.TargetIQN, InitiatorName: iqn,
		CHAP: initiator.CHAP{User: cred.User, Secret: cred.Secret},
	}
}

// open logs in and returns the block device; its session ends with the test.
func open(t *testing.T, cfg initiator.Config) *initiator.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := initiator.Dial(ctx, cfg)
	if err != nil {
		t.Fatalf("login to %s as %s: %v", cfg.Target, cfg.InitiatorName, err)
	}
	t.Cleanup(func() { logout(s) })
	d, err := initiator.OpenDevice(ctx, s, 0)
	if err != nil {
		t.Fatalf("open %s: %v", cfg.Target, err)
	}
	return d
}

// logout ends a session, whether its target still answers or not.
func logout(s *initiator.Session) {
	_ = s.Close() // the target may be gone on purpose
}

// loginRefused checks that a login is refused by the target itself.
func loginRefused(t *testing.T, why string, cfg initiator.Config) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := initiator.Dial(ctx, cfg)
	if err == nil {
		logout(s)
		t.Errorf("%s: the login succeeds", why)
		return
	}
	var refusal *initiator.LoginError
	if !errors.As(err, &refusal) {
		t.Errorf("%s: the login fails by %v, want a refusal of the target", why, err)
	}
}

// targets is what SendTargets shows an initiator, by target name.
func targets(t *testing.T, portal, iqn string) map[string]bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	list, err := initiator.Discover(ctx, initiator.Config{Portal: portal, InitiatorName: iqn})
	if err != nil {
		t.Fatalf("discovery as %s: %v", iqn, err)
	}
	out := map[string]bool{}
	for _, info := range list {
		out[info.Name] = true
	}
	return out
}

// target is the target name of a volume's only path.
func target(v lab.Volume) string { return v.Assignments[0].Paths[0].TargetIQN }
