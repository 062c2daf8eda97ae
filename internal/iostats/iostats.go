package iostats

import (
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/histogram"
)

// Histogram is c as a message; nil if it is empty.
func Histogram(c *histogram.Counts) *pb.Histogram {
	if c.N() == 0 {
		return nil
	}
	buckets, counts := c.Sparse()
	return &pb.Histogram{Buckets: buckets, Counts: counts, MaxNanos: c.Max().Nanoseconds()}
}

// Counts is what a message says; a nil one is empty.
func Counts(h *pb.Histogram) *histogram.Counts {
	return histogram.FromSparse(h.GetBuckets(), h.GetCounts(), time.Duration(h.GetMaxNanos()))
}

// Latency are the percentiles of c; nil if it is empty.
func Latency(c *histogram.Counts) *pb.Latency {
	if c.N() == 0 {
		return nil
	}
	return &pb.Latency{
		P50Micros: micros(c.Quantile(0.5)), P90Micros: micros(c.Quantile(0.9)), P99Micros: micros(c.Quantile(0.99)),
		P999Micros: micros(c.Quantile(0.999)), MaxMicros: micros(c.Max()),
	}
}

// micros rounds up, so that no percentile is ever told too low.
func micros(d time.Duration) uint32 {
	return uint32(min((uint64(max(d, 0))+999)/1000, math.MaxUint32))
}

// classes are the figures of io by class; those that are missing come as empty ones.
func classes(io *pb.IOStats) []*pb.IOFigures {
	out := []*pb.IOFigures{io.GetReads(), io.GetWrites(), io.GetOther()}
	for i, f := range out {
		if f == nil {
			out[i] = &pb.IOFigures{}
		}
	}
	return out
}

func ofClasses(f []*pb.IOFigures) *pb.IOStats {
	return &pb.IOStats{Reads: f[0], Writes: f[1], Other: f[2]}
}

// Sum is what several units counted of one volume, together; of one unit it is its own word. Latencies are
// computed anew from the histograms.
func Sum(parts []*pb.VolumeStats) *pb.VolumeStats {
	out := &pb.VolumeStats{Io: ofClasses(classes(nil))}
	for _, p := range parts {
		if out.At == nil || p.At.AsTime().After(out.At.AsTime()) {
			out.At = p.At
		}
		if out.Since == nil || p.Since != nil && p.Since.AsTime().Before(out.Since.AsTime()) {
			out.Since = p.Since
		}
		out.Io = sumIO(out.Io, p.Io)
		out.Sessions = append(out.Sessions, p.Sessions...)
		out.SessionsOmitted += p.SessionsOmitted
	}
	return out
}

func sumIO(a, b *pb.IOStats) *pb.IOStats {
	fa, fb := classes(a), classes(b)
	for i := range fa {
		c := Counts(fa[i].Histogram)
		c.Add(Counts(fb[i].Histogram))
		fa[i] = &pb.IOFigures{
			Commands: fa[i].Commands + fb[i].Commands, Bytes: fa[i].Bytes + fb[i].Bytes, Errors: fa[i].Errors + fb[i].Errors,
			Iops: fa[i].Iops + fb[i].Iops, BytesPerSecond: fa[i].BytesPerSecond + fb[i].BytesPerSecond,
			Latency: Latency(c), Histogram: Histogram(c),
		}
	}
	out := ofClasses(fa)
	out.Aborted = a.GetAborted() + b.GetAborted()
	out.QueueDepth = a.GetQueueDepth() + b.GetQueueDepth()
	out.QueueDepthMax = max(a.GetQueueDepthMax(), b.GetQueueDepthMax())
	out.IntervalMillis = max(a.GetIntervalMillis(), b.GetIntervalMillis())
	return out
}

// Rate is how many commands a second there were, of all classes.
func Rate(io *pb.IOStats) float64 {
	return io.GetReads().GetIops() + io.GetWrites().GetIops() + io.GetOther().GetIops()
}

// Strip removes the histograms.
func Strip(s *pb.VolumeStats) {
	for _, f := range classes(s.GetIo()) {
		f.Histogram = nil
	}
}

// Between is what happened from one reading to a later one: totals, rates and, as long as the readings have
// histograms, latencies are of that time alone. Counters that began anew meanwhile, because their unit was
// started again, count from their beginning. The latencies of single sessions stay those since their login.
func Between(earlier, later *pb.VolumeStats) *pb.VolumeStats {
	out := proto.CloneOf(later)
	from := earlier.GetAt().AsTime()
	if !proto.Equal(earlier.GetSince(), later.GetSince()) {
		earlier = &pb.VolumeStats{}
		if later.Since != nil && later.Since.AsTime().After(from) {
			from = later.Since.AsTime()
		}
	}
	took := later.GetAt().AsTime().Sub(from)
	out.Io = between(earlier.GetIo(), later.GetIo(), took)
	for i, s := range later.GetSessions() {
		out.Sessions[i].Io = between(sameSession(earlier.GetSessions(), s).GetIo(), s.Io, took)
		for k, f := range classes(out.Sessions[i].Io) {
			f.Latency = classes(s.Io)[k].Latency
		}
	}
	return out
}

func sameSession(in []*pb.SessionStats, s *pb.SessionStats) *pb.SessionStats {
	for _, o := range in {
		if o.UnitId == s.UnitId && o.Initiator == s.Initiator && o.Address == s.Address && proto.Equal(o.Since, s.Since) {
			return o
		}
	}
	return nil
}

func between(a, b *pb.IOStats, took time.Duration) *pb.IOStats {
	fa, fb := classes(a), classes(b)
	for i := range fb {
		d := &pb.IOFigures{
			Commands: less(fb[i].Commands, fa[i].Commands), Bytes: less(fb[i].Bytes, fa[i].Bytes), Errors: less(fb[i].Errors, fa[i].Errors),
		}
		if sec := took.Seconds(); sec > 0 {
			d.Iops, d.BytesPerSecond = float64(d.Commands)/sec, float64(d.Bytes)/sec
		}
		c := Counts(fb[i].Histogram).Since(Counts(fa[i].Histogram))
		d.Latency, d.Histogram = Latency(c), Histogram(c)
		fb[i] = d
	}
	out := ofClasses(fb)
	out.Aborted = less(b.GetAborted(), a.GetAborted())
	out.QueueDepth, out.QueueDepthMax = b.GetQueueDepth(), b.GetQueueDepthMax()
	out.IntervalMillis = uint32(min(max(took.Milliseconds(), 0), math.MaxUint32))
	return out
}

// less is a-b; units' counters never go back.
func less(a, b uint64) uint64 { return a - min(a, b) }
