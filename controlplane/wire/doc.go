// Package wire translates the state machine's rows into the messages of api/gen.
//
// It is the one place that knows both shapes. It reads a View and decides nothing: what a
// message leaves out (secrets, hashes) is left out here, for every caller alike.
package wire
