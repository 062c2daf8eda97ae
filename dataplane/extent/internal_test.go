package extent

import (
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/disk"
)

// FuzzParseSuper gives the parser payloads whose checksum is right.
func FuzzParseSuper(f *testing.F) {
	n, g, err := layout(64<<20, 4<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encodeSuper(Superblock{Cluster: "c", Unit: "u", MediumSizeBytes: 64 << 20, ExtentSizeBytes: 4 << 20, Extents: n, geometry: g}, [16]byte{1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		sb, err := parseSuper(b)
		if err != nil {
			return
		}
		if end := sb.OffsetBytes(sb.Extents); sb.Extents == 0 || end > sb.MediumSizeBytes || end < 0 || sb.geometry.tableAt[1] < headBytes {
			t.Errorf("taken: %+v", sb)
		}
	})
}

// FuzzParsePage does the same for a page of the table.
func FuzzParsePage(f *testing.F) {
	n, g, err := layout(64<<20, 4<<20)
	if err != nil {
		f.Fatal(err)
	}
	tb, err := newTable(Superblock{Medium: "11111111-1111-4111-8111-111111111111", Extents: n, geometry: g})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(make([]byte, int(n)*entryBytes))
	f.Fuzz(func(t *testing.T, payload []byte) {
		payload = payload[:min(len(payload), pageBytes-disk.CellHeaderBytes)]
		cell := disk.AppendCell(nil, tableMagic, tb.tag(0), 3, payload)
		seq, entries, err := tb.parsePage(cell, 0)
		if err == nil && (seq != 3 || len(entries) != int(n)) {
			t.Errorf("sequence %d, %d entries", seq, len(entries))
		}
		for _, e := range entries {
			if e.logical > maxLogical {
				t.Errorf("taken: %+v", e)
			}
		}
	})
}
