package histogram

import (
	"math"
	"time"
)

// Counts is how many durations there were in each bucket. The zero value has none; it is not safe for
// concurrent use.
type Counts struct {
	buckets []uint64 // nil or Buckets long
	n       uint64
	longest time.Duration
}

func (c *Counts) add(i int, n uint64) {
	if c.buckets == nil {
		c.buckets = make([]uint64, Buckets)
	}
	c.buckets[i] += n
	c.n += n
}

// Add adds o's counts to c's.
func (c *Counts) Add(o *Counts) {
	for i, n := range o.buckets {
		if n > 0 {
			c.add(i, n)
		}
	}
	c.longest = max(c.longest, o.longest)
}

// Since is what came after earlier, which must be an earlier state of the same recorders. Its longest
// duration is known to the bucket only.
func (c *Counts) Since(earlier *Counts) *Counts {
	d := &Counts{}
	last := -1
	for i, n := range c.buckets {
		if i < len(earlier.buckets) {
			n -= min(n, earlier.buckets[i])
		}
		if n > 0 {
			d.add(i, n)
			last = i
		}
	}
	if last >= 0 {
		d.longest = min(upper(last), c.longest)
	}
	return d
}

// N is how many durations were counted.
func (c *Counts) N() uint64 { return c.n }

// Max is the longest duration, 0 if there was none.
func (c *Counts) Max() time.Duration { return c.longest }

// Quantile is the duration that the share q (0 to 1) of all durations do not exceed: never less than the true
// one, and at most 1/32 more. It is 0 if there was none.
func (c *Counts) Quantile(q float64) time.Duration {
	if c.n == 0 {
		return 0
	}
	rank := max(1, uint64(math.Ceil(q*float64(c.n))))
	var seen uint64
	for i, n := range c.buckets {
		if seen += n; seen >= rank {
			return c.cap(i)
		}
	}
	return c.longest
}

// cap is the most that a duration in bucket i can have been.
func (c *Counts) cap(i int) time.Duration {
	if i == Buckets-1 {
		return c.longest
	}
	return min(upper(i), c.longest)
}

// Sparse lists the buckets that are not empty, by index, and their counts.
func (c *Counts) Sparse() (indexes []uint32, counts []uint64) {
	for i, n := range c.buckets {
		if n > 0 {
			indexes, counts = append(indexes, uint32(i)), append(counts, n)
		}
	}
	return indexes, counts
}

// FromSparse is the inverse of Sparse and Max. Buckets that do not exist, and counts without a bucket,
// are left out: what comes from the network can't make it larger than any other.
func FromSparse(indexes []uint32, counts []uint64, longest time.Duration) *Counts {
	c := &Counts{longest: max(longest, 0)}
	for k, i := range indexes[:min(len(indexes), len(counts))] {
		if i < Buckets && counts[k] > 0 {
			c.add(int(i), counts[k])
		}
	}
	return c
}
