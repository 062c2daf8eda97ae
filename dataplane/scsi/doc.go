// Package scsi is the device server of one logical unit: it executes the SCSI commands
// that a transport hands it (SPC-4, SBC-3, SAM-5) against a Store.
//
// It owns a command's meaning: what it checks, in which order, what it moves between
// the Store and the data buffers, and the status and sense data that answer it; the
// unit attentions of each I_T nexus; the reservations, which outlive sessions and, by a
// ReservationStore, restarts; and the order that COMPARE AND WRITE and its like
// need against other writes. Standard INQUIRY, MODE SENSE, READ CAPACITY (10) and TEST
// UNIT READY run on gotgt's SCSI layer; everything that touches data is ours.
//
// It must never know a PDU, a session or a socket (that is the transport's), never
// decide who may reach the logical unit, never log per command, never hold more memory
// for a command than MaxTransferBytes plus a few KiB, and never let a defect in one
// command end the process: a panic becomes HARDWARE ERROR for that command alone.
package scsi
