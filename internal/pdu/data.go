package pdu

// DataOut carries data of a write (RFC 7143 §11.7).
type DataOut struct {
	// Final ends the burst: the unsolicited one or the one that an R2T asked for.
	Final bool
	LUN   uint64
	ITT   uint32
	// TTT is that of the R2T answered, NoTag in unsolicited data.
	TTT          uint32
	ExpStatSN    uint32
	DataSN       uint32
	BufferOffset uint32
}

// Op returns OpDataOut.
func (*DataOut) Op() Opcode { return OpDataOut }

// Encode writes the header to b.
func (h *DataOut) Encode(b *BHS) {
	b.start(OpDataOut, false)
	b.setIf(h.Final, 1, bitFinal)
	b.putLUN(h.LUN)
	b.put32(16, h.ITT)
	b.put32(20, h.TTT)
	b.put32(28, h.ExpStatSN)
	b.put32(36, h.DataSN)
	b.put32(40, h.BufferOffset)
}

// Decode reads the header from b.
func (h *DataOut) Decode(b *BHS) {
	h.Final, h.LUN, h.ITT, h.TTT = b.Final(), b.LUN(), b.u32(16), b.u32(20)
	h.ExpStatSN, h.DataSN, h.BufferOffset = b.u32(28), b.u32(36), b.u32(40)
}

// DataIn carries data of a read and, with HasStatus, ends the task (RFC 7143 §11.7).
type DataIn struct {
	Final bool
	// Acknowledge asks for a DataACK SNACK; only at ErrorRecoveryLevel 1 and above.
	Acknowledge         bool
	Overflow, Underflow bool
	// HasStatus says that Status, StatSN and Residual are valid and no SCSI response follows.
	HasStatus    bool
	Status       uint8
	LUN          uint64
	ITT          uint32
	TTT          uint32
	StatSN       uint32
	ExpCmdSN     uint32
	MaxCmdSN     uint32
	DataSN       uint32
	BufferOffset uint32
	Residual     uint32
}

// Op returns OpDataIn.
func (*DataIn) Op() Opcode { return OpDataIn }

// Encode writes the header to b.
func (h *DataIn) Encode(b *BHS) {
	b.start(OpDataIn, false)
	b.setIf(h.Final, 1, bitFinal)
	b.setIf(h.Acknowledge, 1, 0x40)
	b.setIf(h.Overflow, 1, 0x04)
	b.setIf(h.Underflow, 1, 0x02)
	b.setIf(h.HasStatus, 1, 0x01)
	b[3] = h.Status
	b.putLUN(h.LUN)
	b.put32(16, h.ITT)
	b.put32(20, h.TTT)
	b.put32(24, h.StatSN)
	b.put32(28, h.ExpCmdSN)
	b.put32(32, h.MaxCmdSN)
	b.put32(36, h.DataSN)
	b.put32(40, h.BufferOffset)
	b.put32(44, h.Residual)
}

// Decode reads the header from b.
func (h *DataIn) Decode(b *BHS) {
	h.Final, h.Acknowledge = b.Final(), b.flag(1, 0x40)
	h.Overflow, h.Underflow, h.HasStatus = b.flag(1, 0x04), b.flag(1, 0x02), b.flag(1, 0x01)
	h.Status, h.LUN, h.ITT, h.TTT = b[3], b.LUN(), b.u32(16), b.u32(20)
	h.StatSN, h.ExpCmdSN, h.MaxCmdSN = b.u32(24), b.u32(28), b.u32(32)
	h.DataSN, h.BufferOffset, h.Residual = b.u32(36), b.u32(40), b.u32(44)
}

// R2T asks for a part of a write's data (RFC 7143 §11.8).
type R2T struct {
	LUN           uint64
	ITT           uint32
	TTT           uint32
	StatSN        uint32
	ExpCmdSN      uint32
	MaxCmdSN      uint32
	R2TSN         uint32
	BufferOffset  uint32
	DesiredLength uint32
}

// Op returns OpR2T.
func (*R2T) Op() Opcode { return OpR2T }

// Encode writes the header to b.
func (h *R2T) Encode(b *BHS) {
	b.start(OpR2T, false)
	b[1] = bitFinal
	b.putLUN(h.LUN)
	b.put32(16, h.ITT)
	b.put32(20, h.TTT)
	b.put32(24, h.StatSN)
	b.put32(28, h.ExpCmdSN)
	b.put32(32, h.MaxCmdSN)
	b.put32(36, h.R2TSN)
	b.put32(40, h.BufferOffset)
	b.put32(44, h.DesiredLength)
}

// Decode reads the header from b.
func (h *R2T) Decode(b *BHS) {
	h.LUN, h.ITT, h.TTT = b.LUN(), b.u32(16), b.u32(20)
	h.StatSN, h.ExpCmdSN, h.MaxCmdSN = b.u32(24), b.u32(28), b.u32(32)
	h.R2TSN, h.BufferOffset, h.DesiredLength = b.u32(36), b.u32(40), b.u32(44)
}

// SNACK types (RFC 7143 §11.16.1).
const (
	SNACKDataOrR2T uint8 = 0
	SNACKStatus    uint8 = 1
	SNACKDataACK   uint8 = 2
	SNACKRData     uint8 = 3
)

// SNACK asks for lost PDUs again; only at ErrorRecoveryLevel 1 and above (RFC 7143 §11.16).
type SNACK struct {
	Type      uint8
	LUN       uint64
	ITT       uint32
	TTT       uint32
	ExpStatSN uint32
	BegRun    uint32
	RunLength uint32
}

// Op returns OpSNACK.
func (*SNACK) Op() Opcode { return OpSNACK }

// Encode writes the header to b.
func (h *SNACK) Encode(b *BHS) {
	b.start(OpSNACK, false)
	b[1] = bitFinal | h.Type&0x0f
	b.putLUN(h.LUN)
	b.put32(16, h.ITT)
	b.put32(20, h.TTT)
	b.put32(28, h.ExpStatSN)
	b.put32(40, h.BegRun)
	b.put32(44, h.RunLength)
}

// Decode reads the header from b.
func (h *SNACK) Decode(b *BHS) {
	h.Type, h.LUN, h.ITT, h.TTT = b[1]&0x0f, b.LUN(), b.u32(16), b.u32(20)
	h.ExpStatSN, h.BegRun, h.RunLength = b.u32(28), b.u32(40), b.u32(44)
}
