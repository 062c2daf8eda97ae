// Package controlplane is a station: it wires what is below it and runs it.
//
// It owns the order in which a station starts, founds or joins its cluster, and stops. The
// parts have packages of their own: replica (Raft), rpc (the API), agents (streams),
// discovery (who is lost), reconcile (what to do), access (who may), secrets (envelopes).
// It never touches a volume's data.
package controlplane
