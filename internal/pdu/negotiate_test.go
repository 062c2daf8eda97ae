package pdu

import (
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

type failer interface {
	Helper()
	Errorf(string, ...any)
}

// checkParams holds what every outcome must obey.
func checkParams(t failer, p Params) {
	t.Helper()
	if p.FirstBurstLength > p.MaxBurstLength || p.MaxBurstLength < 512 || p.MaxBurstLength > MaxDataSegmentLength ||
		p.MaxSendDataSegmentLength < 512 || p.MaxSendDataSegmentLength > MaxDataSegmentLength ||
		p.MaxOutstandingR2T < 1 || p.MaxConnections < 1 || p.ErrorRecoveryLevel > 2 {
		t.Errorf("unlawful outcome %+v", p)
	}
}

func drawWishes(t *rapid.T, name string) Wishes {
	b := rapid.Bool()
	u := func(lo, hi uint32) uint32 { return rapid.Uint32Range(lo, hi).Draw(t, name) }
	d := func() DigestChoice { return DigestChoice(u(uint32(DigestNever), uint32(DigestPrefer))) }
	return Wishes{
		HeaderDigest: d(), DataDigest: d(), InitialR2T: b.Draw(t, name), ImmediateData: b.Draw(t, name),
		MaxConnections: u(1, 8), MaxRecvDataSegmentLength: u(512, 1<<20), MaxBurstLength: u(512, 1<<20),
		FirstBurstLength: u(512, 1<<20), DefaultTime2Wait: u(0, 3600), DefaultTime2Retain: u(0, 3600),
		MaxOutstandingR2T: u(1, 64), DataPDUInOrder: b.Draw(t, name), DataSequenceInOrder: b.Draw(t, name), ErrorRecoveryLevel: u(0, 2),
	}
}

// Whatever two sides wish, they end with the same parameters and each sees the other's receive limit.
func TestBothSidesAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wi, wt := drawWishes(t, "initiator"), drawWishes(t, "target")
		i, g := NewNegotiator(Initiator, wi), NewNegotiator(Target, wt)
		answers, err := g.Receive(i.Offer())
		if err != nil {
			t.Fatal(err)
		}
		if back, err := i.Receive(append(answers, g.Offer()...)); err != nil || len(back) != 0 || i.Pending() {
			t.Fatalf("%v %v, pending %v", back, err, i.Pending())
		}
		pi, pt := i.Params(), g.Params()
		checkParams(t, pi)
		if pi.MaxRecvDataSegmentLength != pt.MaxSendDataSegmentLength || pi.MaxSendDataSegmentLength != pt.MaxRecvDataSegmentLength {
			t.Fatalf("receive limits: %+v and %+v", pi, pt)
		}
		pt.MaxRecvDataSegmentLength, pt.MaxSendDataSegmentLength = pi.MaxRecvDataSegmentLength, pi.MaxSendDataSegmentLength
		if pi != pt {
			t.Fatalf("initiator has %+v, target %+v", pi, pt)
		}
		if pi.InitialR2T != (wi.InitialR2T || wt.InitialR2T) || pi.ImmediateData != (wi.ImmediateData && wt.ImmediateData) ||
			pi.MaxBurstLength != min(wi.MaxBurstLength, wt.MaxBurstLength) || pi.DefaultTime2Wait != max(wi.DefaultTime2Wait, wt.DefaultTime2Wait) {
			t.Fatalf("%+v from %+v and %+v", pi, wi, wt)
		}
	})
}

func targetWishes() Wishes {
	w := DefaultWishes()
	w.HeaderDigest, w.InitialR2T, w.MaxOutstandingR2T = DigestAllow, false, 4
	return w
}

func TestTargetAnswers(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"HeaderDigest", "CRC32C,None", "CRC32C"},
		{"HeaderDigest", "None,CRC32C", "None"},
		{"HeaderDigest", "X-com.example,None", "None"},
		{"DataDigest", "CRC32C", "Reject"},
		{"InitialR2T", "No", "No"},
		{"InitialR2T", "Yes", "Yes"},
		{"InitialR2T", "yes", "Reject"},
		{"ImmediateData", "Yes", "Yes"},
		{"MaxBurstLength", "16776192", "262144"},
		{"MaxBurstLength", "0x1000", "4096"},
		{"MaxBurstLength", "511", "Reject"},
		{"MaxBurstLength", "16777216", "Reject"},
		{"MaxBurstLength", "-1", "Reject"},
		{"MaxBurstLength", "99999999999999999999", "Reject"},
		{"FirstBurstLength", "512", "512"},
		{"MaxConnections", "8", "1"},
		{"MaxConnections", "0", "Reject"},
		{"MaxOutstandingR2T", "16", "4"},
		{"DefaultTime2Wait", "0", "2"},
		{"DefaultTime2Retain", "0", "0"},
		{"DefaultTime2Retain", "3601", "Reject"},
		{"ErrorRecoveryLevel", "2", "0"},
		{"DataPDUInOrder", "No", "Yes"},
		{"IFMarker", "Yes", "No"},
		{"OFMarkInt", "2048~8192", "Reject"},
		{"iSCSIProtocolLevel", "2", "1"},
		{"TaskReporting", "FastAbort,RFC3720", "RFC3720"},
		{"X-org.example.mood", "good", "NotUnderstood"},
		{"X-org.example.mood", "NotUnderstood", ""},
		{"MaxRecvDataSegmentLength", "4096", ""},
		{"InitiatorName", "iqn.2004-10.com.example:a", ""},
		{"AuthMethod", "CHAP,None", ""},
	} {
		got, err := NewNegotiator(Target, targetWishes()).Receive([]KeyValue{{c.key, c.value}})
		var want []KeyValue
		if c.want != "" {
			want = []KeyValue{{c.key, c.want}}
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s=%s: %v %v, want %v", c.key, c.value, got, err, want)
		}
	}
}

func TestBreachesEndTheNegotiation(t *testing.T) {
	for _, c := range []struct {
		role Role
		list []KeyValue
	}{
		{Target, []KeyValue{{"MaxBurstLength", "4096"}, {"MaxBurstLength", "4096"}}},
		{Target, []KeyValue{{"InitiatorName", "iqn.a"}, {"InitiatorName", "iqn.b"}}},
		{Target, []KeyValue{{"TargetPortalGroupTag", "1"}}},
		{Target, []KeyValue{{"InitiatorName", ""}}},
		{Target, []KeyValue{{"MaxRecvDataSegmentLength", "100"}}},
		{Initiator, []KeyValue{{"InitialR2T", "No"}}},           // we said Yes
		{Initiator, []KeyValue{{"MaxBurstLength", "524288"}}},   // above our offer
		{Initiator, []KeyValue{{"DefaultTime2Wait", "1"}}},      // below our offer
		{Initiator, []KeyValue{{"HeaderDigest", "CRC32C"}}},     // never offered
		{Initiator, []KeyValue{{"ImmediateData", "Reject"}}},    // nothing left to agree on
		{Initiator, []KeyValue{{"FirstBurstLength", "-65536"}}}, // no number
		{Initiator, []KeyValue{{"InitiatorName", "iqn.x"}}},
	} {
		n := NewNegotiator(c.role, DefaultWishes())
		n.Offer()
		var ne *NegotiationError
		if _, err := n.Receive(c.list); !errors.As(err, &ne) {
			t.Errorf("%v: %v", c.list, err)
		}
	}
}

func TestDiscoveryAnswersIrrelevant(t *testing.T) {
	n := NewNegotiator(Target, targetWishes())
	n.SetDiscovery(true)
	got, err := n.Receive([]KeyValue{{"MaxBurstLength", "4096"}, {"HeaderDigest", "None"}, {"DefaultTime2Wait", "5"}})
	want := []KeyValue{{"MaxBurstLength", "Irrelevant"}, {"HeaderDigest", "None"}, {"DefaultTime2Wait", "5"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}
	i := NewNegotiator(Initiator, DefaultWishes())
	i.SetDiscovery(true)
	for _, kv := range i.Offer() {
		if kv.Key == KeyInitialR2T || kv.Key == KeyMaxConnections {
			t.Errorf("offers %s in a discovery session", kv.Key)
		}
	}
}

// The MD5 value was computed with md5sum over the bytes 01, "secret of 12+ bytes", 00 01 02 03.
func TestCHAP(t *testing.T) {
	ch := []byte{0, 1, 2, 3}
	got := CHAPMD5.Response(1, "secret of 12+ bytes", ch)
	if hex.EncodeToString(got) != "4bcd0f44d74dce894f14aeabdefd2c46" {
		t.Errorf("response %x", got)
	}
	for _, a := range []CHAPAlgorithm{CHAPMD5, CHAPSHA256} {
		r := a.Response(7, "s", ch)
		if !a.Verify(r, 7, "s", ch) || a.Verify(r, 8, "s", ch) || a.Verify(r, 7, "t", ch) || a.Verify(r[1:], 7, "s", ch) || a.Verify(nil, 7, "s", ch) {
			t.Errorf("algorithm %d verifies wrongly", a)
		}
	}
	if none := CHAPAlgorithm(6); none.Response(0, "", nil) != nil || none.Verify(nil, 0, "", nil) || none.ChallengeBytes() != 0 {
		t.Error("an unknown algorithm is taken")
	}
	if a, ok := ChooseCHAPAlgorithm("6,7,5", CHAPMD5, CHAPSHA256); !ok || a != CHAPSHA256 {
		t.Error(a, ok)
	}
	if _, ok := ChooseCHAPAlgorithm("6,263", CHAPMD5, CHAPSHA256); ok {
		t.Error("263 taken for 7")
	}
	if s := FormatCHAPAlgorithms(CHAPSHA256, CHAPMD5); s != "7,5" {
		t.Error(s)
	}
}
