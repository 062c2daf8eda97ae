// Package disktest has media and directories in memory that behave as the real ones do
// when the power goes: what was not made stable survives in part, torn at 512-byte
// sectors. It also wraps any disk.File or disk.Dir with faults and latency.
//
// It owns the crash model and nothing else: it must never hold a format or a rule of
// the packages that it tests.
package disktest
