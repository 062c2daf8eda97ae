package histogram

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// durations draws from nanoseconds to minutes, evenly by order of magnitude.
func durations() *rapid.Generator[[]time.Duration] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
		e := rapid.IntRange(0, topBits-1).Draw(t, "bits")
		return time.Duration(rapid.Int64Range(0, 1<<e).Draw(t, "ns"))
	}), 1, 300)
}

func counted(list []time.Duration) *Counts {
	var r Recorder
	for _, d := range list {
		r.Record(d)
	}
	c := &Counts{}
	r.AddTo(c)
	return c
}

func TestQuantileErrsAtMostByABucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := durations().Draw(t, "durations")
		q := rapid.SampledFrom([]float64{0, 0.5, 0.9, 0.99, 0.999, 1}).Draw(t, "q")
		c := counted(list)
		slices.Sort(list)
		exact := list[max(1, int(math.Ceil(q*float64(len(list)))))-1]
		got := c.Quantile(q)
		if got < exact || got > exact+exact/sub {
			t.Fatalf("quantile %v is %v, exactly %v", q, got, exact)
		}
		if c.N() != uint64(len(list)) || c.Max() != list[len(list)-1] {
			t.Fatalf("counted %d up to %v of %d up to %v", c.N(), c.Max(), len(list), list[len(list)-1])
		}
	})
}

func TestBucketsCoverEverythingInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, 1<<topBits-1).Draw(t, "d"))
		i := index(d)
		if i < 0 || i >= Buckets || d > upper(i) || i > 0 && d <= upper(i-1) {
			t.Fatalf("%d ns is in bucket %d, which ends at %d", d, i, upper(i))
		}
	})
	for _, d := range []time.Duration{-1, math.MinInt64, 1 << topBits, math.MaxInt64} {
		if i := index(d); i != 0 && i != Buckets-1 {
			t.Errorf("%d is in bucket %d", d, i)
		}
	}
	if c := counted([]time.Duration{math.MaxInt64}); c.Quantile(0.5) != math.MaxInt64 {
		t.Errorf("the last bucket's quantile is %v", c.Quantile(0.5))
	}
}

func TestAddSinceAndSparseAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first, second := durations().Draw(t, "first"), durations().Draw(t, "second")
		before, both := counted(first), counted(slices.Concat(first, second))
		sum := counted(first)
		sum.Add(counted(second))
		i, n := both.Sparse()
		sent := FromSparse(i, n, both.Max())
		for _, c := range []*Counts{sum, sent} {
			if !slices.Equal(c.buckets, both.buckets) || c.N() != both.N() || c.Max() != both.Max() {
				t.Fatalf("%+v is not %+v", c, both)
			}
		}
		later, want := both.Since(before), counted(second)
		if !slices.Equal(later.buckets, want.buckets) || later.N() != want.N() {
			t.Fatalf("since: %+v, want %+v", later, want)
		}
		if later.Max() < want.Max() || later.Max() > want.Max()+want.Max()/sub {
			t.Fatalf("since: longest %v, want %v", later.Max(), want.Max())
		}
	})
}

func TestFromSparseTakesNothingStrange(t *testing.T) {
	c := FromSparse([]uint32{1, Buckets, math.MaxUint32, 2}, []uint64{3, 4, 5}, -time.Second)
	if c.N() != 3 || c.Max() != 0 {
		t.Errorf("took %d up to %v", c.N(), c.Max())
	}
	if (&Counts{}).Quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
}

func TestRecordersCountEverything(t *testing.T) {
	var r Recorder
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 10000 {
				r.Record(time.Duration(g*10000 + i))
			}
		})
	}
	wg.Wait()
	c := &Counts{}
	r.AddTo(c)
	if c.N() != 80000 || c.Max() != 79999 {
		t.Errorf("counted %d up to %d", c.N(), c.Max())
	}
	if n := testing.AllocsPerRun(100, func() { r.Record(time.Millisecond) }); n != 0 {
		t.Errorf("recording allocates %v times", n)
	}
}
