package fsm

import (
	"testing"

	"github.com/sandbar-san/sandbar/san"
)

// TestAllows: a cluster that is at an older format than a command needs refuses it, and says what to do.
func TestAllows(t *testing.T) {
	m := New()
	if err := m.View().Allows(&AddHost{}); err != nil {
		t.Errorf("before there is a cluster: %v", err)
	}
	// No kind of command needs more than format 1 so far: the cluster is made to be older.
	txn := m.db.Txn(true)
	if err := txn.Insert(TableCluster.String(), &Cluster{ID: "c"}); err != nil {
		t.Fatal(err)
	}
	txn.Commit()
	m.publish(1)
	if err := m.View().Allows(&AddHost{}); san.KindOf(err) != san.KindUnavailable {
		t.Errorf("got %v", err)
	}
	entry, err := Encode(&AddHost{ID: "h", Initiators: []string{"iqn.x:h"}})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := m.Apply(2, entry); err != nil || san.KindOf(r.Err) != san.KindUnavailable || m.View().Host("h") != nil {
		t.Errorf("got %+v, %v", r, err)
	}
}
