package fsmtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sandbar-san/sandbar/fsm"
)

// show renders a table for a transcript.
func (e *Env) show(l line) []string {
	v := e.Machine.View()
	var out []string
	add := func(format string, args ...any) { out = append(out, strings.TrimSpace(fmt.Sprintf(format, args...))) }
	switch l.word(1) {
	case "cluster":
		if c := v.Cluster(); c != nil {
			add("%s generation %d format %d", c.ID, c.Generation, c.FormatVersion)
		}
	case "stations":
		for _, s := range v.Stations() {
			add("%s cert %s api %s format %d", s.ID, orNone(s.CertSerial), orNone(s.APIAddress), s.Format)
		}
	case "units":
		for _, u := range v.Units() {
			add("%s %s start %d%s%s", u.ID, u.State, u.Incarnation, unitFlags(u), labelText(u.Labels))
		}
	case "media":
		for _, m := range v.Media() {
			add("%s on %s %s reserved %d of %d", m.ID, m.Unit, m.State, m.ReservedExtents, m.CapacityExtents)
		}
	case "volumes":
		for _, vol := range v.Volumes() {
			add("%s %s %d bytes generation %d%s%s:%s", vol.Name, vol.State, vol.SizeBytes, vol.LastGeneration,
				labelText(vol.Labels), with(" owner ", string(vol.Owner)), copyText(vol.Copies))
		}
	case "hosts":
		for _, h := range v.Hosts() {
			add("%s %s agent %v initiators %s%s%s", h.ID, h.State, h.Agent, orNone(strings.Join(h.Initiators, ",")),
				with(" from ", strings.Join(h.AllowFrom, ",")), with(" at ", strings.Join(h.Addresses, ",")))
		}
	case "assignments":
		for _, a := range v.Assignments() {
			add("%s to %s generation %d %s:%s host %d%s", a.Volume, a.Host, a.Generation, a.State, confirmText(a), a.HostGeneration, with(" ", a.HostError))
		}
	case "tokens":
		for _, t := range v.Tokens() {
			add("%s %s%s", t.Name, t.Role, with(" for ", string(t.Host)))
		}
		for _, t := range v.JoinTokens() {
			add("%s joins a %s, used %d times", t.Name, t.Role, t.Uses)
		}
	case "audit":
		for _, a := range v.Audit(0, 1000) {
			add("%d %s %s %s %s", a.Index, a.At.Format("15:04:05"), a.Principal, a.Action, a.Object)
		}
	default:
		add("error: no table %q", l.word(1))
	}
	if out == nil {
		out = []string{"none"}
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// with returns s after before, nothing if s is empty.
func with(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

func unitFlags(u *fsm.Unit) string {
	out := with(" because ", u.Reason)
	if u.Spare {
		out += " spare"
	}
	for _, v := range u.Orphans {
		out += " orphan " + string(v)
	}
	return out
}

func labelText(labels map[string]string) string {
	var out []string
	for k, v := range labels {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return with(" labels ", strings.Join(out, ","))
}

func copyText(copies []fsm.Copy) string {
	out := ""
	for _, c := range copies {
		out += fmt.Sprintf(" %s %s", c.Unit, c.State)
		if c.SizeBytes > 0 {
			out += fmt.Sprintf(" from %d bytes", c.SizeBytes)
		}
		for _, s := range c.Slices {
			out += fmt.Sprintf(" %s=%d", s.Medium, s.Extents)
		}
		out += with(" failed: ", c.Error)
	}
	return out
}

func confirmText(a *fsm.Assignment) string {
	out := ""
	for _, u := range a.Units {
		out += fmt.Sprintf(" %s %d%s", u.Unit, u.Generation, with(" failed: ", u.Error))
	}
	return out
}
