// Package iostats is the wire form of what units count: histograms and percentiles as messages, the sum of several
// units' figures, and what happened between two readings.
//
// Units, stations and the command line share it, so that a percentile is computed in one way everywhere. It is
// pure arithmetic: it must never ask anybody for anything.
package iostats
