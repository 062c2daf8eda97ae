// Package replica keeps one station's copy of the replicated state: it is the only importer of raft and
// of raft's log store.
//
// It owns the Raft group's membership, the station's log, its snapshots and the connections between
// stations; it feeds committed entries to the state machine in order and answers proposals and
// linearizable reads. Raft is the cluster's only authority, so what is uncertain is said to be so: a
// proposal whose fate could not be learnt ends in san.KindUnknown, never in a guess.
//
// It must never decide what a command means (package fsm does), never carry on after an entry that the
// state machine could not understand or after the disk failed, never answer a read that a newer leader
// could contradict, and never talk to a peer that has not proved to be the station it was taken for.
//
// # Safety decisions
//
// An undecodable entry halts the replica. raft has no way for a state machine to refuse an entry, and it
// counts an entry as applied when it hands it over. So from the bad entry on nothing is applied, captured
// or restored, every proposal is answered as unknown, and Run returns the reason. raft's own count lives in
// memory only; with no snapshot the log keeps the entry, and the next start replays up to it again. Nothing
// is lost: a program that knows the entry goes on from there.
//
// A read waits for a barrier of this term (a fresh leader may not know yet what its predecessor
// committed), takes the commit index, has a quorum confirm the leadership after that, checks that the term
// is still the same, and waits until the state machine has reached the index. Concurrent readers share
// one confirmation. raft may count a confirmation that was already under way; no answer is older than
// Timing.RPC, which is below Timing.Heartbeat, within which no voter deserts a leader. Only a handover of
// the leadership voids that, so reads are refused while one is under way.
//
// A leader whose disk hangs keeps its heartbeats going and would never be replaced. A watchdog times
// every write: after a quarter of Config.StallLimit it closes all connections and refuses new ones, so
// that the others elect a leader; when the disk comes back in time, they are allowed again, and when it does
// not, Run returns with an error. A failed write is final at once, because after a failed fsync nobody
// knows what is on the disk. In both cases the process has to end: goroutines may be stuck in the kernel.
package replica
