package histogram

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// subBits makes each power of two 1<<subBits buckets.
	subBits = 5
	sub     = 1 << subBits
	// topBits bounds what is told apart: durations from 1<<topBits ns (137 s) on share the last bucket.
	topBits = 37
	// Buckets is how many there are: values below 2*sub have one each.
	Buckets = (topBits-subBits-1)*sub + 2*sub
)

// index is the bucket that counts d.
func index(d time.Duration) int {
	v := min(uint64(max(d, 0)), 1<<topBits-1)
	if v < 2*sub {
		return int(v)
	}
	e := bits.Len64(v) - subBits - 1
	return e*sub + int(v>>e)
}

// upper is the largest duration that bucket i counts.
func upper(i int) time.Duration {
	if i < 2*sub {
		return time.Duration(i)
	}
	e := i/sub - 1
	return time.Duration(uint64(i-e*sub+1)<<e - 1)
}

// Recorder counts durations. Its zero value is ready; it is safe for concurrent use and must not be copied.
type Recorder struct {
	buckets [Buckets]atomic.Uint64
	longest atomic.Int64
}

// Record counts one duration.
func (r *Recorder) Record(d time.Duration) {
	r.buckets[index(d)].Add(1)
	for {
		was := r.longest.Load()
		if int64(d) <= was || r.longest.CompareAndSwap(was, int64(d)) {
			return
		}
	}
}

// AddTo adds what has been counted so far to c. While others record, the longest duration may be ahead of
// its bucket by a moment.
func (r *Recorder) AddTo(c *Counts) {
	for i := range r.buckets {
		if n := r.buckets[i].Load(); n > 0 {
			c.add(i, n)
		}
	}
	c.longest = max(c.longest, time.Duration(r.longest.Load()))
}
