package fsmtest

import (
	"fmt"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// CheckInvariants returns the first rule that the state breaks: what is reserved is exactly what volumes
// hold and never more than there is, names and initiators have one owner, a volume has one host, every
// reference leads somewhere, generations agree.
func CheckInvariants(v fsm.View) error {
	for _, check := range []func(fsm.View) error{checkVolumes, checkRoom, checkHosts, checkAssignments, checkIndexes} {
		if err := check(v); err != nil {
			return err
		}
	}
	return nil
}

func checkVolumes(v fsm.View) error {
	names := map[string]san.VolumeID{}
	for _, vol := range v.Volumes() {
		if other, ok := names[vol.Name]; ok {
			return fmt.Errorf("volumes %s and %s are both called %q", other, vol.ID, vol.Name)
		}
		names[vol.Name] = vol.ID
		if got := v.VolumeByName(vol.Name); got != vol {
			return fmt.Errorf("name %q leads to %v", vol.Name, got)
		}
		if len(vol.Copies) == 0 {
			return fmt.Errorf("volume %q has no copy", vol.Name)
		}
		if vol.Owner != "" && v.Host(vol.Owner) == nil {
			return fmt.Errorf("volume %q belongs to host %q, which is not there", vol.Name, vol.Owner)
		}
		inSync, growing := true, false
		for _, c := range vol.Copies {
			sum := uint32(0)
			for _, s := range c.Slices {
				sum += s.Extents
			}
			if want := san.ExtentsFor(vol.SizeBytes); sum != want {
				return fmt.Errorf("copy of %q on %s has %d extents, not %d", vol.Name, c.Unit, sum, want)
			}
			if v.Unit(c.Unit) == nil {
				return fmt.Errorf("copy of %q is on unit %q, which is not there", vol.Name, c.Unit)
			}
			if (c.State == fsm.CopyDeleting) != (vol.State == fsm.VolumeDeleting) {
				return fmt.Errorf("volume %q is %s, its copy on %s %s", vol.Name, vol.State, c.Unit, c.State)
			}
			inSync, growing = inSync && c.State == fsm.CopyInSync, growing || c.State == fsm.CopyGrowing
			if (c.State == fsm.CopyGrowing) != (c.SizeBytes > 0) || c.SizeBytes >= vol.SizeBytes {
				return fmt.Errorf("copy of %q on %s is %s with %d of %d bytes confirmed", vol.Name, c.Unit, c.State, c.SizeBytes, vol.SizeBytes)
			}
		}
		if growing != (vol.State == fsm.VolumeGrowing) {
			return fmt.Errorf("volume %q is %s, a copy is growing: %v", vol.Name, vol.State, growing)
		}
		if inSync != (vol.State == fsm.VolumeReady) {
			return fmt.Errorf("volume %q is %s, all copies in sync: %v", vol.Name, vol.State, inSync)
		}
	}
	return nil
}

func checkRoom(v fsm.View) error {
	held := map[san.MediumID]uint32{}
	for _, vol := range v.Volumes() {
		for _, c := range vol.Copies {
			for _, s := range c.Slices {
				m := v.Medium(s.Medium)
				if m == nil || m.Unit != c.Unit {
					return fmt.Errorf("volume %q has a slice on medium %q, which is not unit %q's", vol.Name, s.Medium, c.Unit)
				}
				held[s.Medium] += s.Extents
			}
		}
	}
	for _, m := range v.Media() {
		if m.ReservedExtents != held[m.ID] {
			return fmt.Errorf("medium %s has %d extents reserved, volumes hold %d", m.ID, m.ReservedExtents, held[m.ID])
		}
		if v.Unit(m.Unit) == nil {
			return fmt.Errorf("medium %s is on unit %q, which is not there", m.ID, m.Unit)
		}
	}
	return nil
}

func checkHosts(v fsm.View) error {
	for _, h := range v.Hosts() {
		for _, n := range h.Initiators {
			if got := v.HostByInitiator(n); got != h {
				return fmt.Errorf("initiator %s of host %q leads to %v", n, h.ID, got)
			}
		}
	}
	for _, t := range v.Tokens() {
		if t.Host != "" && v.Host(t.Host) == nil {
			return fmt.Errorf("token %q is for host %q, which is not there", t.Name, t.Host)
		}
	}
	return nil
}

func checkAssignments(v fsm.View) error {
	owner := map[san.VolumeID]san.HostID{}
	for _, a := range v.Assignments() {
		vol, h := v.Volume(a.Volume), v.Host(a.Host)
		if vol == nil || h == nil {
			return fmt.Errorf("assignment of %s to %s leads nowhere", a.Volume, a.Host)
		}
		if other, ok := owner[a.Volume]; ok {
			return fmt.Errorf("volume %q is assigned to %q and %q", vol.Name, other, a.Host)
		}
		owner[a.Volume] = a.Host
		if vol.State == fsm.VolumeDeleting {
			return fmt.Errorf("volume %q is Deleting and assigned", vol.Name)
		}
		if a.Generation != vol.LastGeneration {
			return fmt.Errorf("assignment of %q has generation %d, the volume %d", vol.Name, a.Generation, vol.LastGeneration)
		}
		confirmed := !h.Agent || a.HostGeneration == a.Generation
		for _, u := range a.Units {
			if u.Generation > a.Generation {
				return fmt.Errorf("unit %q confirmed generation %d of %q before it was made", u.Unit, u.Generation, vol.Name)
			}
			confirmed = confirmed && u.Generation == a.Generation
		}
		if a.State != fsm.AssignmentReleasing && confirmed != (a.State == fsm.AssignmentAssigned) {
			return fmt.Errorf("assignment of %q is %s, confirmed by all: %v", vol.Name, a.State, confirmed)
		}
	}
	return nil
}

func checkIndexes(v fsm.View) error {
	on := 0
	for _, u := range v.Units() {
		on += len(v.VolumesOn(u.ID))
	}
	copies := 0
	for _, vol := range v.Volumes() {
		copies += len(vol.Copies)
		if vol.Meta.ModifyIndex > v.Index() || vol.Meta.CreateIndex == 0 || vol.Meta.CreateIndex > vol.Meta.ModifyIndex {
			return fmt.Errorf("volume %q has indexes %v in a view of %d", vol.Name, vol.Meta, v.Index())
		}
	}
	if on != copies {
		return fmt.Errorf("%d copies, by unit %d", copies, on)
	}
	return nil
}
