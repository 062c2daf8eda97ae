// Package rpc serves the stations' API over Connect, gRPC and plain HTTP with JSON.
//
// It owns who the caller is, whether the call is answered here or by the leader, request
// ids, and the decode → convert → call → convert of each method. Mutations and linearizable
// reads run on the leader: any other station passes them on over mTLS, and holds them up to
// five seconds while there is no leader. Stale reads and watches are answered from
// the station's own tables.
//
// It never decides whether a change is right (the state machine does), never places a
// volume by itself (reconcile/place does) and keeps no state between calls.
package rpc
