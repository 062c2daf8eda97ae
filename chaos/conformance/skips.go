package main

import (
	"fmt"
	"slices"
	"strings"
)

// skips are the tests that may be skipped, and why. Each line of their file is
//
//	Suite.Test: reason
//
// Empty lines and those that begin with # say nothing.
type skips map[string]string

func parseSkips(text string) (skips, error) {
	known := skips{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = trimmed(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, ":")
		name, reason = trimmed(name), trimmed(reason)
		switch {
		case name == "" || reason == "":
			return nil, fmt.Errorf("line %d: want \"Suite.Test: reason\"", n)
		case known[name] != "":
			return nil, fmt.Errorf("line %d: %s is listed twice", n, name)
		}
		known[name] = reason
	}
	return known, nil
}

// check finds entries that are no test's.
func (k skips) check(all []string) error {
	for name := range k {
		if !slices.Contains(all, name) {
			return fmt.Errorf("%s has no test %s; remove the entry", tool, name)
		}
	}
	return nil
}

// judge holds a verdict against the list.
func (k skips) judge(name string, v verdict, why string) (verdict, string) {
	reason, listed := k[name]
	switch {
	case v == skipped && !listed:
		return failed, "skipped, but not in the list of skips: " + why
	case v == skipped:
		return skipped, reason
	case v == passed && listed:
		return failed, "passed, but is in the list of skips; remove it there"
	}
	return v, why
}
