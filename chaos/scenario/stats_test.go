package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

// number is a 64-bit number of protojson.
type number uint64

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseUint(strings.Trim(string(b), `"`), 10, 64)
	*n = number(v)
	return err
}

// figures are those of a class of commands, as 'sandbar volume stats' prints them.
type figures struct {
	Commands, Bytes, Errors number
	IOPS, BytesPerSecond    float64
	Latency                 *struct{ P50Micros, P90Micros, P99Micros, P999Micros, MaxMicros int }
}

type stats struct {
	Since string
	IO    struct {
		Reads, Writes, Other                      figures
		Aborted                                   number
		QueueDepth, QueueDepthMax, IntervalMillis int
	}
	Sessions []struct{ Initiator, Address, HostID, UnitID string }
}

// in is the cluster as part of a test sees it.
func (c *cluster) in(t *testing.T) *cluster { return &cluster{Lab: c.Lab, t: t} }

func (c *cluster) stats(volume string) (s stats) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(c.ok("volume", "stats", volume, "-o", "json")), &s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// TestStats: what the units count agrees with what stock tools say that they did.
func TestStats(t *testing.T) {
	t.Parallel()
	tool(t, "qemu-img", "iscsi-perf")
	c := start(t, "--stations", "3", "--units", "1", "--hosts", "0")
	c.ok("host", "add", "qemu", "--initiator", qemuIQN)
	c.ok("host", "add", "tools", "--initiator", otherIQN)
	c.give("measured", "64MiB", "qemu")
	c.give("busy", "64MiB", "tools")
	t.Run("counts", func(t *testing.T) { countsAreExact(t, c.in(t)) })
	t.Run("rates", func(t *testing.T) { ratesAgree(t, c.in(t)) })
	t.Run("unit", func(t *testing.T) { unitIsTheSum(t, c.in(t)) })
	t.Run("one station left", func(t *testing.T) { toldByTheLastStation(t, c.in(t)) })
	t.Run("unit lost", func(t *testing.T) { unitIsNamed(t, c.in(t)) })
}

// countsAreExact lets qemu-img do a known number of commands. Opening the volume takes it some more, always
// the same.
func countsAreExact(t *testing.T, c *cluster) {
	url := c.url("measured", "qemu")
	const blockBytes, depth = 8192, 8
	for _, write := range []bool{false, true} {
		counted := func(n int) figures {
			before := c.stats("measured").IO
			args := []string{"bench", "-f", "raw", "-t", "none", "-c", strconv.Itoa(n), "-d", strconv.Itoa(depth), "-s", strconv.Itoa(blockBytes)}
			if write {
				args = append(args, "-w")
			}
			began := time.Now()
			do(t, "qemu-img", append(args, url)...)
			took := time.Since(began)
			after := c.stats("measured").IO
			was, is := before.Reads, after.Reads
			if write {
				was, is = before.Writes, after.Writes
			}
			if is.Errors != was.Errors {
				t.Errorf("%d errors with no fault", is.Errors-was.Errors)
			}
			// At least half of the commands took no longer than twice the mean, which the client's time bounds.
			if l := is.Latency; l == nil || l.P50Micros == 0 || time.Duration(l.P50Micros)*time.Microsecond > 2*took*depth/time.Duration(n) ||
				!slices.IsSorted([]int{l.P50Micros, l.P90Micros, l.P99Micros, l.P999Micros, l.MaxMicros}) || time.Duration(l.MaxMicros)*time.Microsecond > took {
				t.Errorf("latencies %+v of %d commands that took %v", l, n, took)
			}
			// What the unit has not read off the connection yet is in no queue of its.
			if after.QueueDepth != 0 || after.QueueDepthMax < 1 || after.QueueDepthMax > depth {
				t.Errorf("queue depth %d, at most %d, by a client that has %d commands open", after.QueueDepth, after.QueueDepthMax, depth)
			}
			return figures{Commands: is.Commands - was.Commands, Bytes: is.Bytes - was.Bytes}
		}
		few, many := counted(1000), counted(5000)
		if many.Commands-few.Commands != 4000 || many.Bytes-few.Bytes != 4000*blockBytes || few.Commands < 1000 || few.Commands > 1010 {
			t.Errorf("write %v: 1000 commands were counted as %+v, 5000 as %+v", write, few, many)
		}
	}
}

// near tells whether a differs from b by at most a share of b.
func near(a, b, share float64) bool { return math.Abs(a-b) <= share*b }

var perfAverage = regexp.MustCompile(`iops average (\d+)`)

// ratesAgree compares the rates with those that iscsi-perf sees.
func ratesAgree(t *testing.T, c *cluster) {
	url := c.url("busy", "tools")
	const seconds = 4
	said := make(chan string, 1)
	before := c.stats("busy").IO.Reads
	go func() {
		defer close(said)
		r := try(t, "iscsi-perf", "-i", otherIQN, "-t", strconv.Itoa(seconds), "-m", "16", "-b", "8", "-r", url)
		said <- r.Said()
	}()
	c.await("a session", patience, func(context.Context) error {
		if s := c.stats("busy"); len(s.Sessions) != 1 || s.Sessions[0].Initiator != otherIQN || s.Sessions[0].HostID != "tools" || s.Sessions[0].UnitID == "" || s.Sessions[0].Address == "" {
			return fmt.Errorf("sessions %+v", s.Sessions)
		}
		return nil
	})
	var rates []float64
	for line := range strings.Lines(c.ok("volume", "stats", "busy", "--interval", "500ms", "--count", "4", "-o", "json")) {
		var s stats
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		r := s.IO.Reads
		// iscsi-perf reads less where the volume ends.
		n := float64(r.Commands)
		if s.IO.IntervalMillis < 400 || !near(r.IOPS*float64(s.IO.IntervalMillis)/1000, n, 0.02) || !near(float64(r.Bytes), 4096*n, 0.01) {
			t.Errorf("in %d ms: %+v", s.IO.IntervalMillis, r)
		}
		rates = append(rates, r.IOPS)
	}
	one := c.stats("busy")
	text := <-said
	all := perfAverage.FindAllStringSubmatch(text, -1)
	if len(all) == 0 || len(rates) != 4 {
		t.Fatalf("rates %v; iscsi-perf said %s", rates, text)
	}
	average, err := strconv.ParseFloat(all[len(all)-1][1], 64)
	if err != nil {
		t.Fatal(err)
	}
	counted := float64(c.stats("busy").IO.Reads.Commands - before.Commands)
	t.Logf("iscsi-perf: %.0f reads/s for %d s; the unit counted %.0f; its rates: %.0f, and of its last second %.0f", average, seconds, counted, rates, one.IO.Reads.IOPS)
	if !near(counted, average*seconds, 0.05) {
		t.Errorf("the unit counted %.3f of what the client did", counted/(average*seconds))
	}
	// The machine is shared, so a part of the time may be unlike the whole.
	if slices.Max(rates) < average/3 || len(one.Sessions) == 1 && one.IO.Reads.IOPS < average/10 || slices.Min(rates) > 3*average {
		t.Errorf("rates %v and %v are far from the client's %v", rates, one.IO.Reads.IOPS, average)
	}
}

// unitIsTheSum: a unit's figures are those of its volumes together.
func unitIsTheSum(t *testing.T, c *cluster) {
	var unit struct {
		UnitID  string
		IO      struct{ Reads, Writes figures }
		Volumes []struct {
			VolumeName string
			IO         struct{ Reads figures }
		}
	}
	if err := json.Unmarshal([]byte(c.ok("unit", "stats", c.Of("unit")[0].ID, "-o", "json")), &unit); err != nil {
		t.Fatal(err)
	}
	a, b := c.stats("measured").IO, c.stats("busy").IO
	if unit.IO.Reads.Commands != a.Reads.Commands+b.Reads.Commands || unit.IO.Writes.Bytes != a.Writes.Bytes+b.Writes.Bytes || len(unit.Volumes) != 2 || unit.UnitID != c.Of("unit")[0].ID {
		t.Errorf("the unit has %+v, its volumes %+v and %+v", unit, a, b)
	}
	for _, v := range unit.Volumes {
		if want := map[string]number{"measured": a.Reads.Commands, "busy": b.Reads.Commands}[v.VolumeName]; v.IO.Reads.Commands != want {
			t.Errorf("volume %q has %d reads in the unit's figures, %d in its own", v.VolumeName, v.IO.Reads.Commands, want)
		}
	}
}

var streamTo = regexp.MustCompile(`msg="stream to a station" .*station=(\S+)`)

// toldByTheLastStation: statistics need neither a leader nor a majority, as long as the unit's stream stands.
func toldByTheLastStation(t *testing.T, c *cluster) {
	want := c.stats("measured").IO
	log, err := c.Of("unit")[0].Log()
	streams := streamTo.FindAllStringSubmatch(log, -1)
	if err != nil || len(streams) == 0 {
		t.Fatalf("which station the unit's stream is to: %v, %v", streams, err)
	}
	holder := streams[len(streams)-1][1]
	stations := slices.DeleteFunc(c.Of("station"), func(p *lab.Process) bool { return p.ID == holder })
	if len(stations) != 2 {
		t.Fatalf("the unit's stream is to %s", holder)
	}
	for _, p := range stations {
		c.kill(p)
	}
	c.await("statistics from the last station", patience, func(ctx context.Context) error {
		r := c.CLI(ctx, "volume", "stats", "measured", "-o", "json")
		if err := r.Err(); err != nil {
			return err
		}
		var got stats
		if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil {
			return err
		}
		if got.IO.Reads.Commands != want.Reads.Commands || got.IO.Writes.Bytes != want.Writes.Bytes {
			return fmt.Errorf("%+v, want %+v", got.IO, want)
		}
		return nil
	})
	for _, p := range stations {
		c.restart(p)
	}
	c.whole()
}

// unitIsNamed: a unit that is away is named, and counts from zero when it is back.
func unitIsNamed(t *testing.T, c *cluster) {
	u := c.Of("unit")[0]
	since := c.stats("measured").Since
	c.kill(u)
	began := time.Now()
	c.refused(5, []string{"volume measured", "unit " + u.ID}, "volume", "stats", "measured")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to say that the unit is away", took)
	}
	c.refused(3, []string{"nothing", "does not exist"}, "volume", "stats", "nothing")
	c.restart(u)
	c.whole()
	c.await("figures from zero", patience, func(context.Context) error {
		if s := c.stats("measured"); s.IO.Reads.Commands != 0 || s.Since == since || len(s.Sessions) != 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}
