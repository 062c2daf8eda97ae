// Package tail keeps the newest entries of a station's Raft log in two small files that are only ever
// appended to, in front of a store that keeps the rest.
//
// It owns those files, the way entries take from them to the store, and what is read back after a crash.
// It must never answer a write before it is on the disk, never open files that miss something that was
// answered (it refuses them as damaged instead), and never know what an entry means.
//
// # Why
//
// A B-tree store syncs twice for each commit: pages, then the root. In a group of three a change waits for
// the leader's log and then for a follower's, which makes four syncs in a row. Here an append is one write
// and one sync of blocks that the file has already, and the store gets hundreds of entries at a time, in the
// background.
//
// # The files
//
// There are two, each of a fixed length that was written once, so that a sync has no metadata to write. One
// is active; when it is full the other becomes active, and the entries of the full one are moved to the store
// meanwhile. Each use of a file is a segment; segments are numbered from 1. A segment is a sequence of
// frames, aligned to 8 bytes; all numbers are little-endian:
//
//	 0  4  magic "SbT1"
//	 4  4  CRC-32C of all that follows, body included
//	 8  8  number of the segment
//	16  4  number of the frame in it, from 0
//	20  4  length of the body, bytes
//	24  1  kind: 1 entries, 2 removal, 3 moved
//	25  3  zero
//	28  4  in frame 0: how many frames the segment before has; 0 in segment 1
//	32  8  position of the frame in the file
//	40     body
//
// An entries frame holds what one append stored. A removal holds the first and the last index of a range that
// went (8 bytes each). A moved frame says that the store holds all of the segment whose number it has (8 bytes).
//
// # After a crash
//
// One frame at a time is written and synced, so a frame that is not whole was answered to nobody, if no later
// one of its segment is there; with a later one, the file is damaged. A segment that is not marked as moved must
// be there with as many frames as the next segment says. What is found is written to the store again: per
// index the last word counts, and a file is not used anew before the store has all of it, so repeating what
// the store has already changes nothing.
package tail
