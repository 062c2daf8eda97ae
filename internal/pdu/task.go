package pdu

// Task management functions (RFC 7143 §11.5.1).
const (
	TaskAbort           uint8 = 1
	TaskAbortSet        uint8 = 2
	TaskClearACA        uint8 = 3
	TaskClearSet        uint8 = 4
	TaskLUReset         uint8 = 5
	TaskTargetWarmReset uint8 = 6
	TaskTargetColdReset uint8 = 7
	TaskReassign        uint8 = 8
)

// Task management responses (RFC 7143 §11.6.1).
const (
	TaskComplete         uint8 = 0
	TaskNotFound         uint8 = 1
	TaskNoLUN            uint8 = 2
	TaskStillAllegiant   uint8 = 3
	TaskNoReassign       uint8 = 4
	TaskUnsupported      uint8 = 5
	TaskNotAuthorized    uint8 = 6
	TaskFunctionRejected uint8 = 255
)

// TaskRequest asks for a task management function (RFC 7143 §11.5).
type TaskRequest struct {
	Immediate bool
	Function  uint8
	LUN       uint64
	ITT       uint32
	// RefTag is the ITT of the task to abort, NoTag for functions that name none.
	RefTag    uint32
	CmdSN     uint32
	ExpStatSN uint32
	RefCmdSN  uint32
	ExpDataSN uint32
}

// Op returns OpTaskRequest.
func (*TaskRequest) Op() Opcode { return OpTaskRequest }

// Encode writes the header to b.
func (h *TaskRequest) Encode(b *BHS) {
	b.start(OpTaskRequest, h.Immediate)
	b[1] = bitFinal | h.Function&0x7f
	b.putLUN(h.LUN)
	b.put32(16, h.ITT)
	b.put32(20, h.RefTag)
	b.put32(24, h.CmdSN)
	b.put32(28, h.ExpStatSN)
	b.put32(32, h.RefCmdSN)
	b.put32(36, h.ExpDataSN)
}

// Decode reads the header from b.
func (h *TaskRequest) Decode(b *BHS) {
	h.Immediate, h.Function = b.Immediate(), b[1]&0x7f
	h.LUN, h.ITT, h.RefTag = b.LUN(), b.u32(16), b.u32(20)
	h.CmdSN, h.ExpStatSN = b.u32(24), b.u32(28)
	h.RefCmdSN, h.ExpDataSN = b.u32(32), b.u32(36)
}

// TaskResponse answers a TaskRequest (RFC 7143 §11.6).
type TaskResponse struct {
	Response uint8
	ITT      uint32
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
}

// Op returns OpTaskResponse.
func (*TaskResponse) Op() Opcode { return OpTaskResponse }

// Encode writes the header to b.
func (h *TaskResponse) Encode(b *BHS) {
	b.start(OpTaskResponse, false)
	b[1], b[2] = bitFinal, h.Response
	b.put32(16, h.ITT)
	b.put32(24, h.StatSN)
	b.put32(28, h.ExpCmdSN)
	b.put32(32, h.MaxCmdSN)
}

// Decode reads the header from b.
func (h *TaskResponse) Decode(b *BHS) {
	h.Response, h.ITT, h.StatSN = b[2], b.u32(16), b.u32(24)
	h.ExpCmdSN, h.MaxCmdSN = b.u32(28), b.u32(32)
}
