package agentlink

import (
	"google.golang.org/protobuf/proto"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

// maxObjects bounds a full state: far more than any unit's media hold.
const maxObjects = 400_000

// assembler puts together the desired states of one stream.
type assembler struct {
	parts   *pb.DesiredState // of a full state that is not complete
	started bool             // a full state was complete
}

// add takes one message and returns the state that is complete with it, nil if none is.
func (a *assembler) add(m *pb.DesiredState) (*pb.DesiredState, error) {
	switch {
	case !m.Full && (a.parts != nil || !a.started):
		return nil, san.Errorf(san.KindInvalid, "the station sent a change before its full state was complete")
	case !m.Full:
		return m, nil
	case a.parts == nil:
		a.parts = m
	case !proto.Equal(m.Stamp, a.parts.Stamp):
		return nil, san.Errorf(san.KindInvalid, "the station mixed the parts of two full states")
	default:
		a.parts.Replicas = append(a.parts.Replicas, m.Replicas...)
		a.parts.Assignments = append(a.parts.Assignments, m.Assignments...)
	}
	if n := len(a.parts.Replicas) + len(a.parts.Assignments); n > maxObjects {
		return nil, san.Errorf(san.KindInvalid, "the station's full state has more than %d objects", maxObjects)
	}
	if m.More {
		return nil, nil
	}
	whole := a.parts
	whole.More = false
	a.parts, a.started = nil, true
	return whole, nil
}
