package wire

import (
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/fsm"
)

// Change renders one row's change. What a row refers to is taken from v, which may be
// newer than the change.
func Change(v fsm.View, ch fsm.Change) *pb.Change {
	out := &pb.Change{Index: uint64(ch.Index), Table: ch.Table.String(), Id: ch.ID, Deleted: ch.New == nil}
	switch row := ch.New.(type) {
	case *fsm.Volume:
		out.Row = &pb.Change_Volume{Volume: Volume(v, row)}
	case *fsm.Unit:
		out.Row = &pb.Change_Unit{Unit: Unit(v, row)}
	case *fsm.Medium:
		out.Row = &pb.Change_Medium{Medium: Medium(row)}
	case *fsm.Host:
		out.Row = &pb.Change_Host{Host: Host(row)}
	case *fsm.Assignment:
		out.Row = &pb.Change_Assignment{Assignment: Assignment(v, v.Volume(row.Volume), row)}
	case *fsm.Station:
		out.Row = &pb.Change_Station{Station: Station(row)}
	}
	return out
}
