package abuse

import (
	"context"
	"fmt"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// withData are cases about data that does not come as it should.
func withData() []attack {
	spoilt := map[string]func(d *pdu.DataOut, data *[]byte){
		"beyond the burst":      func(_ *pdu.DataOut, data *[]byte) { *data = append(*data, pattern(64<<10, 9)...) },
		"at a wrong offset":     func(d *pdu.DataOut, _ *[]byte) { d.BufferOffset += 512 },
		"at an offset of 4 GiB": func(d *pdu.DataOut, _ *[]byte) { d.BufferOffset = 1<<32 - 4 },
		"with a wrong DataSN":   func(d *pdu.DataOut, _ *[]byte) { d.DataSN = 5 },
		"with a tag of no R2T":  func(d *pdu.DataOut, _ *[]byte) { d.TTT ^= 0x1000 },
		"without F at its end":  func(d *pdu.DataOut, _ *[]byte) { d.Final = false },
		"with F too early":      func(_ *pdu.DataOut, data *[]byte) { *data = (*data)[:1024] },
		"as if unsolicited":     func(d *pdu.DataOut, _ *[]byte) { d.TTT = pdu.NoTag },
	}
	var list []attack
	for _, how := range []string{"beyond the burst", "at a wrong offset", "at an offset of 4 GiB", "with a wrong DataSN", "with a tag of no R2T",
		"without F at its end", "with F too early", "as if unsolicited"} {
		list = append(list, attack{name: "data-out: " + how, run: func(ctx context.Context, r *rig) error {
			if err := on(r.prey.dial(ctx).login(wishes()), func(c *client) { c.spoiltBurst(spoilt[how]) }); err != nil {
				return err
			}
			return untouched(ctx, r, 2048, 512, 77)
		}})
	}
	return append(list,
		loggedIn("data-out: an R2T answered twice", func(c *client) {
			h := c.write(0, 512) // 256 KiB: four bursts of 64 KiB
			c.send(h, nil)
			first, _ := want[pdu.R2T](c)
			burst := &pdu.DataOut{Final: true, ITT: h.ITT, TTT: first.TTT, BufferOffset: first.BufferOffset}
			c.send(burst, pattern(int(first.DesiredLength), 1))
			c.send(burst, pattern(int(first.DesiredLength), 2))
			if status, _ := c.result(h); c.err == nil && status == 0 {
				c.failf("a write with one burst sent twice is answered GOOD")
			}
			c.err = nil // or the session has ended, which is as good
		}),
		loggedIn("data-out: for commands that are not there", func(c *client) {
			for i := range uint32(200) {
				c.send(&pdu.DataOut{Final: true, ITT: 5000 + i, TTT: i}, pattern(8192, 3))
				c.send(&pdu.DataOut{ITT: 5000 + i, TTT: pdu.NoTag}, pattern(8192, 3))
			}
			c.alive("data of no command")
		}),
		each("data-out: unsolicited beyond the first burst", session, []int{65 << 10, 256 << 10}, func(c *client, n int) {
			h := c.write(0, 512)
			h.Final = false
			c.send(h, pattern(4096, 1))
			sent := 4096
			for sn := uint32(0); sent < n; sn++ {
				c.send(&pdu.DataOut{ITT: h.ITT, TTT: pdu.NoTag, DataSN: sn, BufferOffset: uint32(sent)}, pattern(8192, 2))
				sent += 8192
			}
			if status, _ := c.result(h); c.err == nil && status != cdb.StatusCheckCondition {
				c.failf("a first burst of %d bytes, 64 KiB agreed: status %#02x", n, status)
			}
			c.err = nil
		}),
		attack{name: "data-out: unsolicited though InitialR2T is Yes", run: func(ctx context.Context, r *rig) error {
			w := wishes()
			w.InitialR2T, w.ImmediateData = true, false
			return on(r.prey.dial(ctx).login(w), func(c *client) {
				c.send(c.write(0, 8), pattern(4096, 1))
				c.rejected("immediate data, agreed that there is none", pdu.RejectProtocolError, pdu.RejectInvalidField)
				h := c.write(0, 8)
				h.Final = false
				c.send(h, nil)
				if status, _ := c.result(h); status != cdb.StatusCheckCondition {
					c.failf("a write that announces unsolicited data, agreed that there is none: status %#02x", status)
				}
				c.alive("unsolicited data")
			})
		}},
		attack{name: "data-out: sessions dropped mid-write", run: droppedMidWrite},
		attack{name: "data-in: nobody reads it", run: unreadData},
	)
}

// spoiltBurst answers an R2T wrongly. The command must not end well, or the session ends.
func (c *client) spoiltBurst(spoil func(d *pdu.DataOut, data *[]byte)) {
	h := c.write(2048, 512)
	c.send(h, nil)
	ask, _ := want[pdu.R2T](c)
	d := &pdu.DataOut{Final: true, ITT: h.ITT, TTT: ask.TTT, BufferOffset: ask.BufferOffset}
	data := pattern(512*blockSize, 77)[ask.BufferOffset : ask.BufferOffset+ask.DesiredLength]
	spoil(d, &data)
	c.send(d, data)
	if c.err != nil {
		return
	}
	if status, _ := c.result(h); c.err == nil && status != cdb.StatusCheckCondition {
		c.failf("a burst that is wrong ends with status %#02x", status)
	}
	c.err = nil // the end of the connection is as good an answer
}

// droppedMidWrite resets connections in the middle of their writes' data. None of it may reach the volume.
func droppedMidWrite(ctx context.Context, r *rig) error {
	err := many(16, func(worker int) error {
		for n := range 12 {
			c := r.prey.dial(ctx).numbered(worker).login(wishes())
			if c.err != nil {
				return c.err
			}
			h := c.write(2048, 512)
			switch n % 3 {
			case 0: // within the immediate data
				b, err := c.d.Append(nil, h, nil, pattern(64<<10, 78))
				c.note(err)
				c.raw(b[:len(b)/2])
			case 1: // within a solicited burst
				c.send(h, nil)
				ask, _ := want[pdu.R2T](c)
				c.lies(&pdu.DataOut{Final: true, ITT: h.ITT, TTT: ask.TTT, BufferOffset: ask.BufferOffset}, 0, int(ask.DesiredLength))
				c.raw(pattern(int(ask.DesiredLength)/2, 78))
			default: // between two bursts
				c.send(h, nil)
				ask, _ := want[pdu.R2T](c)
				c.send(&pdu.DataOut{Final: true, ITT: h.ITT, TTT: ask.TTT, BufferOffset: ask.BufferOffset}, pattern(int(ask.DesiredLength), 78))
			}
			c.reset()
			if c.err != nil {
				return fmt.Errorf("worker %d: %w", worker, c.err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return untouched(ctx, r, 2048, 512, 78)
}

// unreadData asks for much and reads nothing.
func unreadData(ctx context.Context, r *rig) error {
	return many(24, func(i int) error {
		return on(r.prey.dial(ctx).numbered(i).login(wishes()), func(c *client) {
			c.note(c.conn.SetReadBuffer(4096))
			for range 20 {
				c.send(c.read(0, preyBlocks/2), nil) // 16 MiB
			}
			// The unit goes on for others meanwhile, which the next session sees, and this one is read at last.
			c.note(on(r.prey.dial(ctx).numbered(100+i).login(wishes()), func(c *client) { c.alive("reads of others that nobody takes") }))
			if in, _ := want[pdu.DataIn](c); in.DataSN != 0 {
				c.failf("the first data is %+v", in)
			}
		})
	})
}
