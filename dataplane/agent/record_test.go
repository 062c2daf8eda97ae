package agent

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

func sampleRecord() Record {
	seen := Seen{Stamp: san.Stamp{ClusterGeneration: 1, Index: 5}, AsOf: san.Stamp{ClusterGeneration: 1, Index: 9}}
	return Record{
		Volume: vol(1), Replica: &Replica{Seen: seen},
		Hosts: map[san.HostID]*Access{
			"a": {Seen: seen, State: Granted, Generation: 3, Initiators: []string{"iqn.2004-10.com.example:a"},
				AllowFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}, CHAPUser: "a", CHAPSecret: "secret"},
			"b": {Seen: seen, State: Released, Generation: 2},
			"c": {Seen: seen, State: Gone, Generation: 1},
		},
	}
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	r := sampleRecord()
	b, err := encodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseRecord(vol(1), b)
	if err != nil || !got.same(r) || got.Replica.Seen != r.Replica.Seen || got.Hosts["a"].Seen != r.Hosts["a"].Seen {
		t.Errorf("%v came back as %v (%v)", r, got, err)
	}
	if _, err := parseRecord(vol(2), b); !errors.Is(err, disk.ErrDamaged) {
		t.Errorf("a record in another's place: %v", err)
	}
	if _, err := parseRecord(vol(1), bytes.Replace(b, []byte(`"version":1`), []byte(`"version":2`), 1)); !errors.Is(err, disk.ErrDamaged) {
		t.Errorf("a record of a later release: %v", err)
	}
}

func TestOnlyWhatTheFloorCoversIsForgotten(t *testing.T) {
	r := sampleRecord()
	if out, empty := r.without(san.Stamp{ClusterGeneration: 1, Index: 8}); empty || len(out.Hosts) != 3 {
		t.Errorf("below the floor: %v", out.Hosts)
	}
	if out, empty := r.without(san.Stamp{ClusterGeneration: 1, Index: 9}); empty || len(out.Hosts) != 2 || out.Hosts["c"] != nil {
		t.Errorf("at the floor: %v", out.Hosts)
	}
	if len(r.Hosts) != 3 {
		t.Error("a record in use was changed")
	}
}

func TestGrantsJudgeNamesAndAddresses(t *testing.T) {
	g := sampleRecord().grant("a")
	for name, want := range map[string]bool{"iqn.2004-10.com.example:a": true, "IQN.2004-10.com.example:A": true, "iqn.2004-10.com.example:b": false, "": false} {
		if g.Knows(name) != want {
			t.Errorf("knows %q: %v", name, !want)
		}
	}
	for from, want := range map[string]bool{"192.0.2.7": true, "::ffff:192.0.2.7": true, "2001:db8::1": true, "2001:db8::1%eth0": true, "198.51.100.1": false, "::1": false} {
		if g.Allows(netip.MustParseAddr(from)) != want {
			t.Errorf("allows %s: %v", from, !want)
		}
	}
	g.AllowFrom = nil
	if !g.Allows(netip.MustParseAddr("198.51.100.1")) {
		t.Error("no ranges mean any address")
	}
}

func FuzzParseRecord(f *testing.F) {
	b, err := encodeRecord(sampleRecord())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"volume":"` + string(vol(1)) + `","hosts":{"a":null}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(vol(1), b)
		if err != nil {
			if !errors.Is(err, disk.ErrDamaged) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		// What is taken is kept as it is, and can be used.
		again, err := encodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := parseRecord(vol(1), again); err != nil || !same.same(r) {
			t.Errorf("%s came back as %v (%v)", again, same, err)
		}
		for h := range r.Hosts {
			r.grant(h)
		}
	})
}
