package fsm

import (
	"slices"

	"github.com/sandbar-san/sandbar/san"
)

// ReportKind says what an agent reports done.
type ReportKind uint8

// The kinds of report.
const (
	ReportReplicaReady    ReportKind = 1 // unit: the copy exists in SizeBytes, stable
	ReportReplicaDeleted  ReportKind = 2 // unit: the copy's extents are free
	ReportReplicaFailed   ReportKind = 3 // unit: Error says why
	ReportAssignmentReady ReportKind = 4 // unit or host: Generation is persisted and in force
	ReportReleased        ReportKind = 5 // unit: no command of generations below Generation takes effect any more
	ReportAssignmentError ReportKind = 6 // unit or host: Error says why
)

// Report is one agent's word on one object. Apply ignores, per report, what is stale or no
// longer concerns the row: a report is at-least-once and may be late.
type Report struct {
	Role        san.Role        `cbor:"1,keyasint"`
	Agent       string          `cbor:"2,keyasint"`
	CertSerial  string          `cbor:"3,keyasint"`
	Incarnation san.Incarnation `cbor:"4,keyasint"`
	Kind        ReportKind      `cbor:"5,keyasint"`
	Volume      san.VolumeID    `cbor:"6,keyasint"`
	Host        san.HostID      `cbor:"7,keyasint"`
	Generation  san.Generation  `cbor:"8,keyasint"`
	Error       string          `cbor:"9,keyasint"`
	SizeBytes   int64           `cbor:"10,keyasint,omitempty"` // ReportReplicaReady: of the copy, stable
}

// Reports commits a batch of transitions.
type Reports struct {
	H       Header   `cbor:"1,keyasint"`
	Reports []Report `cbor:"2,keyasint"`
}

// Kind implements Command.
func (c *Reports) Kind() Kind { return KindReports }

// Header implements Command.
func (c *Reports) Header() *Header { return &c.H }

func (c *Reports) action() string { return "" }

func (c *Reports) apply(x *tx) (string, error) {
	if len(c.Reports) > maxReports {
		return "", refuse(san.KindInvalid, "%d reports at once, %d are allowed; send them in parts", len(c.Reports), maxReports)
	}
	for i := range c.Reports {
		x.report(&c.Reports[i])
	}
	return "", nil
}

// report carries out r, or does nothing.
func (x *tx) report(r *Report) {
	if !x.believes(r) {
		return
	}
	switch r.Kind {
	case ReportReplicaReady, ReportReplicaDeleted, ReportReplicaFailed:
		if r.Role == san.RoleUnit {
			x.reportReplica(r)
		}
	case ReportAssignmentReady, ReportReleased, ReportAssignmentError:
		a := x.Assignment(r.Volume, r.Host)
		if a == nil || r.Generation != a.Generation {
			return
		}
		if r.Role == san.RoleUnit {
			x.reportByUnit(a, r)
		} else {
			x.reportByHost(a, r)
		}
	}
}

// believes reports whether r comes from the agent's present certificate and no older start of it.
func (x *tx) believes(r *Report) bool {
	switch r.Role {
	case san.RoleUnit:
		u := x.Unit(san.UnitID(r.Agent))
		return u != nil && u.Approved && u.CertSerial == r.CertSerial && r.Incarnation >= u.Incarnation
	case san.RoleHost:
		h := x.Host(san.HostID(r.Agent))
		return h != nil && h.Agent && h.CertSerial == r.CertSerial && r.Incarnation >= h.Incarnation
	}
	return false
}

func (x *tx) reportReplica(r *Report) {
	unit := san.UnitID(r.Agent)
	v := x.Volume(r.Volume)
	i := -1
	if v != nil {
		i = v.copyOn(unit)
	}
	switch {
	case i < 0 && r.Kind == ReportReplicaDeleted:
		x.orphanGone(unit, r.Volume)
	case i < 0:
	case r.Kind == ReportReplicaReady:
		x.copyMade(v, i, r.SizeBytes)
	case r.Kind == ReportReplicaDeleted:
		x.copyGone(v, i)
	case r.Kind == ReportReplicaFailed:
		x.copyFailed(v, i, r.Error)
	}
}

// orphanGone takes a replica that nobody knew off unit's list.
func (x *tx) orphanGone(unit san.UnitID, volume san.VolumeID) {
	u := x.Unit(unit)
	if i := slices.Index(u.Orphans, volume); i >= 0 {
		row := *u
		row.Orphans = slices.Delete(slices.Clone(u.Orphans), i, i+1)
		x.put(&row)
	}
}

func (x *tx) reportByUnit(a *Assignment, r *Report) {
	i := a.unitAt(san.UnitID(r.Agent))
	if i < 0 {
		return
	}
	switch r.Kind {
	case ReportAssignmentReady:
		x.unitReady(a, i)
	case ReportReleased:
		x.unitReleased(a, i)
	case ReportAssignmentError:
		x.unitFailed(a, i, r.Error)
	}
}

// reportByHost: only the host whose assignment it is has a say.
func (x *tx) reportByHost(a *Assignment, r *Report) {
	if string(a.Host) != r.Agent {
		return
	}
	switch r.Kind {
	case ReportAssignmentReady:
		x.hostReady(a)
	case ReportAssignmentError:
		x.hostFailed(a, r.Error)
	}
}
