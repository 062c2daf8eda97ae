package agent

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

func drawRecord(t *rapid.T, label string) Record {
	r := Record{Volume: vol(1), Hosts: map[san.HostID]*Access{}}
	if rapid.Bool().Draw(t, label+" replica") {
		r.Replica = &Replica{Deleted: rapid.Bool().Draw(t, label+" deleted")}
	}
	for _, h := range []san.HostID{"a", "b"} {
		state := rapid.SampledFrom([]AccessState{"", Granted, Released, Gone}).Draw(t, label+" "+string(h))
		if state == "" {
			continue
		}
		a := &Access{State: state, Generation: san.Generation(rapid.IntRange(1, 2).Draw(t, "generation"))}
		if state == Granted {
			a.Initiators, a.CHAPUser = []string{"iqn.x"}, "u"
			a.CHAPSecret = rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "secret")
		}
		r.Hosts[h] = a
	}
	return r
}

func drawSituation(t *rapid.T) situation {
	s := situation{told: told{Record: drawRecord(t, "told")}, kept: drawRecord(t, "kept"), shown: map[san.HostID]*Grant{}}
	if s.Replica != nil && rapid.Bool().Draw(t, "purge") {
		s.Purge = &Replica{Deleted: true}
	}
	if s.Replica != nil && !s.Replica.Deleted && rapid.Bool().Draw(t, "spec") {
		s.Spec, s.Grow = &volume.Spec{ID: s.Volume}, rapid.Bool().Draw(t, "grow")
	}
	// Only what is on disk was ever shown.
	for h := range s.kept.Hosts {
		if g := s.kept.grant(h); g != nil && rapid.Bool().Draw(t, "shown "+string(h)) {
			s.shown[h] = g
		}
	}
	return s
}

// carrier carries plans out and holds each step against the rules.
type carrier struct {
	t        *rapid.T
	s        situation
	in       map[san.HostID]*Grant // who may log in
	sessions map[san.HostID]*Grant // by which terms each host's sessions came in
	made     bool
	said     map[string]bool
}

func (c *carrier) do(st step) {
	c.act(st)
	if st.shown != nil {
		c.s.shown[st.host] = st.shown
	}
}

func (c *carrier) act(st step) {
	switch st.op {
	case opHide:
		delete(c.s.shown, st.host)
		delete(c.in, st.host)
	case opClose:
		if st.grant == nil {
			delete(c.sessions, st.host)
		} else if g := c.sessions[st.host]; g != nil && g.Generation != st.grant.Generation {
			delete(c.sessions, st.host)
		}
		c.login()
	case opKeep:
		if c.s.Purge != nil && !st.record.Replica.Deleted {
			c.t.Fatal("a restart would forget a deletion")
		}
		c.s.kept = st.record
	case opDelete:
		if len(c.in) > 0 || !c.s.kept.Replica.Deleted {
			c.t.Fatalf("a replica is deleted with %v let in and %v on disk", c.in, c.s.kept)
		}
		clear(c.sessions)
		c.made, c.s.Purge = false, nil
	case opGrow:
		c.s.Grow = false // committed, once it is confirmed
		fallthrough
	case opCreate:
		if c.s.Purge != nil {
			c.t.Fatal("a replica is made on top of one that was to be deleted")
		}
		c.made = true
	case opShow:
		if k := c.s.kept.grant(st.host); k == nil || !k.equal(st.grant) {
			c.t.Fatalf("%v is let in and %v is on disk", st.grant, k)
		}
		c.in[st.host] = st.grant
		c.login()
	case opReport:
		c.report(st)
	}
}

// login: whoever may come in does so at once.
func (c *carrier) login() {
	for h, g := range c.in {
		if c.sessions[h] == nil {
			c.sessions[h] = g
		}
	}
}

func (c *carrier) report(st step) {
	c.said[st.report.Kind.String()+st.report.HostId] = true
	switch st.report.Kind {
	case pb.ReportKind_REPORT_KIND_RELEASED:
		if c.in[st.host] != nil || c.sessions[st.host] != nil || c.s.kept.grant(st.host) != nil {
			c.t.Fatalf("host %s is reported released: let in %v, session %v, on disk %v", st.host, c.in[st.host], c.sessions[st.host], c.s.kept.grant(st.host))
		}
	case pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY:
		g := c.in[st.host]
		if g == nil || uint64(g.Generation) != st.report.Generation || !c.sessions[st.host].equal(g) {
			c.t.Fatalf("host %s is reported ready: let in %v, session %v", st.host, g, c.sessions[st.host])
		}
	case pb.ReportKind_REPORT_KIND_REPLICA_READY:
		if !c.made {
			c.t.Fatal("a replica is reported ready that was not made")
		}
	case pb.ReportKind_REPORT_KIND_REPLICA_DELETED:
		if c.s.Purge != nil || !c.s.kept.Replica.Deleted {
			c.t.Fatal("a replica is reported deleted that is not, or not on disk")
		}
	}
}

// Whatever was told and wherever the work was cut short, the plan is safe at every step, and
// leads to what was told.
func TestPlansAreSafeAndArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSituation(t)
		c := &carrier{t: t, s: s, in: maps.Clone(s.shown), sessions: map[san.HostID]*Grant{}, said: map[string]bool{}}
		c.s.shown = maps.Clone(s.shown)
		c.login()
		for range rapid.IntRange(0, 2).Draw(t, "attempts") {
			steps := plan(c.s)
			for _, st := range steps[:rapid.IntRange(0, len(steps)).Draw(t, "steps done")] {
				c.do(st)
			}
		}
		for _, st := range plan(c.s) {
			c.do(st)
		}
		c.arrived()
	})
}

func (c *carrier) arrived() {
	if !c.s.same(c.s.kept) || c.s.Purge != nil {
		c.t.Fatalf("told %v, on disk %v, to be deleted %v", c.s.Record, c.s.kept, c.s.Purge)
	}
	for h := range union(c.s) {
		want := c.s.grant(h)
		for _, got := range []*Grant{c.s.shown[h], c.in[h]} {
			if (want == nil) != (got == nil) || want != nil && !want.equal(got) {
				c.t.Fatalf("host %s: told %v, let in %v", h, want, got)
			}
		}
		if a := c.s.Hosts[h]; a != nil && a.State == Released && !c.said[pb.ReportKind_REPORT_KIND_RELEASED.String()+string(h)] {
			c.t.Fatalf("the release of host %s was never reported", h)
		}
		if want != nil && !c.said[pb.ReportKind_REPORT_KIND_ASSIGNMENT_READY.String()+string(h)] {
			c.t.Fatalf("host %s was never reported ready", h)
		}
	}
	for _, st := range plan(c.s) {
		if !slices.Contains([]op{opReport, opCreate, opClose}, st.op) || st.op == opClose && c.s.Hosts[st.host].State != Released {
			c.t.Fatalf("all is done and the plan has step %v", st)
		}
	}
}
