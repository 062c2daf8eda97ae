package fsm

import (
	"fmt"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// benchPool is a machine with units of one medium each, all with endless room.
func benchPool(tb testing.TB, units int) *Machine {
	tb.Helper()
	m := New()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	do := func(c Command) {
		tb.Helper()
		c.Header().At = at
		mustApply(tb, m, c)
	}
	do(&InitCluster{ID: "bench", CACertPEM: []byte("ca"), CAKeySealed: []byte("key"), JoinTokens: []JoinToken{
		{ID: "units", Name: "units", Role: san.RoleUnit, SecretHash: []byte("x"), Approve: true}}})
	do(&AddHost{ID: "h1", Initiators: []string{"iqn.2004-10.com.example:h1"}})
	for i := range units {
		u := san.UnitID(fmt.Sprintf("u%d", i))
		do(&Enrol{Role: san.RoleUnit, ID: string(u), CertSerial: "1", JoinToken: "units"})
		do(&UnitStarted{ID: u, CertSerial: "1", Incarnation: 1, APIAddress: "127.0.0.1:1", Portal: "127.0.0.1:2"})
		do(&UnitStorage{ID: u, CertSerial: "1", Incarnation: 1, Media: []MediumInfo{{ID: san.MediumID("m-" + string(u)), CapacityExtents: 1 << 31}}})
	}
	return m
}

func mustApply(tb testing.TB, m *Machine, c Command) Result {
	tb.Helper()
	entry, err := Encode(c)
	if err != nil {
		tb.Fatalf("encode %T: %v", c, err)
	}
	r, err := m.Apply(m.AppliedIndex()+1, entry)
	if err != nil {
		tb.Fatalf("apply %T: %v", c, err)
	}
	if r.Err != nil {
		tb.Fatalf("apply %T: %v", c, r.Err)
	}
	return r
}

func benchCreate(i int) *CreateVolume {
	return &CreateVolume{
		H: Header{At: time.Unix(int64(i), 0), Principal: "token:bench", RequestID: san.RequestID(fmt.Sprintf("request-%d", i)),
			Fingerprint: []byte("0123456789abcdef0123456789abcdef")},
		ID: san.VolumeID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i)), Name: fmt.Sprintf("volume-%d", i),
		SizeBytes: 80 << 20, BlockSizeBytes: 512,
		Copies: []Copy{{Unit: "u1", Role: RolePrimary, Slices: []Slice{{Medium: "m-u1", Extents: 20}}}},
	}
}

func BenchmarkApplyCreateVolume(b *testing.B) {
	m := benchPool(b, 3)
	entries := make([][]byte, b.N)
	for i := range entries {
		e, err := Encode(benchCreate(i))
		if err != nil {
			b.Fatal(err)
		}
		entries[i] = e
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, e := range entries {
		r, err := m.Apply(m.AppliedIndex()+1, e)
		if err != nil || r.Err != nil {
			b.Fatal(err, r.Err)
		}
	}
}

func BenchmarkEncodeCreateVolume(b *testing.B) {
	c := benchCreate(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeCreateVolume(b *testing.B) {
	e, err := Encode(benchCreate(1))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(e); err != nil {
			b.Fatal(err)
		}
	}
}
