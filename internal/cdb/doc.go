// Package cdb is the SCSI wire vocabulary that the target and the initiator share:
// command descriptor blocks, sense data, status codes, and the parameter data of the
// commands that Sandbar uses (SAM-5, SPC-4, SBC-3).
//
// It turns bytes into values and values into bytes. It does no I/O, keeps no state,
// starts nothing, and never trusts a length that it was given: every decoder checks
// that the bytes are there and says which field was wrong (FieldError), so that a
// device server can answer with the exact sense data.
package cdb
