// Package convert owns the translation between the wire (api/gen) and Sandbar's
// vocabulary (san): error kinds and Connect codes, stamps, times.
//
// It holds no state, decides nothing and talks to nobody. What the stations alone
// need (table rows) is translated in controlplane/wire, so that units, hosts and the
// CLI, which import this package, never see the state machine.
package convert
