// Package meter counts what the sessions with a target do: commands, bytes, errors, latencies and queue
// depth, by reads, writes and other commands.
//
// It owns the counters and their arithmetic. A [Session]'s are written by the session's own goroutines with
// a few atomic additions for each command, without locks or allocation; a [Target] sums its sessions up, those
// that have ended included, when it is asked, and samples them for the rates when it is told to. Of a CDB it
// looks at the operation code alone.
//
// It must never hold a command up, never call back, and never keep anything on disk: a unit that starts counts
// from zero.
//
// # What the figures mean
//
//   - A command is counted when it is answered, before its answer is sent: who has the answer finds it counted.
//   - Bytes are those that crossed the session as data: data-in sent and data-out received. WRITE SAME counts
//     its one block, not what it filled.
//   - An error is an answer with another status than GOOD, unit attentions and reservation conflicts included.
//   - The latency begins when the command's turn has come (its header has been read), so it includes the wait for
//     data that the initiator has still to send, and ends when its answer is ready to be sent.
//   - The queue depth is how many commands are between these two. What lies in the connection's buffers, because
//     the unit is still at the commands before it, is in neither.
//   - Aborted commands are answered by nobody and are counted apart.
package meter
