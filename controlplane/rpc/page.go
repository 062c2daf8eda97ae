package rpc

import "google.golang.org/protobuf/proto"

const (
	// defaultPage is how many rows a page has unless asked otherwise.
	defaultPage = 500
	// pageBytes ends a page early, so that it stays below what clients accept however many labels,
	// slices, assignments or volumes its rows have.
	pageBytes = 4 << 20
)

// pageOf answers a listing: up to size of rows whose key lies behind token, and the token of the page after it, "" if
// there is none. rows must be in the order of their keys; draw returns nil for a row that is none of the caller's business.
// A row that comes or goes between two pages moves no other.
func pageOf[R any, M interface {
	comparable
	proto.Message
}](rows []R, size uint32, token string, key func(R) string, draw func(R) M) (page []M, next string) {
	if size == 0 {
		size = defaultPage
	}
	var none M
	last, bytes := "", 0
	for _, row := range rows {
		k := key(row)
		if token != "" && k <= token {
			continue
		}
		full := len(page) == int(size) || bytes > pageBytes
		m := draw(row)
		if m == none {
			continue
		}
		if full {
			return page, last
		}
		page, last, bytes = append(page, m), k, bytes+proto.Size(m)
	}
	return page, ""
}
