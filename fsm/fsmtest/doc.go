// Package fsmtest is a scripted environment for the state machine: tests that read like transcripts.
//
// It owns the script language, the invariants that every state must keep (CheckInvariants) and agents that
// do what the state tells them (Agents). It feeds the machine encoded entries, as the log does, and never
// reaches around Apply. It is for tests and benchmarks only: no product code imports it.
package fsmtest
