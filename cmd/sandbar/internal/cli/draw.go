package cli

import (
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/output"
	"github.com/sandbar-san/sandbar/san"
)

func drawVolumes(p *output.Page, vols []*pb.Volume) {
	rows := make([][]any, 0, len(vols))
	for _, v := range vols {
		var units, hosts []string
		for _, c := range v.Copies {
			units = append(units, c.UnitId)
		}
		for _, a := range v.Assignments {
			hosts = append(hosts, a.HostId+" ("+a.State+")")
		}
		rows = append(rows, []any{v.Name, output.State(v.State), san.FormatSize(v.SizeBytes), list(units), list(hosts), v.Id})
	}
	p.Table("", []string{"Name", "State", "Size", "Units", "Hosts", "Id"}, rows)
}

func drawVolume(p *output.Page, v *pb.Volume) {
	p.Fields("Name", v.Name, "Id", v.Id, "State", output.State(v.State), "Size", san.FormatSize(v.SizeBytes),
		"Size in bytes", v.SizeBytes, "Block size", v.BlockSizeBytes, "Epoch", v.Epoch, "Labels", labels(v.Labels),
		"Owner", v.OwnerHostId, "Created", when(v.CreatedAt))
	var copies [][]any
	for _, c := range v.Copies {
		extents := uint32(0)
		for _, s := range c.Slices {
			extents += s.Extents
		}
		copies = append(copies, []any{c.UnitId, c.Role, output.State(c.State), extents, c.Error})
	}
	if len(copies) > 0 {
		p.Table("Copies", []string{"Unit", "Role", "State", "Extents", "Error"}, copies)
	}
	for _, a := range v.Assignments {
		p.Line("")
		p.Fields("Host", a.HostId, "Assignment", output.State(a.State), "Generation", a.Generation)
		var paths [][]any
		for _, w := range a.Paths {
			paths = append(paths, []any{w.UnitId, w.Portal, w.TargetIqn, w.Lun, output.State(w.State), w.Reason})
		}
		if len(paths) > 0 {
			p.Table("Paths", []string{"Unit", "Portal", "Target", "LUN", "State", "Reason"}, paths)
		}
	}
}

func drawHosts(p *output.Page, hosts []*pb.Host) {
	rows := make([][]any, 0, len(hosts))
	for _, h := range hosts {
		rows = append(rows, []any{h.Id, output.State(h.State), yesNo(h.Agent), list(h.Initiators), anyOr(h.AllowFrom)})
	}
	p.Table("", []string{"Id", "State", "Agent", "Initiators", "Allow from"}, rows)
}

func drawHost(p *output.Page, h *pb.Host) {
	p.Fields("Id", h.Id, "State", output.State(h.State), "Since", when(h.StateAt), "Agent", yesNo(h.Agent), "Version", h.Version,
		"Initiators", list(h.Initiators), "Allow from", anyOr(h.AllowFrom), "Addresses", list(h.Addresses))
}

func drawUnits(p *output.Page, units []*pb.Unit) {
	rows := make([][]any, 0, len(units))
	for _, u := range units {
		var capacity, reserved int64
		for _, m := range u.Media {
			capacity, reserved = capacity+m.CapacityBytes, reserved+m.ReservedBytes
		}
		rows = append(rows, []any{u.Id, output.State(u.State), yesNo(u.Approved), yesNo(u.Spare), u.Portal, len(u.Media),
			san.FormatSize(capacity), san.FormatSize(capacity - reserved), len(u.Volumes)})
	}
	p.Table("", []string{"Id", "State", "Approved", "Spare", "Portal", "Media", "Capacity", "Free", "Volumes"}, rows)
}

func drawUnit(p *output.Page, u *pb.Unit) {
	p.Fields("Id", u.Id, "State", output.State(u.State), "Since", when(u.StateAt), "Reason", u.Reason, "Approved", yesNo(u.Approved),
		"Spare", yesNo(u.Spare), "Portal", u.Portal, "API address", u.ApiAddress, "Incarnation", u.Incarnation,
		"Version", u.Version, "Labels", labels(u.Labels))
	var media, vols [][]any
	for _, m := range u.Media {
		media = append(media, []any{m.Id, m.Path, output.State(m.State), san.FormatSize(m.CapacityBytes), san.FormatSize(m.ReservedBytes), san.FormatSize(m.UsedBytes)})
	}
	if len(media) > 0 {
		p.Table("Media", []string{"Id", "Path", "State", "Capacity", "Reserved", "Used"}, media)
	}
	for _, v := range u.Volumes {
		vols = append(vols, []any{v.Name, v.StartLba, v.LengthBlocks, v.EndLba, v.VolumeId})
	}
	if len(vols) > 0 {
		p.Table("Volumes", []string{"Name", "Start LBA", "Blocks", "End LBA", "Id"}, vols)
	}
	if len(u.OrphanVolumeIds) > 0 {
		p.Line("")
		p.Line("Orphans, copies that no volume knows: %s", list(u.OrphanVolumeIds))
	}
}

func drawPool(p *output.Page, g *pb.GetPoolResponse) {
	p.Fields("Units", g.Units, "Units online", g.UnitsOnline, "Spare units", g.SpareUnits, "Media", g.Media,
		"Volumes", g.Volumes, "Hosts", g.Hosts, "Assignments", g.Assignments,
		"Capacity", san.FormatSize(g.CapacityBytes), "Reserved", san.FormatSize(g.ReservedBytes),
		"Used", san.FormatSize(g.UsedBytes), "Free", san.FormatSize(g.FreeBytes))
}

func drawStations(p *output.Page, l *pb.ListStationsResponse) {
	rows := make([][]any, 0, len(l.Stations))
	for _, s := range l.Stations {
		leader := ""
		if s.Leader {
			leader = "leader"
		}
		rows = append(rows, []any{s.Id, leader, output.State(s.Suffrage), output.State(s.GossipStatus), s.ApiAddress, s.RaftAddress, s.GossipAddress, s.Version})
	}
	p.Table("", []string{"Id", "Leader", "Suffrage", "Gossip", "API", "Raft", "Gossip address", "Version"}, rows)
	p.Line("")
	p.Line("cluster %s, term %d, index %d", l.ClusterId, l.Term, l.AppliedIndex)
}

func drawTokens(p *output.Page, tokens []*pb.Token) {
	rows := make([][]any, 0, len(tokens))
	for _, t := range tokens {
		kind, uses := "operator", any("")
		if t.Join {
			kind, uses = "join", t.Uses
		}
		rows = append(rows, []any{t.Id, t.Name, kind, t.Role, t.HostId, when(t.ExpiresAt), uses})
	}
	p.Table("", []string{"Id", "Name", "Kind", "Role", "Host", "Expires", "Uses"}, rows)
}

func drawAudit(p *output.Page, entries []*pb.AuditEntry) {
	rows := make([][]any, 0, len(entries))
	for _, e := range entries {
		rows = append(rows, []any{e.Index, when(e.At), e.Principal, e.Action, e.Object})
	}
	p.Table("", []string{"Index", "At", "Principal", "Action", "Object"}, rows)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func list(s []string) string { return strings.Join(s, ", ") }

// anyOr renders prefixes that restrict; none restrict nobody.
func anyOr(s []string) string {
	if len(s) == 0 {
		return "any"
	}
	return list(s)
}

func labels(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return list(out)
}

// when renders a time in UTC, as the stations keep it; an absent one as nothing.
func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}
