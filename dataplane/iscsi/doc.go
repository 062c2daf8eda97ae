// Package iscsi is the target side of the iSCSI transport (RFC 7143): it takes
// connections, conducts logins, and carries commands, data and answers between
// initiators and the device servers behind the targets.
//
// It owns sessions: who may log in (it asks a [Directory]), authentication, parameter
// negotiation, command order and window, data transfer, task management, and the end of
// sessions, be it by logout, loss, reinstatement or [Server.CloseSessions]. It must never look into a
// CDB or at a volume, never decide by itself who may reach what, never log per command,
// never let one session's failure or slowness touch another's, and never import the
// control plane or hostlib.
//
// # What it speaks
//
// One connection to a session, ErrorRecoveryLevel 0: whatever is lost or damaged on the
// wire ends the session, and the initiator logs in again. CHAP with MD5 or SHA-256, one-way and
// mutual. Header and data digests. Immediate, unsolicited and solicited data. Discovery
// sessions. All data PDUs and sequences in order.
//
// # How a command runs
//
// One goroutine per connection reads. A command goes into the session's task set and is executed once
// its data is complete: by the reader itself if it is small and needs to wait for nothing, a
// read from memory or a write into it (direct.go); else by one of the session's workers. Should the
// reader be held up nevertheless, another takes over after 5 to 10 ms. Whoever queues
// an answer while nobody is sending sends all that is queued with one vectored write. A command is answered and leaves the task set in one step under the
// session's lock; so an abort finds it either unanswered, and then it never is, or gone.
// Each session has a task set of its own, in which ORDERED commands wait for those before them and the
// HEAD OF QUEUE goes first; SIMPLE ones alone pay nothing for that (see taskSet).
// Task management functions are answered when the last command that they affect has
// been resolved. A command is counted by package meter where it enters the task set and where it is
// answered or dropped from it.
//
// # Bounds
//
// README.md has the numbers; nearly each is a field of [Limits]. The data of all sessions comes out of one
// budget, of which each session has a small part for itself and hosts share the rest (budget.go); who
// finds no room waits, and is not read from while its data would have to be taken unasked.
//
// An initiator that sends nothing for 15 s is pinged; when it is silent for 30 s more,
// or takes no data for that long, its session ends.
package iscsi
