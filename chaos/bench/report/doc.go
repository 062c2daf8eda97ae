// Package report prints what a benchmark measured, ours beside a peer's in one run, and
// writes it as JSON where BENCH_JSON says.
package report
