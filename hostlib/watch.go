package hostlib

import (
	"context"
	"math/rand/v2"
	"slices"

	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/san"
)

// Change says what happened to an assignment.
type Change string

// The changes.
const (
	ChangeAdded   Change = "Added"
	ChangeChanged Change = "Changed"
	ChangeRemoved Change = "Removed"
)

// AssignmentEvent is one change of what this host is assigned.
type AssignmentEvent struct {
	Change Change
	// Assignment is as it is now or, for ChangeRemoved, as it was last.
	Assignment *Assignment
}

// Watch calls fn for each assignment that there is, and then for each change, until ctx ends (nil) or fn
// fails (its error). With DataDir it follows what the host's agent keeps, within some 0.2 s and with all stations down; such
// an assignment may not be confirmed by its units yet. Otherwise it asks the stations every 2 s, since the
// cluster's watch stream is not open to host-scoped callers. Changes that undo each other in between are not seen.
func (c *Client) Watch(ctx context.Context, fn func(AssignmentEvent) error) error {
	every, read := c.timing.watchStations, c.list
	if c.cfg.DataDir != "" {
		every, read = c.timing.watchAgent, func(context.Context) ([]*Assignment, error) {
			s, err := state.Read(c.cfg.DataDir)
			return keptAll(&s), err
		}
	}
	known := map[string]*Assignment{}
	for {
		now, err := read(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && san.KindOf(err) != san.KindUnavailable:
			return err
		case err == nil:
			for _, e := range difference(known, now) {
				if err := fn(e); err != nil {
					return err
				}
			}
		}
		if !pause(ctx, every-every/8+rand.N(every/4)) {
			return nil
		}
	}
}

// difference makes known what now is and returns how they differed.
func difference(known map[string]*Assignment, now []*Assignment) []AssignmentEvent {
	var events []AssignmentEvent
	var gone []string
	for id := range known {
		if !slices.ContainsFunc(now, func(a *Assignment) bool { return a.Volume == id }) {
			gone = append(gone, id)
		}
	}
	slices.Sort(gone)
	for _, id := range gone {
		events = append(events, AssignmentEvent{ChangeRemoved, known[id]})
		delete(known, id)
	}
	for _, a := range now {
		switch old := known[a.Volume]; {
		case old == nil:
			events = append(events, AssignmentEvent{ChangeAdded, a})
		case !old.equal(a):
			events = append(events, AssignmentEvent{ChangeChanged, a})
		}
		known[a.Volume] = a
	}
	return events
}
