package iscsi

import (
	"context"
	"runtime"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// Whoever takes and gives back what: the sum is kept, first bursts stay out of the floor, no host
// holds so much that the next finds nothing, and once whole commands have ended the largest one fits.
func TestBudgetRules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		total := budgetFloor + rapid.IntRange(0, 128<<20).Draw(rt, "total")
		b := newBudget(total)
		var hosts []*account
		for _, name := range []string{"a", "b", "c"} {
			hosts = append(hosts, b.open(name, 0))
		}
		taken := map[*account][]room{}
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			a := rapid.SampledFrom(hosts).Draw(rt, "host")
			if held := taken[a]; len(held) > 0 && rapid.IntRange(0, 3).Draw(rt, "give") == 0 {
				i := rapid.IntRange(0, len(held)-1).Draw(rt, "which")
				b.give(a, held[i])
				taken[a] = append(held[:i:i], held[i+1:]...)
			} else {
				n, first := rapid.IntRange(1, scsi.MaxTransferBytes).Draw(rt, "n"), rapid.Bool().Draw(rt, "first")
				was := *a
				r, ok := b.take(a, n, first)
				switch {
				case ok && first && b.free < budgetFloor, ok && first && a.first > 3*b.free:
					rt.Fatalf("first burst of %d with %d left free", n, b.free)
				case ok && !first && was.full > 0 && a.full > b.free:
					rt.Fatalf("a host that holds %d of whole commands got %d with %d left free", was.full, n, b.free)
				case ok:
					taken[a] = append(taken[a], r)
				}
			}
			sum := b.free
			for _, h := range hosts {
				sum += h.first + h.full
			}
			if sum != total || b.free < 0 {
				rt.Fatalf("%d of %d bytes are accounted for, %d free", sum, total, b.free)
			}
		}
		for _, a := range hosts {
			for _, r := range taken[a] {
				if r.full > 0 {
					b.give(a, r)
				}
			}
		}
		if _, ok := b.take(hosts[0], scsi.MaxTransferBytes, false); !ok {
			rt.Fatalf("with no whole command left and %d bytes free the largest one finds no room", b.free)
		}
	})
}

// The host that holds nothing is served before those who hold something, whoever of those asks.
func TestWhoHoldsNothingGoesFirst(t *testing.T) {
	b := newBudget(100)
	rich, poor, late := b.open("rich", 0), b.open("poor", 0), b.open("late", 0)
	held, ok := b.take(rich, 60, false)
	if !ok {
		t.Fatal("no room in an empty budget")
	}
	if _, ok := b.take(poor, 50, false); ok {
		t.Fatal("more was given than there is")
	}
	b.queue(&session{account: poor}, true)
	for _, a := range []*account{rich, late} {
		if _, ok := b.take(a, 1, false); ok {
			t.Errorf("%s overtook the one who waits with nothing", a.owner)
		}
	}
	b.give(rich, held)
	if len(b.wake) != 1 {
		t.Error("nobody was told that there is room again")
	}
	if _, ok := b.take(poor, 50, false); !ok {
		t.Error("there is room again, but not for the one who waited")
	}
}

// tight is a server with room for 1 MiB of first bursts beside its sessions' own 4 KiB.
func tight() Limits {
	return Limits{MaxConnections: 8, MaxLogins: 8, OwnBufferBytes: 4096, TotalBufferBytes: budgetFloor + 8*4096 + 1<<20}
}

// perInitiator makes each initiator name a host of its own.
func (r *rig) perInitiator() {
	r.dir.set(func(d *directory) {
		d.everyone = true
		d.admit = func(a Admission) Admission { a.Host = san.HostID(d.caller); return a }
	})
}

func (r *rig) session(initiator string) *session {
	r.t.Helper()
	r.srv.mu.Lock()
	defer r.srv.mu.Unlock()
	for _, s := range r.srv.sessions {
		if s.info.Initiator == initiator {
			return s
		}
	}
	r.t.Fatalf("%s has no session", initiator)
	return nil
}

const otherInitiator = "iqn.2004-10.com.example:other"

func (r *rig) other() *client {
	c := r.dial()
	c.isid[0] = 0x40
	return c.login(wishes(), kvs("InitiatorName="+otherInitiator, "TargetName="+someTarget)...)
}

// A connection whose writes find no room is not read from until there is some; another host's is served meanwhile.
func TestAConnectionWithoutRoomWaits(t *testing.T) {
	r := newRig(t, tight())
	r.perInitiator()
	open := make(chan struct{})
	r.lu.setHold(func(_ context.Context, task *scsi.Task) {
		if task.CDB[0] == 0x8a && task.CDB[8]|task.CDB[9]>>7 != 0 { // LBA 128 and above
			<-open
		}
	})
	greedy, other := r.dial().login(wishes()), r.other()
	const writes = 30 // of 64 KiB
	go func() {
		for i := range writes {
			greedy.send(greedy.write(128+i%2*128, 128), pattern(64<<10, 1))
		}
	}()
	s := r.session(goodInitiator)
	for !s.paused.Load() || len(r.srv.budget.next()) != 1 { // who waits for room is in line
		runtime.Gosched()
	}
	s.look(time.Now().Add(time.Hour)) // waiting is not silence
	for i := range 20 {
		other.send(other.write(i, 8), pattern(4096, 9))
		if resp, _ := expect[pdu.SCSIResponse](other); resp.Status != 0 {
			t.Fatalf("the other host's write: %+v", resp)
		}
	}
	close(open)
	for range writes {
		if resp, _ := expect[pdu.SCSIResponse](greedy); resp.Status != 0 {
			t.Fatalf("%+v", resp)
		}
	}
	if b := r.srv.budget; len(b.next()) != 0 || s.account.first != 0 || s.account.full != 0 {
		t.Errorf("%d in line, %+v still held", len(b.next()), *s.account)
	}
}

// As long as the initiator owes data that is behind in the stream, the reader can't wait: then
// what finds no room is told that the task set is full (SAM-5 §5.3.1).
func TestNoRoomWhileDataIsOwed(t *testing.T) {
	r := newRig(t, tight())
	c := r.dial().login(wishes())
	first := c.write(0, 128)
	first.Final = false
	c.send(first, pattern(4096, 1)) // the rest of its burst is owed
	g := r.gate(false)
	const writes = 30
	for range writes {
		c.send(c.write(128, 128), pattern(64<<10, 2))
	}
	if resp, _ := expect[pdu.SCSIResponse](c); resp.Status != cdb.StatusTaskSetFull {
		t.Fatalf("%+v", resp)
	}
	refused := 1
	c.burst(first.ITT, pdu.NoTag, pattern(64<<10, 1), 4096, 64<<10)
	close(g.open)
	for range writes {
		switch resp, _ := expect[pdu.SCSIResponse](c); {
		case resp.Status == cdb.StatusTaskSetFull && resp.ITT != first.ITT:
			refused++
		case resp.Status != 0:
			t.Fatalf("%+v", resp)
		}
	}
	if refused > writes-15 {
		t.Errorf("%d of %d writes were refused, though there is room for 15", refused, writes)
	}
}

// Who keeps memory that others wait for, and sends nothing of the data that it owes, loses its session, even if it pings.
func TestOwedDataThatNeverComesEndsTheSession(t *testing.T) {
	r := newRig(t, Limits{PingInterval: time.Hour, PingTimeout: 50 * time.Millisecond, MaxConnections: 8, MaxLogins: 8,
		OwnBufferBytes: 4096, TotalBufferBytes: budgetFloor + 8*4096 + 64<<10})
	r.perInitiator()
	const blocks = scsi.MaxTransferBytes / blockSize
	var owing []*client
	for _, name := range []string{"iqn.a.b:1", "iqn.a.b:2"} {
		c := r.dial().login(wishes(), kvs("InitiatorName="+name, "TargetName="+someTarget)...)
		c.send(c.write(0, blocks), nil)
		expect[pdu.R2T](c)
		owing = append(owing, c)
	}
	other := r.other()
	other.send(other.read(0, 16), nil)
	if d, _ := expect[pdu.DataIn](other); d.Status != 0 { // there is room for this
		t.Errorf("%+v", d)
	}
	// And for this only when a session that owes its data has ended.
	big := other.write(0, blocks)
	other.send(big, nil)
	if d, _ := expect[pdu.R2T](other); d.ITT != big.ITT {
		t.Errorf("%+v", d)
	}
	for _, c := range owing {
		_ = c.conn.Close()
	}
}

// Pings with much data and lists of targets that nobody fetches are paid for like data.
func TestAnswersArePaidFor(t *testing.T) {
	r := newRig(t, tight())
	c := r.dial().login(wishes())
	for range 40 {
		c.send(&pdu.NOPOut{Immediate: true, ITT: 7, TTT: pdu.NoTag, CmdSN: c.cmdSN}, pattern(64<<10, 5))
		if _, data := expect[pdu.NOPIn](c); len(data) != 64<<10 {
			t.Fatalf("%d bytes came back", len(data))
		}
	}
	r.dir.set(func(d *directory) { d.many = 500 })
	w := wishes()
	w.MaxRecvDataSegmentLength = 512
	d := r.dial().login(w, kvs("InitiatorName="+goodInitiator, "SessionType=Discovery")...)
	d.send(&pdu.TextRequest{Final: true, ITT: 2, TTT: pdu.NoTag, CmdSN: d.cmdSN}, []byte("SendTargets=All\x00"))
	d.cmdSN++
	expect[pdu.TextResponse](d)
	held := func() int {
		r.srv.budget.mu.Lock()
		defer r.srv.budget.mu.Unlock()
		return r.srv.budget.accounts["initiator "+goodInitiator].first
	}
	if n := held(); n < 500*len(someTarget) {
		t.Errorf("%d bytes are held for the list", n)
	}
	d.send(&pdu.TextRequest{Final: true, ITT: 3, TTT: pdu.NoTag, CmdSN: d.cmdSN}, []byte("X-a=b\x00"))
	expect[pdu.TextResponse](d)
	if n := held(); n != 0 {
		t.Errorf("%d bytes are held for a list that nobody will fetch", n)
	}
}
