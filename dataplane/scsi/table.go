package scsi

import (
	"slices"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// handler executes one kind of command. It gets its request by value, so that
// executing a command allocates none.
type handler func(lu *LU, r request) Result

// command is an entry of the table of supported commands. What is not in the table
// does not exist: INVALID COMMAND OPERATION CODE.
type command struct {
	op byte
	// action is the service action where hasAction.
	action    byte
	hasAction bool
	// usage is the CDB usage map that REPORT SUPPORTED OPERATION CODES shows (SPC-4
	// §6.35.3): a set bit is one that the device server looks at.
	usage string
	// duringAttention commands run while a unit attention waits (SAM-5 §5.14).
	duringAttention bool
	// access is what the command does to a logical unit that is reserved.
	access access
	// run executes the command; or block does, with its CDB decoded.
	run, block handler
	// now executes a block command that needs to wait for nothing; nil if it always may.
	now func(lu *LU, r *request) (res Result, ok bool)
}

// Usage maps by CDB layout. Byte 0 is the operation code, byte 1 and the rest as the
// layout goes; the control byte shows NACA.
const (
	usageRange6   = "\x1f\xff\xff\xff\x04"
	usageRange10  = "\xff\xff\xff\xff\x1f\xff\xff\x04"
	usageRange12  = "\xff\xff\xff\xff\xff\xff\xff\xff\x1f\x04"
	usageRange16  = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x1f\x04"
	usageCompare  = "\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\xff\x1f\x04"
	usageAtomic   = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x1f\x04"
	usageLength10 = "\x00\x00\x00\x00\x1f\xff\xff\x04"
)

// accessOf is c's access: START STOP UNIT is harmless when it starts (SBC-3 table 13).
func (c *command) accessOf(b []byte) access {
	if c.op == cdb.OpStartStopUnit && b[4]&0xf1 == 0x01 {
		return accessAlways
	}
	return c.access
}

// commandSet finds commands.
type commandSet struct {
	list []command
	// first is the index in list of an operation code's first entry plus 1.
	first [256]uint8
}

// find returns the entry for a CDB that is long enough, nil if there is none.
func (s *commandSet) find(c []byte) *command {
	return s.lookup(c[0], c[1]&0x1f)
}

func (s *commandSet) lookup(op, action byte) *command {
	at := int(s.first[op])
	if at == 0 {
		return nil
	}
	for i := at - 1; i < len(s.list) && s.list[i].op == op; i++ {
		if e := &s.list[i]; !e.hasAction || e.action == action {
			return e
		}
	}
	return nil
}

// newCommandSet builds the table. Entries of one operation code stand together.
func newCommandSet() *commandSet {
	s := &commandSet{list: slices.Concat(controlCommands(), reservationCommands(), blockCommands())}
	for i := len(s.list) - 1; i >= 0; i-- {
		s.first[s.list[i].op] = uint8(i + 1)
	}
	return s
}

// controlCommands are those that move no blocks.
func controlCommands() []command {
	return []command{
		{op: cdb.OpTestUnitReady, access: accessAlways, usage: "\x00\x00\x00\x00\x04", run: (*LU).testUnitReady},
		{op: cdb.OpRequestSense, access: accessFree, usage: "\x01\x00\x00\xff\x04", duringAttention: true, run: (*LU).requestSense},
		{op: cdb.OpInquiry, access: accessFree, usage: "\x01\xff\xff\xff\x04", duringAttention: true, run: (*LU).inquiry},
		{op: cdb.OpModeSelect6, usage: "\x11\x00\x00\xff\x04", run: (*LU).modeSelect},
		{op: cdb.OpModeSense6, access: accessReads, usage: "\x08\xff\xff\xff\x04", run: (*LU).modeSense},
		{op: cdb.OpStartStopUnit, usage: "\x01\x00\x00\xf7\x04", run: (*LU).startStop},
		{op: cdb.OpSendDiagnostic, usage: "\x04\x00\xff\xff\x04", run: (*LU).sendDiagnostic},
		{op: cdb.OpReadCapacity10, access: accessAlways, usage: "\x00\xff\xff\xff\xff\x00\x00\x01\x04", run: (*LU).readCapacity10},
		{op: cdb.OpUnmap, usage: "\x01" + usageLength10, run: (*LU).unmap},
		{op: cdb.OpReadDefectData10, access: accessReads, usage: "\x00\x1f\x00\x00\x00\x00\xff\xff\x04", run: (*LU).readDefectData},
		{op: cdb.OpReadDefectData12, access: accessReads, usage: "\x1f\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", run: (*LU).readDefectData},
		{op: cdb.OpModeSelect10, usage: "\x11\x00\x00\x00\x00\x00\xff\xff\x04", run: (*LU).modeSelect},
		{op: cdb.OpModeSense10, access: accessReads, usage: "\x08\xff\xff\x00\x00\x00\xff\xff\x04", run: (*LU).modeSense},
		{op: cdb.OpExtendedCopy, action: cdb.XCopyLID1, hasAction: true,
			usage: "\x1f\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", run: (*LU).extendedCopy},
		{op: cdb.OpReceiveCopyResults, action: cdb.RCRCopyStatus, hasAction: true,
			usage: "\x1f\xff\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", run: (*LU).receiveCopyStatus},
		{op: cdb.OpReceiveCopyResults, action: cdb.RCROperatingParameters, hasAction: true,
			usage: "\x1f\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", run: (*LU).receiveCopyParameters},
		{op: cdb.OpServiceActionIn16, action: cdb.SAIReadCapacity16, hasAction: true, access: accessAlways,
			usage: "\x1f\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", run: (*LU).readCapacity16},
		{op: cdb.OpServiceActionIn16, action: cdb.SAIGetLBAStatus, hasAction: true, access: accessReads,
			usage: "\x1f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", run: (*LU).getLBAStatus},
		{op: cdb.OpReportLUNs, access: accessFree, usage: "\x00\xff\x00\x00\x00\xff\xff\xff\xff\x00\x04", duringAttention: true, run: (*LU).reportLUNs},
		{op: cdb.OpMaintenanceIn, action: cdb.MIReportSupportedOpcodes, hasAction: true, access: accessAlways,
			usage: "\x1f\x87\xff\xff\xff\xff\xff\xff\xff\x00\x04", run: (*LU).reportOpcodes},
		{op: cdb.OpMaintenanceIn, action: cdb.MIReportSupportedTMF, hasAction: true, access: accessAlways,
			usage: "\x1f\x80\x00\x00\x00\xff\xff\xff\xff\x00\x04", run: (*LU).reportFunctions},
	}
}

// reservationCommands judge reservations themselves.
func reservationCommands() []command {
	list := []command{
		// RESERVE (6) meets the RESERVE (6) of others before its handler does; RELEASE (6) of a stranger is GOOD.
		{op: cdb.OpReserve6, usage: "\x1f\x00\x00\x00\x04", access: accessAlways, run: (*LU).reserve6},
		{op: cdb.OpRelease6, usage: "\x1f\x00\x00\x00\x04", access: accessFree, run: (*LU).release6},
	}
	for action := cdb.PRInReadKeys; action <= cdb.PRInReadFullStatus; action++ {
		list = append(list, command{op: cdb.OpPersistentReserveIn, action: action, hasAction: true,
			usage: "\x1f\x00\x00\x00\x00\x00\xff\xff\x04", access: accessAlways, run: (*LU).persistentReserveIn})
	}
	for action := cdb.PROutRegister; action <= cdb.PROutRegisterAndMove; action++ {
		list = append(list, command{op: cdb.OpPersistentReserveOut, action: action, hasAction: true,
			usage: "\x1f\xff\x00\x00\xff\xff\xff\xff\x04", access: accessAlways, run: (*LU).persistentReserveOut})
	}
	return list
}

// blockCommands are those with a range of blocks in their CDB.
func blockCommands() []command {
	return []command{
		{op: cdb.OpRead6, access: accessReads, usage: usageRange6, block: (*LU).read, now: (*LU).readNow},
		{op: cdb.OpWrite6, usage: usageRange6, block: (*LU).write, now: (*LU).writeNow},
		{op: cdb.OpRead10, access: accessReads, usage: "\xf8" + usageRange10, block: (*LU).read, now: (*LU).readNow},
		{op: cdb.OpWrite10, usage: "\xf8" + usageRange10, block: (*LU).write, now: (*LU).writeNow},
		{op: cdb.OpWriteAndVerify10, usage: "\xf6" + usageRange10, block: (*LU).writeAndVerify},
		{op: cdb.OpVerify10, access: accessReads, usage: "\xf6" + usageRange10, block: (*LU).verify},
		{op: cdb.OpPreFetch10, access: accessReads, usage: "\x02" + usageRange10, block: (*LU).preFetch},
		{op: cdb.OpSynchronizeCache10, usage: "\x02" + usageRange10, block: (*LU).synchronizeCache},
		{op: cdb.OpWriteSame10, usage: "\xfe" + usageRange10, block: (*LU).writeSame},
		{op: cdb.OpRead16, access: accessReads, usage: "\xf8" + usageRange16, block: (*LU).read, now: (*LU).readNow},
		{op: cdb.OpCompareAndWrite, usage: "\xf8" + usageCompare, block: (*LU).compareAndWrite},
		{op: cdb.OpWrite16, usage: "\xf8" + usageRange16, block: (*LU).write, now: (*LU).writeNow},
		{op: cdb.OpOrWrite16, usage: "\xf8" + usageRange16, block: (*LU).orWrite},
		{op: cdb.OpWriteAndVerify16, usage: "\xf6" + usageRange16, block: (*LU).writeAndVerify},
		{op: cdb.OpVerify16, access: accessReads, usage: "\xf6" + usageRange16, block: (*LU).verify},
		{op: cdb.OpPreFetch16, access: accessReads, usage: "\x02" + usageRange16, block: (*LU).preFetch},
		{op: cdb.OpSynchronizeCache16, usage: "\x02" + usageRange16, block: (*LU).synchronizeCache},
		{op: cdb.OpWriteSame16, usage: "\xff" + usageRange16, block: (*LU).writeSame},
		{op: cdb.OpWriteAtomic16, usage: "\xf8" + usageAtomic, block: (*LU).writeAtomic},
		{op: cdb.OpRead12, access: accessReads, usage: "\xf8" + usageRange12, block: (*LU).read, now: (*LU).readNow},
		{op: cdb.OpWrite12, usage: "\xf8" + usageRange12, block: (*LU).write, now: (*LU).writeNow},
		{op: cdb.OpWriteAndVerify12, usage: "\xf6" + usageRange12, block: (*LU).writeAndVerify},
		{op: cdb.OpVerify12, access: accessReads, usage: "\xf6" + usageRange12, block: (*LU).verify},
	}
}

// reportOpcodes is REPORT SUPPORTED OPERATION CODES (SPC-4 §6.35).
func (lu *LU) reportOpcodes(r request) Result {
	q, err := cdb.DecodeReportOpcodes(r.CDB)
	if err != nil {
		return decodeFailed(err)
	}
	allocation := int(q.Allocation)
	if q.Options == 0 {
		all := make([]cdb.CommandDescriptor, len(lu.commands.list))
		for i, c := range lu.commands.list {
			all[i] = cdb.CommandDescriptor{Op: c.op, HasServiceAction: c.hasAction,
				ServiceAction: uint16(c.action), Length: uint16(cdb.Length(c.op))}
		}
		return r.parameterData(cdb.AppendAllCommands(nil, all, q.Timeouts), allocation)
	}
	var action byte
	if q.ServiceAction <= 0x1f {
		action = byte(q.ServiceAction)
	}
	found := lu.commands.lookup(q.Op, action)
	// An operation code that has service actions must be asked for with one, and the
	// other way round; option 3 takes both.
	grouped := lu.commands.first[q.Op] != 0 && lu.commands.list[lu.commands.first[q.Op]-1].hasAction
	switch {
	case q.Options == 1 && grouped, q.Options == 2 && found != nil && !found.hasAction:
		return badCDB(2, 2)
	case q.ServiceAction > 0x1f, q.Options == 3 && found != nil && !found.hasAction && q.ServiceAction != 0:
		found = nil
	}
	var usage []byte
	if found != nil {
		usage = append([]byte{found.op}, found.usage...)
		if found.hasAction {
			usage[1] = found.action
		}
	}
	return r.parameterData(cdb.AppendOneCommand(nil, usage, q.Timeouts), allocation)
}

// reportFunctions is REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 §6.36): ABORT TASK, ABORT TASK SET,
// CLEAR TASK SET, LOGICAL UNIT RESET and TARGET RESET, which the transport carries out.
func (lu *LU) reportFunctions(r request) Result {
	allocation := cdb.Allocation(r.CDB)
	if allocation < 4 {
		return badCDB(6, -1)
	}
	data := []byte{0xda, 0, 0, 0}
	if r.CDB[2]&0x80 != 0 { // REPD: the extended data, with no timeouts stated
		data = append(data, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		data[3] = 12
	}
	return r.parameterData(data, allocation)
}
