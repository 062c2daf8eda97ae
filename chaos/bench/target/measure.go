package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/sandbar-san/sandbar/chaos/bench/report"
)

// warmUp is how long the run takes that tells how many I/Os a real one needs.
const warmUp = 250 * time.Millisecond

// bench is two targets under measurement, and the peer's file as a program on its machine reaches it.
type bench struct {
	options
	ours, peer, local *target
}

// outcome is one row with what it cost.
type outcome struct {
	report.Row
	workload   workload
	ours, peer cost
	share      float64 // of local access, 0 if that was not measured
}

// cost is what a target's process spent on a number of I/Os.
type cost struct {
	cpu time.Duration
	ios float64
}

func (c *cost) add(o cost) { c.cpu += o.cpu; c.ios += o.ios }

// perGB is CPU seconds per 10⁹ bytes, perMillion per 10⁶ I/Os.
func (c cost) perGB(w workload) float64 {
	return c.cpu.Seconds() / (c.ios * float64(w.sizeBytes) / 1e9)
}

func (c cost) perMillion() float64 { return c.cpu.Seconds() / (c.ios / 1e6) }

// row measures one workload: pair after pair, each of one run against ours and one against the
// peer, and in local ones a third.
func (b *bench) row(ctx context.Context, w workload) (outcome, error) {
	out := outcome{workload: w}
	var ours, peer, ratios, shares []float64
	speed, err := b.pace(ctx, w)
	if err != nil {
		return out, err
	}
	for range b.pairs {
		x, spent, err := b.run(ctx, w, b.ours, speed)
		if err != nil {
			return out, err
		}
		out.ours.add(spent)
		y, spent, err := b.run(ctx, w, b.peer, speed)
		if err != nil {
			return out, err
		}
		out.peer.add(spent)
		ours, peer, ratios = append(ours, x), append(peer, y), append(ratios, x/y)
		if w.stream() {
			z, _, err := b.run(ctx, w, b.local, speed)
			if err != nil {
				return out, err
			}
			shares = append(shares, x/z)
		}
	}
	out.Row = report.More(w.name(), median(ours), median(peer), w.unit())
	out.Ratio = median(ratios)
	if len(shares) > 0 {
		out.share = median(shares)
	}
	fmt.Fprintf(os.Stderr, "%s: %.0f and %.0f %s, ratio %.2f\n", w.name(), out.Ours, out.Peer, out.Unit, out.Ratio)
	return out, nil
}

// pace finds out how many I/Os a second there will be, and has both do some before it counts.
func (b *bench) pace(ctx context.Context, w workload) (float64, error) {
	if w.perf {
		return 0, nil // it runs for a time, not for a number
	}
	guess := 5000.0
	if w.sizeBytes == large {
		guess = 500
	}
	for _, t := range []*target{b.ours, b.peer} {
		rate, _, err := w.once(ctx, t, b.sizeBytes, warmUp, guess)
		if err != nil {
			return 0, err
		}
		guess = rate
	}
	return guess, nil
}

// run is one run against one target, with what it cost.
func (b *bench) run(ctx context.Context, w workload, t *target, speed float64) (rate float64, spent cost, err error) {
	before, err := t.cpu()
	if err != nil {
		return 0, spent, err
	}
	rate, spent.ios, err = w.once(ctx, t, b.sizeBytes, b.length, speed)
	if err != nil {
		return 0, spent, fmt.Errorf("%s: %w", t.name, err)
	}
	after, err := t.cpu()
	if err != nil {
		return 0, spent, err
	}
	spent.cpu = after - before
	if w.write {
		err = t.settle()
	}
	return rate, spent, err
}

// median is the middle one, the mean of the two middle ones of an even number; it sorts.
func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// writeCosts prints what is no row: the processors' time and the share of local access.
func writeCosts(out io.Writer, found []outcome) error {
	fmt.Fprintln(out, "\nCPU seconds of the target's process, and our share of local access to a file of the same kind")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "name\tours per GB\ttgtd per GB\tours per 10⁶ I/Os\ttgtd per 10⁶ I/Os\tof local\t")
	for _, f := range found {
		share := ""
		if f.share > 0 {
			share = fmt.Sprintf("%.0f %%", 100*f.share)
		}
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.1f\t%.1f\t%s\t\n", f.Name, f.ours.perGB(f.workload), f.peer.perGB(f.workload),
			f.ours.perMillion(), f.peer.perMillion(), share)
	}
	return w.Flush()
}
