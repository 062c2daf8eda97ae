// Package fsm is the replicated state machine: the tables of a Sandbar cluster and the commands
// that change them.
//
// It owns what every station must agree on: which stations, units, media, volumes, hosts,
// assignments and tokens there are, who asked for what, and which change is allowed next to which.
// One file per noun holds the noun's commands beside their apply; rows.go has the rows.
//
// It is pure. Apply looks at no clock, draws no random number, does no I/O and follows no map
// order: whoever proposes a command fixes its ids and times, so that each replica computes
// the same state, byte for byte. It never places volumes, never calls anybody and never trusts a
// proposer: it re-checks all that the state can show, and a refusal is itself a result that every
// replica computes alike. It knows nothing of raft.
//
// Reading: View is a snapshot that costs nothing to take and never changes; rows are immutable.
// Watching: Watch joins a View and a Subscription without a gap.
package fsm
