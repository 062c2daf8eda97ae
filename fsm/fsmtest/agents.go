package fsmtest

import (
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// Agents returns what the agents of online units and hosts would report next, having done all that the view
// tells them: copies made and deleted, assignments in force or released. None if all is settled.
func Agents(v fsm.View) []fsm.Report {
	var out []fsm.Report
	for _, vol := range v.Volumes() {
		for _, c := range vol.Copies {
			u := v.Unit(c.Unit)
			if u.State != fsm.UnitOnline {
				continue
			}
			r := byUnit(u)
			r.Volume = vol.ID
			switch c.State {
			case fsm.CopyCreating, fsm.CopyGrowing:
				r.Kind, r.SizeBytes = fsm.ReportReplicaReady, vol.SizeBytes
			case fsm.CopyDeleting:
				r.Kind = fsm.ReportReplicaDeleted
			default:
				continue
			}
			out = append(out, r)
		}
	}
	for _, a := range v.Assignments() {
		out = append(out, onAssignment(v, a)...)
	}
	return out
}

func byUnit(u *fsm.Unit) fsm.Report {
	return fsm.Report{Role: san.RoleUnit, Agent: string(u.ID), CertSerial: u.CertSerial, Incarnation: u.Incarnation}
}

func onAssignment(v fsm.View, a *fsm.Assignment) []fsm.Report {
	var out []fsm.Report
	kind := fsm.ReportAssignmentReady
	if a.State == fsm.AssignmentReleasing {
		kind = fsm.ReportReleased
	}
	for _, c := range a.Units {
		u := v.Unit(c.Unit)
		if c.Generation == a.Generation || u.State != fsm.UnitOnline {
			continue
		}
		r := byUnit(u)
		r.Kind, r.Volume, r.Host, r.Generation = kind, a.Volume, a.Host, a.Generation
		out = append(out, r)
	}
	h := v.Host(a.Host)
	if h.Agent && h.State == fsm.HostOnline && a.State != fsm.AssignmentReleasing && a.HostGeneration != a.Generation {
		out = append(out, fsm.Report{Role: san.RoleHost, Agent: string(h.ID), CertSerial: h.CertSerial, Incarnation: h.Incarnation,
			Kind: kind, Volume: a.Volume, Host: a.Host, Generation: a.Generation})
	}
	return out
}

// Settle lets the agents report until there is nothing left to do.
func (e *Env) Settle() error {
	for reports := Agents(e.Machine.View()); len(reports) > 0; reports = Agents(e.Machine.View()) {
		if err := e.Do(&fsm.Reports{Reports: reports}); err != nil {
			return err
		}
	}
	return nil
}
