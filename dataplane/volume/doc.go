// Package volume keeps this unit's replicas: one copy each of a volume's bytes.
//
// It owns a replica's record (what it is, and whether it is being made, ready or being
// deleted), the map from volume offsets to extents, the order of overlapping reads and
// writes, and flushes. Making, growing and deleting a replica is safe against a crash at any
// write: the record says what was intended, and the next start or the next call finishes
// it.
//
// It owns atomic writes too. They go through a journal beside the record (see journal), stable before
// the first byte goes to its place, and the next start carries out what a crash left in it: the
// content is the old or the new, never a mix. Ordinary writes pay one look at whether the journal
// has anything.
//
// It must never decide whether a command is allowed, who may read, or what other copies
// hold, and never give out bytes that a former owner of an extent wrote. A Replica is
// the Store that package scsi asks for; this package does not know it.
package volume
