package scenario

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/initiator"
)

// clustered is a volume of a host whose initiators take part in a cluster, as its nodes would.
type clustered struct {
	*cluster
	unit  *lab.Process
	names []string
	nodes map[string]*initiator.Session
}

func startClustered(t *testing.T) *clustered {
	c := start(t, "--stations", "1", "--units", "1", "--hosts", "1")
	n := &clustered{cluster: c, unit: c.Of("unit")[0], names: []string{"a", "b", "c"}}
	args := []string{"host", "add", "nodes"}
	for _, name := range n.names {
		args = append(args, "--initiator", n.iqn(name))
	}
	c.ok(args...)
	c.give("disk", "16MiB", "nodes")
	n.login()
	return n
}

func (n *clustered) iqn(name string) string { return "iqn.2026-11.io.sandbar.test:node-" + name }

// login has all nodes log in, with the same ISIDs every time: a registration is an initiator port's.
func (n *clustered) login() {
	n.t.Helper()
	n.nodes = map[string]*initiator.Session{}
	for i, name := range n.names {
		cfg := n.cluster.login("disk", "nodes", n.iqn(name))
		cfg.ISID = [6]byte{0x80, 0, 0, 0, 0, byte(i + 1)}
		n.await("node "+name+" is logged in", patience, func(ctx context.Context) error {
			s, err := initiator.Dial(ctx, cfg)
			n.nodes[name] = s
			return err
		})
		s := n.nodes[name]
		n.t.Cleanup(func() { logout(s) })
		n.do(name, cdb.TestUnitReady(), nil, nil) // tells of the restart
	}
}

// crash kills the unit's process and starts it again.
func (n *clustered) crash() {
	n.t.Helper()
	n.kill(n.unit)
	n.revive()
}

// revive starts the unit again, and has the nodes log in.
func (n *clustered) revive() {
	n.t.Helper()
	n.restart(n.unit)
	if err := n.AwaitState(n.t.Context(), "unit", n.unit.ID, "Online", patience); err != nil {
		n.t.Fatal(err)
	}
	n.login()
}

func (n *clustered) do(name string, c cdb.CDB, in, out []byte) (status byte) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	res, err := n.nodes[name].Execute(ctx, &initiator.Command{CDB: c, In: in, Out: out})
	if err != nil {
		n.t.Fatalf("node %s, command % x: %v", name, c, err)
	}
	return res.Status
}

func (n *clustered) reserve(name string, action byte, kind cdb.PRType, list cdb.PROutList) {
	n.t.Helper()
	if status := n.do(name, cdb.PersistentReserveOut(action, kind, cdb.PROutListLength), nil, list.Encode()); status != cdb.StatusGood {
		n.t.Fatalf("PERSISTENT RESERVE OUT %d by %s: %s", action, name, cdb.StatusName(status))
	}
}

// holds checks the keys and the reservation as they are told.
func (n *clustered) holds(when string, kind cdb.PRType, holder uint64, keys ...uint64) {
	n.t.Helper()
	in := make([]byte, 256)
	n.do("c", cdb.PersistentReserveIn(cdb.PRInReadKeys, 256), in, nil)
	var got []uint64
	for b := in[8 : 8+binary.BigEndian.Uint32(in[4:])]; len(b) > 0; b = b[8:] {
		got = append(got, binary.BigEndian.Uint64(b))
	}
	clear(in)
	n.do("c", cdb.PersistentReserveIn(cdb.PRInReadReservation, 256), in, nil)
	if !slices.Equal(got, keys) || cdb.PRType(in[21]&0x0f) != kind || binary.BigEndian.Uint64(in[8:]) != holder {
		n.t.Errorf("%s: keys %x, type %d held by %x; want %x, %d, %x", when, got, in[21]&0x0f, in[8:16], keys, kind, holder)
	}
}

// writes checks who may write.
func (n *clustered) writes(when string, allowed ...string) {
	n.t.Helper()
	for _, name := range n.names {
		want := cdb.StatusReservationConflict
		if slices.Contains(allowed, name) {
			want = cdb.StatusGood
		}
		if got := n.do(name, cdb.Write16(0, 1, true), nil, make([]byte, 512)); got != want {
			n.t.Errorf("%s: a write by %s is %s, want %s", when, name, cdb.StatusName(got), cdb.StatusName(want))
		}
	}
}

// TestReservationsOutliveTheUnit kills the unit under a reservation. With APTPL it is all still there,
// and goes on to be changed; without, it is gone.
func TestReservationsOutliveTheUnit(t *testing.T) {
	t.Parallel()
	n := startClustered(t)
	const kind = cdb.PRExclusiveAccessRegistrantsOnly
	n.reserve("a", cdb.PROutRegister, 0, cdb.PROutList{ActionKey: 0xa, APTPL: true})
	n.reserve("b", cdb.PROutRegister, 0, cdb.PROutList{ActionKey: 0xb, APTPL: true})
	n.reserve("a", cdb.PROutReserve, kind, cdb.PROutList{Key: 0xa})
	n.holds("before", kind, 0xa, 0xa, 0xb)
	n.writes("before", "a", "b")
	for range 2 {
		n.crash()
		n.holds("after kill -9", kind, 0xa, 0xa, 0xb)
		n.writes("after kill -9", "a", "b")
	}
	n.reserve("b", cdb.PROutPreemptAndAbort, cdb.PRWriteExclusive, cdb.PROutList{Key: 0xb, ActionKey: 0xa})
	n.crash()
	n.holds("after a preemption and kill -9", cdb.PRWriteExclusive, 0xb, 0xb)
	n.writes("after a preemption and kill -9", "b")

	n.reserve("b", cdb.PROutRegister, 0, cdb.PROutList{Key: 0xb, ActionKey: 0xbb})
	n.holds("without APTPL", cdb.PRWriteExclusive, 0xbb, 0xbb)
	n.crash()
	n.holds("without APTPL, after kill -9", 0, 0)
	n.writes("without APTPL, after kill -9", "a", "b", "c")
}

// TestAtomicWritesUnderKill kills the unit while a node writes atomically: after each time the blocks hold
// one write as a whole, never an older one than what was acknowledged.
func TestAtomicWritesUnderKill(t *testing.T) {
	t.Parallel()
	const blocks = 512 // 256 KiB
	n := startClustered(t)
	acknowledged, sent := byte(0), byte(0)
	data := func(g byte) []byte { return bytes.Repeat([]byte{g}, blocks*512) }
	kills := 6
	if testing.Short() {
		kills = 2
	}
	for range kills {
		ended := make(chan struct{})
		busy := make(chan struct{})
		node := n.nodes["a"]
		go func() {
			defer close(ended)
			for i := 0; ; i++ {
				if i == 5 {
					close(busy)
				}
				sent = sent%200 + 1
				res, err := node.Execute(t.Context(), &initiator.Command{CDB: cdb.Block{Op: cdb.OpWriteAtomic16, LBA: 8, Blocks: blocks}.Encode(), Out: data(sent)})
				if err != nil {
					return
				}
				if res.Status != cdb.StatusGood {
					t.Errorf("an atomic write is %s", cdb.StatusName(res.Status))
					return
				}
				acknowledged = sent
			}
		}()
		select {
		case <-busy:
		case <-time.After(patience):
			t.Fatal("no atomic writes get through")
		}
		n.kill(n.unit)
		<-ended
		n.revive()
		got := make([]byte, blocks*512)
		if status := n.do("b", cdb.Read16(8, blocks, false), got, nil); status != cdb.StatusGood {
			t.Fatalf("reading: %s", cdb.StatusName(status))
		}
		if g := got[0]; !bytes.Equal(got, data(g)) || g != acknowledged && g != sent {
			t.Fatalf("acknowledged was write %d, sent %d; %d bytes of %d, %d of %d are there", acknowledged, sent,
				bytes.Count(got, []byte{acknowledged}), acknowledged, bytes.Count(got, []byte{sent}), sent)
		}
	}
}
