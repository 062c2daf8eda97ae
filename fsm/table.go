package fsm

import (
	"fmt"

	"github.com/hashicorp/go-memdb"

	"github.com/sandbar-san/sandbar/san"
)

// Table numbers a table. The numbers are part of the snapshot format: never reuse one.
type Table uint8

// The tables.
const (
	TableCluster     Table = 1
	TableStations    Table = 2
	TableUnits       Table = 3
	TableMedia       Table = 4
	TableVolumes     Table = 5
	TableHosts       Table = 6
	TableAssignments Table = 7
	TableTokens      Table = 8
	TableJoinTokens  Table = 9
	TableRequests    Table = 10 // not in Changes
	TableAudit       Table = 11 // not in Changes
)

// String names the table.
func (t Table) String() string {
	switch t {
	case TableCluster:
		return "cluster"
	case TableStations:
		return "stations"
	case TableUnits:
		return "units"
	case TableMedia:
		return "media"
	case TableVolumes:
		return "volumes"
	case TableHosts:
		return "hosts"
	case TableAssignments:
		return "assignments"
	case TableTokens:
		return "tokens"
	case TableJoinTokens:
		return "join tokens"
	case TableRequests:
		return "requests"
	case TableAudit:
		return "audit"
	}
	return "unknown table"
}

// tables lists the tables that memdb holds, in the order in which a snapshot has them. Requests and audit are
// windows beside them: two trees fewer to rewrite in each Apply.
func tables() []Table {
	return []Table{TableCluster, TableStations, TableUnits, TableMedia, TableVolumes, TableHosts,
		TableAssignments, TableTokens, TableJoinTokens}
}

// row is what all rows have in common.
type row interface {
	table() Table
	// key is unique in the table; a Change's ID.
	key() string
	// stamp records the log index of a change to the row.
	stamp(i san.Index)
}

// newRow returns an empty row of table t, nil if there is no such table.
func newRow(t Table) row {
	switch t {
	case TableCluster:
		return &Cluster{}
	case TableStations:
		return &Station{}
	case TableUnits:
		return &Unit{}
	case TableMedia:
		return &Medium{}
	case TableVolumes:
		return &Volume{}
	case TableHosts:
		return &Host{}
	case TableAssignments:
		return &Assignment{}
	case TableTokens:
		return &Token{}
	case TableJoinTokens:
		return &JoinToken{}
	}
	return nil
}

func (m *Meta) set(i san.Index) {
	if m.CreateIndex == 0 {
		m.CreateIndex = i
	}
	m.ModifyIndex = i
}

func (c *Cluster) table() Table    { return TableCluster }
func (s *Station) table() Table    { return TableStations }
func (u *Unit) table() Table       { return TableUnits }
func (m *Medium) table() Table     { return TableMedia }
func (v *Volume) table() Table     { return TableVolumes }
func (h *Host) table() Table       { return TableHosts }
func (a *Assignment) table() Table { return TableAssignments }
func (t *Token) table() Table      { return TableTokens }
func (t *JoinToken) table() Table  { return TableJoinTokens }

func (c *Cluster) key() string    { return "cluster" }
func (s *Station) key() string    { return string(s.ID) }
func (u *Unit) key() string       { return string(u.ID) }
func (m *Medium) key() string     { return string(m.ID) }
func (v *Volume) key() string     { return string(v.ID) }
func (h *Host) key() string       { return string(h.ID) }
func (a *Assignment) key() string { return AssignmentKey(a.Volume, a.Host) }
func (t *Token) key() string      { return string(t.ID) }
func (t *JoinToken) key() string  { return string(t.ID) }
func (r *Request) key() string    { return requestKey(r.Principal, r.ID) }

func (c *Cluster) stamp(i san.Index)    { c.Meta.set(i) }
func (s *Station) stamp(i san.Index)    { s.Meta.set(i) }
func (u *Unit) stamp(i san.Index)       { u.Meta.set(i) }
func (m *Medium) stamp(i san.Index)     { m.Meta.set(i) }
func (v *Volume) stamp(i san.Index)     { v.Meta.set(i) }
func (h *Host) stamp(i san.Index)       { h.Meta.set(i) }
func (a *Assignment) stamp(i san.Index) { a.Meta.set(i) }
func (t *Token) stamp(i san.Index)      { t.Meta.set(i) }
func (t *JoinToken) stamp(i san.Index)  { t.Meta.set(i) }

// AssignmentKey is the ID that a Change of an assignment carries: "volume/host".
func AssignmentKey(v san.VolumeID, h san.HostID) string { return string(v) + "/" + string(h) }

// requestKey separates its parts by a byte that no request id may have.
func requestKey(principal string, id san.RequestID) string { return string(id) + "\x00" + principal }

// The indexes of the tables. Few on purpose: each one costs every Apply that touches the table.
const (
	byID        = "id"
	byIDPrefix  = "id_prefix" // memdb's own name for a prefix search in byID
	byName      = "name"      // volumes
	byUnit      = "unit"      // media, volumes
	byHost      = "host"      // assignments
	byInitiator = "initiator" // hosts
)

// keyIndex is a memdb index over the strings that keys returns. Entries end in a zero byte, so that
// one key is never the prefix of another.
type keyIndex[R row] struct {
	keys func(R) []string
}

// FromArgs implements memdb.Indexer.
func (k keyIndex[R]) FromArgs(args ...any) ([]byte, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("%d arguments, 1 is due", len(args))
	}
	s, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("argument of type %T, string is due", args[0])
	}
	return terminated(s), nil
}

func terminated(s string) []byte {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return b
}

// single and multi are keyIndex as the two shapes that memdb tells apart.
type (
	single[R row] struct{ keyIndex[R] }
	multi[R row]  struct{ keyIndex[R] }
)

// FromObject implements memdb.SingleIndexer.
func (k single[R]) FromObject(raw any) (bool, []byte, error) {
	r, ok := raw.(R)
	if !ok {
		return false, nil, fmt.Errorf("row of type %T in the wrong table", raw)
	}
	keys := k.keys(r)
	if len(keys) == 0 {
		return false, nil, nil
	}
	return true, terminated(keys[0]), nil
}

// FromObject implements memdb.MultiIndexer.
func (k multi[R]) FromObject(raw any) (bool, [][]byte, error) {
	r, ok := raw.(R)
	if !ok {
		return false, nil, fmt.Errorf("row of type %T in the wrong table", raw)
	}
	keys := k.keys(r)
	out := make([][]byte, len(keys))
	for i, s := range keys {
		out[i] = terminated(s)
	}
	return len(out) > 0, out, nil
}

// idIndex is keyIndex over row.key that saves the slice: every insert computes it.
type idIndex struct{ keyIndex[row] }

// FromObject implements memdb.SingleIndexer.
func (idIndex) FromObject(raw any) (bool, []byte, error) {
	r, ok := raw.(row)
	if !ok {
		return false, nil, fmt.Errorf("row of type %T in the wrong table", raw)
	}
	return true, terminated(r.key()), nil
}

// PrefixFromArgs implements memdb.PrefixIndexer: for the assignments of one volume.
func (idIndex) PrefixFromArgs(args ...any) ([]byte, error) {
	if len(args) == 1 {
		if s, ok := args[0].(string); ok {
			return []byte(s), nil
		}
	}
	return nil, fmt.Errorf("arguments %v, one string is due", args)
}

func schema() *memdb.DBSchema {
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, t := range tables() {
		s.Tables[t.String()] = &memdb.TableSchema{Name: t.String(), Indexes: map[string]*memdb.IndexSchema{
			byID: {Name: byID, Unique: true, Indexer: idIndex{}},
		}}
	}
	add := func(t Table, ix *memdb.IndexSchema) { s.Tables[t.String()].Indexes[ix.Name] = ix }
	add(TableVolumes, &memdb.IndexSchema{Name: byName, Unique: true,
		Indexer: single[*Volume]{keyIndex[*Volume]{func(v *Volume) []string { return []string{v.Name} }}}})
	add(TableVolumes, &memdb.IndexSchema{Name: byUnit, AllowMissing: true,
		Indexer: multi[*Volume]{keyIndex[*Volume]{func(v *Volume) []string {
			out := make([]string, len(v.Copies))
			for i := range v.Copies {
				out[i] = string(v.Copies[i].Unit)
			}
			return out
		}}}})
	add(TableMedia, &memdb.IndexSchema{Name: byUnit,
		Indexer: single[*Medium]{keyIndex[*Medium]{func(m *Medium) []string { return []string{string(m.Unit)} }}}})
	add(TableAssignments, &memdb.IndexSchema{Name: byHost,
		Indexer: single[*Assignment]{keyIndex[*Assignment]{func(a *Assignment) []string { return []string{string(a.Host)} }}}})
	add(TableHosts, &memdb.IndexSchema{Name: byInitiator, Unique: true, AllowMissing: true,
		Indexer: multi[*Host]{keyIndex[*Host]{func(h *Host) []string { return h.Initiators }}}})
	return s
}
