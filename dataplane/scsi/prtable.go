package scsi

import (
	"slices"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// maxRegistrations bounds a logical unit's registrations; one more is refused with 55/04.
const maxRegistrations = 256

// prNexus names an I_T nexus for persistent reservations: it outlives sessions.
type prNexus struct {
	// Initiator is the initiator port's name.
	Initiator string `json:"initiator"`
	// TargetPort is the relative target port identifier.
	TargetPort uint16 `json:"targetPort"`
}

// prRegistration is one registered I_T nexus, or with AllTargetPorts (ALL_TG_PT) those of
// an initiator port with every target port.
type prRegistration struct {
	prNexus
	AllTargetPorts bool   `json:"allTargetPorts,omitempty"`
	Key            uint64 `json:"key,string"`
}

func (r *prRegistration) covers(n prNexus) bool {
	return r.Initiator == n.Initiator && (r.AllTargetPorts || r.TargetPort == n.TargetPort)
}

// prTable is a logical unit's persistent reservation state (SPC-4 §5.13). It is a value: a
// change makes another one, and registrations are never changed in place.
type prTable struct {
	// Generation is PRGENERATION; it begins anew with the service.
	Generation    uint32           `json:"-"`
	Registrations []prRegistration `json:"registrations,omitempty"`
	// Type is the reservation's, 0 when there is none. Holder holds it, unless all registrants do.
	Type   cdb.PRType `json:"type,omitempty"`
	Holder prNexus    `json:"holder"`
	// Persist is APTPL as the last registration said it.
	Persist bool `json:"persist,omitempty"`
}

// prRefusal is why a service action has no effect.
type prRefusal uint8

const (
	prAccepted prRefusal = iota
	// prConflict is RESERVATION CONFLICT.
	prConflict
	// prBadType is an unknown type or scope in the CDB.
	prBadType
	// prBadList is an invalid service action reservation key.
	prBadList
	// prBadRelease is a RELEASE of another type than what is held.
	prBadRelease
	// prFull is one registration too many.
	prFull
)

// prNotice is a unit attention for the sessions of a registration.
type prNotice struct {
	to  prRegistration
	asc cdb.ASC
}

// prOutcome is what a service action comes to.
type prOutcome struct {
	table   prTable
	refused prRefusal
	notices []prNotice
	// preempted are the registrations that PREEMPT removed.
	preempted []prRegistration
}

func refusedBy(why prRefusal) prOutcome { return prOutcome{refused: why} }

// allRegistrants reports whether a type is held by all that are registered.
func allRegistrants(t cdb.PRType) bool {
	return t == cdb.PRWriteExclusiveAllRegistrants || t == cdb.PRExclusiveAccessAllRegistrants
}

// registrantsOnly reports whether a type lets registrants in beside its one holder.
func registrantsOnly(t cdb.PRType) bool {
	return t == cdb.PRWriteExclusiveRegistrantsOnly || t == cdb.PRExclusiveAccessRegistrantsOnly
}

func writeExclusive(t cdb.PRType) bool {
	return t == cdb.PRWriteExclusive || t == cdb.PRWriteExclusiveRegistrantsOnly || t == cdb.PRWriteExclusiveAllRegistrants
}

func knownType(t cdb.PRType) bool {
	return writeExclusive(t) || t == cdb.PRExclusiveAccess || t == cdb.PRExclusiveAccessRegistrantsOnly || t == cdb.PRExclusiveAccessAllRegistrants
}

// find returns the index of n's registration, -1 if it has none.
func (t *prTable) find(n prNexus) int {
	return slices.IndexFunc(t.Registrations, func(r prRegistration) bool { return r.covers(n) })
}

// holds reports whether the registration r holds the reservation that there is.
func (t *prTable) holds(r *prRegistration) bool {
	return t.Type != 0 && (allRegistrants(t.Type) || r.covers(t.Holder))
}

// notify makes notices for all registrations but n's.
func (t *prTable) notify(n prNexus, asc cdb.ASC) []prNotice {
	var out []prNotice
	for _, r := range t.Registrations {
		if !r.covers(n) {
			out = append(out, prNotice{r, asc})
		}
	}
	return out
}

// register is REGISTER, and with ignore REGISTER AND IGNORE EXISTING KEY (SPC-4 §5.13.7, §5.13.11.1).
func (t prTable) register(n prNexus, list *cdb.PROutList, ignore bool) prOutcome {
	at := t.find(n)
	var have uint64
	if at >= 0 {
		have = t.Registrations[at].Key
	}
	if !ignore && list.Key != have {
		return refusedBy(prConflict)
	}
	if at < 0 && list.ActionKey == 0 {
		return prOutcome{table: t}
	}
	if at < 0 && len(t.Registrations) >= maxRegistrations {
		return refusedBy(prFull)
	}
	t.Generation++
	t.Persist = list.APTPL
	if list.ActionKey == 0 {
		return t.unregister(at, n)
	}
	t.Registrations = slices.Clone(t.Registrations)
	if at >= 0 {
		t.Registrations[at].Key = list.ActionKey
	} else {
		if list.AllTargetPorts {
			// One registration stands for all that the initiator port may have had.
			t.Registrations = slices.DeleteFunc(t.Registrations, func(r prRegistration) bool { return r.Initiator == n.Initiator })
		}
		t.Registrations = append(t.Registrations, prRegistration{prNexus: n, AllTargetPorts: list.AllTargetPorts, Key: list.ActionKey})
	}
	return prOutcome{table: t}
}

// unregister removes the registration at an index, and the reservation if it was its last holder.
func (t prTable) unregister(at int, n prNexus) prOutcome {
	held := t.holds(&t.Registrations[at])
	t.Registrations = slices.Delete(slices.Clone(t.Registrations), at, at+1)
	var out prOutcome
	if held && (!allRegistrants(t.Type) || len(t.Registrations) == 0) {
		if registrantsOnly(t.Type) {
			out.notices = t.notify(n, cdb.ASCReservationsReleased)
		}
		t.Type, t.Holder = 0, prNexus{}
	}
	out.table = t
	return out
}

// permits checks what all service actions but the registrations need: the nexus is registered with
// the key that it shows.
func (t *prTable) permits(n prNexus, key uint64) (at int, ok bool) {
	at = t.find(n)
	return at, at >= 0 && t.Registrations[at].Key == key
}

// reserve is RESERVE (SPC-4 §5.13.9).
func (t prTable) reserve(n prNexus, key uint64, kind cdb.PRType) prOutcome {
	at, ok := t.permits(n, key)
	switch {
	case !ok:
		return refusedBy(prConflict)
	case !knownType(kind):
		return refusedBy(prBadType)
	case t.Type != 0 && (!t.holds(&t.Registrations[at]) || t.Type != kind):
		return refusedBy(prConflict)
	case t.Type == 0:
		t.Type, t.Holder = kind, n
	}
	return prOutcome{table: t}
}

// release is RELEASE (SPC-4 §5.13.11.2.2).
func (t prTable) release(n prNexus, key uint64, kind cdb.PRType) prOutcome {
	at, ok := t.permits(n, key)
	switch {
	case !ok:
		return refusedBy(prConflict)
	case t.Type == 0 || !t.holds(&t.Registrations[at]):
		return prOutcome{table: t}
	case t.Type != kind:
		return refusedBy(prBadRelease)
	}
	var out prOutcome
	if registrantsOnly(t.Type) || allRegistrants(t.Type) {
		out.notices = t.notify(n, cdb.ASCReservationsReleased)
	}
	t.Type, t.Holder = 0, prNexus{}
	out.table = t
	return out
}

// clear is CLEAR (SPC-4 §5.13.11.2.6).
func (t prTable) clear(n prNexus, key uint64) prOutcome {
	if _, ok := t.permits(n, key); !ok {
		return refusedBy(prConflict)
	}
	out := prOutcome{notices: t.notify(n, cdb.ASCReservationsPreempted)}
	t.Generation++
	t.Registrations, t.Type, t.Holder = nil, 0, prNexus{}
	out.table = t
	return out
}

// preempt is PREEMPT and PREEMPT AND ABORT but for the aborting (SPC-4 §5.13.11.2.3 to §5.13.11.2.5).
// victim is the service action reservation key.
func (t prTable) preempt(n prNexus, key, victim uint64, kind cdb.PRType) prOutcome {
	if _, ok := t.permits(n, key); !ok {
		return refusedBy(prConflict)
	}
	everybody := victim == 0
	takes := false // the reservation too
	switch {
	case everybody && !allRegistrants(t.Type):
		return refusedBy(prBadList)
	case allRegistrants(t.Type):
		takes = everybody
	case t.Type != 0:
		at := t.find(t.Holder)
		takes = at >= 0 && t.Registrations[at].Key == victim
	}
	if takes && !knownType(kind) {
		return refusedBy(prBadType)
	}
	before, old := t.Registrations, t.Type
	t.Registrations = nil
	var out prOutcome
	found := takes
	for _, r := range before {
		own := r.covers(n)
		if takes && own || !everybody && r.Key != victim {
			t.Registrations = append(t.Registrations, r)
			continue
		}
		found = true
		out.preempted = append(out.preempted, r)
		if !own {
			out.notices = append(out.notices, prNotice{r, cdb.ASCRegistrationsPreempted})
		}
	}
	if !found {
		return refusedBy(prConflict)
	}
	t.Generation++
	switch {
	case takes:
		if old != kind {
			out.notices = append(out.notices, t.notify(n, cdb.ASCReservationsReleased)...)
		}
		t.Type, t.Holder = kind, n
	case len(t.Registrations) == 0:
		t.Type, t.Holder = 0, prNexus{}
	}
	out.table = t
	return out
}

// move is REGISTER AND MOVE (SPC-4 §5.13.8): the reservation goes to another nexus, registered with
// the service action reservation key.
func (t prTable) move(n prNexus, list *cdb.PRMoveList, to prNexus) prOutcome {
	at, ok := t.permits(n, list.Key)
	switch {
	case !ok, t.Type == 0, !t.holds(&t.Registrations[at]), allRegistrants(t.Type):
		return refusedBy(prConflict)
	case list.ActionKey == 0, t.Registrations[at].covers(to):
		return refusedBy(prBadList)
	}
	t.Registrations = slices.Clone(t.Registrations)
	if other := t.find(to); other >= 0 {
		t.Registrations[other].Key = list.ActionKey
	} else if len(t.Registrations) >= maxRegistrations {
		return refusedBy(prFull)
	} else {
		t.Registrations = append(t.Registrations, prRegistration{prNexus: to, Key: list.ActionKey})
	}
	if list.Unregister {
		t.Registrations = slices.Delete(t.Registrations, at, at+1)
	}
	t.Generation++
	t.Holder, t.Persist = to, list.APTPL
	return prOutcome{table: t}
}

// access is what a command does to a logical unit that somebody may have reserved.
type access uint8

const (
	// accessWrites is refused by every reservation. It is the zero value, so that a command that
	// nobody thought about is safe.
	accessWrites access = iota
	// accessReads is refused by exclusive access only.
	accessReads
	// accessAlways is never refused by a persistent reservation, but by RESERVE (6).
	accessAlways
	// accessFree is never refused by any.
	accessFree
)

// allows judges a command of n's (SPC-4 table 66, SBC-3 table 13).
func (t *prTable) allows(n prNexus, a access) bool {
	if t.Type == 0 || a >= accessAlways || a == accessReads && writeExclusive(t.Type) {
		return true
	}
	if at := t.find(n); at >= 0 {
		return registrantsOnly(t.Type) || t.holds(&t.Registrations[at])
	}
	return false
}
