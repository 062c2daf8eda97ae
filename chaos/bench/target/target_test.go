package main

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestQemuTime(t *testing.T) {
	got, err := qemuTime("Sending 50000 read requests, 4096 bytes each, 32 in parallel (starting at offset 0, step size 4096)\nRun completed in 1.343 seconds.\n")
	if err != nil || got != 1343*time.Millisecond {
		t.Errorf("got %v and %v, want 1.343s", got, err)
	}
	for _, said := range []string{"", "qemu-img: Failed request: Input/output error\n", "Run completed in 0.000 seconds.\n"} {
		if got, err := qemuTime(said); err == nil {
			t.Errorf("%q counts as %v", said, got)
		}
	}
}

func TestPerfRate(t *testing.T) {
	const said = "will run for 2 seconds.\n\n" +
		"\r00:00:01 - lba 481942, iops current 27404 (107 MB/s), iops average 27404 (107 MB/s), in_flight 32, busy 0        " +
		"\riops average 25408 (99 MB/s)                                                        \n\nfinished.\n"
	got, err := perfRate(said)
	if err != nil || got != 25408 {
		t.Errorf("got %v and %v, want 25408", got, err)
	}
	for _, said := range []string{"", "Failed to log in", "\riops average 0 (0 MB/s)  \n", strings.SplitAfter(said, "busy 0")[0]} {
		if got, err := perfRate(said); err == nil {
			t.Errorf("%q counts as %v", said, got)
		}
	}
}

func TestCPUTime(t *testing.T) {
	const stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 9 0 1234 0 0"
	if got, err := cpuTime(stat); err != nil || got != 3250*time.Millisecond {
		t.Errorf("got %v and %v, want 3.25s", got, err)
	}
	if got, err := cpuTime("42 (x) S 1"); err == nil {
		t.Errorf("a torn line counts as %v", got)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.of, got, c.want)
		}
	}
}

func TestCost(t *testing.T) {
	c := cost{cpu: time.Second, ios: 1000}
	c.add(cost{cpu: time.Second, ios: 1000})
	if got := c.perGB(workload{sizeBytes: 1e6}); got != 1 {
		t.Errorf("2 s for 2 GB are %v a GB", got)
	}
	if got := c.perMillion(); got != 1000 {
		t.Errorf("2 s for 2,000 are %v a million", got)
	}
}

// Every row must have a name of its own: the ratios are known by it.
func TestWorkloads(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range workloads() {
		if n := w.name(); seen[n] {
			t.Errorf("two rows are called %q", n)
		} else {
			seen[n] = true
		}
	}
	for _, want := range []string{`^qemu-img write 1 MiB depth 32$`, `^iscsi-perf random read 4 KiB depth 1$`, `^iscsi-perf sequential read 1 MiB depth 8$`, `16 connections$`} {
		found := false
		for n := range seen {
			found = found || regexp.MustCompile(want).MatchString(n)
		}
		if !found {
			t.Errorf("no row matches %s", want)
		}
	}
}
