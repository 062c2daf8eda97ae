package convert

import (
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

func TestErrorKindsSurviveTheWire(t *testing.T) {
	for k := san.KindInternal; k <= san.KindUnknown; k++ {
		got := FromConnect(ToConnect(san.Wrap("create volume", san.Errorf(k, "no such thing"))))
		if san.KindOf(got) != k {
			t.Errorf("kind %v came back as %v", k, san.KindOf(got))
		}
		if want := "create volume: no such thing"; got.Error() != want {
			t.Errorf("message %q came back as %q", want, got)
		}
	}
	if ToConnect(nil) != nil || FromConnect(nil) != nil {
		t.Error("nil must stay nil")
	}
}

func TestValues(t *testing.T) {
	s := san.Stamp{ClusterGeneration: 3, Index: 9}
	if Stamp(StampProto(s)) != s || Stamp(nil) != (san.Stamp{}) {
		t.Error("stamps must survive the wire")
	}
	if TimeProto(time.Time{}) != nil {
		t.Error("a zero time must be absent")
	}
	now := time.Now()
	if !TimeProto(now).AsTime().Equal(now) {
		t.Error("a time must survive the wire")
	}
}
