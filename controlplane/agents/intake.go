package agents

import (
	"context"
	"time"
	"unicode/utf8"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// reportsPerEntry and bytesPerEntry bound one log entry of reports; the log takes 512 KiB.
	reportsPerEntry = 1000
	bytesPerEntry   = 256 << 10
	// reportOverhead is about what a report takes beside its texts.
	reportOverhead = 48
	// reportsEvery spaces log entries of reports: the first after a quiet time goes at once,
	// then many share an entry, so that they don't compete with operators' changes for the
	// log's disk.
	reportsEvery = 40 * time.Millisecond
	// maxReportError bounds an agent's error text in the tables.
	maxReportError = 512
)

// Proposer commits commands; *replica.Replica is one.
type Proposer interface {
	Propose(ctx context.Context, cmd fsm.Command) (fsm.Result, error)
}

// Intake turns agents' messages into commands, on the leader.
type Intake struct {
	propose Proposer
	batch   chan batchItem
	suspect func(role san.Role, id string)
}

type batchItem struct {
	reports []fsm.Report
	done    chan error
}

// NewIntake makes an Intake. suspect is told of agents whose streams were lost; it must not block.
func NewIntake(p Proposer, suspect func(role san.Role, id string)) *Intake {
	return &Intake{propose: p, batch: make(chan batchItem, 256), suspect: suspect}
}

// Run commits reports until ctx ends, many to one log entry.
func (in *Intake) Run(ctx context.Context) error {
	next := time.NewTimer(0) // fires when the next entry may go
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-ctx.Done():
			return nil
		}
		select {
		case first := <-in.batch:
			next.Reset(reportsEvery)
			in.commit(ctx, in.gather(first))
		case <-ctx.Done():
			return nil
		}
	}
}

// gather takes what waits together with first.
func (in *Intake) gather(first batchItem) []batchItem {
	items, n := []batchItem{first}, len(first.reports)
	for n < reportsPerEntry {
		select {
		case it := <-in.batch:
			items, n = append(items, it), n+len(it.reports)
		default:
			return items
		}
	}
	return items
}

func (in *Intake) commit(ctx context.Context, items []batchItem) {
	var all []fsm.Report
	for _, it := range items {
		all = append(all, it.reports...)
	}
	var err error
	for len(all) > 0 && err == nil {
		n := entryLength(all)
		err = in.do(ctx, &fsm.Reports{H: header("agents"), Reports: all[:n]})
		all = all[n:]
	}
	for _, it := range items {
		it.done <- err
	}
}

// entryLength is how many of reports, at least one, fit into one log entry.
func entryLength(reports []fsm.Report) int {
	size := 0
	for i := range reports {
		r := &reports[i]
		size += reportOverhead + len(r.Role) + len(r.Agent) + len(r.CertSerial) + len(r.Volume) + len(r.Host) + len(r.Error)
		if i == reportsPerEntry || i > 0 && size > bytesPerEntry {
			return i
		}
	}
	return len(reports)
}

func header(principal string) fsm.Header {
	return fsm.Header{At: time.Now().UTC().Truncate(time.Millisecond), Principal: principal}
}

func (in *Intake) do(ctx context.Context, cmd fsm.Command) error {
	res, err := in.propose.Propose(ctx, cmd)
	if err != nil {
		return err
	}
	return res.Err
}

// Submit commits one message of an agent whose certificate a station has checked.
func (in *Intake) Submit(ctx context.Context, m *pb.AgentMessage) error {
	role := san.Role(m.Role)
	switch x := m.Message.(type) {
	case *pb.AgentMessage_Hello:
		return in.do(ctx, helloCommand(role, m, x.Hello))
	case *pb.AgentMessage_StorageInfo:
		if role != san.RoleUnit {
			return san.Errorf(san.KindInvalid, "%s %s sent storage info, which only units have", role, m.Id)
		}
		return in.do(ctx, storageCommand(m, x.StorageInfo))
	case *pb.AgentMessage_Reports:
		return in.reports(ctx, m, x.Reports)
	case *pb.AgentMessage_Goodbye:
		return in.do(ctx, goodbyeCommand(role, m, x.Goodbye))
	case *pb.AgentMessage_StreamLost:
		in.suspect(role, m.Id)
		return nil
	}
	return san.Errorf(san.KindInvalid, "%s %s sent a message that this station does not know; upgrade the station", role, m.Id)
}

func (in *Intake) reports(ctx context.Context, m *pb.AgentMessage, batch *pb.ReportBatch) error {
	it := batchItem{done: make(chan error, 1)}
	for _, r := range batch.Reports {
		it.reports = append(it.reports, fsm.Report{
			Role: san.Role(m.Role), Agent: m.Id, CertSerial: m.CertSerial, Incarnation: san.Incarnation(m.Incarnation),
			Kind: fsm.ReportKind(r.Kind), Volume: san.VolumeID(r.VolumeId), Host: san.HostID(r.HostId),
			Generation: san.Generation(r.Generation), SizeBytes: r.SizeBytes, Error: clip(r.Error),
		})
	}
	select {
	case in.batch <- it:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-it.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// clip bounds an agent's text, without cutting a character in two: the log takes UTF-8 only.
func clip(text string) string {
	if len(text) <= maxReportError {
		return text
	}
	n := maxReportError
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

func helloCommand(role san.Role, m *pb.AgentMessage, h *pb.Hello) fsm.Command {
	if role == san.RoleUnit {
		return &fsm.UnitStarted{
			H: header("unit " + m.Id), ID: san.UnitID(m.Id), CertSerial: m.CertSerial, Incarnation: san.Incarnation(m.Incarnation),
			APIAddress: h.ApiAddress, Portal: h.Portal, Version: h.Version,
		}
	}
	return &fsm.SetHostState{
		H: header("host " + m.Id), ID: san.HostID(m.Id), CertSerial: m.CertSerial, Incarnation: san.Incarnation(m.Incarnation),
		State: fsm.HostOnline, Addresses: h.Addresses, Version: h.Version, Initiators: h.Initiators,
	}
}

func storageCommand(m *pb.AgentMessage, info *pb.StorageInfo) fsm.Command {
	cmd := &fsm.UnitStorage{H: header("unit " + m.Id), ID: san.UnitID(m.Id), CertSerial: m.CertSerial, Incarnation: san.Incarnation(m.Incarnation)}
	for _, x := range info.Media {
		cmd.Media = append(cmd.Media, fsm.MediumInfo{ID: san.MediumID(x.Id), Path: x.Path, CapacityExtents: x.CapacityExtents, UsedExtents: x.UsedExtents})
	}
	for _, x := range info.Replicas {
		cmd.Replicas = append(cmd.Replicas, fsm.ReplicaInfo{
			Volume: san.VolumeID(x.VolumeId), SizeBytes: x.SizeBytes,
			StartLBA: san.LBA(x.StartLba), EndLBA: san.LBA(x.EndLba), Extents: x.Extents,
		})
	}
	return cmd
}

func goodbyeCommand(role san.Role, m *pb.AgentMessage, g *pb.Goodbye) fsm.Command {
	if role == san.RoleUnit {
		return &fsm.SetUnitState{
			H: header("unit " + m.Id), ID: san.UnitID(m.Id), Incarnation: san.Incarnation(m.Incarnation),
			State: fsm.UnitStopped, Reason: g.Reason,
		}
	}
	return &fsm.SetHostState{
		H: header("host " + m.Id), ID: san.HostID(m.Id), CertSerial: m.CertSerial, Incarnation: san.Incarnation(m.Incarnation), State: fsm.HostStopped,
	}
}
