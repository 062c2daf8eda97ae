package rpc

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
)

// TestPagesHaveEveryRowOnce: whatever the size of a page, and whatever rows come and go between two, each row that was
// there all the time is on exactly one page.
func TestPagesHaveEveryRowOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-c]{1,4}`), 0, 40, rapid.ID[string]).Draw(t, "rows")
		slices.Sort(rows)
		size := rapid.Uint32Range(1, 10).Draw(t, "size")
		draw := func(id string) *pb.Host {
			if strings.HasPrefix(id, "b") { // another's
				return nil
			}
			return &pb.Host{Id: id}
		}
		stable := slices.DeleteFunc(slices.Clone(rows), func(id string) bool { return draw(id) == nil || strings.HasSuffix(id, "c") })
		var got []string
		for token := ""; ; {
			page, next := pageOf(rows, size, token, func(id string) string { return id }, draw)
			if len(page) > int(size) || len(page) == 0 && next != "" {
				t.Fatalf("a page of %d, then %q", len(page), next)
			}
			for _, h := range page {
				got = append(got, h.Id)
			}
			if next == "" {
				break
			}
			token = next
			if rapid.Bool().Draw(t, "change") { // those that end with c come and go
				rows = slices.DeleteFunc(rows, func(id string) bool { return strings.HasSuffix(id, "c") })
			} else if id := rapid.StringMatching(`[a-c]{0,3}c`).Draw(t, "new"); !slices.Contains(rows, id) {
				rows = append(rows, id)
				slices.Sort(rows)
			}
		}
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("pages have %v", got)
		}
		if seen := slices.DeleteFunc(got, func(id string) bool { return strings.HasSuffix(id, "c") }); !slices.Equal(seen, stable) {
			t.Fatalf("pages have %v of %v", seen, stable)
		}
	})
}

func TestAPageIsBounded(t *testing.T) {
	large := strings.Repeat("x", 64<<10)
	rows := make([]string, 2*defaultPage)
	for i := range rows {
		rows[i] = fmt.Sprintf("%06d", i)
	}
	id := func(s string) string { return s }
	if page, next := pageOf(rows, 0, "", id, func(s string) *pb.Host { return &pb.Host{Id: s} }); len(page) != defaultPage || next != rows[defaultPage-1] {
		t.Errorf("%d rows, then %q", len(page), next)
	}
	page, next := pageOf(rows, 1000, "", id, func(s string) *pb.Host { return &pb.Host{Id: s, Version: large} })
	if n := len(page); n < 50 || n > 66 || next != rows[n-1] {
		t.Errorf("%d rows of 64 KiB, then %q", n, next)
	}
}
