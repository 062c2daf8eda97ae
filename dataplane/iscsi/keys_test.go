package iscsi

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/sandbar-san/sandbar/internal/pdu"
)

// negotiated is what a key comes to, as a number; booleans and digests are 0 and 1.
var negotiated = map[string]func(p pdu.Params) uint32{
	"HeaderDigest":        func(p pdu.Params) uint32 { return yes(p.HeaderDigest) },
	"DataDigest":          func(p pdu.Params) uint32 { return yes(p.DataDigest) },
	"MaxConnections":      func(p pdu.Params) uint32 { return p.MaxConnections },
	"InitialR2T":          func(p pdu.Params) uint32 { return yes(p.InitialR2T) },
	"ImmediateData":       func(p pdu.Params) uint32 { return yes(p.ImmediateData) },
	"MaxSend":             func(p pdu.Params) uint32 { return p.MaxSendDataSegmentLength },
	"MaxRecv":             func(p pdu.Params) uint32 { return p.MaxRecvDataSegmentLength },
	"MaxBurstLength":      func(p pdu.Params) uint32 { return p.MaxBurstLength },
	"FirstBurstLength":    func(p pdu.Params) uint32 { return p.FirstBurstLength },
	"DefaultTime2Wait":    func(p pdu.Params) uint32 { return p.DefaultTime2Wait },
	"DefaultTime2Retain":  func(p pdu.Params) uint32 { return p.DefaultTime2Retain },
	"MaxOutstandingR2T":   func(p pdu.Params) uint32 { return p.MaxOutstandingR2T },
	"DataPDUInOrder":      func(p pdu.Params) uint32 { return yes(p.DataPDUInOrder) },
	"DataSequenceInOrder": func(p pdu.Params) uint32 { return yes(p.DataSequenceInOrder) },
	"ErrorRecoveryLevel":  func(p pdu.Params) uint32 { return p.ErrorRecoveryLevel },
}

func yes(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// keyCases are, by the section of RFC 7143 that says so: what the initiator offers, what the target must answer
// ("" nothing), and what one of the parameters then is.
var keyCases = []struct {
	section, offer, answer string
	param                  string
	is                     uint32
}{
	// 13.1: the first of the list that the responder supports; Reject if there is none.
	{"13.1", "HeaderDigest=CRC32C,None", "HeaderDigest=CRC32C", "HeaderDigest", 1},
	{"13.1", "HeaderDigest=None,CRC32C", "HeaderDigest=None", "HeaderDigest", 0},
	{"13.1", "HeaderDigest=CRC32C", "HeaderDigest=CRC32C", "HeaderDigest", 1},
	{"13.1", "HeaderDigest=X-mine,CRC32C", "HeaderDigest=CRC32C", "HeaderDigest", 1},
	{"13.1", "HeaderDigest=X-mine", "HeaderDigest=Reject", "HeaderDigest", 0},
	{"13.1", "HeaderDigest=crc32c", "HeaderDigest=Reject", "HeaderDigest", 0},
	{"13.1", "DataDigest=CRC32C,None", "DataDigest=CRC32C", "DataDigest", 1},
	{"13.1", "DataDigest=None", "DataDigest=None", "DataDigest", 0},
	{"13.1", "DataDigest=", "DataDigest=Reject", "DataDigest", 0},
	// 13.2: minimum; one connection is what there is.
	{"13.2", "MaxConnections=1", "MaxConnections=1", "MaxConnections", 1},
	{"13.2", "MaxConnections=65535", "MaxConnections=1", "MaxConnections", 1},
	{"13.2", "MaxConnections=0", "MaxConnections=Reject", "MaxConnections", 1},
	{"13.2", "MaxConnections=65536", "MaxConnections=Reject", "MaxConnections", 1},
	// 13.3: in full feature phase only.
	{"13.3", "SendTargets=All", "SendTargets=Reject", "MaxConnections", 1},
	// 13.6: declared, never answered.
	{"13.6", "InitiatorAlias=the machine under the desk", "", "MaxConnections", 1},
	// 13.10: OR.
	{"13.10", "InitialR2T=Yes", "InitialR2T=Yes", "InitialR2T", 1},
	{"13.10", "InitialR2T=No", "InitialR2T=No", "InitialR2T", 0},
	{"13.10", "InitialR2T=yes", "InitialR2T=Reject", "InitialR2T", 1},
	{"13.10", "", "", "InitialR2T", 1},
	// 13.11: AND.
	{"13.11", "ImmediateData=Yes", "ImmediateData=Yes", "ImmediateData", 1},
	{"13.11", "ImmediateData=No", "ImmediateData=No", "ImmediateData", 0},
	{"13.11", "ImmediateData=1", "ImmediateData=Reject", "ImmediateData", 1},
	{"13.11", "", "", "ImmediateData", 1},
	// 13.12: declared by each side for what it receives. The default holds for who says nothing.
	{"13.12", "MaxRecvDataSegmentLength=512", "", "MaxSend", 512},
	{"13.12", "MaxRecvDataSegmentLength=16777215", "", "MaxSend", 1<<24 - 1},
	{"13.12", "MaxRecvDataSegmentLength=0x2000", "", "MaxSend", 8192},
	{"13.12", "", "", "MaxSend", 8192},
	{"13.12", "", "", "MaxRecv", 256 << 10},
	// 13.13: minimum.
	{"13.13", "MaxBurstLength=512", "MaxBurstLength=512", "MaxBurstLength", 512},
	{"13.13", "MaxBurstLength=16777215", "MaxBurstLength=1048576", "MaxBurstLength", 1 << 20},
	{"13.13", "MaxBurstLength=511", "MaxBurstLength=Reject", "MaxBurstLength", 262144},
	{"13.13", "MaxBurstLength=16777216", "MaxBurstLength=Reject", "MaxBurstLength", 262144},
	{"13.13", "MaxBurstLength=4294967808", "MaxBurstLength=Reject", "MaxBurstLength", 262144},
	{"13.13", "", "", "MaxBurstLength", 262144},
	// 13.14: minimum, and never above MaxBurstLength.
	{"13.14", "FirstBurstLength=512", "FirstBurstLength=512", "FirstBurstLength", 512},
	{"13.14", "FirstBurstLength=16777215", "FirstBurstLength=262144", "FirstBurstLength", 262144},
	{"13.14", "MaxBurstLength=4096 FirstBurstLength=65536", "MaxBurstLength=4096 FirstBurstLength=4096", "FirstBurstLength", 4096},
	{"13.14", "FirstBurstLength=65536 MaxBurstLength=4096", "FirstBurstLength=65536 MaxBurstLength=4096", "FirstBurstLength", 4096},
	{"13.14", "FirstBurstLength=0", "FirstBurstLength=Reject", "FirstBurstLength", 65536},
	{"13.14", "", "", "FirstBurstLength", 65536},
	// 13.15: maximum. 13.16: minimum; nothing is retained here.
	{"13.15", "DefaultTime2Wait=0", "DefaultTime2Wait=2", "DefaultTime2Wait", 2},
	{"13.15", "DefaultTime2Wait=3600", "DefaultTime2Wait=3600", "DefaultTime2Wait", 3600},
	{"13.15", "DefaultTime2Wait=3601", "DefaultTime2Wait=Reject", "DefaultTime2Wait", 2},
	{"13.16", "DefaultTime2Retain=20", "DefaultTime2Retain=0", "DefaultTime2Retain", 0},
	{"13.16", "DefaultTime2Retain=3601", "DefaultTime2Retain=Reject", "DefaultTime2Retain", 20},
	// 13.17: minimum.
	{"13.17", "MaxOutstandingR2T=1", "MaxOutstandingR2T=1", "MaxOutstandingR2T", 1},
	{"13.17", "MaxOutstandingR2T=65535", "MaxOutstandingR2T=8", "MaxOutstandingR2T", 8},
	{"13.17", "MaxOutstandingR2T=0", "MaxOutstandingR2T=Reject", "MaxOutstandingR2T", 1},
	{"13.17", "MaxOutstandingR2T=65536", "MaxOutstandingR2T=Reject", "MaxOutstandingR2T", 1},
	// 13.18, 13.19: OR; the target wants order.
	{"13.18", "DataPDUInOrder=No", "DataPDUInOrder=Yes", "DataPDUInOrder", 1},
	{"13.18", "DataPDUInOrder=Yes", "DataPDUInOrder=Yes", "DataPDUInOrder", 1},
	{"13.19", "DataSequenceInOrder=No", "DataSequenceInOrder=Yes", "DataSequenceInOrder", 1},
	{"13.19", "DataSequenceInOrder=Maybe", "DataSequenceInOrder=Reject", "DataSequenceInOrder", 1},
	// 13.20: minimum.
	{"13.20", "ErrorRecoveryLevel=2", "ErrorRecoveryLevel=0", "ErrorRecoveryLevel", 0},
	{"13.20", "ErrorRecoveryLevel=0", "ErrorRecoveryLevel=0", "ErrorRecoveryLevel", 0},
	{"13.20", "ErrorRecoveryLevel=3", "ErrorRecoveryLevel=Reject", "ErrorRecoveryLevel", 0},
	// 13.22: unknown keys, with X- or without, are not understood; an answer is never answered.
	{"13.22", "X-com.example.colour=blue", "X-com.example.colour=NotUnderstood", "MaxConnections", 1},
	{"13.22", "X#colour=blue", "X#colour=NotUnderstood", "MaxConnections", 1},
	{"6.2", "NoSuchKey=1", "NoSuchKey=NotUnderstood", "MaxConnections", 1},
	{"6.2", "maxburstlength=512", "maxburstlength=NotUnderstood", "MaxBurstLength", 262144},
	{"6.2", "NoSuchKey=NotUnderstood", "", "MaxConnections", 1},
	{"6.2", "NoSuchKey=Irrelevant", "", "MaxConnections", 1},
	{"6.2", "MaxBurstLength=Irrelevant", "MaxBurstLength=Reject", "MaxBurstLength", 262144},
	{"6.2", "MaxBurstLength=None", "MaxBurstLength=Reject", "MaxBurstLength", 262144},
	{"6.1", "MaxBurstLength=", "MaxBurstLength=Reject", "MaxBurstLength", 262144},
	{"6.1", "MaxBurstLength=+512", "MaxBurstLength=Reject", "MaxBurstLength", 262144},
	{"6.1", "MaxBurstLength=0X1000", "MaxBurstLength=4096", "MaxBurstLength", 4096},
	{"6.1", "MaxBurstLength=0x", "MaxBurstLength=Reject", "MaxBurstLength", 262144},
	{"6.1", "MaxBurstLength=1e3", "MaxBurstLength=Reject", "MaxBurstLength", 262144},
	// 13.23, 13.24.
	{"13.23", "TaskReporting=RFC3720", "TaskReporting=RFC3720", "MaxConnections", 1},
	{"13.23", "TaskReporting=FastAbort,ResponseFence,RFC3720", "TaskReporting=RFC3720", "MaxConnections", 1},
	{"13.23", "TaskReporting=FastAbort", "TaskReporting=Reject", "MaxConnections", 1},
	{"13.24", "iSCSIProtocolLevel=2", "iSCSIProtocolLevel=1", "MaxConnections", 1},
	{"13.24", "iSCSIProtocolLevel=0", "iSCSIProtocolLevel=0", "MaxConnections", 1},
	{"13.24", "iSCSIProtocolLevel=32", "iSCSIProtocolLevel=Reject", "MaxConnections", 1},
	// 13.25: obsolete; No or Reject, but never NotUnderstood.
	{"13.25", "IFMarker=Yes", "IFMarker=No", "MaxConnections", 1},
	{"13.25", "OFMarker=No", "OFMarker=No", "MaxConnections", 1},
	{"13.25", "IFMarkInt=2048~8192", "IFMarkInt=Reject", "MaxConnections", 1},
	{"13.25", "OFMarkInt=Reject", "OFMarkInt=Reject", "MaxConnections", 1},
}

// fields splits what cases write into pairs; a blank within a value stands between words that have no "=".
func fields(s string) []pdu.KeyValue {
	var list []pdu.KeyValue
	for _, f := range strings.Fields(s) {
		if k, v, ok := strings.Cut(f, "="); ok {
			list = append(list, pdu.KeyValue{Key: k, Value: v})
		} else {
			list[len(list)-1].Value += " " + f
		}
	}
	return list
}

func text(list []pdu.KeyValue) string {
	var s []string
	for _, kv := range list {
		s = append(s, kv.Key+"="+kv.Value)
	}
	return strings.Join(s, " ")
}

// begun is a login that is in its operational stage.
func begun(t *testing.T, first string) *login {
	t.Helper()
	limits, err := Limits{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l := newLogin(&directory{lu: &memoryLU{}}, netip.MustParseAddr("127.0.0.1"), limits, slog.New(slog.DiscardHandler))
	l.step1(t, &pdu.LoginRequest{Transit: true, NSG: 1, ITT: 1}, first)
	return l
}

// step1 takes a step that must succeed and returns the answers.
func (l *login) step1(t *testing.T, req *pdu.LoginRequest, send string) string {
	t.Helper()
	if err := l.check(req); err != nil {
		t.Fatal(err)
	}
	_, answers, err := l.step(req, fields(send))
	if err != nil {
		t.Fatal(err)
	}
	return text(answers)
}

func TestKeysByTheLetter(t *testing.T) {
	for _, c := range keyCases {
		l := begun(t, who)
		got := l.step1(t, &pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3, ITT: 1}, c.offer)
		want := strings.TrimSpace(c.answer + " MaxRecvDataSegmentLength=262144")
		if is := negotiated[c.param](l.neg.Params()); got != want || is != c.is || !l.finished {
			t.Errorf("§%s: %q is answered %q, want %q; %s is %d, want %d; finished %v", c.section, c.offer, got, want, c.param, is, c.is, l.finished)
		}
	}
}

// What ends a login, in its first request or in one after it.
func TestKeysThatEndALogin(t *testing.T) {
	for _, c := range []struct {
		section, first, then string
		want                 pdu.LoginStatus
	}{
		{"6.2 a key twice in one request", who + " MaxBurstLength=512 MaxBurstLength=512", "", pdu.LoginInitiatorError},
		{"6.2 a key again in a later request", who + " MaxBurstLength=512", "MaxBurstLength=512", pdu.LoginInitiatorError},
		{"6.2 an unknown key again", who + " X-a=1", "X-a=1", pdu.LoginInitiatorError},
		{"13.4 no InitiatorName", "TargetName=" + someTarget, "", pdu.LoginMissingParameter},
		{"13.4 another InitiatorName later", who, "InitiatorName=iqn.2004-10.com.example:else", pdu.LoginInitiatorError},
		{"13.4 an InitiatorName that is none", "InitiatorName=me TargetName=" + someTarget, "", pdu.LoginInitiatorError},
		{"13.4 an empty InitiatorName", "InitiatorName= TargetName=" + someTarget, "", pdu.LoginInitiatorError},
		{"13.5 no TargetName", "InitiatorName=" + goodInitiator, "", pdu.LoginMissingParameter},
		{"13.5 another TargetName later", who, "TargetName=iqn.2004-10.com.example:else", pdu.LoginInitiatorError},
		{"13.6 an alias of more than 255 bytes", who + " InitiatorAlias=" + strings.Repeat("a", 256), "", pdu.LoginInitiatorError},
		{"13.7 the target's alias from the initiator", who + " TargetAlias=a", "", pdu.LoginInitiatorError},
		{"13.8 the target's address from the initiator", who + " TargetAddress=192.0.2.1:3260,1", "", pdu.LoginInitiatorError},
		{"13.9 the portal group from the initiator", who + " TargetPortalGroupTag=1", "", pdu.LoginInitiatorError},
		{"13.12 a receive limit below 512", who + " MaxRecvDataSegmentLength=511", "", pdu.LoginInitiatorError},
		{"13.12 a receive limit above 24 bits", who + " MaxRecvDataSegmentLength=16777216", "", pdu.LoginInitiatorError},
		{"13.12 no number", who, "MaxRecvDataSegmentLength=many", pdu.LoginInitiatorError},
		{"13.21 a session type that is none", who + " SessionType=Odd", "", pdu.LoginBadSessionType},
		{"13.21 a session type later", who, "SessionType=Discovery", pdu.LoginInitiatorError},
		{"12 AuthMethod in the operational stage", who, "AuthMethod=None", pdu.LoginInitiatorError},
		{"12 CHAP in the operational stage", who, "CHAP_A=5", pdu.LoginInitiatorError},
	} {
		limits, err := Limits{}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		l := newLogin(&directory{lu: &memoryLU{}}, netip.MustParseAddr("127.0.0.1"), limits, slog.New(slog.DiscardHandler))
		_, _, err = l.step(&pdu.LoginRequest{Transit: true, NSG: 1, ITT: 1}, fields(c.first))
		if c.then != "" {
			if err != nil {
				t.Errorf("§%s: the first request: %v", c.section, err)
				continue
			}
			_, _, err = l.step(&pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3, ITT: 1}, fields(c.then))
		}
		if err == nil || asLoginError(err).status != c.want {
			t.Errorf("§%s: %v, want %s", c.section, err, c.want)
		}
	}
}

// In a discovery session most keys mean nothing (RFC 7143 §13, "Irrelevant when: SessionType=Discovery").
func TestKeysOfADiscoverySession(t *testing.T) {
	l := begun(t, "InitiatorName="+goodInitiator+" SessionType=Discovery")
	got := l.step1(t, &pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3, ITT: 1}, "MaxConnections=4 InitialR2T=No ImmediateData=No MaxBurstLength=512 FirstBurstLength=512 "+
		"MaxOutstandingR2T=2 DataPDUInOrder=No DataSequenceInOrder=No TaskReporting=RFC3720 HeaderDigest=CRC32C DefaultTime2Wait=5 DefaultTime2Retain=5 ErrorRecoveryLevel=1 MaxRecvDataSegmentLength=512")
	const want = "MaxConnections=Irrelevant InitialR2T=Irrelevant ImmediateData=Irrelevant MaxBurstLength=Irrelevant FirstBurstLength=Irrelevant " +
		"MaxOutstandingR2T=Irrelevant DataPDUInOrder=Irrelevant DataSequenceInOrder=Irrelevant TaskReporting=Irrelevant HeaderDigest=CRC32C DefaultTime2Wait=5 DefaultTime2Retain=0 ErrorRecoveryLevel=0 MaxRecvDataSegmentLength=262144"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// The portal group tag stands in the first response (RFC 7143 §13.9), the receive limit in the operational
// stage, each once, and a stage may take several requests.
func TestWhatTheTargetDeclares(t *testing.T) {
	l := begun(t, who)
	if !l.tagged {
		t.Error("the first response has no TargetPortalGroupTag")
	}
	first := l.step1(t, &pdu.LoginRequest{CSG: 1, ITT: 1}, "InitialR2T=Yes")
	second := l.step1(t, &pdu.LoginRequest{CSG: 1, ITT: 1}, who) // names again are no breach
	third := l.step1(t, &pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3, ITT: 1}, "ImmediateData=No")
	if first != "InitialR2T=Yes MaxRecvDataSegmentLength=262144" || second != "" || third != "ImmediateData=No" {
		t.Errorf("%q, %q, %q", first, second, third)
	}
}
