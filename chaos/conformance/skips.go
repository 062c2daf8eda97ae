package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// skips are the tests that may be skipped, and why. Each line of their file is
//
//	Suite.Test: reason
//	Suite.Test [FILE.c:LINE]: reason
//
// The second form is for a test with a defect of its own: it runs, and counts as skipped if the
// assertion in that place is the only one that fails. It may also crash: what it leaves behind is as
// wrong.
//
// Empty lines and those that begin with # say nothing.
type skips map[string]skip

type skip struct {
	reason string
	// broken is the place of the suite's wrong assertion, "" for a test that is skipped.
	broken string
}

func parseSkips(text string) (skips, error) {
	known := skips{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = trimmed(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, ": ")
		name, broken, marked := strings.Cut(trimmed(strings.Replace(name, "]", "", 1)), "[")
		name, reason, broken = trimmed(name), trimmed(reason), trimmed(broken)
		switch {
		case name == "" || reason == "" || marked && broken == "":
			return nil, fmt.Errorf("line %d: want \"Suite.Test: reason\"", n)
		case known[name].reason != "":
			return nil, fmt.Errorf("line %d: %s is listed twice", n, name)
		}
		known[name] = skip{reason: reason, broken: broken}
	}
	return known, nil
}

// check finds the first entry, by name, that is no test's.
func (k skips) check(all []string) error {
	for _, name := range slices.Sorted(maps.Keys(k)) {
		if !slices.Contains(all, name) {
			return fmt.Errorf("%s has no test %s; remove the entry", tool, name)
		}
	}
	return nil
}

// judge holds a verdict against the list.
func (k skips) judge(name string, v verdict, why, said string) (verdict, string) {
	entry, listed := k[name]
	switch {
	case listed && entry.broken != "" && v == failed && (why == "" || isCrash(why)) && failsOnlyAt(said, entry.broken, isCrash(why)):
		return skipped, entry.reason
	case v == skipped && (!listed || entry.broken != ""):
		return failed, "skipped, but not in the list of skips: " + why
	case v == skipped:
		return skipped, entry.reason
	case v == passed && listed:
		return failed, "passed, but is in the list of skips; remove it there"
	}
	return v, why
}

// A failed assertion, as the suite numbers and prints it.
var failedAssertion = regexp.MustCompile(`(?m)^\s+\d+\. (\S+:\d+)  - `)

// failsOnlyAt reports whether the only failed assertion is the one in that place; a test that crashed
// may not have come to print it.
func failsOnlyAt(said, place string, crash bool) bool {
	all := failedAssertion.FindAllStringSubmatch(said, -1)
	return len(all) == 1 && all[0][1] == place || len(all) == 0 && crash
}

func isCrash(why string) bool { return strings.HasPrefix(why, crashed) }
