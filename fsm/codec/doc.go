// Package codec is the frozen encoding of the replicated log and of its snapshots.
//
// It owns the envelope around a command (format version, kind, flags), the rules of the payload
// (CBOR, RFC 8949 §4.2 core deterministic) and the framing of a snapshot (header, counted tables,
// end marker with checksum). It knows no noun of the state: package fsm gives it rows and commands.
//
// It must never change the bytes of a released format version, never read more than the bounds
// below, and never accept what it does not fully understand.
package codec
