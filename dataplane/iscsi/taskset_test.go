package iscsi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// modelTask is a command as SAM-5 §8.6 sees it.
type modelTask struct {
	attr    uint8
	enabled bool
}

// modelEnable enables what may be executed, given the commands that have not ended in their order of
// arrival. It reads as the standard does, and shares nothing with taskSet.
func modelEnable(set []*modelTask) {
	heads := slices.ContainsFunc(set, func(m *modelTask) bool { return m.attr == pdu.AttrHeadOfQueue })
	for i, m := range set {
		olderOrdered := slices.ContainsFunc(set[:i], func(o *modelTask) bool { return o.attr == pdu.AttrOrdered })
		switch m.attr {
		case pdu.AttrHeadOfQueue:
			m.enabled = true
		case pdu.AttrOrdered:
			m.enabled = m.enabled || !heads && i == 0
		default:
			m.enabled = m.enabled || !heads && !olderOrdered
		}
	}
}

// TestTaskSetAgainstModel: after every arrival, end and abort, just those are enabled that should be.
func TestTaskSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := &session{srv: &Server{}, tasks: map[uint32]*command{}}
		s.work.L, s.settled.L, s.out = &s.mu, &s.mu, &outQueue{}
		var model []*modelTask // that have not ended, in order of arrival
		tags := map[*modelTask]uint32{}
		next := uint32(0)
		end := func(rt *rapid.T, abort bool) {
			if len(model) == 0 {
				rt.Skip()
			}
			i := rapid.IntRange(0, len(model)-1).Draw(rt, "which")
			m := model[i]
			c := s.tasks[tags[m]]
			if !abort && !m.enabled {
				rt.Skip() // only what is executed ends by itself
			}
			model = slices.Delete(model, i, i+1)
			delete(tags, m)
			s.runQueue.remove(c)
			s.resolve(c)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"arrive": func(rt *rapid.T) {
				m := &modelTask{attr: rapid.SampledFrom([]uint8{pdu.AttrUntagged, pdu.AttrSimple, pdu.AttrSimple, pdu.AttrOrdered, pdu.AttrHeadOfQueue}).Draw(rt, "attr")}
				next++
				model, tags[m] = append(model, m), next
				c := &command{itt: next, attr: m.attr, numbered: true}
				s.tasks[next] = c
				if c.attr > pdu.AttrSimple || !s.set.empty() {
					s.join(c)
				}
				s.admitRead(c)
			},
			"end":   func(rt *rapid.T) { end(rt, false) },
			"abort": func(rt *rapid.T) { end(rt, true) },
			"": func(rt *rapid.T) {
				modelEnable(model)
				for _, m := range model {
					c := s.tasks[tags[m]]
					queued := slices.Contains(s.runQueue.list[s.runQueue.head:], c)
					if queued != m.enabled || c.dormant == m.enabled {
						rt.Fatalf("command %d (attribute %d) is queued %v, dormant %v; it should be enabled %v", tags[m], m.attr, queued, c.dormant, m.enabled)
					}
				}
				if n := s.runQueue.len(); n+len(s.set.dormant) != len(model) {
					rt.Fatalf("%d queued and %d dormant commands, %d have not ended", n, len(s.set.dormant), len(model))
				}
				if len(model) == 0 && !s.set.empty() {
					rt.Fatalf("nothing is left, but %+v", s.set)
				}
			},
		})
	})
}

// watch is a hold that lets commands go one by one, and keeps what it saw.
type watch struct {
	mu      sync.Mutex
	running map[uint32]chan struct{}
	begun   chan struct{}
	events  []string // "+tag" and "-tag"
	order   map[string]int
}

func (w *watch) hold(_ context.Context, task *scsi.Task) {
	release := make(chan struct{})
	w.mu.Lock()
	w.running[task.Tag] = release
	w.note("+", task.Tag)
	w.mu.Unlock()
	w.begun <- struct{}{}
	<-release
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("-", task.Tag)
}

func (w *watch) note(what string, tag uint32) {
	e := fmt.Sprint(what, tag)
	w.order[e] = len(w.events)
	w.events = append(w.events, e)
}

// release lets one of the running commands end.
func (w *watch) release(pick func([]uint32) uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tag := pick(slices.Sorted(maps.Keys(w.running)))
	close(w.running[tag])
	delete(w.running, tag)
}

// quickLU does every other command at once.
type quickLU struct {
	*memoryLU
	asked atomic.Uint32
}

func (q *quickLU) ExecuteNow(t *scsi.Task) (scsi.Result, bool) {
	if q.asked.Add(1)%2 == 0 {
		return scsi.Result{}, false
	}
	return q.Execute(context.Background(), t), true
}

// TestTaskAttributesOnTheWire: commands of all kinds and attributes, ended in any order: none begins
// before what it has to wait for has ended, and all end, whoever executes them.
func TestTaskAttributesOnTheWire(t *testing.T) {
	t.Run("handed over to workers", func(t *testing.T) { attributesOnTheWire(t, newRig(t, Limits{})) })
	t.Run("by the reader too", func(t *testing.T) {
		r := newRig(t, Limits{})
		quick := &quickLU{memoryLU: r.lu}
		r.dir.set(func(d *directory) { d.lu = quick })
		attributesOnTheWire(t, r)
		if quick.asked.Load() == 0 {
			t.Error("nothing was executed by the reader")
		}
	})
}

func attributesOnTheWire(t *testing.T, r *rig) {
	w := &watch{begun: make(chan struct{}, 64)}
	r.lu.setHold(w.hold)
	c := r.dial().login(wishes())
	rapid.Check(t, func(rt *rapid.T) {
		w.mu.Lock()
		w.running, w.order, w.events = map[uint32]chan struct{}{}, map[string]int{}, nil
		w.mu.Unlock()
		type sent struct {
			tag  uint32
			attr uint8
		}
		var all []sent
		data := map[uint32][]byte{} // of the writes whose data is to be solicited
		for range rapid.IntRange(1, 12).Draw(rt, "commands") {
			attr := rapid.SampledFrom([]uint8{pdu.AttrSimple, pdu.AttrSimple, pdu.AttrOrdered, pdu.AttrHeadOfQueue}).Draw(rt, "attr")
			var h *pdu.SCSICommand
			var out []byte
			switch rapid.SampledFrom([]string{"read", "write", "long write", "test"}).Draw(rt, "kind") {
			case "read":
				h = c.read(0, 1)
			case "write":
				h, out = c.write(0, 1), pattern(blockSize, 1)
			case "long write": // longer than the first burst
				n := int(c.params.FirstBurstLength)/blockSize + 8
				h = c.write(0, n)
				data[h.ITT] = pattern(n*blockSize, 2)
			default:
				h = c.command([16]byte{cdb.OpTestUnitReady}, 0)
			}
			h.Attr = attr
			c.send(h, out)
			all = append(all, sent{h.ITT, attr})
		}
		answers := make(chan struct{})
		go func() {
			defer close(answers)
			c.answer(len(all), data)
		}()
		for range all {
			<-w.begun
			w.release(func(tags []uint32) uint32 { return rapid.SampledFrom(tags).Draw(rt, "ends") })
		}
		<-answers
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, x := range all {
			for j, y := range all[:i] {
				waits := x.attr == pdu.AttrOrdered || x.attr == pdu.AttrSimple && y.attr != pdu.AttrSimple
				if waits && w.order[fmt.Sprint("+", x.tag)] < w.order[fmt.Sprint("-", y.tag)] {
					rt.Fatalf("command %d (attribute %d) began before command %d (attribute %d) had ended: %v", i, x.attr, j, y.attr, w.events)
				}
			}
		}
	})
}

// answer gives n commands the data that they ask for, until all have been answered.
func (c *client) answer(n int, data map[uint32][]byte) {
	for n > 0 {
		switch h, _ := c.next(); h := h.(type) {
		case *pdu.R2T:
			p := data[h.ITT][h.BufferOffset : h.BufferOffset+h.DesiredLength]
			for off, sn := 0, uint32(0); off < len(p); sn++ {
				end := min(off+int(c.params.MaxSendDataSegmentLength), len(p))
				c.send(&pdu.DataOut{Final: end == len(p), ITT: h.ITT, TTT: h.TTT, DataSN: sn, BufferOffset: h.BufferOffset + uint32(off)}, p[off:end])
				off = end
			}
		case *pdu.DataIn:
			if h.HasStatus {
				n--
			}
		case *pdu.SCSIResponse:
			if h.Status != cdb.StatusGood {
				c.t.Errorf("command %d: status %02x", h.ITT, h.Status)
			}
			n--
		default:
			c.t.Errorf("unexpected %T", h)
			return
		}
	}
}

// TestOrderedWriteWaitsForNobodyElse: another session's commands are in another task set.
func TestOrderedWriteWaitsForNobodyElse(t *testing.T) {
	r := newRig(t, Limits{})
	g := r.gate(true)
	a, b := r.dial().login(wishes()), r.dial()
	b.isid[0] = 0x40
	b.login(wishes())
	a.send(a.write(0, 1), pattern(blockSize, 0))
	<-g.entered
	h := b.write(1, 1)
	h.Attr = pdu.AttrOrdered
	b.send(h, pattern(blockSize, 1))
	<-g.entered
	close(g.open)
	expect[pdu.SCSIResponse](a)
	expect[pdu.SCSIResponse](b)
}

// TestOtherTaskAttributes: ACA and what is reserved are refused, whatever the command carries, and the
// session goes on.
func TestOtherTaskAttributes(t *testing.T) {
	r := newRig(t, Limits{})
	c := r.dial().login(wishes())
	for attr := pdu.AttrACA; attr <= 7; attr++ {
		for _, h := range []*pdu.SCSICommand{c.read(0, 1), c.write(0, 1), c.command([16]byte{cdb.OpTestUnitReady}, 0)} {
			var out []byte
			if h.Write {
				out = pattern(blockSize, 7)
			}
			h.Attr = attr
			c.send(h, out)
			resp, data := expect[pdu.SCSIResponse](c)
			sense, err := cdb.ParseSense(data[2:])
			if err != nil || resp.Status != cdb.StatusCheckCondition || sense.Key != cdb.KeyIllegalRequest || sense.ASC != cdb.ASCInvalidMessage {
				t.Errorf("attribute %d: %+v %v (%v)", attr, resp, sense, err)
			}
		}
	}
	c.send(c.read(0, 1), nil)
	if d, data := expect[pdu.DataIn](c); !d.HasStatus || data[0] != 0 {
		t.Errorf("afterwards: %+v, first byte %d", d, data[0])
	}
}
