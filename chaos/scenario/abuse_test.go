package scenario

import (
	"strings"
	"testing"

	"github.com/sandbar-san/sandbar/chaos/abuse"
)

// TestAbuse: what a broken or hostile initiator may send hurts neither the unit nor anybody else. `make abuse` has
// the cases that take longer.
func TestAbuse(t *testing.T) {
	t.Parallel()
	c := start(t, abuse.LabArgs()...)
	var said strings.Builder
	sum, err := abuse.Run(t.Context(), c.Lab, &said, abuse.Options{Short: true})
	if err != nil || sum.Failed > 0 || sum.Passed == 0 {
		t.Errorf("%d cases passed, %d failed, %v:\n%s", sum.Passed, sum.Failed, err, said.String())
	}
}
