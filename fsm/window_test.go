package fsm

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/san"
)

// TestWindow: it holds the last items, and what it handed out before stays as it was.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := window[int]{limit: rapid.IntRange(1, 20).Draw(t, "limit")}
		var all, old, kept []int
		for i := range rapid.IntRange(0, 300).Draw(t, "pushes") {
			if rapid.Bool().Draw(t, "look") {
				old, kept = w.all(), slices.Clone(w.all())
			}
			dropped, full := w.push(i)
			if full != (len(all) >= w.limit) || full && dropped != all[len(all)-w.limit] {
				t.Fatalf("dropped %d, %v", dropped, full)
			}
			all = append(all, i)
			if got, want := w.all(), all[max(0, len(all)-w.limit):]; !slices.Equal(got, want) {
				t.Fatalf("window %v, want %v", got, want)
			}
			if !slices.Equal(old, kept) {
				t.Fatalf("handed out %v, now %v", kept, old)
			}
		}
		if cap(w.items) > 2*w.limit+128 {
			t.Fatalf("%d places for %d items", cap(w.items), w.limit)
		}
	})
}

// TestBoundedMemory: the oldest request and audit entry give way, and a request that was forgotten is
// carried out again.
func TestBoundedMemory(t *testing.T) {
	m := New()
	m.requests, m.audit.limit = newMemory(3), 2
	add := func(id string) Result {
		return mustApply(t, m, &AddHost{H: Header{Principal: "p", RequestID: san.RequestID(id)}, ID: san.HostID("h" + id), Initiators: []string{"iqn.x:" + id}})
	}
	for i := range 4 {
		add(fmt.Sprint(i))
	}
	if !add("1").Replayed {
		t.Error("request 1 was forgotten too soon")
	}
	v := m.View()
	if v.Request("p", "0") != nil || v.Request("q", "1") != nil || v.Request("p", "1").Object != "h1" {
		t.Error("remembered the wrong requests")
	}
	if a := v.Audit(0, 10); len(a) != 2 || a[0].Object != "h2" || a[1].Object != "h3" {
		t.Errorf("audit %v", a)
	}
	entry, err := Encode(&AddHost{H: Header{Principal: "p", RequestID: "0"}, ID: "h0", Initiators: []string{"iqn.x:0"}})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := m.Apply(m.AppliedIndex()+1, entry); err != nil || san.KindOf(r.Err) != san.KindExists {
		t.Errorf("request 0 again: %+v, %v", r, err)
	}
}
