package main

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReport(t *testing.T) {
	ended := errors.New("exit status 1")
	for _, c := range []struct {
		name           string
		said           string
		ended          error
		passed, failed int
		ok             bool
	}{
		{"all passed", "== x\nok: a\n    ok: not at the beginning\nok: b\r\n", nil, 2, 0, true},
		{"the last line has no end", "ok: a", nil, 1, 0, true},
		{"one failed", "ok: a\nFAIL: b\n    why\n", ended, 1, 1, false},
		{"failed, and says it passed", "FAIL: b\n", nil, 0, 1, false},
		{"died without a word", "ok: a\n", ended, 1, 1, false},
		{"nothing", "\n\nhello\n", nil, 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			r := &report{out: &out}
			if err := r.take(iotest.OneByteReader(strings.NewReader(c.said))); err != nil {
				t.Fatal(err)
			}
			r.end("x", 0, c.ended)
			if err := r.close(); r.passed != c.passed || r.failed != c.failed || (err == nil) != c.ok {
				t.Errorf("%d passed, %d failed, %v", r.passed, r.failed, err)
			}
			if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); !strings.HasSuffix(lines[len(lines)-1], " failed") {
				t.Errorf("the last line is %q", lines[len(lines)-1])
			}
		})
	}
}

// A failure of an earlier script is no excuse for a later one that dies.
func TestEachScriptTellsItsOwnEnd(t *testing.T) {
	r := &report{out: &strings.Builder{}}
	r.line("FAIL: first")
	r.end("first", 0, errors.New("exit status 1"))
	r.end("second", 1, errors.New("exit status 125"))
	if r.failed != 2 || !strings.Contains(r.failures[1], "second did not come to its end") {
		t.Errorf("failures: %q", r.failures)
	}
}
