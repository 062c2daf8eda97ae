package pdu

import "fmt"

// Stages of a login (RFC 7143 §11.12.3).
const (
	StageSecurity    uint8 = 0
	StageOperational uint8 = 1
	StageFullFeature uint8 = 3
)

// ISID is the initiator's part of a session id (RFC 7143 §11.12.5).
type ISID [6]byte

// String renders the ISID as 0x and twelve hexadecimal digits, as in a SCSI initiator port name.
func (i ISID) String() string { return fmt.Sprintf("0x%x", i[:]) }

// LoginStatus is a login response's Status-Class and Status-Detail as class<<8 | detail
// (RFC 7143 §11.13.5).
type LoginStatus uint16

// Login statuses.
const (
	LoginSuccess            LoginStatus = 0x0000
	LoginTargetMovedTemp    LoginStatus = 0x0101
	LoginTargetMoved        LoginStatus = 0x0102
	LoginInitiatorError     LoginStatus = 0x0200
	LoginAuthFailure        LoginStatus = 0x0201
	LoginForbidden          LoginStatus = 0x0202
	LoginNotFound           LoginStatus = 0x0203
	LoginTargetRemoved      LoginStatus = 0x0204
	LoginBadVersion         LoginStatus = 0x0205
	LoginTooManyConnections LoginStatus = 0x0206
	LoginMissingParameter   LoginStatus = 0x0207
	LoginNotIncludable      LoginStatus = 0x0208
	LoginBadSessionType     LoginStatus = 0x0209
	LoginNoSession          LoginStatus = 0x020a
	LoginInvalidRequest     LoginStatus = 0x020b
	LoginTargetError        LoginStatus = 0x0300
	LoginUnavailable        LoginStatus = 0x0301
	LoginOutOfResources     LoginStatus = 0x0302
)

// String says what the status means, with its number.
func (s LoginStatus) String() string {
	names := map[LoginStatus]string{
		LoginSuccess: "success", LoginTargetMovedTemp: "target moved temporarily", LoginTargetMoved: "target moved permanently",
		LoginInitiatorError: "initiator error", LoginAuthFailure: "authentication failure", LoginForbidden: "authorization failure",
		LoginNotFound: "target not found", LoginTargetRemoved: "target removed", LoginBadVersion: "unsupported version",
		LoginTooManyConnections: "too many connections", LoginMissingParameter: "missing parameter",
		LoginNotIncludable: "cannot include in session", LoginBadSessionType: "session type not supported",
		LoginNoSession: "session does not exist", LoginInvalidRequest: "invalid during login",
		LoginTargetError: "target error", LoginUnavailable: "service unavailable", LoginOutOfResources: "out of resources",
	}
	if n, ok := names[s]; ok {
		return fmt.Sprintf("%s (0x%04x)", n, uint16(s))
	}
	return fmt.Sprintf("login status 0x%04x", uint16(s))
}

// LoginRequest is one step of the initiator's login (RFC 7143 §11.12).
type LoginRequest struct {
	// Transit asks to go on from stage CSG to NSG; Continue says that the text goes on in the next PDU.
	Transit, Continue bool
	CSG, NSG          uint8
	VersionMax        uint8
	VersionMin        uint8
	ISID              ISID
	TSIH              uint16
	ITT               uint32
	CID               uint16
	CmdSN             uint32
	ExpStatSN         uint32
}

// Op returns OpLoginReq.
func (*LoginRequest) Op() Opcode { return OpLoginReq }

// Encode writes the header to b; a login request is always immediate.
func (h *LoginRequest) Encode(b *BHS) {
	b.start(OpLoginReq, true)
	encodeStages(b, h.Transit, h.Continue, h.CSG, h.NSG)
	b[2], b[3] = h.VersionMax, h.VersionMin
	copy(b[8:14], h.ISID[:])
	b.put16(14, h.TSIH)
	b.put32(16, h.ITT)
	b.put16(20, h.CID)
	b.put32(24, h.CmdSN)
	b.put32(28, h.ExpStatSN)
}

// Decode reads the header from b.
func (h *LoginRequest) Decode(b *BHS) {
	h.Transit, h.Continue = b.Final(), b.flag(1, bitContinue)
	h.CSG, h.NSG = b[1]>>2&3, b[1]&3
	h.VersionMax, h.VersionMin = b[2], b[3]
	copy(h.ISID[:], b[8:14])
	h.TSIH, h.ITT, h.CID = b.u16(14), b.u32(16), b.u16(20)
	h.CmdSN, h.ExpStatSN = b.u32(24), b.u32(28)
}

// LoginResponse is one step of the target's login (RFC 7143 §11.13).
type LoginResponse struct {
	Transit, Continue bool
	CSG, NSG          uint8
	VersionMax        uint8
	VersionActive     uint8
	ISID              ISID
	TSIH              uint16
	ITT               uint32
	StatSN            uint32
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	Status            LoginStatus
}

// Op returns OpLoginResp.
func (*LoginResponse) Op() Opcode { return OpLoginResp }

// Encode writes the header to b.
func (h *LoginResponse) Encode(b *BHS) {
	b.start(OpLoginResp, false)
	encodeStages(b, h.Transit, h.Continue, h.CSG, h.NSG)
	b[2], b[3] = h.VersionMax, h.VersionActive
	copy(b[8:14], h.ISID[:])
	b.put16(14, h.TSIH)
	b.put32(16, h.ITT)
	b.put32(24, h.StatSN)
	b.put32(28, h.ExpCmdSN)
	b.put32(32, h.MaxCmdSN)
	b.put16(36, uint16(h.Status))
}

// Decode reads the header from b.
func (h *LoginResponse) Decode(b *BHS) {
	h.Transit, h.Continue = b.Final(), b.flag(1, bitContinue)
	h.CSG, h.NSG = b[1]>>2&3, b[1]&3
	h.VersionMax, h.VersionActive = b[2], b[3]
	copy(h.ISID[:], b[8:14])
	h.TSIH, h.ITT = b.u16(14), b.u32(16)
	h.StatSN, h.ExpCmdSN, h.MaxCmdSN = b.u32(24), b.u32(28), b.u32(32)
	h.Status = LoginStatus(b.u16(36))
}

func encodeStages(b *BHS, transit, cont bool, csg, nsg uint8) {
	b.setIf(transit, 1, bitFinal)
	b.setIf(cont, 1, bitContinue)
	b[1] |= csg&3<<2 | nsg&3
}
