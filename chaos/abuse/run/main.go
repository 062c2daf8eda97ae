// Command run starts a lab of real processes, attacks its unit with package abuse, and closes with "N passed, N failed"; with
// -scale it measures a unit that has much to carry instead.
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

	"github.com/sandbar-san/sandbar/chaos/abuse"
	"github.com/sandbar-san/sandbar/chaos/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "abuse:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var o abuse.Options
	bin := flag.String("bin", "bin/sandbar", "the program")
	only := flag.String("run", "", "only cases whose name matches this regular expression")
	flag.BoolVar(&o.Short, "short", false, "leave out what takes long")
	scale := flag.Bool("scale", false, "instead, measure one unit with 1,000 targets and 500 sessions")
	flag.Parse()
	if o.Only, err = regexp.Compile(*only); err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	program, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	args := abuse.LabArgs()
	if *scale {
		args = abuse.ScaleLabArgs()
	}
	l, err := lab.Start(ctx, program, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if *scale {
		return abuse.Scale(ctx, l, os.Stdout)
	}
	sum, err := abuse.Run(ctx, l, os.Stdout, o)
	if err != nil {
		return err
	}
	fmt.Printf("%d passed, %d failed\n", sum.Passed, sum.Failed)
	if sum.Failed > 0 {
		return fmt.Errorf("%d cases failed; what the processes logged:\n%s", sum.Failed, l.Trouble())
	}
	return nil
}
