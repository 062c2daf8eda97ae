// Package hostlib lets a program on a host use Sandbar's storage: it requests a volume, opens it,
// reads and writes it straight at the unit, and learns of what the host is assigned.
//
// It owns the initiator's side of a volume: the choice of path, the session and its replacement, and
// what must be done again after a loss. It must never serve data that a unit did not give it, never
// reorder requests that overlap, never report as stable what may be lost, and never put a station in the way of
// a read or a write.
//
// # Who may use it
//
// With Config.DataDir a program uses the folder of the host's agent: its certificate, its iSCSI name, and
// the assignments that the agent keeps, so that volumes open with all stations down. Without an agent, a
// token and the cluster's CA certificate do, and opening needs a station. Reading and writing never does.
//
// # A lost connection looks like a pause
//
// A Volume keeps one session at a time. When that ends (the unit restarts, the network is cut, the unit
// does not answer) it dials again until it succeeds, and requests wait instead of failing, until
// their contexts end or Config.RetryLimit is over. Why requests may be repeated:
//
//   - The login has the same ISID as before, and so takes the place of the old session
//     (RFC 7143 §6.3.5): the unit ends the old session's commands before it lets the new one begin. A unit that was
//     restarted has forgotten them. Thus no write of an old session takes effect after a request of
//     the new one. On this side nothing of the old session is left either when the new login begins.
//   - Requests of this Volume that overlap take effect one after the other; a read excludes only
//     writes. A write keeps its range until it is answered, and so between its first attempt and its
//     last nobody has seen what is in that range or changed it: writing the same bytes again
//     is the same as having written them once.
//   - A write whose caller stops waiting is not aborted, since nobody can say when an aborted write
//     has had its last effect. It goes on, holding its range, until it is answered or its session has ended. The
//     caller gets an error of san.KindUnknown.
//   - The volume is exclusive to this host. If it is taken away and assigned again, its generation differs, another
//     host may have written in between, and nothing is repeated: the volume is gone (ErrGone). The same if what
//     answers is another logical unit, which its name (WWID) tells at each login.
//
// # What a unit may lose
//
// A unit answers writes from its volatile cache; only Flush makes them stable. If a unit's machine loses
// power, what was answered and not flushed is gone there, and a Flush that succeeds after the restart
// would be a lie. So a Volume keeps a copy of what was answered since the last Flush and gives it
// to the unit again before a new session serves anything. An answer counts only if its session was still
// the present one when it was noted; if not, the request is done again. The copies are bounded by
// Config.UnflushedBytes: at half of it the Volume flushes by itself, at all of it writes wait for that. They are
// in this program's memory, so that they don't help if this machine fails too: that is what Flush is for.
//
// # Goroutines
//
// Each Volume has two, started by Open and gone when Close returns: one keeps the session, one flushes. A
// write or discard whose context can end runs in one of its own, which Close waits for.
package hostlib
