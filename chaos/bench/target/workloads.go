package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

const (
	small = 4 << 10
	large = 1 << 20
	// perfLUNBlock is the unit in which iscsi-perf takes sizes.
	perfLUNBlock = 512
)

// workload is one row: what the clients do.
type workload struct {
	perf        bool // iscsi-perf, else qemu-img bench
	write       bool
	sizeBytes   int // of one I/O
	depth       int // I/Os at a time, of each connection
	connections int
}

// workloads lists the rows.
func workloads() []workload {
	var all []workload
	for _, size := range []int{small, large} {
		for _, write := range []bool{false, true} {
			for _, depth := range []int{1, 8, 32} {
				all = append(all, workload{write: write, sizeBytes: size, depth: depth, connections: 1})
			}
		}
	}
	for _, w := range []workload{{sizeBytes: small, depth: 1}, {sizeBytes: small, depth: 32}, {sizeBytes: large, depth: 8}} {
		w.perf, w.connections = true, 1
		all = append(all, w)
	}
	// One connection at depth 8 is above already.
	for _, n := range []int{4, 16} {
		for _, w := range []workload{{sizeBytes: small}, {sizeBytes: small, write: true}, {sizeBytes: large}} {
			w.depth, w.connections = 8, n
			all = append(all, w)
		}
	}
	return all
}

// name is the row's name, as BENCH_JSON has it.
func (w workload) name() string {
	tool, act, size := "qemu-img", "read", "4 KiB"
	if w.write {
		act = "write"
	}
	if w.sizeBytes == large {
		size = "1 MiB"
	}
	if w.perf {
		tool, act = "iscsi-perf", "random read"
		if w.sizeBytes == large {
			act = "sequential read"
		}
	}
	name := fmt.Sprintf("%s %s %s depth %d", tool, act, size, w.depth)
	if w.connections > 1 {
		name += fmt.Sprintf(", %d connections", w.connections)
	}
	return name
}

// stream tells whether local access to the file is measured besides.
func (w workload) stream() bool { return !w.perf && w.sizeBytes == large && w.connections == 1 }

// unit is what the row's figures count; one large I/O is one MiB.
func (w workload) unit() string {
	if w.sizeBytes == large {
		return "MiB/s"
	}
	return "I/O/s"
}

// once runs the clients for about length and returns I/Os a second and how many I/Os there were.
// perSecond is how many a second there will be: qemu-img wants a number.
func (w workload) once(ctx context.Context, t *target, volumeBytes int64, length time.Duration, perSecond float64) (rate, ios float64, err error) {
	if w.perf {
		seconds := max(1, int(length.Seconds()+0.5))
		args := []string{"-i", initiator, "-m", strconv.Itoa(w.depth), "-b", strconv.Itoa(w.sizeBytes / perfLUNBlock), "-t", strconv.Itoa(seconds)}
		if w.sizeBytes == small {
			args = append(args, "-r")
		}
		r := lab.Run(ctx, "iscsi-perf", nil, append(args, t.url)...)
		if err := r.Err(); err != nil {
			return 0, 0, err
		}
		rate, err := perfRate(r.Said())
		return rate, rate * float64(seconds), err
	}
	count := max(w.depth, int(perSecond*length.Seconds())/w.connections)
	longest, err := w.qemu(ctx, t, volumeBytes, count)
	if err != nil {
		return 0, 0, err
	}
	ios = float64(count * w.connections)
	return ios / longest.Seconds(), ios, nil
}

// qemu runs one qemu-img bench for each connection, all at once, each in its own part of
// the volume, and returns how long the slowest took.
func (w workload) qemu(ctx context.Context, t *target, volumeBytes int64, count int) (time.Duration, error) {
	took, errs := make([]time.Duration, w.connections), make([]error, w.connections)
	var wg sync.WaitGroup
	for i := range w.connections {
		wg.Go(func() {
			offset := volumeBytes / int64(w.connections) * int64(i)
			args := []string{"bench", "-f", "raw", "-d", strconv.Itoa(w.depth), "-s", strconv.Itoa(w.sizeBytes), "-c", strconv.Itoa(count), "-o", strconv.FormatInt(offset, 10)}
			if w.write {
				args = append(args, "-w")
			}
			r := lab.Run(ctx, "qemu-img", nil, append(args, t.url)...)
			if errs[i] = r.Err(); errs[i] == nil {
				took[i], errs[i] = qemuTime(r.Said())
			}
		})
	}
	wg.Wait()
	longest := time.Duration(0)
	for _, d := range took {
		longest = max(longest, d)
	}
	return longest, errors.Join(errs...)
}

var (
	qemuLine = regexp.MustCompile(`(?m)^Run completed in ([0-9.]+) seconds\.`)
	perfLine = regexp.MustCompile(`(?m)^\s*iops average (\d+) `)
)

// qemuTime reads how long qemu-img bench says that it took.
func qemuTime(said string) (time.Duration, error) {
	m := qemuLine.FindStringSubmatch(said)
	if m == nil {
		return 0, fmt.Errorf("qemu-img bench gave no time: %.300s", said)
	}
	seconds, err := strconv.ParseFloat(m[1], 64)
	if err != nil || seconds <= 0 {
		return 0, fmt.Errorf("qemu-img bench took %q seconds: %w", m[1], errors.Join(err, errNoTime))
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

var errNoTime = errors.New("no time at all can't be measured")

// perfRate reads the I/Os a second that iscsi-perf closes with.
func perfRate(said string) (float64, error) {
	m := perfLine.FindStringSubmatch(strings.ReplaceAll(said, "\r", "\n"))
	if m == nil || m[1] == "0" {
		return 0, fmt.Errorf("iscsi-perf gave no average: %.300s", said)
	}
	return strconv.ParseFloat(m[1], 64)
}
