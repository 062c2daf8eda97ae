package fsm

import (
	"slices"

	"github.com/sandbar-san/sandbar/san"
)

// clone copies a so that its fields and its units' may be changed.
func (a *Assignment) clone() *Assignment {
	b := *a
	b.Units = slices.Clone(a.Units)
	return &b
}

// unitAt returns which confirmation of a is unit's, -1 if none is.
func (a *Assignment) unitAt(unit san.UnitID) int {
	return slices.IndexFunc(a.Units, func(u UnitConfirmation) bool { return u.Unit == unit })
}

// confirmedByUnits reports whether every unit has a's generation.
func (a *Assignment) confirmedByUnits() bool {
	return !slices.ContainsFunc(a.Units, func(u UnitConfirmation) bool { return u.Generation != a.Generation })
}

// Assign gives a volume to a host; refused while any host has it.
type Assign struct {
	H                Header       `cbor:"1,keyasint"`
	Volume           san.VolumeID `cbor:"2,keyasint"`
	Host             san.HostID   `cbor:"3,keyasint"`
	CHAPUser         string       `cbor:"4,keyasint"`
	CHAPSecretSealed []byte       `cbor:"5,keyasint"`
}

// Kind implements Command.
func (c *Assign) Kind() Kind { return KindAssign }

// Header implements Command.
func (c *Assign) Header() *Header { return &c.H }

func (c *Assign) action() string { return "volume.assign" }

func (c *Assign) apply(x *tx) (string, error) {
	v, err := x.disk(c.Volume)
	if err != nil {
		return "", err
	}
	if v.State == VolumeDeleting {
		return "", refuse(san.KindConflict, "volume %q is being deleted and can't be assigned; create another", v.Name)
	}
	row := v.clone()
	if err := x.grant(row, c.Host, c.CHAPUser, c.CHAPSecretSealed); err != nil {
		return "", err
	}
	x.put(row)
	return AssignmentKey(v.ID, c.Host), nil
}

// grant makes the next generation of v, which the caller puts, an assignment to host.
func (x *tx) grant(v *Volume, host san.HostID, user string, secret []byte) error {
	if _, err := x.guest(host); err != nil {
		return err
	}
	if has := x.AssignmentsOf(v.ID); len(has) > 0 {
		a := has[0]
		if a.State == AssignmentReleasing {
			return refuse(san.KindConflict, "volume %q is still being released by host %q; try again once it is gone from there", v.Name, a.Host)
		}
		return refuse(san.KindConflict, "volume %q is assigned to host %q; unassign it there first: sandbar volume unassign %s --host %s", v.Name, a.Host, v.Name, a.Host)
	}
	if user == "" || len(user) > maxCHAPUser {
		return refuse(san.KindInvalid, "CHAP user of volume %q has %d bytes; 1 to %d are allowed", v.Name, len(user), maxCHAPUser)
	}
	if err := checkBytes("sealed CHAP secret of volume "+v.Name, secret, maxSealed); err != nil {
		return err
	}
	v.LastGeneration++
	a := &Assignment{Volume: v.ID, Host: host, Generation: v.LastGeneration, State: AssignmentPending,
		CHAPUser: user, CHAPSecretSealed: secret, At: x.at, Units: make([]UnitConfirmation, len(v.Copies))}
	for i := range v.Copies {
		a.Units[i].Unit = v.Copies[i].Unit
	}
	x.put(a)
	return nil
}

// Unassign raises the generation and starts the release; the row goes once every unit confirmed. Unassigning
// what is being released changes nothing.
type Unassign struct {
	H      Header       `cbor:"1,keyasint"`
	Volume san.VolumeID `cbor:"2,keyasint"`
	Host   san.HostID   `cbor:"3,keyasint"`
}

// Kind implements Command.
func (c *Unassign) Kind() Kind { return KindUnassign }

// Header implements Command.
func (c *Unassign) Header() *Header { return &c.H }

func (c *Unassign) action() string { return "volume.unassign" }

func (c *Unassign) apply(x *tx) (string, error) {
	v, err := x.disk(c.Volume)
	if err != nil {
		return "", err
	}
	a := x.Assignment(c.Volume, c.Host)
	if a == nil {
		if has := x.AssignmentsOf(v.ID); len(has) > 0 {
			return "", refuse(san.KindNotFound, "volume %q is not assigned to host %q but to %q; name that one", v.Name, clip(string(c.Host)), has[0].Host)
		}
		return "", refuse(san.KindNotFound, "volume %q is not assigned to any host; there is nothing to take away", v.Name)
	}
	key := AssignmentKey(a.Volume, a.Host)
	if a.State == AssignmentReleasing {
		return key, nil
	}
	vol := v.clone()
	vol.LastGeneration++
	x.put(vol)
	row := a.clone()
	row.State, row.Generation, row.HostError, row.At = AssignmentReleasing, vol.LastGeneration, "", x.at
	for i := range row.Units {
		row.Units[i].Error = ""
	}
	x.put(row)
	return key, nil
}

// unitReady notes that unit i of a has a's generation in force.
func (x *tx) unitReady(a *Assignment, i int) {
	if a.State == AssignmentReleasing || a.Units[i].Generation == a.Generation && a.Units[i].Error == "" {
		return
	}
	row := a.clone()
	row.Units[i].Generation, row.Units[i].Error = a.Generation, ""
	x.putConfirmed(row)
}

// hostReady notes that the host's agent has a's generation in force.
func (x *tx) hostReady(a *Assignment) {
	if a.State == AssignmentReleasing || a.HostGeneration == a.Generation && a.HostError == "" {
		return
	}
	row := a.clone()
	row.HostGeneration, row.HostError = a.Generation, ""
	x.putConfirmed(row)
}

// putConfirmed puts row, Assigned if that was the last confirmation it needed.
func (x *tx) putConfirmed(row *Assignment) {
	h := x.Host(row.Host)
	byHost := h == nil || !h.Agent || row.HostGeneration == row.Generation
	if row.State == AssignmentPending && byHost && row.confirmedByUnits() {
		row.State, row.At = AssignmentAssigned, x.at
	}
	x.put(row)
}

// unitReleased notes that unit i of a lets nobody in any more; with the last one the row goes.
func (x *tx) unitReleased(a *Assignment, i int) {
	if a.State != AssignmentReleasing {
		return
	}
	row := a.clone()
	row.Units[i].Generation, row.Units[i].Error = a.Generation, ""
	if row.confirmedByUnits() {
		x.del(row)
		return
	}
	x.put(row)
}

// unitFailed notes why unit i of a could not do as a says.
func (x *tx) unitFailed(a *Assignment, i int, why string) {
	if why = clip(why); a.Units[i].Error != why {
		row := a.clone()
		row.Units[i].Error = why
		x.put(row)
	}
}

// hostFailed notes why the host's agent could not do as a says.
func (x *tx) hostFailed(a *Assignment, why string) {
	if why = clip(why); a.HostError != why {
		row := a.clone()
		row.HostError = why
		x.put(row)
	}
}
