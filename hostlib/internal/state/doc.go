// Package state is what a host's agent keeps on disk of its assignments, for itself after a
// restart and for programs that open volumes on that host.
//
// It owns the file's form: one file that is replaced whole, readable by its owner alone since CHAP
// secrets are in it. It must never judge what a station says (the agent does) and never talks to
// anybody.
package state
