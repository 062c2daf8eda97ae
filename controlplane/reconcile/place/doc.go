// Package place decides on which unit and media a new volume's extents go.
//
// It owns the planning rule and nothing else: Plan is a pure function of the request and of the room
// that each unit has, FromView gathers that room out of a view. It never changes anything and never
// reserves: what it returns goes into a fsm.CreateVolume, whose Apply checks the room again. When that
// refuses because somebody else was faster, plan again on a newer view.
package place
