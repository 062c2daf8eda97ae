package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

// multipath tests need two sessions, so they get the URL twice.
const multipath = "MultipathIO."

// suite runs tests and counts how they end.
type suite struct {
	out                     io.Writer
	url                     string
	limit                   time.Duration
	verbose                 bool
	known                   skips
	passed, failed, skipped int
}

// listTests asks the suite for its tests, as "Suite.Test". The suite lists each several times,
// under families that overlap; the family ALL has all of them.
func listTests(ctx context.Context) ([]string, error) {
	r := lab.Run(ctx, tool, nil, "-l")
	if r.Code < 0 {
		return nil, fmt.Errorf("%s (Debian: libiscsi-bin): %w", tool, r.Err())
	}
	names := testNames(r.Stdout)
	if len(names) == 0 {
		return nil, fmt.Errorf("%s -l lists no tests: %.300s", tool, r.Said())
	}
	return names, nil
}

func testNames(list string) []string {
	var names []string
	for line := range strings.Lines(list) {
		if name, ok := strings.CutPrefix(trimmed(line), "ALL."); ok && strings.Contains(name, ".") {
			names = append(names, name)
		}
	}
	return names
}

// one runs one test and prints its line. An error is not the test's but the end of the run.
func (s *suite) one(ctx context.Context, name string) error {
	args := []string{"--dataloss", "--test=ALL." + name, s.url}
	if strings.HasPrefix(name, multipath) {
		args = append(args, s.url)
	}
	limited, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	r := lab.Run(limited, tool, nil, args...)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	v, why := judge(r.Code, r.Said())
	if errors.Is(limited.Err(), context.DeadlineExceeded) {
		v, why = failed, fmt.Sprintf("did not end within %v", s.limit)
	}
	v, why = s.known.judge(name, v, why, r.Said())
	switch v {
	case passed:
		s.passed++
	case skipped:
		s.skipped++
	default:
		s.failed++
	}
	line := fmt.Sprintf("%-7s %-45s %6.2fs", v, name, r.Spent.Seconds())
	if why != "" {
		line += "  " + why
	}
	if _, err := fmt.Fprintln(s.out, line); err != nil {
		return err
	}
	if s.verbose || v == failed {
		_, err := fmt.Fprintln(s.out, indent(strings.ReplaceAll(r.Said(), s.url, "URL")))
		return err
	}
	return nil
}

// verdict is how a test ended.
type verdict string

const (
	passed  verdict = "passed"
	failed  verdict = "FAILED"
	skipped verdict = "skipped"
)

// crashed is the beginning of why a test failed whose process a signal ended.
const crashed = "crashed"

// The last table that the suite prints: what ran, passed and failed, of suites, tests and assertions.
var testsRow = regexp.MustCompile(`(?m)^\s+tests\s+(\d+)\s+(\S+)\s+(\d+)\s+(\d+)\s+(\d+)\s*$`)

// judge reads how a test ended from what it printed. Only a table that says that one test ran
// and passed counts as passed.
func judge(code int, said string) (verdict, string) {
	row := testsRow.FindStringSubmatch(said)
	if row == nil {
		if code < 0 {
			return failed, crashed
		}
		return failed, fmt.Sprintf("ended with %d before its result", code)
	}
	ran, _ := strconv.Atoi(row[2])
	ok, _ := strconv.Atoi(row[3])
	bad, _ := strconv.Atoi(row[4])
	switch {
	case code < 0:
		return failed, crashed + " after its result"
	case bad != 0:
		return failed, ""
	case ran != 1 || ok != 1:
		return failed, fmt.Sprintf("%d tests ran and %d passed, want 1", ran, ok)
	}
	if _, why, ok := strings.Cut(during(said), "[SKIPPED]"); ok {
		why, _, _ = strings.Cut(why, "\n")
		return skipped, trimmed(why)
	}
	return passed, ""
}

// during is what was printed while the test ran: before and after it the suite looks for
// reservations that somebody left behind, and may skip that.
func during(said string) string {
	_, rest, _ := strings.Cut(said, "\n  Test: ")
	if before, _, ok := strings.Cut(rest, "...passed"); ok {
		return before
	}
	before, _, _ := strings.Cut(rest, "\npassed")
	return before
}

func trimmed(s string) string { return strings.TrimSpace(s) }

func indent(s string) string {
	return "        " + strings.ReplaceAll(trimmed(s), "\n", "\n        ")
}
