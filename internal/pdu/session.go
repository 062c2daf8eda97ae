package pdu

// TextRequest carries keys in full feature phase (RFC 7143 §11.10).
type TextRequest struct {
	Immediate       bool
	Final, Continue bool
	LUN             uint64
	ITT             uint32
	// TTT is NoTag in the first request of an exchange, then what the target gave.
	TTT       uint32
	CmdSN     uint32
	ExpStatSN uint32
}

// Op returns OpTextReq.
func (*TextRequest) Op() Opcode { return OpTextReq }

// Encode writes the header to b.
func (h *TextRequest) Encode(b *BHS) {
	b.start(OpTextReq, h.Immediate)
	b.setIf(h.Final, 1, bitFinal)
	b.setIf(h.Continue, 1, bitContinue)
	b.putLUN(h.LUN)
	b.put32(16, h.ITT)
	b.put32(20, h.TTT)
	b.put32(24, h.CmdSN)
	b.put32(28, h.ExpStatSN)
}

// Decode reads the header from b.
func (h *TextRequest) Decode(b *BHS) {
	h.Immediate, h.Final, h.Continue = b.Immediate(), b.Final(), b.flag(1, bitContinue)
	h.LUN, h.ITT, h.TTT = b.LUN(), b.u32(16), b.u32(20)
	h.CmdSN, h.ExpStatSN = b.u32(24), b.u32(28)
}

// TextResponse answers a TextRequest (RFC 7143 §11.11).
type TextResponse struct {
	Final, Continue bool
	LUN             uint64
	ITT             uint32
	TTT             uint32
	StatSN          uint32
	ExpCmdSN        uint32
	MaxCmdSN        uint32
}

// Op returns OpTextResp.
func (*TextResponse) Op() Opcode { return OpTextResp }

// Encode writes the header to b.
func (h *TextResponse) Encode(b *BHS) {
	b.start(OpTextResp, false)
	b.setIf(h.Final, 1, bitFinal)
	b.setIf(h.Continue, 1, bitContinue)
	b.putLUN(h.LUN)
	b.put32(16, h.ITT)
	b.put32(20, h.TTT)
	b.put32(24, h.StatSN)
	b.put32(28, h.ExpCmdSN)
	b.put32(32, h.MaxCmdSN)
}

// Decode reads the header from b.
func (h *TextResponse) Decode(b *BHS) {
	h.Final, h.Continue = b.Final(), b.flag(1, bitContinue)
	h.LUN, h.ITT, h.TTT = b.LUN(), b.u32(16), b.u32(20)
	h.StatSN, h.ExpCmdSN, h.MaxCmdSN = b.u32(24), b.u32(28), b.u32(32)
}

// NOPOut is the initiator's ping, or its answer to the target's (RFC 7143 §11.18).
type NOPOut struct {
	Immediate bool
	LUN       uint64
	// ITT is NoTag when no answer is wanted.
	ITT uint32
	// TTT is copied from the NOP-In answered, NoTag otherwise.
	TTT       uint32
	CmdSN     uint32
	ExpStatSN uint32
}

// Op returns OpNOPOut.
func (*NOPOut) Op() Opcode { return OpNOPOut }

// Encode writes the header to b.
func (h *NOPOut) Encode(b *BHS) {
	b.start(OpNOPOut, h.Immediate)
	b[1] = bitFinal
	b.putLUN(h.LUN)
	b.put32(16, h.ITT)
	b.put32(20, h.TTT)
	b.put32(24, h.CmdSN)
	b.put32(28, h.ExpStatSN)
}

// Decode reads the header from b.
func (h *NOPOut) Decode(b *BHS) {
	h.Immediate, h.LUN, h.ITT, h.TTT = b.Immediate(), b.LUN(), b.u32(16), b.u32(20)
	h.CmdSN, h.ExpStatSN = b.u32(24), b.u32(28)
}

// NOPIn is the target's ping, or its answer to the initiator's (RFC 7143 §11.19).
type NOPIn struct {
	LUN uint64
	// ITT is copied from the NOP-Out answered, NoTag in a ping of the target's own.
	ITT uint32
	// TTT is NoTag when no answer is wanted.
	TTT      uint32
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
}

// Op returns OpNOPIn.
func (*NOPIn) Op() Opcode { return OpNOPIn }

// Encode writes the header to b.
func (h *NOPIn) Encode(b *BHS) {
	b.start(OpNOPIn, false)
	b[1] = bitFinal
	b.putLUN(h.LUN)
	b.put32(16, h.ITT)
	b.put32(20, h.TTT)
	b.put32(24, h.StatSN)
	b.put32(28, h.ExpCmdSN)
	b.put32(32, h.MaxCmdSN)
}

// Decode reads the header from b.
func (h *NOPIn) Decode(b *BHS) {
	h.LUN, h.ITT, h.TTT = b.LUN(), b.u32(16), b.u32(20)
	h.StatSN, h.ExpCmdSN, h.MaxCmdSN = b.u32(24), b.u32(28), b.u32(32)
}

// Logout reasons (RFC 7143 §11.14.1).
const (
	LogoutCloseSession    uint8 = 0
	LogoutCloseConnection uint8 = 1
	LogoutForRecovery     uint8 = 2
)

// Logout responses (RFC 7143 §11.15.1).
const (
	LogoutSuccess       uint8 = 0
	LogoutCIDNotFound   uint8 = 1
	LogoutNoRecovery    uint8 = 2
	LogoutCleanupFailed uint8 = 3
)

// LogoutRequest ends a session or a connection (RFC 7143 §11.14).
type LogoutRequest struct {
	Immediate bool
	Reason    uint8
	ITT       uint32
	CID       uint16
	CmdSN     uint32
	ExpStatSN uint32
}

// Op returns OpLogoutReq.
func (*LogoutRequest) Op() Opcode { return OpLogoutReq }

// Encode writes the header to b.
func (h *LogoutRequest) Encode(b *BHS) {
	b.start(OpLogoutReq, h.Immediate)
	b[1] = bitFinal | h.Reason&0x7f
	b.put32(16, h.ITT)
	b.put16(20, h.CID)
	b.put32(24, h.CmdSN)
	b.put32(28, h.ExpStatSN)
}

// Decode reads the header from b.
func (h *LogoutRequest) Decode(b *BHS) {
	h.Immediate, h.Reason, h.ITT, h.CID = b.Immediate(), b[1]&0x7f, b.u32(16), b.u16(20)
	h.CmdSN, h.ExpStatSN = b.u32(24), b.u32(28)
}

// LogoutResponse answers a LogoutRequest (RFC 7143 §11.15).
type LogoutResponse struct {
	Response uint8
	ITT      uint32
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
	// Time2Wait and Time2Retain are in seconds.
	Time2Wait   uint16
	Time2Retain uint16
}

// Op returns OpLogoutResp.
func (*LogoutResponse) Op() Opcode { return OpLogoutResp }

// Encode writes the header to b.
func (h *LogoutResponse) Encode(b *BHS) {
	b.start(OpLogoutResp, false)
	b[1], b[2] = bitFinal, h.Response
	b.put32(16, h.ITT)
	b.put32(24, h.StatSN)
	b.put32(28, h.ExpCmdSN)
	b.put32(32, h.MaxCmdSN)
	b.put16(40, h.Time2Wait)
	b.put16(42, h.Time2Retain)
}

// Decode reads the header from b.
func (h *LogoutResponse) Decode(b *BHS) {
	h.Response, h.ITT, h.StatSN = b[2], b.u32(16), b.u32(24)
	h.ExpCmdSN, h.MaxCmdSN = b.u32(28), b.u32(32)
	h.Time2Wait, h.Time2Retain = b.u16(40), b.u16(42)
}

// Asynchronous events (RFC 7143 §11.9.1).
const (
	// AsyncSCSI carries sense in the data segment.
	AsyncSCSI uint8 = 0
	// AsyncLogoutRequest asks for a logout within Parameter3 seconds.
	AsyncLogoutRequest uint8 = 1
	// AsyncDropConnection says that connection Parameter1 will be dropped.
	AsyncDropConnection uint8 = 2
	// AsyncDropSession says that all connections of the session will be dropped.
	AsyncDropSession uint8 = 3
	// AsyncNegotiate asks for a parameter negotiation within Parameter3 seconds.
	AsyncNegotiate uint8 = 4
)

// Async is a message that the target sends unasked (RFC 7143 §11.9).
type Async struct {
	LUN        uint64
	StatSN     uint32
	ExpCmdSN   uint32
	MaxCmdSN   uint32
	Event      uint8
	VCode      uint8
	Parameter1 uint16
	Parameter2 uint16
	Parameter3 uint16
}

// Op returns OpAsync.
func (*Async) Op() Opcode { return OpAsync }

// Encode writes the header to b.
func (h *Async) Encode(b *BHS) {
	b.start(OpAsync, false)
	b[1] = bitFinal
	b.putLUN(h.LUN)
	b.put32(16, NoTag)
	b.put32(24, h.StatSN)
	b.put32(28, h.ExpCmdSN)
	b.put32(32, h.MaxCmdSN)
	b[36], b[37] = h.Event, h.VCode
	b.put16(38, h.Parameter1)
	b.put16(40, h.Parameter2)
	b.put16(42, h.Parameter3)
}

// Decode reads the header from b.
func (h *Async) Decode(b *BHS) {
	h.LUN, h.StatSN, h.ExpCmdSN, h.MaxCmdSN = b.LUN(), b.u32(24), b.u32(28), b.u32(32)
	h.Event, h.VCode = b[36], b[37]
	h.Parameter1, h.Parameter2, h.Parameter3 = b.u16(38), b.u16(40), b.u16(42)
}

// Reject reasons (RFC 7143 §11.17.1).
const (
	RejectDataDigest        uint8 = 0x02
	RejectSNACK             uint8 = 0x03
	RejectProtocolError     uint8 = 0x04
	RejectNotSupported      uint8 = 0x05
	RejectImmediateCommands uint8 = 0x06
	RejectTaskInProgress    uint8 = 0x07
	RejectInvalidDataACK    uint8 = 0x08
	RejectInvalidField      uint8 = 0x09
	RejectLongOperation     uint8 = 0x0a
	RejectNegotiationReset  uint8 = 0x0b
	RejectWaitingForLogout  uint8 = 0x0c
)

// Reject refuses a PDU; its data segment is the header refused (RFC 7143 §11.17).
type Reject struct {
	Reason   uint8
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
	DataSN   uint32
}

// Op returns OpReject.
func (*Reject) Op() Opcode { return OpReject }

// Encode writes the header to b.
func (h *Reject) Encode(b *BHS) {
	b.start(OpReject, false)
	b[1], b[2] = bitFinal, h.Reason
	b.put32(16, NoTag)
	b.put32(24, h.StatSN)
	b.put32(28, h.ExpCmdSN)
	b.put32(32, h.MaxCmdSN)
	b.put32(36, h.DataSN)
}

// Decode reads the header from b.
func (h *Reject) Decode(b *BHS) {
	h.Reason, h.StatSN, h.ExpCmdSN = b[2], b.u32(24), b.u32(28)
	h.MaxCmdSN, h.DataSN = b.u32(32), b.u32(36)
}
