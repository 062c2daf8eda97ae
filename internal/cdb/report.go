package cdb

// Allocation reads the allocation length of a CDB that has one and no codec of its
// own, or the parameter list length of EXTENDED COPY, in bytes; 0 for others (SPC-4 §4.2.5.6).
func Allocation(c []byte) int {
	if needCDB(c) != nil {
		return 0
	}
	switch c[0] {
	case OpRequestSense:
		return int(c[4])
	case OpReportLUNs, OpMaintenanceIn:
		return int(be.Uint32(c[6:]))
	case OpServiceActionIn16, OpExtendedCopy, OpReceiveCopyResults:
		return int(be.Uint32(c[10:]))
	}
	return 0
}

// ReportLUNsRequest is a decoded REPORT LUNS CDB (SPC-4 §6.33.1).
type ReportLUNsRequest struct {
	// Select is SELECT REPORT: 0 addressable logical units, 1 well known ones, 2 all.
	Select     uint8
	Allocation uint32
}

// DecodeReportLUNs reads a REPORT LUNS CDB. An allocation length below 16 and a
// SELECT REPORT above 2 are refused.
func DecodeReportLUNs(c []byte) (ReportLUNsRequest, error) {
	if err := need("REPORT LUNS CDB", c, 12); err != nil {
		return ReportLUNsRequest{}, err
	}
	r := ReportLUNsRequest{Select: c[2], Allocation: be.Uint32(c[6:])}
	if r.Select > 2 {
		return r, badField(2, 7, "SELECT REPORT is not supported")
	}
	if r.Allocation < 16 {
		return r, badField(6, -1, "the allocation length is below 16")
	}
	return r, nil
}

// ReportOpcodesRequest is a decoded REPORT SUPPORTED OPERATION CODES CDB (SPC-4 §6.35.1).
type ReportOpcodesRequest struct {
	// Options is REPORTING OPTIONS: 0 all commands, 1 one operation code, 2 one with
	// service action, 3 either.
	Options       uint8
	Timeouts      bool
	Op            byte
	ServiceAction uint16
	Allocation    uint32
}

// DecodeReportOpcodes reads the CDB.
func DecodeReportOpcodes(c []byte) (ReportOpcodesRequest, error) {
	if err := need("REPORT SUPPORTED OPERATION CODES CDB", c, 12); err != nil {
		return ReportOpcodesRequest{}, err
	}
	r := ReportOpcodesRequest{Options: c[2] & 7, Timeouts: c[2]&0x80 != 0, Op: c[3],
		ServiceAction: be.Uint16(c[4:]), Allocation: be.Uint32(c[6:])}
	if r.Options > 3 {
		return r, badField(2, 2, "REPORTING OPTIONS is not supported")
	}
	return r, nil
}

// CommandDescriptor describes a command in the list of all commands (SPC-4 §6.35.2).
type CommandDescriptor struct {
	Op               byte
	HasServiceAction bool
	ServiceAction    uint16
	// Length of the CDB in bytes.
	Length uint16
}

// commandTimeouts is a timeouts descriptor that states no timeouts (SPC-4 §6.35.4).
var commandTimeouts = [12]byte{1: 0x0a}

// AppendAllCommands appends the answer for options 0.
func AppendAllCommands(dst []byte, commands []CommandDescriptor, timeouts bool) []byte {
	size := 8
	if timeouts {
		size += len(commandTimeouts)
	}
	dst = be.AppendUint32(dst, uint32(size*len(commands)))
	for _, c := range commands {
		dst = append(dst, c.Op, 0)
		dst = be.AppendUint16(dst, c.ServiceAction)
		dst = append(dst, 0, flag(timeouts, 2)|flag(c.HasServiceAction, 1))
		dst = be.AppendUint16(dst, c.Length)
		if timeouts {
			dst = append(dst, commandTimeouts[:]...)
		}
	}
	return dst
}

// AppendOneCommand appends the answer for options 1 to 3: usage is the CDB usage map,
// nil when the command is not supported (SPC-4 §6.35.3).
func AppendOneCommand(dst []byte, usage []byte, timeouts bool) []byte {
	support := byte(1)
	if usage != nil {
		support = 3
	}
	dst = append(dst, 0, support|flag(timeouts && usage != nil, 0x80))
	dst = be.AppendUint16(dst, uint16(len(usage)))
	dst = append(dst, usage...)
	if timeouts && usage != nil {
		dst = append(dst, commandTimeouts[:]...)
	}
	return dst
}

// LBAStatus describes a run of blocks in the same state (SBC-3 §5.4.2).
type LBAStatus struct {
	LBARange
	// State is 0 mapped, 1 deallocated, 2 anchored.
	State uint8
}

// AppendLBAStatus appends GET LBA STATUS data.
func AppendLBAStatus(dst []byte, runs []LBAStatus) []byte {
	dst = be.AppendUint32(dst, uint32(4+16*len(runs)))
	dst = append(dst, 0, 0, 0, 0)
	for _, r := range runs {
		dst = be.AppendUint64(dst, r.LBA)
		dst = be.AppendUint32(dst, r.Blocks)
		dst = append(dst, r.State&0x0f, 0, 0, 0)
	}
	return dst
}

// maxLBAStatus bounds what ParseLBAStatus reads.
const maxLBAStatus = 4096

// ParseLBAStatus reads GET LBA STATUS data, up to where it is cut off.
func ParseLBAStatus(b []byte) ([]LBAStatus, error) {
	if err := need("GET LBA STATUS data", b, 8); err != nil {
		return nil, err
	}
	// The length counts from after itself.
	total := min(uint64(len(b)), 4+uint64(be.Uint32(b)))
	var out []LBAStatus
	for d := b[8:max(8, total)]; len(d) >= 16 && len(out) < maxLBAStatus; d = d[16:] {
		out = append(out, LBAStatus{LBARange: LBARange{LBA: be.Uint64(d), Blocks: be.Uint32(d[8:])}, State: d[12] & 0x0f})
	}
	return out, nil
}

// ALUA access states (SPC-4 §5.15.2.4).
const (
	ALUAActiveOptimized    uint8 = 0x0
	ALUAActiveNonOptimized uint8 = 0x1
	ALUAStandby            uint8 = 0x2
	ALUAUnavailable        uint8 = 0x3
	ALUALBADependent       uint8 = 0x4
	ALUAOffline            uint8 = 0xe
	ALUATransitioning      uint8 = 0xf
)

// TargetPortGroup is one group of REPORT TARGET PORT GROUPS (SPC-4 §6.37).
type TargetPortGroup struct {
	Preferred bool
	State     uint8
	// Supported is the byte of supported states, AO_SUP and its like.
	Supported uint8
	Group     uint16
	// Ports are relative target port identifiers, at most 255.
	Ports []uint16
}

// AppendTargetPortGroups appends length-only-header data of groups.
func AppendTargetPortGroups(dst []byte, groups []TargetPortGroup) []byte {
	size := 0
	for _, g := range groups {
		size += 8 + 4*min(len(g.Ports), 255)
	}
	dst = be.AppendUint32(dst, uint32(size))
	for _, g := range groups {
		ports := g.Ports[:min(len(g.Ports), 255)]
		dst = append(dst, flag(g.Preferred, 0x80)|g.State&0x0f, g.Supported)
		dst = be.AppendUint16(dst, g.Group)
		dst = append(dst, 0, 0, 0, byte(len(ports)))
		for _, p := range ports {
			dst = append(dst, 0, 0)
			dst = be.AppendUint16(dst, p)
		}
	}
	return dst
}

// maxPortGroups bounds what ParseTargetPortGroups reads.
const maxPortGroups = 256

// ParseTargetPortGroups reads the data, up to where it is cut off.
func ParseTargetPortGroups(b []byte) ([]TargetPortGroup, error) {
	if err := need("REPORT TARGET PORT GROUPS data", b, 4); err != nil {
		return nil, err
	}
	total := min(uint64(len(b)), 4+uint64(be.Uint32(b)))
	var out []TargetPortGroup
	for d := b[4:total]; len(d) >= 8 && len(out) < maxPortGroups; {
		n := 8 + 4*int(d[7])
		if len(d) < n {
			break
		}
		g := TargetPortGroup{Preferred: d[0]&0x80 != 0, State: d[0] & 0x0f, Supported: d[1], Group: be.Uint16(d[2:])}
		for p := d[8:n]; len(p) > 0; p = p[4:] {
			g.Ports = append(g.Ports, be.Uint16(p[2:]))
		}
		out, d = append(out, g), d[n:]
	}
	return out, nil
}

// StartStop is a decoded START STOP UNIT CDB (SBC-3 §5.25).
type StartStop struct {
	Immed, NoFlush, LoadEject, Start bool
	PowerCondition                   uint8
}

// DecodeStartStop reads the CDB.
func DecodeStartStop(c []byte) (StartStop, error) {
	if err := need("START STOP UNIT CDB", c, 6); err != nil {
		return StartStop{}, err
	}
	return StartStop{Immed: c[1]&1 != 0, NoFlush: c[4]&4 != 0, LoadEject: c[4]&2 != 0, Start: c[4]&1 != 0,
		PowerCondition: c[4] >> 4}, nil
}
