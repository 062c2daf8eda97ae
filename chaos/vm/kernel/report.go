package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Prefixes of the lines that count.
const (
	passedPrefix = "ok: "
	failedPrefix = "FAIL: "
)

// report counts what scripts say, and passes it on.
type report struct {
	out            io.Writer
	passed, failed int
	failures       []string
}

// take reads a script's output to its end.
func (r *report) take(output io.Reader) error {
	lines := bufio.NewReader(output)
	for {
		line, err := lines.ReadString('\n')
		if text := strings.TrimRight(line, "\r\n"); text != "" {
			r.line(text)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) line(text string) {
	switch {
	case strings.HasPrefix(text, passedPrefix):
		r.passed++
	case strings.HasPrefix(text, failedPrefix):
		r.failed++
		r.failures = append(r.failures, strings.TrimPrefix(text, failedPrefix))
	}
	_, _ = fmt.Fprintln(r.out, text) // to a terminal that is gone nobody listens
}

// end notes how a script came to its end. One that fails has told why; if it has not, that is the failure.
func (r *report) end(script string, failedBefore int, err error) {
	if err != nil && r.failed == failedBefore {
		r.line(fmt.Sprintf("%s%s did not come to its end: %v", failedPrefix, script, err))
	}
}

// close says what it came to; an error if anything failed or nothing ran.
func (r *report) close() error {
	for _, f := range r.failures {
		_, _ = fmt.Fprintf(r.out, "failed: %s\n", f)
	}
	_, _ = fmt.Fprintf(r.out, "%d passed, %d failed\n", r.passed, r.failed)
	switch {
	case r.failed > 0:
		return fmt.Errorf("%d checks failed", r.failed)
	case r.passed == 0:
		return fmt.Errorf("nothing was checked")
	}
	return nil
}
