package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

const (
	recordVersion = 1
	// maxCHAPBytes bounds a CHAP user and a CHAP secret.
	maxCHAPBytes = 255
)

// AccessState says what an assignment has come to.
type AccessState string

// The states of an assignment.
const (
	// Granted lets the host in.
	Granted AccessState = "granted"
	// Released lets nobody in; the stations wait to hear so.
	Released AccessState = "released"
	// Gone lets nobody in; nobody waits. It is kept because of its stamps alone.
	Gone AccessState = "gone"
)

// Seen says how new the word on an object is.
type Seen struct {
	// Stamp is the object's own.
	Stamp san.Stamp `json:"stamp"`
	// AsOf is the state of the tables in which it was so.
	AsOf san.Stamp `json:"asOf"`
}

// supersedes reports whether word s may take the place of o.
func (s Seen) supersedes(o Seen) bool { return !s.Stamp.Less(o.Stamp) && !s.AsOf.Less(o.AsOf) }

// Access is what a unit was told of one assignment.
type Access struct {
	Seen
	State      AccessState    `json:"state"`
	Generation san.Generation `json:"generation"`
	Initiators []string       `json:"initiators,omitempty"`
	AllowFrom  []netip.Prefix `json:"allowFrom,omitempty"`
	CHAPUser   string         `json:"chapUser,omitempty"`
	CHAPSecret string         `json:"chapSecret,omitempty"`
}

// precedes reports whether a is of an earlier generation than o. Stations that were restored from a backup
// may count generations anew; then the generation of the cluster says which word is newer.
func (a Access) precedes(o *Access) bool {
	return a.Stamp.ClusterGeneration == o.Stamp.ClusterGeneration && a.Generation < o.Generation
}

func (a Access) same(o Access) bool {
	return a.State == o.State && a.Generation == o.Generation && slices.Equal(a.Initiators, o.Initiators) &&
		slices.Equal(a.AllowFrom, o.AllowFrom) && a.CHAPUser == o.CHAPUser && a.CHAPSecret == o.CHAPSecret
}

// Replica is what a unit was told of its copy of a volume. What it looks like is in the
// copy's own record (package volume).
type Replica struct {
	Seen
	Deleted bool `json:"deleted,omitempty"`
}

// Record is what a unit was told of one volume. A Record is never changed once it is in
// use; change makes a copy.
type Record struct {
	Volume  san.VolumeID           `json:"volume"`
	Replica *Replica               `json:"replica,omitempty"`
	Hosts   map[san.HostID]*Access `json:"hosts,omitempty"`
}

// change returns a copy of r whose fields may be set.
func (r Record) change() Record {
	if r.Hosts = maps.Clone(r.Hosts); r.Hosts == nil {
		r.Hosts = map[san.HostID]*Access{}
	}
	return r
}

// same reports whether r and o say the same, however new their word is. A record on disk
// is not written anew for newer stamps alone: the floor, which is, keeps older states out.
func (r Record) same(o Record) bool {
	if (r.Replica == nil) != (o.Replica == nil) || r.Replica != nil && r.Replica.Deleted != o.Replica.Deleted {
		return false
	}
	return maps.EqualFunc(r.Hosts, o.Hosts, func(a, b *Access) bool { return a.same(*b) })
}

// grant is the leave that the record gives host; nil if it gives none.
func (r Record) grant(host san.HostID) *Grant {
	a := r.Hosts[host]
	if a == nil || a.State != Granted || r.Replica != nil && r.Replica.Deleted {
		return nil
	}
	return &Grant{Volume: r.Volume, Host: host, Generation: a.Generation, Initiators: a.Initiators, AllowFrom: a.AllowFrom, CHAPUser: a.CHAPUser, CHAPSecret: a.CHAPSecret}
}

// granted counts the hosts that the record lets in, but for one.
func (r Record) granted(but san.HostID) (n int) {
	for h, a := range r.Hosts {
		if h != but && a.State == Granted {
			n++
		}
	}
	return n
}

// doomed is r with the word that its replica is to be deleted; nobody is let in by that.
func (r Record) doomed(by *Replica) Record {
	r.Replica = by
	return r
}

// without drops what the floor makes superfluous: of an object that nobody knows, no word older
// than the floor is taken anyway. empty reports that nothing is left.
func (r Record) without(floor san.Stamp) (out Record, empty bool) {
	out = r.change()
	for h, a := range r.Hosts {
		if a.State == Gone && !floor.Less(a.AsOf) {
			delete(out.Hosts, h)
		}
	}
	return out, len(out.Hosts) == 0 && (r.Replica == nil || r.Replica.Deleted && !floor.Less(r.Replica.AsOf))
}

type recordFile struct {
	Version int `json:"version"`
	Record
}

func encodeRecord(r Record) ([]byte, error) {
	return json.Marshal(recordFile{Version: recordVersion, Record: r})
}

// parseRecord is encodeRecord's inverse; it takes nothing that could not have been told.
func parseRecord(volume san.VolumeID, b []byte) (Record, error) {
	var f recordFile
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return Record{}, fmt.Errorf("%w: %w", disk.ErrDamaged, err)
	}
	if f.Version != recordVersion {
		return Record{}, fmt.Errorf("%w: record version %d is not known to this release (it knows %d)", disk.ErrDamaged, f.Version, recordVersion)
	}
	if f.Volume != volume || checkVolumeID(volume) != nil {
		return Record{}, fmt.Errorf("%w: the record of volume %q is in the place of volume %q", disk.ErrDamaged, f.Volume, volume)
	}
	for h, a := range f.Hosts {
		if a == nil || a.State != Granted && a.State != Released && a.State != Gone {
			return Record{}, fmt.Errorf("%w: host %q has no valid state", disk.ErrDamaged, h)
		}
		if err := checkAccess(h, a); err != nil {
			return Record{}, fmt.Errorf("%w: %w", disk.ErrDamaged, err)
		}
	}
	return f.Record, nil
}

func checkVolumeID(id san.VolumeID) error {
	if u, err := uuid.Parse(string(id)); err != nil || u.String() != string(id) {
		return san.Errorf(san.KindInvalid, "volume id %.64q is not a lower-case UUID", string(id))
	}
	return nil
}

// checkAccess reports whether a can be kept, and carried out if it grants.
func checkAccess(host san.HostID, a *Access) error {
	if err := san.CheckName("host", string(host)); err != nil {
		return err
	}
	if a.State != Granted {
		return nil
	}
	switch {
	case len(a.Initiators) == 0:
		return san.Errorf(san.KindInvalid, "the assignment to host %s names no initiator; give the host one", host)
	case len(a.Initiators) > san.MaxInitiatorsPerHost || len(a.AllowFrom) > san.MaxAllowFromPerHost:
		return san.Errorf(san.KindInvalid, "the assignment to host %s has %d initiators and %d address ranges; %d and %d are allowed", host, len(a.Initiators), len(a.AllowFrom), san.MaxInitiatorsPerHost, san.MaxAllowFromPerHost)
	case a.CHAPUser == "" || a.CHAPSecret == "" || len(a.CHAPUser) > maxCHAPBytes || len(a.CHAPSecret) > maxCHAPBytes:
		return san.Errorf(san.KindInvalid, "the assignment to host %s has no usable CHAP credentials; unassign the volume and assign it again", host)
	}
	for _, name := range a.Initiators {
		if err := san.CheckInitiatorName(name); err != nil {
			return err
		}
	}
	return nil
}
