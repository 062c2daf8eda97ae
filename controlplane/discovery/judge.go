package discovery

import (
	"fmt"
	"time"
)

// Evidence is what is known of one agent at one moment.
type Evidence struct {
	// Age is since the youngest heartbeat that any station had; negative if none can tell.
	Age time.Duration
	// Silent are the stations that could not be asked for heartbeats.
	Silent int
	// Gossip is alive, left, failed or "" for an agent that gossip does not know.
	Gossip string
	// Probe is the error of the last probe; nil if it answered. Probed tells whether there was one.
	Probe  error
	Probed bool
}

// Verdict is what follows from the evidence.
type Verdict uint8

// The verdicts.
const (
	// Alive: leave it as it is.
	Alive Verdict = iota
	// NeedProbe: everything else speaks against it; probe it.
	NeedProbe
	// Lost: mark it.
	Lost
	// Gone: it left in order, though its goodbye reached no station.
	Gone
)

// judgeUnit weighs the evidence on a unit. Any one witness for its life is enough.
func judgeUnit(e Evidence, lease time.Duration) (Verdict, string) {
	switch {
	case e.Age >= 0 && e.Age < lease:
		return Alive, "its heartbeat is heard"
	case e.Gossip == "alive":
		return Alive, "gossip sees it"
	case !e.Probed:
		return NeedProbe, "no heartbeat, and gossip does not see it"
	case e.Probe == nil:
		return Alive, "it answers probes"
	case e.Gossip == "left":
		return Gone, "it left gossip in order; its goodbye reached no station"
	}
	gossip := e.Gossip
	if gossip == "" {
		gossip = "unknown"
	}
	return Lost, fmt.Sprintf("no heartbeat for %v, gossip says %s, the probe failed: %v", lease, gossip, e.Probe)
}

// judgeHost weighs the evidence on a host's agent. Being marked offline takes nothing from a
// host, so a lost heartbeat suffices when all stations could be asked.
func judgeHost(e Evidence, lease time.Duration) (Verdict, string) {
	if e.Age >= 0 && e.Age < lease || e.Silent > 0 {
		return Alive, ""
	}
	return Lost, fmt.Sprintf("no heartbeat for %v", lease)
}
