package cdb

import "fmt"

// Operation codes (SPC-4 table D.2, SBC-3 table 33).
const (
	OpTestUnitReady        byte = 0x00 // SPC-4 §6.47
	OpRequestSense         byte = 0x03 // SPC-4 §6.39
	OpRead6                byte = 0x08 // SBC-3 §5.10
	OpWrite6               byte = 0x0a // SBC-3 §5.31
	OpInquiry              byte = 0x12 // SPC-4 §6.6
	OpModeSelect6          byte = 0x15 // SPC-4 §6.9
	OpReserve6             byte = 0x16 // SPC-2 §7.21
	OpRelease6             byte = 0x17 // SPC-2 §7.16
	OpModeSense6           byte = 0x1a // SPC-4 §6.11
	OpStartStopUnit        byte = 0x1b // SBC-3 §5.25
	OpReceiveDiagnostic    byte = 0x1c // SPC-4 §6.32
	OpSendDiagnostic       byte = 0x1d // SPC-4 §6.42
	OpPreventAllowRemoval  byte = 0x1e // SBC-3 §5.9
	OpReadCapacity10       byte = 0x25 // SBC-3 §5.15
	OpRead10               byte = 0x28 // SBC-3 §5.11
	OpWrite10              byte = 0x2a // SBC-3 §5.32
	OpWriteAndVerify10     byte = 0x2e // SBC-3 §5.36
	OpVerify10             byte = 0x2f // SBC-3 §5.27
	OpPreFetch10           byte = 0x34 // SBC-3 §5.7
	OpSynchronizeCache10   byte = 0x35 // SBC-3 §5.22
	OpReadDefectData10     byte = 0x37 // SBC-3 §5.17
	OpWriteBuffer          byte = 0x3b // SPC-4 §6.49
	OpReadBuffer           byte = 0x3c // SPC-4 §6.18
	OpWriteSame10          byte = 0x41 // SBC-3 §5.41
	OpUnmap                byte = 0x42 // SBC-3 §5.26
	OpSanitize             byte = 0x48 // SBC-3 §5.24
	OpLogSense             byte = 0x4d // SPC-4 §6.8
	OpModeSelect10         byte = 0x55 // SPC-4 §6.10
	OpModeSense10          byte = 0x5a // SPC-4 §6.12
	OpPersistentReserveIn  byte = 0x5e // SPC-4 §6.15
	OpPersistentReserveOut byte = 0x5f // SPC-4 §6.16
	OpExtendedCopy         byte = 0x83 // SPC-4 §6.4
	OpReceiveCopyResults   byte = 0x84 // SPC-4 §6.20
	OpRead16               byte = 0x88 // SBC-3 §5.13
	OpCompareAndWrite      byte = 0x89 // SBC-3 §5.2
	OpWrite16              byte = 0x8a // SBC-3 §5.34
	OpOrWrite16            byte = 0x8b // SBC-3 §5.5
	OpWriteAndVerify16     byte = 0x8e // SBC-3 §5.38
	OpVerify16             byte = 0x8f // SBC-3 §5.29
	OpPreFetch16           byte = 0x90 // SBC-3 §5.8
	OpSynchronizeCache16   byte = 0x91 // SBC-3 §5.23
	OpWriteSame16          byte = 0x93 // SBC-3 §5.42
	OpWriteAtomic16        byte = 0x9c // SBC-4 §5.48
	OpServiceActionIn16    byte = 0x9e // SPC-4 table D.2; see the SAI constants
	OpReportLUNs           byte = 0xa0 // SPC-4 §6.33
	OpMaintenanceIn        byte = 0xa3 // SPC-4 table D.2; see the MI constants
	OpMaintenanceOut       byte = 0xa4 // SPC-4 table D.2
	OpRead12               byte = 0xa8 // SBC-3 §5.12
	OpWrite12              byte = 0xaa // SBC-3 §5.33
	OpWriteAndVerify12     byte = 0xae // SBC-3 §5.37
	OpVerify12             byte = 0xaf // SBC-3 §5.28
	OpReadDefectData12     byte = 0xb7 // SBC-3 §5.18
)

// Service actions of SERVICE ACTION IN (16) and MAINTENANCE IN.
const (
	SAIReadCapacity16 byte = 0x10 // SBC-3 §5.16
	SAIGetLBAStatus   byte = 0x12 // SBC-3 §5.4

	MIReportTargetPortGroups byte = 0x0a // SPC-4 §6.37
	MIReportSupportedOpcodes byte = 0x0c // SPC-4 §6.35
	MIReportSupportedTMF     byte = 0x0d // SPC-4 §6.36
)

// Status codes (SAM-5 §5.3.1).
const (
	StatusGood                byte = 0x00
	StatusCheckCondition      byte = 0x02
	StatusConditionMet        byte = 0x04
	StatusBusy                byte = 0x08
	StatusReservationConflict byte = 0x18
	StatusTaskSetFull         byte = 0x28
	StatusACAActive           byte = 0x30
	StatusTaskAborted         byte = 0x40
)

// StatusName names a status code as SAM-5 does.
func StatusName(status byte) string {
	switch status {
	case StatusGood:
		return "GOOD"
	case StatusCheckCondition:
		return "CHECK CONDITION"
	case StatusConditionMet:
		return "CONDITION MET"
	case StatusBusy:
		return "BUSY"
	case StatusReservationConflict:
		return "RESERVATION CONFLICT"
	case StatusTaskSetFull:
		return "TASK SET FULL"
	case StatusACAActive:
		return "ACA ACTIVE"
	case StatusTaskAborted:
		return "TASK ABORTED"
	}
	return fmt.Sprintf("status %02Xh", status)
}
