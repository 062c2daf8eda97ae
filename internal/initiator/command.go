package initiator

import (
	"fmt"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// Command is one SCSI command for a logical unit. At most one of In and Out is set. Both
// belong to the session until Execute returns.
type Command struct {
	// LUN is the logical unit number, 0 to 16383.
	LUN uint64
	CDB cdb.CDB
	// In receives data; its length is the expected data transfer length of a read.
	In []byte
	// Out is data to send; its length is the expected data transfer length of a write.
	Out []byte
}

// Response is a target's answer to a command. Execute returns it for every SCSI status.
type Response struct {
	// Response is RFC 7143 §11.4.3's; any but pdu.ResponseCompleted leaves Status without meaning.
	Response uint8
	// Status is the SCSI status, cdb.StatusGood when all went well.
	Status uint8
	// Sense is the sense data of a CHECK CONDITION, at most 252 bytes, nil if there is none.
	Sense []byte
	// InBytes is how much of Command.In was filled, from its beginning.
	InBytes int
	// Residual counts the bytes by which what the command wanted to transfer exceeds
	// the buffer (Overflow) or falls short of it (Underflow).
	Residual            uint32
	Overflow, Underflow bool
}

// Err returns nil for GOOD, CONDITION MET and a recovered error, else a *SenseError or *StatusError in
// the kind that fits it. op names the command.
func (r *Response) Err(op string) error {
	switch {
	case r.Response != 0:
	case r.Status == cdb.StatusGood, r.Status == cdb.StatusConditionMet:
		return nil
	case r.Status == cdb.StatusCheckCondition:
		sense, err := cdb.ParseSense(r.Sense)
		if err != nil {
			sense = cdb.Sense{}
		}
		if sense.Key == cdb.KeyRecoveredError && !sense.Deferred {
			return nil // it was done, with some trouble
		}
		return withKind(&SenseError{Op: op, Sense: sense})
	}
	return withKind(&StatusError{Op: op, Response: r.Response, Status: r.Status})
}

// opName names a command for errors.
func opName(c *cdb.CDB) string {
	switch c[0] {
	case cdb.OpTestUnitReady:
		return "TEST UNIT READY"
	case cdb.OpRequestSense:
		return "REQUEST SENSE"
	case cdb.OpInquiry:
		return "INQUIRY"
	case cdb.OpRead10:
		return "READ(10)"
	case cdb.OpRead16:
		return "READ(16)"
	case cdb.OpWrite10:
		return "WRITE(10)"
	case cdb.OpWrite16:
		return "WRITE(16)"
	case cdb.OpSynchronizeCache10, cdb.OpSynchronizeCache16:
		return "SYNCHRONIZE CACHE"
	case cdb.OpUnmap:
		return "UNMAP"
	case cdb.OpWriteSame16:
		return "WRITE SAME(16)"
	case cdb.OpCompareAndWrite:
		return "COMPARE AND WRITE"
	case cdb.OpReportLUNs:
		return "REPORT LUNS"
	case cdb.OpServiceActionIn16:
		if c[1]&0x1f == cdb.SAIReadCapacity16 {
			return "READ CAPACITY(16)"
		}
	}
	return fmt.Sprintf("SCSI command %02Xh", c[0])
}

// harmless reports whether a command changes nothing on the medium, whatever becomes of it.
func harmless(c *cdb.CDB) bool {
	switch c[0] {
	case cdb.OpTestUnitReady, cdb.OpRequestSense, cdb.OpInquiry, cdb.OpModeSense6, cdb.OpModeSense10,
		cdb.OpReadCapacity10, cdb.OpRead6, cdb.OpRead10, cdb.OpRead12, cdb.OpRead16, cdb.OpVerify10, cdb.OpVerify12, cdb.OpVerify16,
		cdb.OpPreFetch10, cdb.OpPreFetch16, cdb.OpReportLUNs, cdb.OpMaintenanceIn, cdb.OpPersistentReserveIn,
		cdb.OpServiceActionIn16, cdb.OpSynchronizeCache10, cdb.OpSynchronizeCache16:
		return true
	}
	return false
}
