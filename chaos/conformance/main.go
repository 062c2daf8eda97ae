package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

const (
	// The names that the suite logs in with unless told others.
	firstIQN  = "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test"
	secondIQN = "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test-2"
	tool      = "iscsi-test-cu"
	volume    = "conformance"
	host      = "suite"
)

type options struct {
	bin, skips string
	size       string
	limit      time.Duration
	only       *regexp.Regexp
	verbose    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		stop()
		os.Exit(1)
	}
}

func parse() (options, error) {
	var o options
	only := flag.String("run", "", "run only tests whose name matches this regular expression")
	flag.StringVar(&o.bin, "bin", "bin/sandbar", "the program")
	flag.StringVar(&o.skips, "skips", "dataplane/iscsi/testdata/conformance-skips.txt", "tests that are skipped, with the reasons")
	flag.StringVar(&o.size, "size", "256MiB", "size of the volume")
	flag.DurationVar(&o.limit, "limit", time.Minute, "how long one test may take")
	flag.BoolVar(&o.verbose, "v", false, "show what every test printed, not only those that failed")
	flag.Parse()
	var err, invalid error
	o.bin, err = filepath.Abs(o.bin)
	if o.only, invalid = regexp.Compile(*only); invalid != nil {
		err = errors.Join(err, fmt.Errorf("-run: %w", invalid))
	}
	return o, err
}

// run runs the suite. Its error says that the unit is not conformant, or that nobody could tell.
func run(ctx context.Context, out io.Writer) (err error) {
	o, err := parse()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(o.skips)
	if err != nil {
		return err
	}
	known, err := parseSkips(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", o.skips, err)
	}
	all, err := listTests(ctx)
	if err != nil {
		return err
	}
	if err := known.check(all); err != nil {
		return fmt.Errorf("%s: %w", o.skips, err)
	}
	l, err := lab.Start(ctx, o.bin, "--stations", "1", "--units", "1", "--hosts", "0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	url, err := give(ctx, l, o.size)
	if err != nil {
		return err
	}
	sum := suite{out: out, url: url, limit: o.limit, verbose: o.verbose, known: known}
	for _, name := range all {
		if !o.only.MatchString(name) {
			continue
		}
		if err := sum.one(ctx, name); err != nil {
			return err
		}
	}
	panics, err := l.Panics()
	if err != nil {
		return err
	}
	for _, p := range panics {
		fmt.Fprintf(out, "a process crashed: %s\n", p)
	}
	_, _ = fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", sum.passed, sum.failed, sum.skipped)
	switch {
	case len(panics) > 0:
		return fmt.Errorf("processes of the lab crashed %d times", len(panics))
	case sum.failed > 0:
		return fmt.Errorf("%d tests failed", sum.failed)
	case sum.passed == 0:
		return errors.New("no test ran")
	}
	return nil
}

// give makes the volume, whose blocks read as zeros, and returns its URL.
func give(ctx context.Context, l *lab.Lab, size string) (string, error) {
	if err := l.CLI(ctx, "host", "add", host, "--initiator", firstIQN, "--initiator", secondIQN).Err(); err != nil {
		return "", err
	}
	if err := l.CLI(ctx, "volume", "create", volume, "--size", size, "--host", host, "--wait").Err(); err != nil {
		return "", err
	}
	r := l.CLI(ctx, "volume", "url", volume, "--host", host)
	return trimmed(r.Stdout), r.Err()
}
