package dataplane

import (
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

// storageInfo is what the unit tells about its storage (Fig. 3d). Replicas whose medium is away are
// left out: they are not there.
func storageInfo(info volume.StorageInfo) *pb.StorageInfo {
	out := &pb.StorageInfo{}
	for _, m := range info.Media {
		out.Media = append(out.Media, &pb.MediumInfo{Id: string(m.ID), Path: m.Path, CapacityExtents: m.Extents, UsedExtents: m.UsedExtents})
	}
	for _, v := range info.Volumes {
		if v.State == volume.StateOffline {
			continue
		}
		r := &pb.ReplicaInfo{VolumeId: string(v.ID), SizeBytes: v.SizeBytes, StartLba: uint64(v.StartLBA), LengthBlocks: v.LengthBlocks, EndLba: uint64(v.EndLBA)}
		for _, run := range v.Runs {
			r.Extents += uint32(run.LengthBlocks / (san.ExtentSizeBytes / extent.BlockSizeBytes))
		}
		out.Replicas = append(out.Replicas, r)
	}
	return out
}
