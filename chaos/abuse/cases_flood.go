package abuse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/initiator"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

func addr(a [4]byte) netip.Addr { return netip.AddrFrom4(a) }

// withTasks are cases about task management.
func withTasks() []attack {
	return []attack{
		loggedIn("tasks: functions that are none", func(c *client) {
			for _, f := range []uint8{0, pdu.TaskClearACA, pdu.TaskTargetColdReset, pdu.TaskReassign, 9, 127} {
				c.itt++
				c.send(&pdu.TaskRequest{Immediate: true, Function: f, ITT: c.itt, CmdSN: c.cmdSN}, nil)
				if r, _ := want[pdu.TaskResponse](c); r.ITT != c.itt || r.Response == pdu.TaskComplete {
					c.failf("function %d is answered %+v", f, r)
				}
			}
			c.alive("functions that are none")
		}),
		loggedIn("tasks: aborts of what is not there", func(c *client) {
			for i := range uint32(500) {
				c.itt++
				c.send(&pdu.TaskRequest{Immediate: true, Function: pdu.TaskAbort, ITT: c.itt, RefTag: 90000 + i, RefCmdSN: c.cmdSN - 1, CmdSN: c.cmdSN}, nil)
				if r, _ := want[pdu.TaskResponse](c); r.ITT != c.itt || r.Response != pdu.TaskNotFound {
					c.failf("an abort of nothing is answered %+v", r)
				}
			}
			c.alive("aborts of nothing")
		}),
		{name: "tasks: aborts that race with their commands", run: func(ctx context.Context, r *rig) error {
			return races(ctx, r, pdu.TaskAbort, pdu.TaskAbortSet)
		}},
		{name: "tasks: resets that race with commands", apart: true, run: func(ctx context.Context, r *rig) error {
			return races(ctx, r, pdu.TaskAbort, pdu.TaskAbortSet, pdu.TaskClearSet, pdu.TaskLUReset, pdu.TaskTargetWarmReset)
		}},
	}
}

// races has eight sessions with one logical unit send writes and functions. When all have done, all still work.
func races(ctx context.Context, r *rig, functions ...uint8) error {
	clients := make([]*client, 8)
	for i := range clients {
		clients[i] = r.prey.dial(ctx).numbered(i).login(wishes())
		defer clients[i].close()
	}
	err := many(len(clients), func(i int) error {
		clients[i].race(i, functions...)
		return clients[i].err
	})
	for _, c := range clients {
		for status := cdb.StatusCheckCondition; status == cdb.StatusCheckCondition && c.err == nil; {
			status, _ = c.readBlocks(0, 1) // unit attentions of the resets first
		}
		c.alive("the races")
		err = errors.Join(err, c.err)
	}
	return err
}

// race sends writes and functions on them in disorder, and gathers the answers: each function is answered, and no
// command more than once. Others' resets may leave commands unanswered.
func (c *client) race(seed int, functions ...uint8) {
	rnd := rand.New(rand.NewPCG(uint64(seed), 7))
	for round := range 40 {
		open := map[uint32]bool{}
		var last *pdu.SCSICommand
		for range 8 {
			last = c.write(rnd.IntN(1000), 64)
			last.Attr = uint8(rnd.IntN(8)) // ORDERED, HEAD OF QUEUE, and those that are refused or none
			if solicited := rnd.IntN(3) == 0; solicited {
				c.send(last, nil)
			} else {
				c.send(last, pattern(64*blockSize, 1))
			}
			open[last.ITT] = true
		}
		c.itt++
		task := &pdu.TaskRequest{Immediate: true, Function: functions[rnd.IntN(len(functions))], ITT: c.itt, RefTag: last.ITT, RefCmdSN: last.CmdSN, CmdSN: c.cmdSN}
		if task.Function != pdu.TaskAbort {
			task.RefTag = pdu.NoTag
		}
		c.send(task, nil)
		// A function on the whole set ends what is still open, so that the next round begins anew.
		c.itt++
		all := &pdu.TaskRequest{Immediate: true, Function: pdu.TaskAbortSet, ITT: c.itt, RefTag: pdu.NoTag, CmdSN: c.cmdSN}
		c.send(all, nil)
		for answered := 0; answered < 2 && c.err == nil; {
			p := c.next()
			if p == nil {
				return
			}
			switch p.BHS.Opcode() {
			case pdu.OpTaskResponse:
				answered++
			case pdu.OpSCSIResponse:
				if !open[p.BHS.ITT()] {
					c.failf("round %d: task %d is answered, which was not open", round, p.BHS.ITT())
				}
				delete(open, p.BHS.ITT())
			case pdu.OpR2T, pdu.OpNOPIn: // its command will be aborted
			default:
				c.failf("round %d: %s", round, p.BHS.Opcode())
			}
		}
		if c.err != nil {
			return
		}
	}
}

// floods are cases of too much of what is allowed.
func floods() []attack {
	return []attack{
		{name: "flood: logins", run: func(ctx context.Context, r *rig) error {
			return many(16, func(i int) error {
				for n := range 25 {
					d := r.prey
					d.from = addr([4]byte{127, 0, 1, byte(1 + i)})
					c := d.dial(ctx).numbered(i).login(wishes())
					if c.err != nil {
						return fmt.Errorf("login %d of worker %d: %w", n, i, c.err)
					}
					if n%2 == 0 {
						c.reset()
					} else {
						c.close()
					}
				}
				return nil
			})
		}},
		{name: "flood: reinstatements of one session", run: func(ctx context.Context, r *rig) error {
			err := many(16, func(int) error {
				for range 10 {
					c := r.prey.dial(ctx).login(wishes())
					c.close() // with or without success: others reinstate the same session at the same time
				}
				return nil
			})
			return errors.Join(err, on(r.prey.dial(ctx).login(wishes()), func(c *client) { c.alive("reinstatements") }))
		}},
		{name: "flood: 300 sessions, dropped at once", long: true, run: func(ctx context.Context, r *rig) error {
			open := make([]*client, 300)
			defer func() {
				for _, c := range open {
					if c != nil {
						c.reset()
					}
				}
			}()
			return many(16, func(worker int) error {
				for i := worker; i < len(open); i += 16 {
					open[i] = r.prey.dial(ctx).numbered(i).login(wishes())
					if err := open[i].err; err != nil {
						return fmt.Errorf("session %d: %w", i, err)
					}
				}
				return nil
			})
		}},
	}
}

// heavy are floods of data.
func heavy() []attack {
	return []attack{
		{name: "flood: writes of 32 MiB without data", run: greedyWrites},
		{name: "flood: much honest work at once", run: honestWork},
		{name: "flood: first bursts that never end", run: func(ctx context.Context, r *rig) error {
			return many(40, func(i int) error {
				return on(r.prey.dial(ctx).numbered(i).login(wishes()), func(c *client) {
					for range 100 {
						h := c.write(0, 128)
						h.Final = false
						b, err := c.d.Append(nil, h, nil, pattern(60<<10, 1))
						c.note(err)
						if err := c.stuck(b); err != nil {
							return // the unit reads no more, or has had enough
						}
					}
				})
			})
		}},
		{name: "flood: reservations and registrations", run: func(ctx context.Context, r *rig) error {
			return on(r.ruin.dial(ctx).login(wishes()), func(c *client) {
				for i := range 600 {
					list := cdb.PROutList{ActionKey: uint64(i%2 + 1)}.Encode()
					h := c.command([16]byte{cdb.OpPersistentReserveOut, cdb.PROutRegisterAndIgnore, 8: byte(len(list))}, len(list))
					h.Write = true
					c.send(h, list)
					c.result(h)
				}
				list := cdb.PROutList{}.Encode()
				h := c.command([16]byte{cdb.OpPersistentReserveOut, cdb.PROutRegisterAndIgnore, 8: byte(len(list))}, len(list))
				h.Write = true
				c.send(h, list)
				c.result(h)
				c.alive("registrations")
			})
		}},
	}
}

// honestWork is more than there is memory for at once: 512 MiB of writes, a part of each sent unasked. All of it must
// succeed, since nobody does anything wrong.
func honestWork(ctx context.Context, r *rig) error {
	const sessions, depth, size = 16, 32, 1 << 20
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return many(sessions, func(i int) error {
		cfg := r.prey.config()
		cfg.ISID = pdu.ISID{0x80, 9, 0, 0, 0, byte(i)}
		s, err := initiator.Dial(ctx, cfg)
		if err != nil {
			return err
		}
		dev, err := initiator.OpenDevice(ctx, s, 0)
		if err != nil {
			return errors.Join(err, s.Close())
		}
		data := pattern(size, uint64(i))
		err = many(depth, func(slot int) error { return dev.WriteAt(ctx, data, int64(slot)*size) })
		return errors.Join(err, s.Close())
	})
}

// greedyWrites opens as many of the largest writes as the unit takes, in many sessions, and sends no data.
func greedyWrites(ctx context.Context, r *rig) error {
	return many(48, func(i int) error {
		return on(r.prey.dial(ctx).numbered(i).login(wishes()), func(c *client) {
			for range 4 {
				h := c.command(cdb16(cdb.OpWrite16, 0, 32<<20/blockSize), 32<<20)
				h.Write = true
				c.send(h, nil)
			}
			// While they are open another session of the same host does small I/O.
			c.note(on(r.prey.dial(ctx).numbered(200+i).login(wishes()), func(c *client) {
				for range 5 {
					h := c.write(i*8, 8)
					c.send(h, pattern(4096, 1))
					if status, _ := c.result(h); status != 0 {
						c.failf("a small write beside: status %#02x", status)
					}
				}
				c.alive("large writes of others")
			}))
		})
	})
}
