package fsm

import "github.com/sandbar-san/sandbar/san"

// member returns the unit with that id, a refusal if there is none.
func (x *tx) member(id san.UnitID) (*Unit, error) {
	u := x.Unit(id)
	if u == nil {
		return nil, refuse(san.KindNotFound, "there is no unit %q; see: sandbar unit list", clip(string(id)))
	}
	return u, nil
}

// holdsCert refuses a unit that speaks with another certificate than its row's.
func (u *Unit) holdsCert(serial string) error {
	if serial != u.CertSerial {
		return refuse(san.KindDenied, "unit %q came with certificate %s, which is not the one it was given last; restart it with its own data folder", u.ID, clip(serial))
	}
	return nil
}

// ApproveUnit lets a pending unit into the pool.
type ApproveUnit struct {
	H  Header     `cbor:"1,keyasint"`
	ID san.UnitID `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *ApproveUnit) Kind() Kind { return KindApproveUnit }

// Header implements Command.
func (c *ApproveUnit) Header() *Header { return &c.H }

func (c *ApproveUnit) action() string { return "unit.approve" }

func (c *ApproveUnit) apply(x *tx) (string, error) {
	u, err := x.member(c.ID)
	if err != nil {
		return "", err
	}
	if u.Approved {
		return string(u.ID), nil
	}
	row := *u
	row.Approved, row.State, row.StateAt = true, UnitEnrolled, x.at
	if row.Incarnation > 0 {
		row.State = UnitStarting // it is waiting to be asked for its storage info
	}
	x.put(&row)
	return string(u.ID), nil
}

// SetUnit changes what an operator decides of a unit.
type SetUnit struct {
	H      Header            `cbor:"1,keyasint"`
	ID     san.UnitID        `cbor:"2,keyasint"`
	Spare  *bool             `cbor:"3,keyasint"`
	Labels map[string]string `cbor:"4,keyasint"` // merged; empty value removes
}

// Kind implements Command.
func (c *SetUnit) Kind() Kind { return KindSetUnit }

// Header implements Command.
func (c *SetUnit) Header() *Header { return &c.H }

func (c *SetUnit) action() string { return "unit.set" }

func (c *SetUnit) apply(x *tx) (string, error) {
	u, err := x.member(c.ID)
	if err != nil {
		return "", err
	}
	row := *u
	if c.Spare != nil {
		if *c.Spare && !u.Spare {
			if held := x.VolumesOn(u.ID); len(held) > 0 {
				return "", refuse(san.KindConflict, "unit %q holds %s, %q among them, so it can't be a spare; delete or move them first", u.ID, count(len(held), "volume"), held[0].Name)
			}
		}
		row.Spare = *c.Spare
	}
	if row.Labels, err = mergeLabels(u.Labels, c.Labels); err != nil {
		return "", err
	}
	x.put(&row)
	return string(u.ID), nil
}

// UnitStarted is Fig. 3a/b: the unit's new incarnation and addresses are stored and it becomes
// Starting. A lower incarnation than the row's is refused; the same one is a reconnect: Starting only
// if it was not Online. A unit that is not approved stays Pending.
type UnitStarted struct {
	H           Header          `cbor:"1,keyasint"`
	ID          san.UnitID      `cbor:"2,keyasint"`
	CertSerial  string          `cbor:"3,keyasint"` // must be the row's
	Incarnation san.Incarnation `cbor:"4,keyasint"`
	APIAddress  string          `cbor:"5,keyasint"`
	Portal      string          `cbor:"6,keyasint"`
	Version     string          `cbor:"7,keyasint"`
}

// Kind implements Command.
func (c *UnitStarted) Kind() Kind { return KindUnitStarted }

// Header implements Command.
func (c *UnitStarted) Header() *Header { return &c.H }

func (c *UnitStarted) action() string { return "" }

func (c *UnitStarted) apply(x *tx) (string, error) {
	u, err := x.member(c.ID)
	if err != nil {
		return "", err
	}
	if err := u.holdsCert(c.CertSerial); err != nil {
		return "", err
	}
	if err := c.checkStart(u); err != nil {
		return "", err
	}
	row := *u
	row.APIAddress, row.Portal, row.Version = c.APIAddress, c.Portal, c.Version
	reconnect := c.Incarnation == u.Incarnation && u.State == UnitOnline
	row.Incarnation = c.Incarnation
	if u.Approved && !reconnect {
		row.State, row.Reason, row.StateAt = UnitStarting, "", x.at
	}
	x.put(&row)
	return string(u.ID), nil
}

func (c *UnitStarted) checkStart(u *Unit) error {
	switch {
	case c.Incarnation == 0:
		return refuse(san.KindInvalid, "unit %q started without an incarnation; the first is 1", u.ID)
	case c.Incarnation < u.Incarnation:
		return refuse(san.KindConflict, "unit %q came as its start number %d, but start %d was seen already: its data folder is an old copy, or runs twice; stop this one", u.ID, c.Incarnation, u.Incarnation)
	}
	if err := checkAddress("API address of unit "+string(u.ID), c.APIAddress); err != nil {
		return err
	}
	if err := checkAddress("portal of unit "+string(u.ID), c.Portal); err != nil {
		return err
	}
	return checkText("version", c.Version, maxShortText)
}

// SetUnitState sets Stopped (Fig. 3f/g) or Unreachable; only for the incarnation named. A unit that
// said that it stops stays Stopped, and one that is Pending or never started stays that.
type SetUnitState struct {
	H           Header          `cbor:"1,keyasint"`
	ID          san.UnitID      `cbor:"2,keyasint"`
	Incarnation san.Incarnation `cbor:"3,keyasint"`
	State       UnitState       `cbor:"4,keyasint"`
	Reason      string          `cbor:"5,keyasint"`
}

// Kind implements Command.
func (c *SetUnitState) Kind() Kind { return KindUnitState }

// Header implements Command.
func (c *SetUnitState) Header() *Header { return &c.H }

func (c *SetUnitState) action() string { return "" }

func (c *SetUnitState) apply(x *tx) (string, error) {
	u, err := x.member(c.ID)
	if err != nil {
		return "", err
	}
	if c.State != UnitStopped && c.State != UnitUnreachable {
		return "", refuse(san.KindInvalid, "unit %q can't be set to %q; use %s or %s", u.ID, clip(string(c.State)), UnitStopped, UnitUnreachable)
	}
	if c.Incarnation != u.Incarnation {
		return "", refuse(san.KindConflict, "unit %q is at start number %d, not %d; look at it again", u.ID, u.Incarnation, c.Incarnation)
	}
	running := u.State == UnitStarting || u.State == UnitOnline
	if !running && (u.State != UnitUnreachable || c.State != UnitStopped) {
		return string(u.ID), nil
	}
	row := *u
	row.State, row.Reason, row.StateAt = c.State, clip(c.Reason), x.at
	x.put(&row)
	return string(u.ID), nil
}
