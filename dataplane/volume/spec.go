package volume

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

// maxSlices bounds over how many parts a replica is spread on one unit.
const maxSlices = 1024

// Spec says what a replica is: decided by the stations, and never changed by the unit. A volume that grows gets
// a new Spec that continues its old one.
type Spec struct {
	ID             san.VolumeID
	SizeBytes      int64
	BlockSizeBytes uint32
	// Slices are the parts of the volume, in order; together they have exactly the
	// extents that SizeBytes needs.
	Slices []Slice
}

// Slice is a number of neighbouring extents of a volume on one medium.
type Slice struct {
	Medium  san.MediumID
	Extents uint32
}

// firstLogical is the index in the volume of slice i's first extent.
func (s Spec) firstLogical(i int) uint32 {
	first := uint32(0)
	for _, sl := range s.Slices[:i] {
		first += sl.Extents
	}
	return first
}

// extents is how many extents the volume has in all.
func (s Spec) extents() uint32 { return s.firstLogical(len(s.Slices)) }

// continues reports whether s is o, or o and something behind it: every extent of o is in the same
// place in s. A slice may be cut in two that follow each other.
func (s Spec) continues(o Spec) bool {
	if s.ID != o.ID || s.BlockSizeBytes != o.BlockSizeBytes || s.SizeBytes < o.SizeBytes {
		return false
	}
	i, used := 0, uint32(0) // the next extent of s: slice i, after used of its extents
	for _, sl := range o.Slices {
		for left := sl.Extents; left > 0; {
			if i == len(s.Slices) || s.Slices[i].Medium != sl.Medium {
				return false
			}
			n := min(left, s.Slices[i].Extents-used)
			left, used = left-n, used+n
			if used == s.Slices[i].Extents {
				i, used = i+1, 0
			}
		}
	}
	return true
}

func (s Spec) equal(o Spec) bool {
	return s.ID == o.ID && s.SizeBytes == o.SizeBytes && s.BlockSizeBytes == o.BlockSizeBytes && slices.Equal(s.Slices, o.Slices)
}

// check reports whether s makes sense for extents of the given size.
func (s Spec) check(extentSizeBytes int64) error {
	if err := checkID(s.ID); err != nil {
		return err
	}
	if err := san.CheckVolumeSize(s.SizeBytes, s.BlockSizeBytes); err != nil {
		return san.Wrap("volume "+string(s.ID), err)
	}
	if len(s.Slices) == 0 || len(s.Slices) > maxSlices {
		return san.Errorf(san.KindInvalid, "volume %s has %d slices; 1 to %d are allowed", s.ID, len(s.Slices), maxSlices)
	}
	have := int64(0)
	for _, sl := range s.Slices {
		if sl.Extents == 0 {
			return san.Errorf(san.KindInvalid, "volume %s has a slice without extents on medium %s", s.ID, sl.Medium)
		}
		have += int64(sl.Extents)
	}
	if need := (s.SizeBytes + extentSizeBytes - 1) / extentSizeBytes; have != need {
		return san.Errorf(san.KindInvalid, "volume %s of %s needs %d extents of %s, its slices have %d", s.ID, san.FormatSize(s.SizeBytes), need, san.FormatSize(extentSizeBytes), have)
	}
	return nil
}

func checkID(id san.VolumeID) error {
	u, err := uuid.Parse(string(id))
	if err != nil || u.String() != string(id) || u == uuid.Nil {
		return san.Errorf(san.KindInvalid, "volume id %q is not a lower-case UUID", id)
	}
	return nil
}

// State is what a replica's record says of it, or what its start found.
type State string

// The states of a replica.
const (
	// StateCreating is one whose creation was not finished; Create goes on with it and
	// Delete undoes it.
	StateCreating State = "creating"
	// StateReady is one that is open for I/O.
	StateReady State = "ready"
	// StateDeleting is one whose deletion was not finished; Delete goes on with it.
	StateDeleting State = "deleting"
	// StateOffline is a ready one whose medium is not present.
	StateOffline State = "offline"
	// StateDamaged is one whose record or extents can't be trusted.
	StateDamaged State = "damaged"
)

const recordVersion = 1

// recordFile is a replica's record as it is stored.
type recordFile struct {
	Version        int           `json:"version"`
	State          State         `json:"state"`
	ID             san.VolumeID  `json:"id"`
	SizeBytes      int64         `json:"sizeBytes"`
	BlockSizeBytes uint32        `json:"blockSizeBytes"`
	Slices         []recordSlice `json:"slices"`
}

type recordSlice struct {
	Medium  san.MediumID `json:"medium"`
	Extents uint32       `json:"extents"`
}

func encodeRecord(s Spec, state State) ([]byte, error) {
	r := recordFile{Version: recordVersion, State: state, ID: s.ID, SizeBytes: s.SizeBytes, BlockSizeBytes: s.BlockSizeBytes}
	for _, sl := range s.Slices {
		r.Slices = append(r.Slices, recordSlice(sl))
	}
	return json.Marshal(r)
}

// parseRecord is encodeRecord's inverse. It takes nothing that encodeRecord would not
// have written for a volume that makes sense.
func parseRecord(b []byte, extentSizeBytes int64) (Spec, State, error) {
	var r recordFile
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Spec{}, "", fmt.Errorf("%w: %w", disk.ErrDamaged, err)
	}
	if r.Version != recordVersion {
		return Spec{}, "", fmt.Errorf("%w: record version %d is not known to this release (it knows %d)", disk.ErrDamaged, r.Version, recordVersion)
	}
	s := Spec{ID: r.ID, SizeBytes: r.SizeBytes, BlockSizeBytes: r.BlockSizeBytes}
	for _, sl := range r.Slices {
		s.Slices = append(s.Slices, Slice(sl))
	}
	switch r.State {
	case StateCreating, StateReady, StateDeleting:
	default:
		return Spec{}, "", fmt.Errorf("%w: state %q", disk.ErrDamaged, r.State)
	}
	if err := s.check(extentSizeBytes); err != nil {
		return Spec{}, "", fmt.Errorf("%w: %w", disk.ErrDamaged, err)
	}
	return s, r.State, nil
}
