package convert

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

// Stamp reads a stamp; nil is the zero stamp.
func Stamp(s *pb.Stamp) san.Stamp {
	return san.Stamp{ClusterGeneration: s.GetClusterGeneration(), Index: san.Index(s.GetIndex())}
}

// StampProto writes a stamp.
func StampProto(s san.Stamp) *pb.Stamp {
	return &pb.Stamp{ClusterGeneration: s.ClusterGeneration, Index: uint64(s.Index)}
}

// TimeProto writes a time; the zero time is absent.
func TimeProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
