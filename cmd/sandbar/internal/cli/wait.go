package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

// How often a waiting command looks. Reads cost stations little, and every role may make
// them; a watch is for those who may see all.
const (
	pollMin = 20 * time.Millisecond
	pollMax = 500 * time.Millisecond
)

// States that are waited for, as the stations write them.
const (
	stateReady     = "Ready"
	stateDeleting  = "Deleting"
	stateAssigned  = "Assigned"
	stateReleasing = "Releasing"
)

// condition reports whether vol is as wanted; an error if it never will be, and else what it
// still lacks.
type condition func(vol *pb.Volume) (done bool, lacks string, err error)

// madeAndAssigned waits for Ready or, with a host, for the host's assignment to be Assigned.
func madeAndAssigned(host string) condition {
	return func(vol *pb.Volume) (bool, string, error) {
		if vol.State == stateDeleting {
			return false, "", san.Errorf(san.KindConflict, "volume %s was deleted by somebody else meanwhile", vol.Name)
		}
		if host == "" {
			return vol.State == stateReady, "is still " + vol.State, nil
		}
		a := assignmentOf(vol, host)
		if a == nil || a.State == stateReleasing {
			return false, "", san.Errorf(san.KindConflict, "volume %s was taken away from host %s by somebody else meanwhile", vol.Name, host)
		}
		return a.State == stateAssigned, fmt.Sprintf("is %s and its assignment to host %s still %s", vol.State, host, a.State), nil
	}
}

// hasSize waits until all copies have confirmed a size, or a larger one.
func hasSize(bytes int64) condition {
	return func(vol *pb.Volume) (bool, string, error) {
		if vol.State == stateDeleting {
			return false, "", san.Errorf(san.KindConflict, "volume %s was deleted by somebody else meanwhile", vol.Name)
		}
		for _, c := range vol.Copies {
			if c.SizeBytes < bytes {
				return false, fmt.Sprintf("is still %s: unit %s has %s of %s", vol.State, c.UnitId, san.FormatSize(c.SizeBytes), san.FormatSize(bytes)), nil
			}
		}
		return true, "", nil
	}
}

// released waits until the assignment that begins to be released in vol is gone; a later one to the
// same host is another's.
func released(vol *pb.Volume, host string) condition {
	was := assignmentOf(vol, host).GetGeneration()
	return func(vol *pb.Volume) (bool, string, error) {
		a := assignmentOf(vol, host)
		if a == nil || a.Generation > was {
			return true, "", nil
		}
		return false, fmt.Sprintf("is still being released by host %s", host), nil
	}
}

// awaitVolume reads vol until it is as wanted or ctx ends.
func (s *session) awaitVolume(ctx context.Context, vol *pb.Volume, wanted condition) (*pb.Volume, error) {
	for wait := pollMin; ; wait = min(2*wait, pollMax) {
		done, lacks, err := wanted(vol)
		if done || err != nil {
			return vol, err
		}
		if !pause(ctx, wait) {
			return nil, tooLate(vol, lacks)
		}
		next, err := s.volume(ctx, vol.Id)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, tooLate(vol, lacks)
		case err != nil:
			return nil, err
		}
		vol = next
	}
}

// awaitGone reads vol until it does not exist.
func (s *session) awaitGone(ctx context.Context, vol *pb.Volume) error {
	for wait := pollMin; ; wait = min(2*wait, pollMax) {
		now, err := s.volume(ctx, vol.Id)
		switch {
		case san.KindOf(err) == san.KindNotFound:
			return nil
		case err != nil && ctx.Err() == nil:
			return err
		case err == nil:
			vol = now
		}
		if !pause(ctx, wait) {
			return tooLate(vol, "is still "+vol.State)
		}
	}
}

// pause waits for d; false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tooLate says what a volume lacked when time ran out, and what its units say of it.
func tooLate(vol *pb.Volume, lacks string) error {
	name := vol.Name
	if name == "" {
		name = vol.Id
	}
	var said []string
	for _, c := range vol.Copies {
		if c.Error != "" {
			said = append(said, fmt.Sprintf("; unit %s says: %s", c.UnitId, c.Error))
		}
	}
	for _, a := range vol.Assignments {
		for _, p := range a.Paths {
			if p.Reason != "" {
				said = append(said, fmt.Sprintf("; path by unit %s: %s", p.UnitId, p.Reason))
			}
		}
	}
	return san.Errorf(san.KindUnavailable, "volume %s %s when time ran out%s; the stations go on with it: see 'sandbar volume show %s'",
		name, lacks, strings.Join(said, ""), name)
}
