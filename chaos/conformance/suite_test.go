package main

import (
	"strings"
	"testing"
)

// printed is what the suite prints about a test: how it began, what was printed while it ran, and its row.
func printed(before, test, row string) string {
	return before + "\n\nSuite: Read6\n  Test: Simple ..." + test +
		"\n\nRun Summary:    Type  Total    Ran Passed Failed Inactive\n              suites      1      1    n/a      0        0\n" +
		"               tests      1      " + row + "        0\n             asserts      6      6      5      1      n/a\n"
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		said string
		want verdict
	}{
		"passed":               {0, printed("", "passed", "1      1      0"), passed},
		"skip around the test": {0, printed("[SKIPPED] a look", "passed    [SKIPPED] a look", "1      1      0"), passed},
		"skipped":              {0, printed("", "    [SKIPPED] not there\npassed", "1      1      0"), skipped},
		"skipped with more":    {0, printed("", "    [VERBOSE] x\n    [SKIPPED] y\n  z\npassed    [SKIPPED] a look", "1      1      0"), skipped},
		"failed":               {0, printed("", "FAILED\n    1. x.c:1 - a == b", "1      0      1"), failed},
		"failed and skipped":   {0, printed("", "    [SKIPPED] y\nFAILED", "1      0      1"), failed},
		"none ran":             {0, printed("", "", "0      0      0"), failed},
		"crashed":              {-1, "Suite: Read6\n  Test: Simple ...", failed},
		"crashed at the end":   {-1, printed("", "passed", "1      1      0"), failed},
		"no login":             {255, "Login Failed.", failed},
		"nothing":              {0, "", failed},
	} {
		if got, why := judge(c.code, c.said); got != c.want {
			t.Errorf("%s: %s (%s), want %s", name, got, why, c.want)
		}
	}
}

func TestSkips(t *testing.T) {
	known, err := parseSkips("# why not\n\nA.One: no: such thing\n  B.Two : other  \nD.Four [x.c:12]: wrong\n")
	if err != nil || len(known) != 3 || known["A.One"].reason != "no: such thing" || known["B.Two"].reason != "other" ||
		known["D.Four"] != (skip{reason: "wrong", broken: "x.c:12"}) {
		t.Fatalf("%v, %v", known, err)
	}
	for _, c := range []struct {
		name      string
		got, want verdict
	}{
		{"A.One", skipped, skipped}, {"A.One", passed, failed}, {"A.One", failed, failed},
		{"C.Three", skipped, failed}, {"C.Three", passed, passed}, {"C.Three", failed, failed},
	} {
		if v, why := known.judge(c.name, c.got, "because", ""); v != c.want || why == "" {
			t.Errorf("%s, %s: %s (%q), want %s", c.name, c.got, v, why, c.want)
		}
	}
	for _, c := range []struct {
		got       verdict
		why, said string
		want      verdict
	}{
		{failed, "", "\n    1. x.c:12  - a == b\n", skipped},
		{failed, "", "\n    1. x.c:12  - a == b\n    2. x.c:13  - c\n", failed},
		{failed, "", "\n    1. x.c:13  - c\n", failed},
		{failed, "crashed", "\n    1. x.c:12  - a == b\n", skipped},
		{failed, "crashed after its result", "", skipped},
		{failed, "crashed", "\n    1. x.c:13  - c\n", failed},
		{failed, "ended with 1 before its result", "", failed},
		{failed, "", "", failed},
		{passed, "", "", failed}, {skipped, "", "", failed},
	} {
		if v, _ := known.judge("D.Four", c.got, c.why, c.said); v != c.want {
			t.Errorf("a broken test that %s (%s) with %q: %s, want %s", c.got, c.why, c.said, v, c.want)
		}
	}
	if err := known.check([]string{"A.One", "B.Two", "C.Three", "D.Four"}); err != nil {
		t.Error(err)
	}
	if err := known.check([]string{"A.One"}); err == nil || !strings.Contains(err.Error(), "B.Two") {
		t.Errorf("an entry of no test: %v", err)
	}
	for _, bad := range []string{"A.One", "A.One:", ": why", "A.One: x\nA.One: y", "A.One []: x"} {
		if _, err := parseSkips(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestNames(t *testing.T) {
	got := testNames("ALL\nALL.Read6\nALL.Read6.Simple\nSCSI.Read6.Simple\nALL.Read6.BeyondEol\n")
	if strings.Join(got, " ") != "Read6.Simple Read6.BeyondEol" {
		t.Errorf("%q", got)
	}
}
