package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/output"
	"github.com/sandbar-san/sandbar/internal/iostats"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// readingWait bounds one reading of statistics.
	readingWait = 15 * time.Second
	// minInterval is the shortest interval between two readings.
	minInterval = 100 * time.Millisecond
)

func (a *App) volumeStats() *cobra.Command {
	var interval time.Duration
	var count int
	var c *cobra.Command
	c = a.verb("stats VOLUME", "Show what a volume's hosts do: commands, bytes, latencies, queue depth, sessions", takes("VOLUME"),
		func(ctx context.Context, s *session, args []string) error {
			fs := c.Flags()
			switch {
			case !fs.Changed("interval") && !fs.Changed("count"):
				return s.statsOnce(ctx, args[0])
			case interval < minInterval:
				return san.Errorf(san.KindInvalid, "--interval %v is below %v; give a duration like 1s", interval, minInterval)
			case count < 0:
				return san.Errorf(san.KindInvalid, "--count %d is negative; give a number of intervals, or 0 for no end", count)
			}
			return s.statsEach(ctx, args[0], interval, count)
		})
	c.Flags().DurationVar(&interval, "interval", time.Second, "print a line for each interval of this length")
	c.Flags().IntVar(&count, "count", 0, "how many intervals; 0 for no end")
	c.Annotations = map[string]string{annotationEndless: "yes"}
	c.Long = c.Short + `.

Without --interval and --count the totals and latencies are those since the unit has exposed the
volume, and the rates those of the unit's last whole second. With one of them a line, or with -o json
a document, is printed after each interval, and totals, rates and latencies are those of that interval
(the latencies of single sessions: since their login). A unit that is started again counts from zero.`
	return c
}

// stats takes one reading.
func (s *session) stats(ctx context.Context, volume string, histograms bool) (*pb.VolumeStats, error) {
	ctx, cancel := context.WithTimeout(ctx, readingWait)
	defer cancel()
	resp, err := ask(ctx, s, s.api.Volumes, volumeClient.GetVolumeStats, &pb.GetVolumeStatsRequest{Volume: volume, Histograms: histograms})
	if err != nil {
		return nil, err
	}
	return resp.Stats, nil
}

func (s *session) statsOnce(ctx context.Context, volume string) error {
	st, err := s.stats(ctx, volume, false)
	if err != nil {
		return err
	}
	return s.out.Print(st, func(p *output.Page) { drawStats(p, st) })
}

// statsEach prints what happens in each interval.
func (s *session) statsEach(ctx context.Context, volume string, interval time.Duration, count int) error {
	earlier, err := s.stats(ctx, volume, true)
	if err != nil {
		return err
	}
	if s.out.Format() == output.FormatTable {
		if err := s.out.Event(nil, statsHeader); err != nil {
			return err
		}
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 0; count == 0 || n < count; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		later, err := s.stats(ctx, earlier.VolumeId, true)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		st := iostats.Between(earlier, later)
		iostats.Strip(st)
		if err := s.out.Event(st, func() string { return statsLine(st) }); err != nil {
			return err
		}
		earlier = later
	}
	return nil
}

const statsColumns = "%-8s %9s %9s %9s %10s %10s %9s %9s %9s %9s %6s %8s"

func statsHeader() string {
	return strings.TrimRight(fmt.Sprintf(statsColumns, "TIME", "READS/S", "WRITES/S", "OTHER/S", "READ/S", "WRITTEN/S", "READ-P50", "READ-P99", "WRITE-P50", "WRITE-P99", "DEPTH", "SESSIONS"), " ")
}

func statsLine(st *pb.VolumeStats) string {
	io := st.Io
	r, w := io.GetReads(), io.GetWrites()
	at := "-"
	if st.At != nil {
		at = st.At.AsTime().UTC().Format(time.TimeOnly)
	}
	return fmt.Sprintf(statsColumns, at, perSecond(r.GetIops()), perSecond(w.GetIops()), perSecond(io.GetOther().GetIops()),
		bytesOf(r.GetBytesPerSecond()), bytesOf(w.GetBytesPerSecond()), latency(r, (*pb.Latency).GetP50Micros), latency(r, (*pb.Latency).GetP99Micros),
		latency(w, (*pb.Latency).GetP50Micros), latency(w, (*pb.Latency).GetP99Micros), fmt.Sprint(io.GetQueueDepth()), fmt.Sprint(uint32(len(st.Sessions))+st.SessionsOmitted))
}

func perSecond(f float64) string { return fmt.Sprintf("%.1f", f) }

func bytesOf(f float64) string { return san.FormatSize(int64(f)) }

// latency renders one of f's percentiles; a dash where nothing was timed.
func latency(f *pb.IOFigures, of func(*pb.Latency) uint32) string {
	if f.GetLatency() == nil {
		return "-"
	}
	return (time.Duration(of(f.Latency)) * time.Microsecond).String()
}

func drawStats(p *output.Page, st *pb.VolumeStats) {
	io := st.Io
	since := "not exposed"
	if st.Since != nil {
		since = when(st.Since)
	}
	rates := "none yet"
	if io.GetIntervalMillis() > 0 {
		rates = "the last " + (time.Duration(io.IntervalMillis) * time.Millisecond).String()
	}
	p.Fields("Volume", st.VolumeName, "Id", st.VolumeId, "Measured", when(st.At), "Totals since", since, "Rates of", rates,
		"Queue depth", io.GetQueueDepth(), "Deepest", io.GetQueueDepthMax(), "Aborted", io.GetAborted(), "Units away", list(st.UnitsAway))
	drawClasses(p, io)
	drawSessions(p, st)
}

func drawClasses(p *output.Page, io *pb.IOStats) {
	var rows [][]any
	for _, c := range []struct {
		name string
		f    *pb.IOFigures
	}{{"reads", io.GetReads()}, {"writes", io.GetWrites()}, {"other", io.GetOther()}} {
		rows = append(rows, []any{c.name, c.f.GetCommands(), san.FormatSize(int64(c.f.GetBytes())), c.f.GetErrors(), perSecond(c.f.GetIops()), bytesOf(c.f.GetBytesPerSecond()),
			latency(c.f, (*pb.Latency).GetP50Micros), latency(c.f, (*pb.Latency).GetP90Micros), latency(c.f, (*pb.Latency).GetP99Micros),
			latency(c.f, (*pb.Latency).GetP999Micros), latency(c.f, (*pb.Latency).GetMaxMicros)})
	}
	p.Table("Commands", []string{"Class", "Count", "Bytes", "Errors", "IOPS", "Bytes/s", "p50", "p90", "p99", "p99.9", "Max"}, rows)
}

func drawSessions(p *output.Page, st *pb.VolumeStats) {
	rows := make([][]any, 0, len(st.Sessions))
	for _, s := range st.Sessions {
		r, w := s.Io.GetReads(), s.Io.GetWrites()
		rows = append(rows, []any{s.Initiator, s.Address, s.HostId, s.UnitId, when(s.Since), r.GetCommands(), san.FormatSize(int64(r.GetBytes())), w.GetCommands(), san.FormatSize(int64(w.GetBytes())),
			perSecond(r.GetIops()), perSecond(w.GetIops()), latency(r, (*pb.Latency).GetP99Micros), latency(w, (*pb.Latency).GetP99Micros), s.Io.GetQueueDepth()})
	}
	p.Table("Sessions", []string{"Initiator", "Address", "Host", "Unit", "Since", "Reads", "Read", "Writes", "Written", "Reads/s", "Writes/s", "Read p99", "Write p99", "Depth"}, rows)
	if st.SessionsOmitted > 0 {
		p.Line("and %d more", st.SessionsOmitted)
	}
}

func (a *App) unitStats() *cobra.Command {
	c := a.verb("stats UNIT", "Show what a unit does for hosts, the busiest volumes first", takes("UNIT"), func(ctx context.Context, s *session, args []string) error {
		ctx, cancel := context.WithTimeout(ctx, readingWait)
		defer cancel()
		resp, err := ask(ctx, s, s.api.Units, unitClient.GetUnitStats, &pb.GetUnitStatsRequest{Id: args[0]})
		if err != nil {
			return err
		}
		return s.out.Print(resp.Stats, func(p *output.Page) { drawUnitStats(p, resp.Stats) })
	})
	c.Long = c.Short + ".\n\nTotals and latencies are those since the unit has exposed its volumes, rates those of its last whole second."
	return c
}

func drawUnitStats(p *output.Page, st *pb.UnitStats) {
	p.Fields("Unit", st.UnitId, "Measured", when(st.At), "Volumes", uint32(len(st.Volumes))+st.VolumesOmitted, "Queue depth", st.Io.GetQueueDepth(), "Aborted", st.Io.GetAborted())
	drawClasses(p, st.Io)
	rows := make([][]any, 0, len(st.Volumes))
	for _, v := range st.Volumes {
		r, w := v.Io.GetReads(), v.Io.GetWrites()
		rows = append(rows, []any{v.VolumeName, v.SessionCount, perSecond(r.GetIops()), perSecond(w.GetIops()), bytesOf(r.GetBytesPerSecond()), bytesOf(w.GetBytesPerSecond()),
			latency(r, (*pb.Latency).GetP99Micros), latency(w, (*pb.Latency).GetP99Micros), v.Io.GetQueueDepth(), v.VolumeId})
	}
	p.Table("Volumes", []string{"Name", "Sessions", "Reads/s", "Writes/s", "Read/s", "Written/s", "Read p99", "Write p99", "Depth", "Id"}, rows)
	if st.VolumesOmitted > 0 {
		p.Line("and %d more", st.VolumesOmitted)
	}
}
