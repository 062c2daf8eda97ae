// Package pdu is the iSCSI wire format (RFC 7143 §11 and §13), shared by the target
// and the initiator: a type for every PDU's basic header segment, framing with
// additional headers, padding and CRC32C digests, the text key=value codec, and the
// engine that negotiates keys at login.
//
// It owns bytes, nothing else: it never opens a connection, never starts a goroutine,
// never looks at a clock, and never decides what a PDU means. Whatever it reads
// is bounded by what its caller allows; no input makes it panic or allocate
// more than those bounds.
//
// The pieces, bottom up:
//
//   - [BHS] is the 48 raw bytes. Each PDU type ([SCSICommand], [DataIn], …) has
//     Encode(*BHS), which overwrites all 48 bytes but leaves both lengths zero, and
//     Decode(*BHS). [Parse] picks the type by opcode.
//   - [Reader] reads a PDU in two steps, header then data, so that the caller chooses
//     where the data lands; [Reader.ReadPDU] does both. [Digests] appends PDUs to a
//     buffer, whole or as header and trailer around data that is sent from where it lies.
//   - [ParseText], [AppendText], [SplitText] and [TextJoiner] are the text codec.
//   - [Negotiator] answers or offers login keys and holds the resulting [Params].
package pdu
