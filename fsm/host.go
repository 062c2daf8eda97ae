package fsm

import "github.com/sandbar-san/sandbar/san"

// guest returns the host with that id, a refusal if there is none.
func (x *tx) guest(id san.HostID) (*Host, error) {
	h := x.Host(id)
	if h == nil {
		return nil, refuse(san.KindNotFound, "there is no host %q; add it (sandbar host add) or see: sandbar host list", clip(string(id)))
	}
	return h, nil
}

// AddHost registers a host without an agent.
type AddHost struct {
	H          Header     `cbor:"1,keyasint"`
	ID         san.HostID `cbor:"2,keyasint"`
	Initiators []string   `cbor:"3,keyasint"`
	AllowFrom  []string   `cbor:"4,keyasint"`
}

// Kind implements Command.
func (c *AddHost) Kind() Kind { return KindAddHost }

// Header implements Command.
func (c *AddHost) Header() *Header { return &c.H }

func (c *AddHost) action() string { return "host.add" }

func (c *AddHost) apply(x *tx) (string, error) {
	if err := san.CheckName("host", string(c.ID)); err != nil {
		return "", err
	}
	if old := x.Host(c.ID); old != nil {
		return "", refuse(san.KindExists, "there is a host %q already; choose another name or remove it first (sandbar host remove %s)", c.ID, c.ID)
	}
	if len(c.Initiators) == 0 {
		return "", refuse(san.KindInvalid, "host %q runs no agent and has no initiator name; give one (--initiator iqn.…)", c.ID)
	}
	names, err := x.claimInitiators(c.ID, c.Initiators)
	if err != nil {
		return "", err
	}
	allow, err := parsePrefixes(c.AllowFrom)
	if err != nil {
		return "", err
	}
	x.put(&Host{ID: c.ID, Initiators: names, AllowFrom: allow, State: HostRegistered, StateAt: x.at})
	return string(c.ID), nil
}

// RemoveHost forgets a host; refused while it has assignments, which it names. What the host could do goes
// with it, so that a later host of that name inherits nothing: its tokens are revoked, and
// volumes that it made become the operators'.
type RemoveHost struct {
	H  Header     `cbor:"1,keyasint"`
	ID san.HostID `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *RemoveHost) Kind() Kind { return KindRemoveHost }

// Header implements Command.
func (c *RemoveHost) Header() *Header { return &c.H }

func (c *RemoveHost) action() string { return "host.remove" }

func (c *RemoveHost) apply(x *tx) (string, error) {
	h, err := x.guest(c.ID)
	if err != nil {
		return "", err
	}
	if has := x.AssignmentsTo(c.ID); len(has) > 0 {
		return "", refuse(san.KindConflict, "host %q still has %s: %s; unassign them first", c.ID, count(len(has), "volume"), x.volumeNames(has))
	}
	for _, t := range x.Tokens() {
		if t.Host == c.ID {
			x.del(t)
		}
	}
	for _, v := range x.Volumes() {
		if v.Owner == c.ID {
			row := v.clone()
			row.Owner = ""
			x.put(row)
		}
	}
	x.del(h)
	return string(c.ID), nil
}

// volumeNames lists the first volumes of has, for an error message.
func (x *tx) volumeNames(has []*Assignment) string {
	const most = 10
	out := ""
	for i, a := range has {
		if i == most {
			return out + " …"
		}
		name := string(a.Volume)
		if v := x.Volume(a.Volume); v != nil {
			name = v.Name
		}
		if i > 0 {
			out += ", "
		}
		out += name
	}
	return out
}

// SetHostState records what the agent's stream says. Addresses and Initiators that are empty leave the row's
// as they are; a lower incarnation than the row's is refused.
type SetHostState struct {
	H           Header          `cbor:"1,keyasint"`
	ID          san.HostID      `cbor:"2,keyasint"`
	CertSerial  string          `cbor:"3,keyasint"`
	Incarnation san.Incarnation `cbor:"4,keyasint"`
	State       HostState       `cbor:"5,keyasint"`
	Addresses   []string        `cbor:"6,keyasint"`
	Version     string          `cbor:"7,keyasint"`
	Initiators  []string        `cbor:"8,keyasint"`
}

// Kind implements Command.
func (c *SetHostState) Kind() Kind { return KindHostState }

// Header implements Command.
func (c *SetHostState) Header() *Header { return &c.H }

func (c *SetHostState) action() string { return "" }

func (c *SetHostState) apply(x *tx) (string, error) {
	h, err := x.guest(c.ID)
	if err != nil {
		return "", err
	}
	if err := c.checkAgent(h); err != nil {
		return "", err
	}
	row := *h
	if len(c.Addresses) > 0 {
		if row.Addresses, err = parseAddresses(c.Addresses); err != nil {
			return "", err
		}
	}
	if len(c.Initiators) > 0 {
		if row.Initiators, err = x.claimInitiators(c.ID, c.Initiators); err != nil {
			return "", err
		}
	}
	if c.Version != "" {
		row.Version = c.Version
	}
	if row.State != c.State {
		row.State, row.StateAt = c.State, x.at
	}
	row.Incarnation = c.Incarnation
	x.put(&row)
	return string(c.ID), nil
}

func (c *SetHostState) checkAgent(h *Host) error {
	switch {
	case !h.Agent:
		return refuse(san.KindDenied, "host %q is registered without an agent; remove it (sandbar host remove %s) and enrol it", h.ID, h.ID)
	case c.CertSerial != h.CertSerial:
		return refuse(san.KindDenied, "host %q came with certificate %s, which is not the one it was given last; restart it with its own data folder", h.ID, clip(c.CertSerial))
	case c.Incarnation < h.Incarnation:
		return refuse(san.KindConflict, "host %q came as its start number %d, but start %d was seen already: its data folder is an old copy, or runs twice; stop this one", h.ID, c.Incarnation, h.Incarnation)
	case c.State != HostOnline && c.State != HostStopped && c.State != HostOffline:
		return refuse(san.KindInvalid, "host %q can't be set to %q; use %s, %s or %s", h.ID, clip(string(c.State)), HostOnline, HostStopped, HostOffline)
	}
	return checkText("version", c.Version, maxShortText)
}
