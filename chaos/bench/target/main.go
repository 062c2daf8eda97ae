// Command target measures a unit's block service beside Debian's tgtd: both serve one
// preallocated, warm, write-back file on the same disk, and the same outside clients (qemu-img bench and
// libiscsi's iscsi-perf) drive them in turn. What counts is the median over pairs of runs that
// follow each other, because machines are noisy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/sandbar-san/sandbar/chaos/bench/report"
)

type options struct {
	bin       string
	sizeBytes int64
	pairs     int
	length    time.Duration
	only      *regexp.Regexp
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-target:", err)
		stop()
		os.Exit(1)
	}
}

func parse() (options, error) {
	var o options
	only := flag.String("run", "", "measure only rows whose name matches this regular expression")
	quick := flag.Bool("quick", false, "fewer and shorter runs: for a look, not for a figure")
	mebibytes := flag.Int64("size", 512, "size of each of the two volumes, in MiB")
	flag.StringVar(&o.bin, "bin", "bin/sandbar", "the program")
	flag.IntVar(&o.pairs, "pairs", 5, "alternating runs per row; the median counts")
	flag.DurationVar(&o.length, "length", 1500*time.Millisecond, "about how long one run takes")
	flag.Parse()
	if *quick {
		o.pairs, o.length = 3, 500*time.Millisecond
	}
	o.sizeBytes = *mebibytes << 20
	if o.pairs < 1 || o.length <= 0 || *mebibytes < 64 || *mebibytes > 1<<20 {
		return o, errors.New("-pairs, -length or -size is out of range; at least one pair, some time, and 64 MiB")
	}
	var err, invalid error
	o.bin, err = filepath.Abs(o.bin)
	if o.only, invalid = regexp.Compile(*only); invalid != nil {
		err = errors.Join(err, fmt.Errorf("-run: %w", invalid))
	}
	return o, err
}

func run(ctx context.Context) (err error) {
	o, err := parse()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sandbar-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	peer, err := startPeer(ctx, dir, o.sizeBytes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, peer.stop()) }()
	ours, err := startOurs(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	fmt.Fprintf(os.Stderr, "unit: process %d; tgtd: process %d\n", ours.pid, peer.pid)
	b := bench{options: o, ours: ours, peer: peer, local: &target{name: "local", url: peer.file, file: peer.file, pid: os.Getpid()}}
	for _, t := range []*target{ours, peer} {
		if err := t.fill(ctx, o.sizeBytes); err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stderr, "both volumes are written")
	var found []outcome
	for _, w := range workloads() {
		if !o.only.MatchString(w.name()) {
			continue
		}
		out, err := b.row(ctx, w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name(), err)
		}
		found = append(found, out)
	}
	if len(found) == 0 {
		return errors.New("no row matches -run")
	}
	rows := make([]report.Row, len(found))
	for i, f := range found {
		rows[i] = f.Row
	}
	if err := report.Write(os.Stdout, "tgtd", rows); err != nil {
		return err
	}
	return writeCosts(os.Stdout, found)
}
