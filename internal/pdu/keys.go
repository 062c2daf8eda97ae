package pdu

// Login and text keys (RFC 7143 §13 and §12.1).
const (
	KeyAuthMethod               = "AuthMethod"
	KeyCHAPAlgorithm            = "CHAP_A"
	KeyCHAPIdentifier           = "CHAP_I"
	KeyCHAPChallenge            = "CHAP_C"
	KeyCHAPName                 = "CHAP_N"
	KeyCHAPResponse             = "CHAP_R"
	KeyHeaderDigest             = "HeaderDigest"
	KeyDataDigest               = "DataDigest"
	KeyMaxConnections           = "MaxConnections"
	KeySendTargets              = "SendTargets"
	KeyTargetName               = "TargetName"
	KeyInitiatorName            = "InitiatorName"
	KeyTargetAlias              = "TargetAlias"
	KeyInitiatorAlias           = "InitiatorAlias"
	KeyTargetAddress            = "TargetAddress"
	KeyTargetPortalGroupTag     = "TargetPortalGroupTag"
	KeyInitialR2T               = "InitialR2T"
	KeyImmediateData            = "ImmediateData"
	KeyMaxRecvDataSegmentLength = "MaxRecvDataSegmentLength"
	KeyMaxBurstLength           = "MaxBurstLength"
	KeyFirstBurstLength         = "FirstBurstLength"
	KeyDefaultTime2Wait         = "DefaultTime2Wait"
	KeyDefaultTime2Retain       = "DefaultTime2Retain"
	KeyMaxOutstandingR2T        = "MaxOutstandingR2T"
	KeyDataPDUInOrder           = "DataPDUInOrder"
	KeyDataSequenceInOrder      = "DataSequenceInOrder"
	KeyErrorRecoveryLevel       = "ErrorRecoveryLevel"
	KeySessionType              = "SessionType"
	KeyTaskReporting            = "TaskReporting"
	KeyProtocolLevel            = "iSCSIProtocolLevel"
)

// Values of SessionType (RFC 7143 §13.21).
const (
	SessionNormal    = "Normal"
	SessionDiscovery = "Discovery"
)

// rule is how a key's outcome follows from the offer and the responder's own wish.
type rule uint8

const (
	ruleDeclare  rule = iota // stated by one side, not answered
	ruleSecurity             // belongs to authentication, which the caller conducts
	ruleMin                  // number, the smaller
	ruleMax                  // number, the larger
	ruleAnd                  // boolean, yes if both say yes
	ruleOr                   // boolean, yes if either says yes
	ruleList                 // the first of the offer that the responder supports
	ruleRecv                 // a number declared for one direction each
	ruleMarker               // obsolete boolean: always No
	ruleRefuse               // obsolete: always Reject
)

// side says who may send a key.
type side uint8

const (
	fromInitiator side = 1 << iota
	fromTarget
	fromBoth = fromInitiator | fromTarget
)

// spec is what RFC 7143 §13 says about one key.
type spec struct {
	rule     rule
	from     side
	min, max uint32
	initial  uint32
	// normal: means nothing in a discovery session, where it is answered Irrelevant.
	normal bool
}

// IsSecurityKey reports whether a key belongs to the authentication (RFC 7143 §12).
func IsSecurityKey(key string) bool {
	sp, known := specOf(key)
	return known && sp.rule == ruleSecurity
}

// specOf returns the specification of a key. Booleans are 0 and 1, digests too.
func specOf(key string) (spec, bool) {
	const max24 = MaxDataSegmentLength
	switch key {
	case KeyAuthMethod, KeyCHAPAlgorithm, KeyCHAPIdentifier, KeyCHAPChallenge, KeyCHAPName, KeyCHAPResponse:
		return spec{rule: ruleSecurity, from: fromBoth}, true
	case KeyInitiatorName, KeyInitiatorAlias, KeySessionType:
		return spec{rule: ruleDeclare, from: fromInitiator}, true
	case KeyTargetName:
		return spec{rule: ruleDeclare, from: fromBoth}, true
	case KeyTargetAlias, KeyTargetAddress, KeyTargetPortalGroupTag:
		return spec{rule: ruleDeclare, from: fromTarget}, true
	case KeyHeaderDigest, KeyDataDigest:
		return spec{rule: ruleList, from: fromBoth}, true
	case KeyTaskReporting:
		return spec{rule: ruleList, from: fromBoth, normal: true}, true
	case KeyMaxConnections:
		return spec{ruleMin, fromBoth, 1, 65535, 1, true}, true
	case KeyInitialR2T:
		return spec{ruleOr, fromBoth, 0, 1, 1, true}, true
	case KeyImmediateData:
		return spec{ruleAnd, fromBoth, 0, 1, 1, true}, true
	case KeyMaxRecvDataSegmentLength:
		return spec{ruleRecv, fromBoth, 512, max24, 8192, false}, true
	case KeyMaxBurstLength:
		return spec{ruleMin, fromBoth, 512, max24, 262144, true}, true
	case KeyFirstBurstLength:
		return spec{ruleMin, fromBoth, 512, max24, 65536, true}, true
	case KeyDefaultTime2Wait:
		return spec{ruleMax, fromBoth, 0, 3600, 2, false}, true
	case KeyDefaultTime2Retain:
		return spec{ruleMin, fromBoth, 0, 3600, 20, false}, true
	case KeyMaxOutstandingR2T:
		return spec{ruleMin, fromBoth, 1, 65535, 1, true}, true
	case KeyDataPDUInOrder, KeyDataSequenceInOrder:
		return spec{ruleOr, fromBoth, 0, 1, 1, true}, true
	case KeyErrorRecoveryLevel:
		return spec{ruleMin, fromBoth, 0, 2, 0, false}, true
	case KeyProtocolLevel:
		return spec{ruleMin, fromBoth, 0, 31, 1, false}, true
	case "OFMarker", "IFMarker": // RFC 7143 §13.25 allows No or Reject, not NotUnderstood
		return spec{rule: ruleMarker, from: fromBoth}, true
	case "OFMarkInt", "IFMarkInt", KeySendTargets: // SendTargets: in full feature phase only, where others answer it
		return spec{rule: ruleRefuse, from: fromBoth}, true
	}
	return spec{}, false
}
