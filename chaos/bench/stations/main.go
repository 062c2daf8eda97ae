// Command stations measures a cluster's control plane beside etcd, on the same machine in one
// run: CreateVolume over mTLS against three station processes with simulated units of unlimited
// room, and puts of 256 bytes into three etcd-server processes, both with fsync; then how long
// each is without a leader after its leader's SIGKILL.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sandbar-san/sandbar/chaos/bench/report"
)

type options struct {
	bin     string
	clients []int
	length  time.Duration
	rounds  int
	tries   int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-stations:", err)
		stop()
		os.Exit(1)
	}
}

func parse() (options, error) {
	var o options
	clients := flag.String("clients", "1,64,256", "numbers of clients at once")
	flag.StringVar(&o.bin, "bin", "bin/sandbar", "the program")
	flag.DurationVar(&o.length, "length", 3*time.Second, "how long one round of a row takes")
	flag.IntVar(&o.rounds, "rounds", 3, "alternating rounds per row; the median counts")
	flag.IntVar(&o.tries, "tries", 20, "how often a leader is killed")
	flag.Parse()
	for _, s := range strings.Split(*clients, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return o, fmt.Errorf("-clients %q: not a list of numbers", *clients)
		}
		o.clients = append(o.clients, n)
	}
	var err error
	o.bin, err = filepath.Abs(o.bin)
	return o, err
}

// system is one of the two that are measured.
type system interface {
	// op does one operation at the leader; client numbers the caller.
	op(ctx context.Context, client int) error
	// findLeader makes op go to the present leader.
	findLeader(ctx context.Context) error
	// level tells whether all members run and have applied what the leader has.
	level(ctx context.Context) error
	// killLeader ends the leader with SIGKILL and returns what starts it again.
	killLeader() (restart func() error, err error)
	stop()
}

func run(ctx context.Context) error {
	o, err := parse()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sandbar-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary folder; the system clears it at the latest
	ours, err := startSandbar(ctx, o, filepath.Join(dir, "lab"))
	if err != nil {
		return err
	}
	defer ours.stop()
	peer, err := startEtcd(ctx, filepath.Join(dir, "etcd"))
	if err != nil {
		return err
	}
	defer peer.stop()
	a, err := failovers(ctx, o, ours)
	if err != nil {
		return fmt.Errorf("sandbar: %w", err)
	}
	b, err := failovers(ctx, o, peer)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	var rows []report.Row
	for _, n := range o.clients {
		more, err := throughput(ctx, o, ours, peer, n)
		if err != nil {
			return err
		}
		rows = append(rows, more...)
	}
	if o.tries > 0 {
		rows = append(rows,
			report.Less("pause leader kill p50", report.Quantile(a, 0.5).Seconds(), report.Quantile(b, 0.5).Seconds(), "s"),
			report.Less("pause leader kill max", report.Quantile(a, 1).Seconds(), report.Quantile(b, 1).Seconds(), "s"))
	}
	return report.Write(os.Stdout, "etcd", rows)
}
