// Package histogram counts durations in a fixed number of buckets, each at most 1/32 of its value
// wide, so that any percentile is known to within 3.2 % whatever the durations turn out to be.
//
// A [Recorder] is written by many goroutines at once, without locks or allocation; [Counts] is what it had
// counted at some moment: such can be added up, subtracted from a later one, sent, and asked for percentiles.
//
// It must never depend on anything of Sandbar.
package histogram
