package iostats

import (
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/histogram"
)

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// counter is a unit that counts reads.
type counter struct {
	since    time.Time
	recorder histogram.Recorder
	reads    uint64
}

func (c *counter) read(took ...time.Duration) {
	for _, d := range took {
		c.recorder.Record(d)
		c.reads++
	}
}

func (c *counter) at(t time.Time) *pb.VolumeStats {
	counts := &histogram.Counts{}
	c.recorder.AddTo(counts)
	return &pb.VolumeStats{At: timestamppb.New(t), Since: timestamppb.New(c.since), Io: &pb.IOStats{
		Reads:  &pb.IOFigures{Commands: c.reads, Bytes: 512 * c.reads, Histogram: Histogram(counts), Latency: Latency(counts)},
		Writes: &pb.IOFigures{}, Other: &pb.IOFigures{Errors: 1}, QueueDepth: 2, QueueDepthMax: 5, IntervalMillis: 1000,
	}}
}

func times() *rapid.Generator[[]time.Duration] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "took"))
	}), 1, 50)
}

// TestSumIsWhatOneUnitWouldHaveCounted: which unit counted a command makes no difference.
func TestSumIsWhatOneUnitWouldHaveCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, both := &counter{since: epoch}, &counter{since: epoch.Add(time.Hour)}, &counter{since: epoch}
		x, y := times().Draw(t, "a"), times().Draw(t, "b")
		a.read(x...)
		b.read(y...)
		both.read(append(x, y...)...)
		got, want := Sum([]*pb.VolumeStats{b.at(epoch.Add(2 * time.Hour)), a.at(epoch.Add(time.Hour))}), both.at(epoch.Add(2*time.Hour))
		if !proto.Equal(got.Io.Reads, want.Io.Reads) || !got.Since.AsTime().Equal(epoch) || !got.At.AsTime().Equal(want.At.AsTime()) {
			t.Fatalf("%v\nis not\n%v", got, want)
		}
		if got.Io.QueueDepth != 4 || got.Io.QueueDepthMax != 5 || got.Io.Other.Errors != 2 || got.Io.IntervalMillis != 1000 {
			t.Fatalf("%v", got.Io)
		}
	})
}

func TestSumOfNoneIsEmpty(t *testing.T) {
	if got := Sum(nil); got.Since != nil || got.Io.Reads.Commands != 0 || got.Io.Reads.Latency != nil || len(got.Sessions) != 0 {
		t.Errorf("%v", got)
	}
}

func TestBetweenIsWhatHappenedSince(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, alone := &counter{since: epoch}, &counter{since: epoch}
		before, after := times().Draw(t, "before"), times().Draw(t, "after")
		c.read(before...)
		first := c.at(epoch.Add(time.Minute))
		c.read(after...)
		alone.read(after...)
		got, want := Between(first, c.at(epoch.Add(time.Minute+2*time.Second))).Io.Reads, alone.at(epoch).Io.Reads
		if got.Commands != want.Commands || got.Bytes != want.Bytes || got.Iops != float64(len(after))/2 || got.BytesPerSecond != 256*float64(len(after)) {
			t.Fatalf("%v is not %v", got, want)
		}
		// The longest is known to the bucket only, so the percentiles that it bounds may be that much higher.
		for _, p := range [][2]uint32{{got.Latency.P50Micros, want.Latency.P50Micros}, {got.Latency.P99Micros, want.Latency.P99Micros}, {got.Latency.MaxMicros, want.Latency.MaxMicros}} {
			if p[0] < p[1] || float64(p[0]) > float64(p[1])*33/32+1 {
				t.Fatalf("%v is not %v", got.Latency, want.Latency)
			}
		}
	})
}

func TestBetweenTwoStartsOfAUnit(t *testing.T) {
	old, fresh := &counter{since: epoch}, &counter{since: epoch.Add(10 * time.Second)}
	old.read(time.Millisecond, time.Millisecond, time.Millisecond)
	fresh.read(time.Millisecond)
	got := Between(old.at(epoch.Add(9*time.Second)), fresh.at(epoch.Add(12*time.Second)))
	if r := got.Io.Reads; r.Commands != 1 || r.Iops != 0.5 || got.Io.IntervalMillis != 2000 {
		t.Errorf("%v", got.Io)
	}
}

func TestBetweenKnowsSessionsAgain(t *testing.T) {
	session := func(address string, reads uint64) *pb.SessionStats {
		return &pb.SessionStats{UnitId: "u1", Initiator: "i", Address: address, Since: timestamppb.New(epoch),
			Io: &pb.IOStats{Reads: &pb.IOFigures{Commands: reads, Latency: &pb.Latency{P50Micros: 7}}}}
	}
	c := &counter{since: epoch}
	first, second := c.at(epoch), c.at(epoch.Add(time.Second))
	first.Sessions = []*pb.SessionStats{session("gone", 50), session("stays", 10)}
	second.Sessions = []*pb.SessionStats{session("stays", 15), session("new", 3)}
	got := Between(first, second).Sessions
	if len(got) != 2 || got[0].Io.Reads.Commands != 5 || got[1].Io.Reads.Iops != 3 || got[0].Io.Reads.Latency.GetP50Micros() != 7 {
		t.Errorf("%v", got)
	}
	if second.Sessions[0].Io.Reads.Commands != 15 {
		t.Error("the reading was changed")
	}
}

func TestLatencyIsNeverTooLow(t *testing.T) {
	var r histogram.Recorder
	for _, d := range []time.Duration{1, 1001, math.MaxInt64} {
		r.Record(d)
	}
	c := &histogram.Counts{}
	r.AddTo(c)
	if l := Latency(c); l.P50Micros != 2 || l.MaxMicros != math.MaxUint32 {
		t.Errorf("%v", l)
	}
}

func TestStrip(t *testing.T) {
	c := &counter{since: epoch}
	c.read(time.Second)
	st := c.at(epoch)
	Strip(st)
	Strip(&pb.VolumeStats{})
	if st.Io.Reads.Histogram != nil || st.Io.Reads.Latency == nil {
		t.Errorf("%v", st.Io.Reads)
	}
}
