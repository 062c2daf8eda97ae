package cdb

import "fmt"

// ASC is an additional sense code and its qualifier, ASC<<8 | ASCQ (SPC-4 §4.5.2.1,
// assigned in its table 49 and annex D.3).
type ASC uint16

// Additional sense codes that Sandbar sends or acts upon.
const (
	ASCNone                         ASC = 0x0000
	ASCNotReadyCauseNotReportable   ASC = 0x0400
	ASCBecomingReady                ASC = 0x0401
	ASCManualInterventionRequired   ASC = 0x0403
	ASCAsymmetricStateTransition    ASC = 0x040a
	ASCPortStandby                  ASC = 0x040b
	ASCPortUnavailable              ASC = 0x040c
	ASCWriteError                   ASC = 0x0c00
	ASCWriteErrorAutoReallocFailed  ASC = 0x0c02
	ASCUnexpectedUnsolicitedData    ASC = 0x0c0c
	ASCNotEnoughUnsolicitedData     ASC = 0x0c0d
	ASCUnrecoveredReadError         ASC = 0x1100
	ASCParameterListLength          ASC = 0x1a00
	ASCMiscompareDuringVerify       ASC = 0x1d00
	ASCOperationInProgress          ASC = 0x0016
	ASCUnreachableCopyTarget        ASC = 0x0804
	ASCThirdPartyDeviceFailure      ASC = 0x0d01
	ASCCopyTargetNotReachable       ASC = 0x0d02
	ASCIncorrectCopyTargetType      ASC = 0x0d03
	ASCInvalidOpcode                ASC = 0x2000
	ASCLBAOutOfRange                ASC = 0x2100
	ASCInvalidFieldInCDB            ASC = 0x2400
	ASCLUNNotSupported              ASC = 0x2500
	ASCInvalidFieldInParameterList  ASC = 0x2600
	ASCParameterNotSupported        ASC = 0x2601
	ASCParameterValueInvalid        ASC = 0x2602
	ASCInvalidReleaseOfReservation  ASC = 0x2604
	ASCTooManyTargetDescriptors     ASC = 0x2606
	ASCUnsupportedTargetDescriptor  ASC = 0x2607
	ASCTooManySegmentDescriptors    ASC = 0x2608
	ASCUnsupportedSegmentDescriptor ASC = 0x2609
	ASCWriteProtected               ASC = 0x2700
	ASCSpaceAllocationFailed        ASC = 0x2707
	ASCPowerOnOrReset               ASC = 0x2900
	ASCPowerOn                      ASC = 0x2901
	ASCBusReset                     ASC = 0x2902
	ASCDeviceReset                  ASC = 0x2903
	ASCInternalReset                ASC = 0x2904
	ASCNexusLoss                    ASC = 0x2907
	ASCParametersChanged            ASC = 0x2a00
	ASCModeParametersChanged        ASC = 0x2a01
	ASCReservationsPreempted        ASC = 0x2a03
	ASCReservationsReleased         ASC = 0x2a04
	ASCRegistrationsPreempted       ASC = 0x2a05
	ASCAsymmetricStateChanged       ASC = 0x2a06
	ASCCapacityChanged              ASC = 0x2a09
	ASCCommandSequence              ASC = 0x2c00
	ASCPreviousReservationConflict  ASC = 0x2c09
	ASCCommandsClearedByAnother     ASC = 0x2f00
	ASCCommandsClearedByServer      ASC = 0x2f02
	ASCThinSoftThreshold            ASC = 0x3807
	ASCSavingParametersNotSupported ASC = 0x3900
	ASCMediumNotPresent             ASC = 0x3a00
	ASCInquiryDataChanged           ASC = 0x3f03
	ASCReportedLUNsChanged          ASC = 0x3f0e
	ASCInternalTargetFailure        ASC = 0x4400
	ASCInvalidMessage               ASC = 0x4900
	ASCDataPhaseError               ASC = 0x4b00
	ASCInsufficientResources        ASC = 0x5503
	ASCInsufficientRegistrations    ASC = 0x5504
)

var ascNames = map[ASC]string{
	ASCNone:                         "NO ADDITIONAL SENSE INFORMATION",
	ASCNotReadyCauseNotReportable:   "LOGICAL UNIT NOT READY, CAUSE NOT REPORTABLE",
	ASCBecomingReady:                "LOGICAL UNIT IS IN PROCESS OF BECOMING READY",
	ASCManualInterventionRequired:   "LOGICAL UNIT NOT READY, MANUAL INTERVENTION REQUIRED",
	ASCAsymmetricStateTransition:    "LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION",
	ASCPortStandby:                  "LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE",
	ASCPortUnavailable:              "LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE",
	ASCWriteError:                   "WRITE ERROR",
	ASCWriteErrorAutoReallocFailed:  "WRITE ERROR - AUTO REALLOCATION FAILED",
	ASCUnexpectedUnsolicitedData:    "WRITE ERROR - UNEXPECTED UNSOLICITED DATA",
	ASCNotEnoughUnsolicitedData:     "WRITE ERROR - NOT ENOUGH UNSOLICITED DATA",
	ASCUnrecoveredReadError:         "UNRECOVERED READ ERROR",
	ASCParameterListLength:          "PARAMETER LIST LENGTH ERROR",
	ASCMiscompareDuringVerify:       "MISCOMPARE DURING VERIFY OPERATION",
	ASCInvalidOpcode:                "INVALID COMMAND OPERATION CODE",
	ASCLBAOutOfRange:                "LOGICAL BLOCK ADDRESS OUT OF RANGE",
	ASCInvalidFieldInCDB:            "INVALID FIELD IN CDB",
	ASCLUNNotSupported:              "LOGICAL UNIT NOT SUPPORTED",
	ASCInvalidFieldInParameterList:  "INVALID FIELD IN PARAMETER LIST",
	ASCParameterNotSupported:        "PARAMETER NOT SUPPORTED",
	ASCParameterValueInvalid:        "PARAMETER VALUE INVALID",
	ASCInvalidReleaseOfReservation:  "INVALID RELEASE OF PERSISTENT RESERVATION",
	ASCTooManyTargetDescriptors:     "TOO MANY TARGET DESCRIPTORS",
	ASCUnsupportedTargetDescriptor:  "UNSUPPORTED TARGET DESCRIPTOR TYPE CODE",
	ASCUnsupportedSegmentDescriptor: "UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE",
	ASCOperationInProgress:          "OPERATION IN PROGRESS",
	ASCUnreachableCopyTarget:        "UNREACHABLE COPY TARGET",
	ASCThirdPartyDeviceFailure:      "THIRD PARTY DEVICE FAILURE",
	ASCCopyTargetNotReachable:       "COPY TARGET DEVICE NOT REACHABLE",
	ASCIncorrectCopyTargetType:      "INCORRECT COPY TARGET DEVICE TYPE",
	ASCTooManySegmentDescriptors:    "TOO MANY SEGMENT DESCRIPTORS",
	ASCWriteProtected:               "WRITE PROTECTED",
	ASCSpaceAllocationFailed:        "SPACE ALLOCATION FAILED WRITE PROTECT",
	ASCPowerOnOrReset:               "POWER ON, RESET, OR BUS DEVICE RESET OCCURRED",
	ASCPowerOn:                      "POWER ON OCCURRED",
	ASCBusReset:                     "SCSI BUS RESET OCCURRED",
	ASCDeviceReset:                  "BUS DEVICE RESET FUNCTION OCCURRED",
	ASCInternalReset:                "DEVICE INTERNAL RESET",
	ASCNexusLoss:                    "I_T NEXUS LOSS OCCURRED",
	ASCParametersChanged:            "PARAMETERS CHANGED",
	ASCModeParametersChanged:        "MODE PARAMETERS CHANGED",
	ASCReservationsPreempted:        "RESERVATIONS PREEMPTED",
	ASCReservationsReleased:         "RESERVATIONS RELEASED",
	ASCRegistrationsPreempted:       "REGISTRATIONS PREEMPTED",
	ASCAsymmetricStateChanged:       "ASYMMETRIC ACCESS STATE CHANGED",
	ASCCapacityChanged:              "CAPACITY DATA HAS CHANGED",
	ASCCommandSequence:              "COMMAND SEQUENCE ERROR",
	ASCPreviousReservationConflict:  "PREVIOUS RESERVATION CONFLICT STATUS",
	ASCCommandsClearedByAnother:     "COMMANDS CLEARED BY ANOTHER INITIATOR",
	ASCCommandsClearedByServer:      "COMMANDS CLEARED BY DEVICE SERVER",
	ASCThinSoftThreshold:            "THIN PROVISIONING SOFT THRESHOLD REACHED",
	ASCSavingParametersNotSupported: "SAVING PARAMETERS NOT SUPPORTED",
	ASCMediumNotPresent:             "MEDIUM NOT PRESENT",
	ASCInquiryDataChanged:           "INQUIRY DATA HAS CHANGED",
	ASCReportedLUNsChanged:          "REPORTED LUNS DATA HAS CHANGED",
	ASCInternalTargetFailure:        "INTERNAL TARGET FAILURE",
	ASCInvalidMessage:               "INVALID MESSAGE ERROR",
	ASCDataPhaseError:               "DATA PHASE ERROR",
	ASCInsufficientResources:        "INSUFFICIENT RESOURCES",
	ASCInsufficientRegistrations:    "INSUFFICIENT REGISTRATION RESOURCES",
}

// String names the code as SPC-4 does, or gives its numbers.
func (a ASC) String() string {
	if n, ok := ascNames[a]; ok {
		return n
	}
	return fmt.Sprintf("ASC %02Xh ASCQ %02Xh", uint8(a>>8), uint8(a))
}
