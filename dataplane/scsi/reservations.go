package scsi

import (
	"context"
	"encoding/json"
	"slices"
	"sync/atomic"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

// ReservationStore keeps a logical unit's persistent reservations over restarts (APTPL,
// SPC-4 §5.13.5).
type ReservationStore interface {
	// Load returns what was saved last, nil if nothing was.
	Load() ([]byte, error)
	// Save replaces it; when it returns nil the state is stable.
	Save(state []byte) error
}

// reservations are a logical unit's reservations of both kinds.
type reservations struct {
	// change is held by whoever changes the state; a channel, because those who wait for it can be aborted.
	change chan struct{}
	// now is what commands are judged by; it is never changed in place.
	now   atomic.Pointer[reserved]
	store ReservationStore
	// saved tells whether the store holds reservations, so that what must no longer persist is cleared.
	saved bool
}

// reserved is the state at one moment.
type reserved struct {
	prTable
	// by is the nexus that holds the logical unit by RESERVE (6), nil if none does (SPC-2 §5.5.1).
	by *Nexus
}

// savedTable is a saved state.
type savedTable struct {
	Version int     `json:"version"`
	Table   prTable `json:"table"`
}

const savedVersion = 1

func newReservations(store ReservationStore) (*reservations, error) {
	s := &reservations{change: make(chan struct{}, 1), store: store}
	s.now.Store(&reserved{})
	if store == nil {
		return s, nil
	}
	b, err := store.Load()
	if err != nil || b == nil {
		return s, err
	}
	var state savedTable
	if err := json.Unmarshal(b, &state); err != nil {
		return nil, san.Errorf(san.KindInternal, "saved reservations can't be read: %w", err)
	}
	if state.Version != savedVersion {
		return nil, san.Errorf(san.KindInternal, "saved reservations have version %d, this program knows %d; use the program that saved them or a newer one", state.Version, savedVersion)
	}
	if err := state.Table.check(); err != nil {
		return nil, err
	}
	s.saved = state.Table.Persist
	s.now.Store(&reserved{prTable: state.Table})
	return s, nil
}

// check finds what no sequence of service actions leads to.
func (t *prTable) check() error {
	if len(t.Registrations) > maxRegistrations {
		return san.Errorf(san.KindInternal, "saved reservations have %d registrations, at most %d are possible", len(t.Registrations), maxRegistrations)
	}
	for i, r := range t.Registrations {
		if r.Key == 0 || r.Initiator == "" || t.find(r.prNexus) != i {
			return san.Errorf(san.KindInternal, "saved reservations have a registration of %q that can't be", r.Initiator)
		}
	}
	if t.Type != 0 && (!knownType(t.Type) || len(t.Registrations) == 0 || !allRegistrants(t.Type) && t.find(t.Holder) < 0) {
		return san.Errorf(san.KindInternal, "saved reservations have a reservation of type %d that nobody can hold", t.Type)
	}
	return nil
}

// lock waits for its turn to change the state; it fails when ctx ends before.
func (s *reservations) lock(ctx context.Context) error {
	select {
	case s.change <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *reservations) unlock() { <-s.change }

// set makes t the state, after it is stable if it shall persist. The caller holds the lock.
func (s *reservations) set(t prTable) error {
	if s.store != nil && (t.Persist || s.saved) {
		state := savedTable{Version: savedVersion}
		if t.Persist {
			state.Table = t
		}
		b, err := json.Marshal(state)
		if err == nil {
			err = s.store.Save(b)
		}
		if err != nil {
			return err
		}
		s.saved = t.Persist
	}
	s.update(func(r *reserved) { r.prTable = t })
	return nil
}

// update changes the state. Holders of the lock are alone but for drop, which needs none.
func (s *reservations) update(change func(*reserved)) {
	for {
		old := s.now.Load()
		next := *old
		change(&next)
		if s.now.CompareAndSwap(old, &next) {
			return
		}
	}
}

// drop ends n's RESERVE (6); with n nil whoever's.
func (s *reservations) drop(n *Nexus) {
	if s.now.Load().by == nil {
		return
	}
	s.update(func(r *reserved) {
		if n == nil || r.by == n {
			r.by = nil
		}
	})
}

// conflicts judges a command by the reservations that there are.
func (lu *LU) conflicts(n *Nexus, a access) bool {
	now := lu.reserved.now.Load()
	if now.by != nil && now.by != n && a < accessFree {
		return true
	}
	return now.Type != 0 && !now.allows(lu.prNexus(n), a)
}

func (lu *LU) prNexus(n *Nexus) prNexus {
	if n == nil {
		return prNexus{TargetPort: lu.cfg.RelativePort}
	}
	return prNexus{Initiator: n.name, TargetPort: lu.cfg.RelativePort}
}

func conflict() Result { return Result{Status: cdb.StatusReservationConflict} }

// reserve6 is RESERVE (6) (SPC-2 §7.21) of the whole logical unit for the nexus itself.
func (lu *LU) reserve6(r request) Result {
	if r.CDB[1]&0x1f != 0 {
		// Third parties and extents are of older standards.
		return badCDB(1, 4)
	}
	if err := lu.reserved.lock(r.ctx); err != nil {
		return aborted()
	}
	defer lu.reserved.unlock()
	if len(lu.reserved.now.Load().Registrations) > 0 {
		return conflict()
	}
	// Another's reservation was seen before, but a second may have been waiting for its turn too.
	taken := false
	lu.reserved.update(func(now *reserved) {
		if taken = now.by != nil && now.by != r.Nexus; !taken {
			now.by = r.Nexus
		}
	})
	if taken {
		return conflict()
	}
	return good()
}

// release6 is RELEASE (6) (SPC-2 §7.16). Of what another holds it releases nothing, and is GOOD.
func (lu *LU) release6(r request) Result {
	if r.CDB[1]&0x1f != 0 {
		return badCDB(1, 4)
	}
	if err := lu.reserved.lock(r.ctx); err != nil {
		return aborted()
	}
	defer lu.reserved.unlock()
	if len(lu.reserved.now.Load().Registrations) > 0 {
		return conflict()
	}
	if r.Nexus != nil {
		lu.reserved.drop(r.Nexus)
	}
	return good()
}

// persistentReserveIn is PERSISTENT RESERVE IN (SPC-4 §6.15).
func (lu *LU) persistentReserveIn(r request) Result {
	q, err := cdb.DecodePersistentReserve(r.CDB)
	if err != nil {
		return decodeFailed(err)
	}
	now := lu.reserved.now.Load()
	if now.by != nil {
		// The two kinds of reservation exclude each other (SPC-2 §5.5.1).
		return conflict()
	}
	var data []byte
	switch q.Action {
	case cdb.PRInReadKeys:
		keys := make([]uint64, len(now.Registrations))
		for i := range keys {
			keys[i] = now.Registrations[i].Key
		}
		data = cdb.EncodePRKeys(now.Generation, keys)
	case cdb.PRInReadReservation:
		data = cdb.EncodePRReservation(now.Generation, now.holderKey(), now.Type)
	case cdb.PRInReportCapabilities:
		data = cdb.PRCapabilities{AllTargetPorts: true, PersistCapable: lu.reserved.store != nil, PersistActive: now.Persist}.Encode()
	case cdb.PRInReadFullStatus:
		full := make([]cdb.PRStatus, len(now.Registrations))
		for i := range full {
			reg := &now.Registrations[i]
			full[i] = cdb.PRStatus{Key: reg.Key, Holder: now.holds(reg), AllTargetPorts: reg.AllTargetPorts, Type: now.Type,
				TargetPort: reg.TargetPort, InitiatorPort: reg.Initiator}
		}
		data = cdb.EncodePRFullStatus(now.Generation, full)
	}
	return r.parameterData(data, int(q.Length))
}

// holderKey is the key that READ RESERVATION shows: 0 when all registrants hold it (SPC-4 §6.15.3.2).
func (t *prTable) holderKey() uint64 {
	if t.Type == 0 || allRegistrants(t.Type) {
		return 0
	}
	if at := t.find(t.Holder); at >= 0 {
		return t.Registrations[at].Key
	}
	return 0
}

// persistentReserveOut is PERSISTENT RESERVE OUT (SPC-4 §6.16).
func (lu *LU) persistentReserveOut(r request) Result {
	q, err := cdb.DecodePersistentReserve(r.CDB)
	if err != nil {
		return decodeFailed(err)
	}
	length := int(q.Length)
	if len(r.DataOut) < length || length < cdb.PROutListLength || q.Action != cdb.PROutRegisterAndMove && length != cdb.PROutListLength {
		res := check(cdb.KeyIllegalRequest, cdb.ASCParameterListLength)
		res.DataOutTotal = length
		return res
	}
	res := lu.changeReservations(&r, &q, r.DataOut[:length])
	res.DataOutTotal = length
	return res
}

// changeReservations carries out a service action and waits for what it aborts.
func (lu *LU) changeReservations(r *request, q *cdb.PersistentReserve, data []byte) Result {
	if err := lu.reserved.lock(r.ctx); err != nil {
		return aborted()
	}
	// The turn is kept until the victims' commands are gone: one of them that waits for it is
	// aborted there, so that two which preempt each other don't wait forever.
	defer lu.reserved.unlock()
	now := lu.reserved.now.Load()
	if now.by != nil {
		return conflict()
	}
	out, refused := lu.serviceAction(r, q, data, now)
	if refused != nil {
		return *refused
	}
	if !out.table.same(&now.prTable) {
		if err := lu.reserved.set(out.table); err != nil {
			return writeFailed(err)
		}
	}
	for _, n := range out.notices {
		lu.notice(&n.to, n.asc)
	}
	if q.Action == cdb.PROutPreemptAndAbort {
		lu.abortPreempted(r.Nexus, out.preempted)
	}
	return good()
}

func (t *prTable) same(o *prTable) bool {
	return t.Generation == o.Generation && t.Type == o.Type && t.Holder == o.Holder && t.Persist == o.Persist &&
		slices.Equal(t.Registrations, o.Registrations)
}

// serviceAction finds out what a service action comes to.
func (lu *LU) serviceAction(r *request, q *cdb.PersistentReserve, data []byte, now *reserved) (out prOutcome, refused *Result) {
	no := func(res Result) (prOutcome, *Result) { return prOutcome{}, &res }
	n := lu.prNexus(r.Nexus)
	if q.Action == cdb.PROutRegisterAndMove {
		list, err := cdb.DecodePRMoveList(data)
		if err != nil {
			return no(decodeFailed(err))
		}
		if list.APTPL && lu.reserved.store == nil {
			return no(badParameter(17))
		}
		out = now.move(n, &list, prNexus{Initiator: list.InitiatorPort, TargetPort: list.TargetPort})
		return out, prRefused(out.refused)
	}
	list, err := cdb.DecodePROutList(data)
	if err != nil {
		return no(decodeFailed(err))
	}
	registers := q.Action == cdb.PROutRegister || q.Action == cdb.PROutRegisterAndIgnore
	// SPEC_I_PT and, without a store, APTPL are not among the capabilities.
	if list.SpecIPT || registers && list.APTPL && lu.reserved.store == nil {
		return no(badParameter(20))
	}
	scoped := q.Action == cdb.PROutReserve || q.Action == cdb.PROutRelease || q.Action == cdb.PROutPreempt || q.Action == cdb.PROutPreemptAndAbort
	if scoped && q.Scope != 0 {
		return no(badCDB(2, 7))
	}
	switch q.Action {
	case cdb.PROutRegister, cdb.PROutRegisterAndIgnore:
		out = now.register(n, &list, q.Action == cdb.PROutRegisterAndIgnore)
	case cdb.PROutReserve:
		out = now.reserve(n, list.Key, q.Type)
	case cdb.PROutRelease:
		out = now.release(n, list.Key, q.Type)
	case cdb.PROutClear:
		out = now.clear(n, list.Key)
	default:
		out = now.preempt(n, list.Key, list.ActionKey, q.Type)
	}
	return out, prRefused(out.refused)
}

// prRefused answers a refusal, nil if there is none.
func prRefused(why prRefusal) *Result {
	var res Result
	switch why {
	case prAccepted:
		return nil
	case prBadType:
		res = badCDB(2, 3)
	case prBadList:
		res = badParameter(8)
	case prBadRelease:
		res = check(cdb.KeyIllegalRequest, cdb.ASCInvalidReleaseOfReservation)
	case prFull:
		res = check(cdb.KeyIllegalRequest, cdb.ASCInsufficientRegistrations)
	default:
		res = conflict()
	}
	return &res
}

// notice tells the sessions of a registration.
func (lu *LU) notice(to *prRegistration, asc cdb.ASC) {
	for _, n := range lu.sessionsOf(to) {
		n.establish(asc)
	}
}

func (lu *LU) sessionsOf(to *prRegistration) []*Nexus {
	lu.nexusMu.Lock()
	defer lu.nexusMu.Unlock()
	var out []*Nexus
	for n := range lu.nexuses {
		if to.covers(lu.prNexus(n)) {
			out = append(out, n)
		}
	}
	return out
}

// abortPreempted aborts the commands of preempted nexuses and waits until they are gone. The nexus that
// asks is left alone: its own commands before this one are its own business (SPC-4 §5.13.11.2.5).
func (lu *LU) abortPreempted(by *Nexus, preempted []prRegistration) {
	for i := range preempted {
		for _, n := range lu.sessionsOf(&preempted[i]) {
			if n != by {
				n.abortTasks()
			}
		}
	}
}
