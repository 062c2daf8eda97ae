package pdu

import (
	"fmt"
	"strconv"
	"strings"
)

// Role is a side of a connection.
type Role uint8

// The two sides.
const (
	Initiator Role = iota + 1
	Target
)

// DigestChoice is what a side wants of a digest.
type DigestChoice uint8

// Digest choices, from never to always.
const (
	// DigestNever supports only None.
	DigestNever DigestChoice = iota
	// DigestAllow prefers None and takes CRC32C.
	DigestAllow
	// DigestPrefer prefers CRC32C and takes None.
	DigestPrefer
	// DigestRequire takes only CRC32C.
	DigestRequire
)

const digestCRC32C = "CRC32C"

func (c DigestChoice) list() []string {
	switch c {
	case DigestAllow:
		return []string{AnswerNone, digestCRC32C}
	case DigestPrefer:
		return []string{digestCRC32C, AnswerNone}
	case DigestRequire:
		return []string{digestCRC32C}
	}
	return []string{AnswerNone}
}

// Wishes is what one side would like of the keys that are negotiated. Lengths are in
// bytes, times in seconds. DefaultWishes gives the RFC's defaults to start from.
type Wishes struct {
	HeaderDigest, DataDigest  DigestChoice
	InitialR2T, ImmediateData bool
	MaxConnections            uint32
	// MaxRecvDataSegmentLength is the bound that this side declares for what it receives.
	MaxRecvDataSegmentLength uint32
	MaxBurstLength           uint32
	FirstBurstLength         uint32
	DefaultTime2Wait         uint32
	DefaultTime2Retain       uint32
	MaxOutstandingR2T        uint32
	DataPDUInOrder           bool
	DataSequenceInOrder      bool
	ErrorRecoveryLevel       uint32
}

// DefaultWishes returns the values that hold without negotiation (RFC 7143 §13).
func DefaultWishes() Wishes {
	return Wishes{
		InitialR2T: true, ImmediateData: true, MaxConnections: 1, MaxRecvDataSegmentLength: 8192,
		MaxBurstLength: 262144, FirstBurstLength: 65536, DefaultTime2Wait: 2, DefaultTime2Retain: 20,
		MaxOutstandingR2T: 1, DataPDUInOrder: true, DataSequenceInOrder: true,
	}
}

// Params is the outcome of a negotiation. Lengths are in bytes, times in seconds.
type Params struct {
	HeaderDigest, DataDigest  bool
	InitialR2T, ImmediateData bool
	MaxConnections            uint32
	// MaxRecvDataSegmentLength bounds what this side receives, MaxSendDataSegmentLength what
	// it sends (the peer's declaration).
	MaxRecvDataSegmentLength uint32
	MaxSendDataSegmentLength uint32
	MaxBurstLength           uint32
	// FirstBurstLength is never above MaxBurstLength.
	FirstBurstLength    uint32
	DefaultTime2Wait    uint32
	DefaultTime2Retain  uint32
	MaxOutstandingR2T   uint32
	DataPDUInOrder      bool
	DataSequenceInOrder bool
	ErrorRecoveryLevel  uint32
}

// NegotiationError is a peer's breach of the negotiation's rules; it ends a login.
type NegotiationError struct{ Key, Value, Reason string }

// Error names the key, the value and the breach.
func (e *NegotiationError) Error() string {
	return fmt.Sprintf("pdu: %s=%.80s: %s", e.Key, e.Value, e.Reason)
}

// Negotiator conducts one side of one login's negotiation (RFC 7143 §6.2). The initiator
// sends Offer and feeds the answers to Receive; the target feeds what it gets to Receive, sends
// the answers, and adds its own Offer (its MaxRecvDataSegmentLength) once. Either side may
// originate any key. It is not safe for concurrent use.
type Negotiator struct {
	role      Role
	wishes    Wishes
	discovery bool
	values    map[string]uint32
	received  map[string]bool
	pending   map[string]uint32 // offered, not yet answered; the number offered
	declared  map[string]string
	peerRecv  uint32
	ownRecv   uint32
}

// NewNegotiator starts a negotiation for one side.
func NewNegotiator(role Role, w Wishes) *Negotiator {
	return &Negotiator{
		role: role, wishes: w, values: map[string]uint32{}, received: map[string]bool{},
		pending: map[string]uint32{}, declared: map[string]string{}, peerRecv: 8192, ownRecv: 8192,
	}
}

// SetDiscovery tells that the session is for discovery: keys that mean nothing there are
// neither offered nor accepted (they are answered Irrelevant).
func (n *Negotiator) SetDiscovery(on bool) { n.discovery = on }

// Declared returns the value of a key that the peer declared (InitiatorName, TargetName, …).
func (n *Negotiator) Declared(key string) (string, bool) {
	v, ok := n.declared[key]
	return v, ok
}

// Pending reports whether a key offered is still without an answer.
func (n *Negotiator) Pending() bool { return len(n.pending) > 0 }

// offered is the order in which an initiator offers its keys.
func offered() []string {
	return []string{
		KeyHeaderDigest, KeyDataDigest, KeyInitialR2T, KeyImmediateData, KeyMaxBurstLength, KeyFirstBurstLength,
		KeyMaxOutstandingR2T, KeyMaxConnections, KeyDataPDUInOrder, KeyDataSequenceInOrder,
		KeyDefaultTime2Wait, KeyDefaultTime2Retain, KeyErrorRecoveryLevel,
	}
}

// Offer returns the keys that this side originates and expects answers to: an initiator's all, a target's
// MaxRecvDataSegmentLength only, since a target that answers gets its say anyway. Call it once.
func (n *Negotiator) Offer() []KeyValue {
	var list []KeyValue
	if n.role == Initiator {
		for _, key := range offered() {
			sp, _ := specOf(key)
			if n.discovery && sp.normal {
				continue
			}
			v := n.wish(key)
			n.pending[key] = v
			list = append(list, KeyValue{key, n.format(key, sp, v)})
		}
	}
	n.ownRecv = n.wishes.MaxRecvDataSegmentLength
	return append(list, KeyValue{KeyMaxRecvDataSegmentLength, strconv.FormatUint(uint64(n.ownRecv), 10)})
}

func (n *Negotiator) format(key string, sp spec, v uint32) string {
	switch sp.rule {
	case ruleAnd, ruleOr:
		return yesNo(v == 1)
	case ruleList:
		return strings.Join(n.supported(key), ",")
	}
	return strconv.FormatUint(uint64(v), 10)
}

// Receive takes the peer's pairs, in order, and returns the answers to send back.
// Authentication's keys are skipped: the caller conducts them. The error is a *NegotiationError.
func (n *Negotiator) Receive(list []KeyValue) ([]KeyValue, error) {
	var answers []KeyValue
	for _, kv := range list {
		answer, err := n.receive(kv.Key, kv.Value)
		if err != nil {
			return nil, err
		}
		if answer != "" {
			answers = append(answers, KeyValue{kv.Key, answer})
		}
	}
	return answers, nil
}

func (n *Negotiator) receive(key, value string) (answer string, err error) {
	sp, known := specOf(key)
	if known && sp.rule == ruleSecurity {
		return "", nil
	}
	if was, again := n.declared[key]; again && was == value {
		return "", nil // some initiators name themselves again in each stage
	}
	if n.received[key] {
		return "", &NegotiationError{key, value, "given a second time in one negotiation"}
	}
	if len(n.received) >= MaxKeys {
		return "", &NegotiationError{key, value, "too many keys in one login"}
	}
	n.received[key] = true
	if !known {
		if value == AnswerNotUnderstood || value == AnswerReject || value == AnswerIrrelevant {
			return "", nil // an answer is never answered
		}
		return AnswerNotUnderstood, nil
	}
	peer := fromInitiator
	if n.role == Initiator {
		peer = fromTarget
	}
	if sp.from&peer == 0 {
		return "", &NegotiationError{key, value, "not a key of that side"}
	}
	if was, ok := n.pending[key]; ok {
		delete(n.pending, key)
		return "", n.accept(key, value, sp, was)
	}
	if n.discovery && sp.normal {
		return AnswerIrrelevant, nil
	}
	return n.respond(key, value, sp)
}

// respond answers a key that the peer originated.
func (n *Negotiator) respond(key, value string, sp spec) (string, error) {
	switch sp.rule {
	case ruleDeclare:
		if len(value) == 0 || len(value) > maxSimpleValue {
			return "", &NegotiationError{key, value, "empty, or of more than 255 bytes"}
		}
		n.declared[key] = value
		return "", nil
	case ruleMarker:
		return AnswerNo, nil
	case ruleRefuse:
		return AnswerReject, nil
	case ruleList:
		return n.choose(key, value), nil
	}
	v, ok := parseValue(value, sp)
	if !ok {
		if sp.rule == ruleRecv {
			return "", &NegotiationError{key, value, "out of range"}
		}
		return AnswerReject, nil
	}
	own := n.wish(key)
	switch sp.rule {
	case ruleRecv:
		n.peerRecv = v
		return "", nil
	case ruleMin, ruleAnd:
		v = min(v, own)
	case ruleMax, ruleOr:
		v = max(v, own)
	}
	if most, ok := n.values[KeyMaxBurstLength]; ok && key == KeyFirstBurstLength {
		v = min(v, most)
	}
	n.values[key] = v
	return n.format(key, sp, v), nil
}

// choose answers a list with its first member that this side supports.
func (n *Negotiator) choose(key, value string) string {
	for i, v := range strings.Split(value, ",") {
		if i == 16 {
			break
		}
		for _, own := range n.supported(key) {
			if v == own {
				n.values[key] = digestValue(v)
				return v
			}
		}
	}
	return AnswerReject
}

// accept judges the answer to a key that this side originated, having said was.
func (n *Negotiator) accept(key, value string, sp spec, was uint32) error {
	switch value {
	case AnswerNotUnderstood, AnswerIrrelevant:
		return nil // the RFC's default holds
	case AnswerReject:
		return &NegotiationError{key, value, "the peer refuses every value offered"}
	}
	if sp.rule == ruleList {
		for _, own := range n.supported(key) {
			if own == value {
				n.values[key] = digestValue(value)
				return nil
			}
		}
		return &NegotiationError{key, value, "not among the values offered"}
	}
	v, ok := parseValue(value, sp)
	switch {
	case !ok:
		return &NegotiationError{key, value, "out of range"}
	case (sp.rule == ruleMin || sp.rule == ruleAnd) && v > was, (sp.rule == ruleMax || sp.rule == ruleOr) && v < was:
		return &NegotiationError{key, value, fmt.Sprintf("not a lawful answer to %s", n.format(key, sp, was))}
	}
	n.values[key] = v
	return nil
}

// Params returns the outcome; keys that nobody brought up have the RFC's defaults.
func (n *Negotiator) Params() Params {
	v := func(key string) uint32 {
		if x, ok := n.values[key]; ok {
			return x
		}
		sp, _ := specOf(key)
		return sp.initial
	}
	return Params{
		HeaderDigest: v(KeyHeaderDigest) == 1, DataDigest: v(KeyDataDigest) == 1,
		InitialR2T: v(KeyInitialR2T) == 1, ImmediateData: v(KeyImmediateData) == 1,
		MaxConnections:           v(KeyMaxConnections),
		MaxRecvDataSegmentLength: n.ownRecv, MaxSendDataSegmentLength: n.peerRecv,
		MaxBurstLength: v(KeyMaxBurstLength), FirstBurstLength: min(v(KeyFirstBurstLength), v(KeyMaxBurstLength)),
		DefaultTime2Wait: v(KeyDefaultTime2Wait), DefaultTime2Retain: v(KeyDefaultTime2Retain),
		MaxOutstandingR2T: v(KeyMaxOutstandingR2T), DataPDUInOrder: v(KeyDataPDUInOrder) == 1,
		DataSequenceInOrder: v(KeyDataSequenceInOrder) == 1, ErrorRecoveryLevel: v(KeyErrorRecoveryLevel),
	}
}

func (n *Negotiator) supported(key string) []string {
	switch key {
	case KeyHeaderDigest:
		return n.wishes.HeaderDigest.list()
	case KeyDataDigest:
		return n.wishes.DataDigest.list()
	case KeyTaskReporting:
		return []string{"RFC3720"}
	}
	return nil
}

func (n *Negotiator) wish(key string) uint32 {
	w := &n.wishes
	switch key {
	case KeyMaxConnections:
		return w.MaxConnections
	case KeyInitialR2T:
		return bit(w.InitialR2T)
	case KeyImmediateData:
		return bit(w.ImmediateData)
	case KeyMaxBurstLength:
		return w.MaxBurstLength
	case KeyFirstBurstLength:
		return min(w.FirstBurstLength, w.MaxBurstLength)
	case KeyDefaultTime2Wait:
		return w.DefaultTime2Wait
	case KeyDefaultTime2Retain:
		return w.DefaultTime2Retain
	case KeyMaxOutstandingR2T:
		return w.MaxOutstandingR2T
	case KeyDataPDUInOrder:
		return bit(w.DataPDUInOrder)
	case KeyDataSequenceInOrder:
		return bit(w.DataSequenceInOrder)
	case KeyErrorRecoveryLevel:
		return w.ErrorRecoveryLevel
	case KeyProtocolLevel:
		return 1 // RFC 7143 itself
	}
	return 0
}

func digestValue(v string) uint32 { return bit(v == digestCRC32C) }

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func yesNo(b bool) string {
	if b {
		return AnswerYes
	}
	return AnswerNo
}

// parseValue reads a boolean, or a decimal or hexadecimal number, within sp's range.
func parseValue(s string, sp spec) (uint32, bool) {
	if sp.rule == ruleAnd || sp.rule == ruleOr {
		return bit(s == AnswerYes), s == AnswerYes || s == AnswerNo
	}
	base, digits := 10, s
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		base, digits = 16, s[2:]
	}
	v, err := strconv.ParseUint(digits, base, 32)
	if err != nil || strings.ContainsAny(digits, "+-_") {
		return 0, false
	}
	return uint32(v), uint32(v) >= sp.min && uint32(v) <= sp.max
}
