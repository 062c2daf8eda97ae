// Package stationtest is a station for the tests of hostlib and of the host's agent: real TLS, real
// services, and a handful of volumes in memory.
//
// It owns what such a test needs of a station and no more: it places nothing, replicates nothing and
// believes everybody. It must never be imported but by tests.
package stationtest
