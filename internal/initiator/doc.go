// Package initiator is a userspace iSCSI initiator (RFC 7143): it logs in to a
// target, keeps many SCSI requests in flight over one connection, and offers a
// logical unit as a block device.
//
// It owns the initiator's half of the protocol: login with CHAP, negotiation,
// command numbering, immediate and solicited data, keepalive, discovery, task
// abort, logout, and, on top of them, Device. It never reconnects, never picks a path and
// never sends a request again after its connection is gone: it says whether a
// request may have taken effect (RequestError) and leaves the choice to its caller.
//
// # Goroutines
//
// A Session has one reader, one writer and one watchdog, started by Dial and gone when
// Done is closed. The reader never waits for the writer. A submitter writes its own
// request when the line is free, and leaves it to the present writer otherwise, so that requests
// submitted together leave in one system call.
//
// # Buffers
//
// Data goes from the caller's buffer to the socket and from the socket into the caller's
// buffer. A call returns only when the session no longer touches the buffer. A call
// whose context ends while its own bytes are being moved therefore returns when that
// move ends, which the keepalive bounds; Session.Close ends it at once.
//
// # Bounds
//
// Everything that a target sends is bounded: a PDU's data by the length that we declared, additional
// header segments to 1,020 bytes (skipped), login text by Limits.LoginTextBytes,
// discovery text by Limits.DiscoveryTextBytes, sense data to 252 bytes, redirects by
// Limits.Redirects, requests in flight by Limits.QueueDepth, R2Ts per request to one,
// unanswered target pings to 64, asynchronous messages to what one log line
// holds. Whatever breaks a bound ends the session with a ProtocolError.
//
// Negotiated always: one connection, ErrorRecoveryLevel 0, InitialR2T=Yes,
// MaxOutstandingR2T=1, data in order. Unsolicited data is immediate data only.
package initiator
