// Package scenario tests the product as a whole, with real processes and real input: stock
// iSCSI tools against a unit, hosts that must not see each other's volumes, every process killed once,
// operators who mistype.
//
// It owns nothing but its tests, which use what users use: the program, its command line, its
// API and the host library.
package scenario
