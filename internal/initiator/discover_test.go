package initiator

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sandbar-san/sandbar/internal/pdu"
)

// A long answer comes cut at any byte, over many PDUs, with a ping in between.
func TestDiscoverManyTargets(t *testing.T) {
	const targets = 1000
	var text []byte
	for i := range targets {
		text = pdu.AppendText(text, kv("TargetName", fmt.Sprintf("iqn.2026-11.io.sandbar.test:%d", i)), kv("TargetAddress", fmt.Sprintf("192.0.2.%d,7", i%250)), kv("TargetAddress", "[2001:db8::1]:3261,8"))
	}
	discover := func(limits Limits) ([]TargetInfo, error) {
		cfg := scriptedConfig(t, func(g *scripted) {
			g.login()
			for rest := text; ; {
				var req pdu.TextRequest
				g.expect(&req)
				part := rest[:min(len(rest), 5000)]
				rest = rest[len(part):]
				resp := pdu.TextResponse{Final: len(rest) == 0, ITT: req.ITT, TTT: 9}
				if resp.Final {
					resp.TTT = pdu.NoTag
				}
				g.number(&resp.StatSN, &resp.ExpCmdSN, &resp.MaxCmdSN)
				g.send(&pdu.NOPIn{ITT: pdu.NoTag, TTT: 3}, nil)
				var ping pdu.NOPOut
				g.expect(&ping)
				g.send(&resp, part)
				if resp.Final {
					g.serve(nil)
				}
			}
		})
		cfg.Limits = limits
		return Discover(t.Context(), cfg)
	}
	list, err := discover(Limits{})
	if err != nil || len(list) != targets {
		t.Fatalf("%d targets, %v", len(list), err)
	}
	last := list[targets-1]
	if last.Name != "iqn.2026-11.io.sandbar.test:999" || len(last.Portals) != 2 || last.Portals[0] != (Portal{"192.0.2.249:3260", 7}) || last.Portals[1] != (Portal{"[2001:db8::1]:3261", 8}) {
		t.Errorf("%+v", last)
	}
	var broken *ProtocolError
	if _, err := discover(Limits{DiscoveryTextBytes: 20000}); !errors.As(err, &broken) {
		t.Errorf("an answer over the limit: %v", err)
	}
}
