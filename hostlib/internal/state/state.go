package state

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// FileName is the file of the assignments in the agent's data folder.
	FileName = "assignments.json"
	// HostFileName is the file of what a Host says.
	HostFileName = "host.json"
	// IdentityFolder holds the host's certificate.
	IdentityFolder = enrol.IdentityFolder

	version = 1
	// maxBytes bounds the file: MaxAssignments of the longest.
	maxBytes = 64 << 20
	// MaxAssignments bounds what one host is assigned.
	MaxAssignments = 10_000
	// MaxPaths bounds the paths of one assignment.
	MaxPaths = 16
)

// Host is what a program on the host needs to know of it.
type Host struct {
	ID         san.HostID `json:"id"`
	Initiators []string   `json:"initiators"`
	Endpoints  []string   `json:"endpoints"` // of stations
}

// WriteHost makes h stable.
func WriteHost(dir *datadir.Dir, h Host) error { return dir.WriteJSON(HostFileName, h) }

// ReadHost returns what an agent keeps of its host; san.KindNotFound if there is no agent's folder.
func ReadHost(dataDir string) (Host, error) {
	name := filepath.Join(dataDir, HostFileName)
	b, err := readBounded(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Host{}, san.Errorf(san.KindNotFound, "%s is no data folder of a host agent that has joined a cluster; start 'sandbar host run' with it first", dataDir)
	}
	if err != nil {
		return Host{}, err
	}
	var h Host
	if err := json.Unmarshal(b, &h); err != nil {
		return Host{}, san.Errorf(san.KindInternal, "%s is damaged (%w); restart the host agent, which writes it anew", name, err)
	}
	return h, nil
}

// readBounded reads a whole file; the error is fs.ErrNotExist if there is none.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "the host agent's folder can't be read: %w; run as the agent's user", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, san.Errorf(san.KindInternal, "read %s: %w", name, err)
	}
	if len(b) > maxBytes {
		return nil, san.Errorf(san.KindInternal, "%s has more than %d bytes; remove it and restart the host agent, which writes it anew", name, maxBytes)
	}
	return b, nil
}

// Path is one way from the host to a volume.
type Path struct {
	Unit   san.UnitID `json:"unit"`
	Portal string     `json:"portal"`
	Target string     `json:"target"`
	LUN    uint32     `json:"lun"`
	// StartLBA and EndLBA are the first and last block, in blocks of the volume.
	StartLBA san.LBA `json:"startLba"`
	EndLBA   san.LBA `json:"endLba"`
}

// Assignment is one volume that the host has.
type Assignment struct {
	// Stamp is the newest that was seen of this assignment.
	Stamp          san.Stamp      `json:"stamp"`
	Volume         san.VolumeID   `json:"volume"`
	Name           string         `json:"name"`
	Generation     san.Generation `json:"generation"`
	SizeBytes      int64          `json:"sizeBytes"`
	BlockSizeBytes uint32         `json:"blockSizeBytes"`
	CHAPUser       string         `json:"chapUser"`
	CHAPSecret     string         `json:"chapSecret"`
	Paths          []Path         `json:"paths"`
}

// Equal reports whether a and o say the same, stamps included.
func (a Assignment) Equal(o Assignment) bool {
	return slices.Equal(a.Paths, o.Paths) && a.Stamp == o.Stamp && a.Volume == o.Volume && a.Name == o.Name && a.Generation == o.Generation &&
		a.SizeBytes == o.SizeBytes && a.BlockSizeBytes == o.BlockSizeBytes && a.CHAPUser == o.CHAPUser && a.CHAPSecret == o.CHAPSecret
}

// State is the whole file.
type State struct {
	Version int        `json:"version"`
	Host    san.HostID `json:"host"`
	// Floor is the newest state of the tables that a station has shown. An older one is refused, so that what
	// was taken away does not come back.
	Floor       san.Stamp    `json:"floor"`
	Assignments []Assignment `json:"assignments"`
}

// Find returns the assignment of a volume by id or name, nil if there is none.
func (s *State) Find(volume string) *Assignment {
	for i := range s.Assignments {
		if a := &s.Assignments[i]; string(a.Volume) == volume || a.Name == volume {
			return a
		}
	}
	return nil
}

// Write makes s stable, sorted by volume.
func Write(dir *datadir.Dir, s State) error {
	s.Version = version
	slices.SortFunc(s.Assignments, func(a, b Assignment) int { return cmp.Compare(a.Volume, b.Volume) })
	return dir.WriteJSON(FileName, s)
}

// Read returns the state in an agent's data folder, zero if the agent has kept none yet. It needs no
// lock, since the file is replaced whole.
func Read(dataDir string) (State, error) {
	name := filepath.Join(dataDir, FileName)
	b, err := readBounded(name)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, err
	}
	var s State
	switch err := json.Unmarshal(b, &s); {
	case err != nil:
		return State{}, san.Errorf(san.KindInternal, "%s is damaged (%w); remove it and restart the host agent, which asks the stations for it again", name, err)
	case s.Version != version:
		return State{}, san.Errorf(san.KindInvalid, "%s is of version %d, this program reads version %d; upgrade it", name, s.Version, version)
	}
	return s, nil
}
