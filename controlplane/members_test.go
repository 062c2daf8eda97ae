package controlplane

import (
	"testing"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/gossip"
)

func TestAGoodbyeIsOfOneStart(t *testing.T) {
	unit := &fsm.Unit{Incarnation: 2}
	for _, c := range []struct {
		name   string
		status gossip.Status
		inc    string
		unit   *fsm.Unit
		want   string
	}{
		{"this start left", gossip.StatusLeft, "2", unit, "left"},
		{"an earlier start left", gossip.StatusLeft, "1", unit, ""},
		{"an unknown start left", gossip.StatusLeft, "", unit, ""},
		{"an earlier start is alive", gossip.StatusAlive, "1", unit, "alive"},
		{"an earlier start failed", gossip.StatusFailed, "1", unit, "failed"},
		{"a station left", gossip.StatusLeft, "", nil, "left"},
	} {
		n := gossip.Node{Status: c.status, Tags: map[string]string{gossip.IncarnationTag: c.inc}}
		if got := statusOf(n, c.unit); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
