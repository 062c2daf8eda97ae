// Package freeport finds TCP and UDP ports on this machine's loopback address for processes that
// will be started, killed and started again on them.
//
// It owns the choice only: a port is free when it is looked at, and is kept from others who ask here until the process
// that asked has ended; nothing keeps it from the rest. It must never give
// out a port of the range from which the kernel takes those of outgoing connections, if there are others: one of
// these would be gone as soon as some connection had it while its process was down.
package freeport
