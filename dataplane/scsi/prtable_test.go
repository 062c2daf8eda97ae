package scsi

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

var prTypes = []cdb.PRType{1, 3, 5, 6, 7, 8}

// prModel says in other words than prTable what SPC-4 §5.13 wants: keys by nexus, and the set of those
// that hold the reservation.
type prModel struct {
	keys    map[string]uint64
	holders map[string]bool
	kind    cdb.PRType
	told    map[string]cdb.ASC // by the last service action
	changes uint32
}

// all reports a type for all registrants, only one for one holder and registrants.
func modelAll(k cdb.PRType) bool  { return k == 7 || k == 8 }
func modelOnly(k cdb.PRType) bool { return k == 5 || k == 6 }

func (m *prModel) tell(asc cdb.ASC, but string) {
	for n := range m.keys {
		if _, told := m.told[n]; n != but && !told {
			m.told[n] = asc
		}
	}
}

func (m *prModel) give(n string, key uint64) {
	m.keys[n] = key
	if modelAll(m.kind) {
		m.holders[n] = true
	}
}

// lose takes a registration, and the reservation with its last holder.
func (m *prModel) lose(n string) (ended bool) {
	delete(m.keys, n)
	held := m.holders[n]
	delete(m.holders, n)
	ended = held && len(m.holders) == 0
	if ended {
		m.kind = 0
	}
	return ended
}

func (m *prModel) take(n string, kind cdb.PRType) {
	m.kind, m.holders = kind, map[string]bool{n: true}
	if modelAll(kind) {
		for o := range m.keys {
			m.holders[o] = true
		}
	}
}

func (m *prModel) register(n string, key, next uint64, ignore bool) prRefusal {
	have, is := m.keys[n]
	switch {
	case !ignore && have != key:
		return prConflict
	case next == 0 && !is:
		return prAccepted
	}
	m.changes++
	if next != 0 {
		m.give(n, next)
		return prAccepted
	}
	kind := m.kind
	if m.lose(n) && modelOnly(kind) {
		m.tell(cdb.ASCReservationsReleased, n)
	}
	return prAccepted
}

func (m *prModel) reserve(n string, kind cdb.PRType) prRefusal {
	switch {
	case !slices.Contains(prTypes, kind):
		return prBadType
	case m.kind == 0:
		m.take(n, kind)
	case !m.holders[n] || m.kind != kind:
		return prConflict
	}
	return prAccepted
}

func (m *prModel) release(n string, kind cdb.PRType) prRefusal {
	if !m.holders[n] {
		return prAccepted
	}
	if m.kind != kind {
		return prBadRelease
	}
	if modelAll(kind) || modelOnly(kind) {
		m.tell(cdb.ASCReservationsReleased, n)
	}
	m.kind, m.holders = 0, map[string]bool{}
	return prAccepted
}

func (m *prModel) preempt(n string, victim uint64, kind cdb.PRType) prRefusal {
	if victim == 0 && !modelAll(m.kind) {
		return prBadList
	}
	takes := victim == 0
	for h := range m.holders {
		takes = takes || !modelAll(m.kind) && m.keys[h] == victim
	}
	if takes && !slices.Contains(prTypes, kind) {
		return prBadType
	}
	was, some := m.kind, takes
	for o, key := range maps.Clone(m.keys) {
		if victim != 0 && key != victim || takes && o == n {
			continue
		}
		some = true
		m.lose(o)
		if o != n {
			m.told[o] = cdb.ASCRegistrationsPreempted
		}
	}
	if !some {
		return prConflict
	}
	m.changes++
	if takes {
		m.take(n, kind)
		if was != kind {
			m.tell(cdb.ASCReservationsReleased, n)
		}
	}
	return prAccepted
}

// may judges a nexus's access.
func (m *prModel) may(n string, writes bool) bool {
	_, registered := m.keys[n]
	exclusiveAccess := m.kind == 3 || m.kind == 6 || m.kind == 8
	return m.kind == 0 || m.holders[n] || registered && modelOnly(m.kind) || !writes && !exclusiveAccess
}

// TestTableFollowsModel sends random service actions from a few nexuses to both.
func TestTableFollowsModel(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	nexus := func(n string) prNexus { return prNexus{Initiator: n, TargetPort: 1} }
	rapid.Check(t, func(t *rapid.T) {
		var table prTable
		m := &prModel{keys: map[string]uint64{}, holders: map[string]bool{}}
		for range rapid.IntRange(1, 30).Draw(t, "actions") {
			m.told = map[string]cdb.ASC{}
			n := rapid.SampledFrom(names).Draw(t, "nexus")
			key, next := m.keys[n], rapid.Uint64Range(0, 3).Draw(t, "action key")
			if rapid.IntRange(0, 9).Draw(t, "wrong key") == 0 {
				key = rapid.Uint64Range(0, 3).Draw(t, "key")
			}
			kind := rapid.SampledFrom([]cdb.PRType{1, 3, 5, 6, 7, 8, 0, 2, 9}).Draw(t, "type")
			_, registered := m.keys[n]
			known := registered && m.keys[n] == key
			var out prOutcome
			want := prConflict
			action := rapid.SampledFrom([]byte{0, 0, 6, 6, 1, 1, 2, 3, 4, 4}).Draw(t, "action")
			switch action {
			case cdb.PROutRegister, cdb.PROutRegisterAndIgnore:
				ignore := action == cdb.PROutRegisterAndIgnore
				want = m.register(n, key, next, ignore)
				out = table.register(nexus(n), &cdb.PROutList{Key: key, ActionKey: next}, ignore)
			case cdb.PROutReserve:
				if known {
					want = m.reserve(n, kind)
				}
				out = table.reserve(nexus(n), key, kind)
			case cdb.PROutRelease:
				if known {
					want = m.release(n, kind)
				}
				out = table.release(nexus(n), key, kind)
			case cdb.PROutClear:
				if known {
					m.tell(cdb.ASCReservationsPreempted, n)
					m.keys, m.holders, m.kind = map[string]uint64{}, map[string]bool{}, 0
					m.changes++
					want = prAccepted
				}
				out = table.clear(nexus(n), key)
			default:
				if known {
					want = m.preempt(n, next, kind)
				}
				out = table.preempt(nexus(n), key, next, kind)
			}
			if out.refused != want {
				t.Fatalf("action %d of %s, key %d, action key %d, type %d: refusal %d, want %d", action, n, key, next, kind, out.refused, want)
			}
			if want == prAccepted {
				table = out.table
				compareNotices(t, out.notices, m.told)
			}
			compareTable(t, &table, m, names)
		}
	})
}

func compareNotices(t *rapid.T, notices []prNotice, want map[string]cdb.ASC) {
	got := map[string]cdb.ASC{}
	for _, n := range notices {
		if _, twice := got[n.to.Initiator]; twice {
			t.Fatalf("%s is told twice: %v", n.to.Initiator, notices)
		}
		got[n.to.Initiator] = n.asc
	}
	if !maps.Equal(got, want) {
		t.Fatalf("told %v, want %v", got, want)
	}
}

func compareTable(t *rapid.T, table *prTable, m *prModel, names []string) {
	if err := table.check(); err != nil {
		t.Fatal(err)
	}
	if table.Type != m.kind || table.Generation != m.changes || len(table.Registrations) != len(m.keys) {
		t.Fatalf("table %+v, model %+v", table, m)
	}
	for _, name := range names {
		n := prNexus{Initiator: name, TargetPort: 1}
		at := table.find(n)
		key, registered := m.keys[name]
		if registered != (at >= 0) || registered && (table.Registrations[at].Key != key || table.holds(&table.Registrations[at]) != m.holders[name]) {
			t.Fatalf("%s: table %+v, model %+v", name, table, m)
		}
		for a, want := range map[access]bool{accessWrites: m.may(name, true), accessReads: m.may(name, false), accessAlways: true, accessFree: true} {
			if got := table.allows(n, a); got != want {
				t.Fatalf("%s, access %d: allowed %v, want %v; table %+v", name, a, got, want, table)
			}
		}
	}
	var back prTable
	b, err := json.Marshal(table)
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	back.Generation = table.Generation
	if err != nil || !reflect.DeepEqual(back.Registrations, table.Registrations) && len(table.Registrations) > 0 || !back.same(table) {
		t.Fatalf("saved and loaded: %+v, want %+v (%v)", back, table, err)
	}
}

// TestRegistrationsAreBounded: one more than there may be is refused, by each way in.
func TestRegistrationsAreBounded(t *testing.T) {
	var table prTable
	for i := range maxRegistrations {
		table = table.register(prNexus{fmt.Sprint(i), 1}, &cdb.PROutList{ActionKey: 5}, false).table
	}
	if out := table.register(prNexus{"more", 1}, &cdb.PROutList{ActionKey: 5}, true); out.refused != prFull {
		t.Errorf("register: refusal %d", out.refused)
	}
	table = table.reserve(prNexus{"0", 1}, 5, cdb.PRWriteExclusive).table
	if out := table.move(prNexus{"0", 1}, &cdb.PRMoveList{Key: 5, ActionKey: 6}, prNexus{"more", 1}); out.refused != prFull {
		t.Errorf("move: refusal %d", out.refused)
	}
	if out := table.move(prNexus{"0", 1}, &cdb.PRMoveList{Key: 5, ActionKey: 6}, prNexus{"1", 1}); out.refused != prAccepted || out.table.Holder.Initiator != "1" {
		t.Errorf("move to one that is registered: %d, holder %v", out.refused, out.table.Holder)
	}
}

// TestAllTargetPorts: with ALL_TG_PT one registration counts at every target port.
func TestAllTargetPorts(t *testing.T) {
	a := prNexus{"a", 1}
	table := prTable{}.register(a, &cdb.PROutList{ActionKey: 9}, false).table
	if table.find(prNexus{"a", 2}) >= 0 {
		t.Error("a registration at one port counts at another")
	}
	table = table.register(prNexus{"a", 2}, &cdb.PROutList{ActionKey: 9, AllTargetPorts: true}, false).table
	if len(table.Registrations) != 1 || table.find(a) != 0 || table.find(prNexus{"a", 7}) != 0 || table.find(prNexus{"b", 1}) >= 0 {
		t.Errorf("registrations %+v", table.Registrations)
	}
}
