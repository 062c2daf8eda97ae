// Package disk is the storage under a unit: media as random-access files, a small
// directory interface, and records that survive a crash at any moment.
//
// It owns the system calls (open, lock, pread, pwrite, fallocate, fdatasync), the
// mapping of errno to the few errors that the data plane tells apart, and the sealed
// cell: a checksummed, numbered piece of metadata that is always kept in two places.
//
// It must never interpret a medium's contents, retry a failed fdatasync, or cache
// data: what WriteAt returned for is in the page cache, what Datasync returned for is
// on the medium. Package disktest has the same interfaces in memory, with power cuts
// and faults.
package disk
