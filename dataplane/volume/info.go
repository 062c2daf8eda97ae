package volume

import (
	"sort"

	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/san"
)

// StorageInfo is what a unit tells the stations about itself at its start (the seed's
// Fig. 3d): its media, and every volume with its first and last address and length.
type StorageInfo struct {
	Media   []MediumInfo
	Volumes []VolumeInfo
}

// MediumInfo is one medium.
type MediumInfo struct {
	ID              san.MediumID
	Path            string
	ExtentSizeBytes int64
	Extents         uint32
	UsedExtents     uint32
	CapacityBytes   int64
	UsedBytes       int64
	Failed          error // why nothing is stable on it any more; nil if it is well
}

// VolumeInfo is one replica. Its own addresses are in its blocks; they begin at 0, as a
// logical unit's do.
type VolumeInfo struct {
	ID             san.VolumeID
	State          State
	Problem        error
	SizeBytes      int64
	BlockSizeBytes uint32
	StartLBA       san.LBA
	LengthBlocks   uint64
	EndLBA         san.LBA // the last block's
	// Runs say where it is, in the order of its bytes.
	Runs []ExtentRun
}

// ExtentRun is a run of neighbouring extents on a medium, in blocks of
// extent.BlockSizeBytes from the medium's beginning.
type ExtentRun struct {
	Medium       san.MediumID
	StartLBA     san.LBA
	LengthBlocks uint64
}

// EndLBA is the run's last block.
func (r ExtentRun) EndLBA() san.LBA { return r.StartLBA + san.LBA(r.LengthBlocks) - 1 }

// StorageInfo returns what is on this unit. Volumes that own extents but have no record
// are among the damaged ones.
func (m *Manager) StorageInfo() StorageInfo {
	var info StorageInfo
	// Owners first, records second: a record is there before its volume's first extent
	// and until after its last, so that no volume on its way in or out looks unrecorded.
	owners := map[san.VolumeID]bool{}
	for _, md := range m.order {
		u := md.Usage()
		info.Media = append(info.Media, MediumInfo{ID: md.ID(), Path: md.Name(), ExtentSizeBytes: u.ExtentSizeBytes,
			Extents: u.Extents, UsedExtents: u.Used, CapacityBytes: u.CapacityBytes(), UsedBytes: u.UsedBytes(), Failed: md.Failed()})
		for id := range md.Volumes() {
			owners[id] = true
		}
	}
	for _, i := range m.List() {
		delete(owners, i.Spec.ID)
		v := VolumeInfo{ID: i.Spec.ID, State: i.State, Problem: i.Problem, SizeBytes: i.Spec.SizeBytes, BlockSizeBytes: i.Spec.BlockSizeBytes}
		if v.BlockSizeBytes > 0 && v.SizeBytes > 0 {
			v.LengthBlocks = uint64(v.SizeBytes) / uint64(v.BlockSizeBytes)
			v.EndLBA = v.StartLBA + san.LBA(v.LengthBlocks) - 1
		}
		v.Runs = m.runs(v.ID)
		info.Volumes = append(info.Volumes, v)
	}
	for id := range owners {
		if runs := m.runs(id); runs != nil {
			info.Volumes = append(info.Volumes, VolumeInfo{ID: id, State: StateDamaged, Runs: runs,
				Problem: san.Errorf(san.KindInternal, "volume %s has extents here but no record; restore the record, or delete the volume here to give its data up", id)})
		}
	}
	sort.Slice(info.Volumes, func(i, j int) bool { return info.Volumes[i].ID < info.Volumes[j].ID })
	return info
}

// Used returns how many extents of each medium belong to volumes. It costs next to nothing.
func (m *Manager) Used() map[san.MediumID]uint32 {
	used := make(map[san.MediumID]uint32, len(m.order))
	for _, md := range m.order {
		used[md.ID()] = md.Usage().Used
	}
	return used
}

// runs returns where a volume's extents are, by their place in the volume.
func (m *Manager) runs(id san.VolumeID) []ExtentRun {
	type placed struct {
		extent.Extent
		on *extent.Medium
	}
	var all []placed
	for _, md := range m.order {
		for _, e := range md.Extents(id) {
			all = append(all, placed{e, md})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Logical < all[j].Logical })
	var runs []ExtentRun
	for _, p := range all {
		start := san.LBA(p.on.OffsetBytes(p.Index) / extent.BlockSizeBytes)
		length := uint64(p.on.ExtentSizeBytes() / extent.BlockSizeBytes)
		if n := len(runs); n > 0 && runs[n-1].Medium == p.on.ID() && runs[n-1].EndLBA()+1 == start {
			runs[n-1].LengthBlocks += length
			continue
		}
		runs = append(runs, ExtentRun{Medium: p.on.ID(), StartLBA: start, LengthBlocks: length})
	}
	return runs
}
