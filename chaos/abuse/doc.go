// Package abuse attacks a running unit from outside, over its portal, as a broken or hostile initiator
// would: headers that lie, data that nobody asked for, floods, connections that die in the middle.
//
// A case passes when the unit answered what RFC 7143 asks for, or ended the connection; when initiators beside it,
// which verify their data, had no I/O that failed; when the unit's memory stayed below [MaxResidentBytes]; and when
// no file descriptor of it stays behind. When all cases have ended the unit shows its goroutines, and none may belong
// to a session that is gone.
//
// It owns its connections and its volumes' content. It must never look into the unit's process but through /proc and
// signals, nor take the end of a connection for an answer where the RFC asks for one.
package abuse
