// Package discovery keeps the pool's picture of who is there: it notices units and hosts that
// are lost, and stations' addresses that changed.
//
// Start-up and orderly shutdown (Fig. 3a–g) arrive on the agents' streams. What arrives nowhere is a
// crash: a lost stream, a failed gossip member and a missing heartbeat are hints, each of which
// may lie alone. A unit is marked unreachable only when its heartbeat lease ran out at all stations
// that can be asked, gossip no longer sees it, and a probe of it failed.
//
// It proposes and never writes; it runs on the leader, one term at a time.
package discovery
