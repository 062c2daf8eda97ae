// Package volume keeps this unit's replicas: one copy each of a volume's bytes.
//
// It owns a replica's record (what it is, and whether it is being made, ready or being
// deleted), the map from volume offsets to extents, the order of overlapping reads and
// writes, and flushes. Making and deleting a replica is safe against a crash at any
// write: the record says what was intended, and the next start or the next call finishes
// it.
//
// It must never decide whether a command is allowed, who may read, or what other copies
// hold, and never give out bytes that a former owner of an extent wrote. A Replica is
// the Store that package scsi asks for; this package does not know it.
package volume
