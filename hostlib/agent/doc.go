// Package agent is the host's agent: it makes the host known to the stations and keeps what the
// host is assigned, so that programs on it can open their volumes with all stations down.
//
// It owns the host's data folder, its certificate, its count of starts and its stream to the stations,
// and it is the one place of a host where stamps are judged. What it confirms is on disk
// before. It must never touch a volume's data, never decide what a host may have, and never tell a
// secret to anybody but the folder's owner.
//
// # What supersedes what
//
// Each state that a station sends says of which moment of the tables it is. The newest such moment is
// kept (the floor), and a station behind it is refused whole: it is not wrong, only late, and the link asks
// another. Each assignment has a stamp of its own beside that, and a lower one is refused. So an
// assignment that was taken away needs no tombstone: what would bring it back wrongly is of a moment
// before the floor.
package agent
