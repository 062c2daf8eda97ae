// Package extent divides one medium into extents and says which volume each belongs to.
//
// It owns a medium's layout: the superblock (whose medium this is), the extent table
// (who owns each extent), and the rule that an extent is zeroed, stably, before the
// table gives it to an owner, so that nobody ever reads what a former owner wrote. All
// metadata is in two checksummed copies, and a power cut at any write leaves the state
// before or after each call, or, for a call that spans table pages, some of its
// extents; the replica's record (package volume) then decides about those.
//
// It owns also the medium's stability: Sync is shared by all who ask at the same time,
// and a failed one is remembered, because the kernel reports the loss once and to
// whoever asks first.
//
// It must never interpret what is in an extent, know a volume's size or state, or give
// out an extent that it did not zero itself.
package extent
