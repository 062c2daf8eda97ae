package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sandbar-san/sandbar/chaos/bench/report"
)

// figures are what one round showed.
type figures struct {
	perSecond float64
	p50, p99  time.Duration
}

// throughput alternates rounds of n clients against both and takes the medians.
func throughput(ctx context.Context, o options, ours, peer system, n int) ([]report.Row, error) {
	var a, b []figures
	for i := range o.rounds {
		for _, s := range []struct {
			name string
			sys  system
			into *[]figures
		}{{"sandbar", ours, &a}, {"etcd", peer, &b}} {
			f, err := round(ctx, s.sys, n, o.length)
			if err != nil {
				return nil, fmt.Errorf("%s with %d clients: %w", s.name, n, err)
			}
			fmt.Fprintf(os.Stderr, "round %d, %d clients, %s: %.0f/s, p50 %v, p99 %v\n", i+1, n, s.name, f.perSecond, f.p50, f.p99)
			*s.into = append(*s.into, f)
		}
	}
	x, y := median(a), median(b)
	name := func(what string) string { return fmt.Sprintf("create volume, %d clients, %s", n, what) }
	return []report.Row{
		report.More(name("rate"), x.perSecond, y.perSecond, "1/s"),
		report.Less(name("p50"), x.p50.Seconds(), y.p50.Seconds(), "s"),
		report.Less(name("p99"), x.p99.Seconds(), y.p99.Seconds(), "s"),
	}, nil
}

func median(fs []figures) figures {
	slices.SortFunc(fs, func(a, b figures) int {
		if a.perSecond < b.perSecond {
			return -1
		}
		return 1
	})
	return fs[len(fs)/2]
}

// round runs n clients for a while, each with one operation after the other.
func round(ctx context.Context, s system, n int, length time.Duration) (figures, error) {
	if err := settle(ctx, s); err != nil {
		return figures{}, err
	}
	var wg sync.WaitGroup
	took := make([][]time.Duration, n)
	errs := make([]error, n)
	began := time.Now()
	for c := range n {
		wg.Go(func() {
			for time.Since(began) < length {
				t := time.Now()
				if errs[c] = s.op(ctx, c); errs[c] != nil {
					return
				}
				took[c] = append(took[c], time.Since(t))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return figures{}, err
		}
	}
	all := slices.Concat(took...)
	return figures{
		perSecond: float64(len(all)) / elapsed.Seconds(),
		p50:       report.Quantile(all, 0.5), p99: report.Quantile(all, 0.99),
	}, nil
}

// failovers kills the leader again and again and measures how long it takes until the next
// operation succeeds.
func failovers(ctx context.Context, o options, s system) ([]time.Duration, error) {
	var out []time.Duration
	for i := range o.tries {
		if err := settle(ctx, s); err != nil {
			return nil, err
		}
		if err := s.op(ctx, 0); err != nil {
			return nil, err
		}
		restart, err := s.killLeader()
		if err != nil {
			return nil, err
		}
		killed := time.Now()
		for {
			tctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			err := s.findLeader(tctx)
			if err == nil {
				err = s.op(tctx, 0)
			}
			cancel()
			if err == nil {
				break
			}
			if ctx.Err() != nil || time.Since(killed) > 30*time.Second {
				return nil, fmt.Errorf("try %d: no operation succeeds %v after the kill: %w", i+1, time.Since(killed), err)
			}
		}
		out = append(out, time.Since(killed))
		fmt.Fprintf(os.Stderr, "leader kill %d: %v\n", i+1, out[i].Round(time.Millisecond))
		if err := restart(); err != nil {
			return nil, err
		}
	}
	return out, settle(ctx, s)
}

// settle waits until the restarted member takes part again, so that the next kill leaves a
// majority that is up to date.
func settle(ctx context.Context, s system) error {
	for end := time.Now().Add(60 * time.Second); ; {
		tctx, cancel := context.WithTimeout(ctx, time.Second)
		err := s.findLeader(tctx)
		if err == nil {
			err = s.level(tctx)
		}
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("a restarted member does not catch up: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
