package abuse

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// withCommands are cases about commands whose headers lie.
func withCommands() []attack {
	return []attack{
		loggedIn("command: EDTL that disagrees with the CDB", edtlDisagrees),
		loggedIn("command: lengths of 4 GiB", fourGiB),
		loggedIn("command: LBAs beyond the end", beyondTheEnd),
		loggedIn("command: flags that don't fit the CDB", wrongDirection),
		loggedIn("command: logical units that are none", func(c *client) {
			for _, lun := range []uint64{1 << 48, 255 << 48, 0x4001 << 48, 1, 1<<64 - 1, 0x8000 << 48, 0xc101 << 48} {
				h := c.read(0, 1)
				h.LUN = lun
				c.send(h, nil)
				if status, _ := c.result(h); status != cdb.StatusCheckCondition {
					c.failf("a read of LUN %#x is answered with status %#02x", lun, status)
				}
			}
			c.alive("logical units that are none")
		}),
		loggedIn("command: every operation code, with nonsense", func(c *client) {
			rnd := rand.New(rand.NewPCG(1, 2))
			for op := range 256 {
				var b [16]byte
				for i := range b {
					b[i] = byte(rnd.Uint32())
				}
				if b[0] = byte(op); mayHarm(b[0]) {
					continue
				}
				h := c.command(b, 4096)
				h.Read = true
				c.send(h, nil)
				c.result(h)
			}
			c.alive("every operation code")
		}),
	}
}

// withTags are cases about what identifies commands, and about what their data says.
func withTags() []attack {
	return []attack{
		loggedIn("command: a task tag in use", func(c *client) {
			h := c.write(0, 16)
			h.Final = false
			c.send(h, nil) // its data is yet to come
			again := c.read(0, 1)
			again.ITT = h.ITT
			c.send(again, nil)
			c.rejected("a task tag in use", pdu.RejectTaskInProgress, pdu.RejectProtocolError)
			c.send(&pdu.DataOut{Final: true, ITT: h.ITT, TTT: pdu.NoTag}, pattern(16*blockSize, 1))
			if status, _ := c.result(h); status != 0 {
				c.failf("the command whose tag was taken: status %#02x", status)
			}
			none := c.read(0, 1)
			none.ITT = pdu.NoTag
			c.send(none, nil)
			c.rejected("the reserved task tag", pdu.RejectProtocolError, pdu.RejectInvalidField)
			c.alive("task tags in use")
		}),
		loggedIn("command: more immediate ones than are taken", func(c *client) {
			open, refused := 0, 0
			for range 200 {
				h := c.write(0, 8)
				h.Immediate, h.Final = true, false
				c.cmdSN--
				c.send(h, nil)
				open++
			}
			for refused < 100 && c.err == nil {
				p := c.next()
				if p != nil && p.BHS.Opcode() == pdu.OpReject {
					refused++
				}
			}
			c.itt++
			c.send(&pdu.TaskRequest{Immediate: true, Function: pdu.TaskAbortSet, ITT: c.itt, RefTag: pdu.NoTag, CmdSN: c.cmdSN}, nil)
			for c.err == nil {
				if p := c.next(); p != nil && p.BHS.Opcode() == pdu.OpTaskResponse {
					break
				}
			}
			if c.err == nil && refused < 100 {
				c.failf("%d of %d immediate commands were refused", refused, open)
			}
			c.alive("immediate commands")
		}),
		loggedIn("command: parameter lists that lie", lyingLists),
		{name: "command: bytes of a session, damaged", run: damagedStreams},
	}
}

// mayHarm tells operation codes that with nonsense in the CDB could change what the neighbour has written.
func mayHarm(op byte) bool {
	switch op {
	case cdb.OpWriteSame10, cdb.OpWriteSame16, cdb.OpUnmap, 0x04, 0x48: // FORMAT UNIT, SANITIZE
		return true
	}
	return op&0x1f == 0x0a || op&0x1f == 0x0e || op&0x1f == 0x0b || op == cdb.OpCompareAndWrite || op == cdb.OpPersistentReserveOut ||
		op == cdb.OpReserve6 || op == 0x56 || op == cdb.OpStartStopUnit || op == 0x9c
}

// edtlDisagrees has the expected data transfer length and the CDB say different things (RFC 7143 §11.4.5).
func edtlDisagrees(c *client) {
	for _, x := range []struct {
		blocks, edtl int
		over, under  uint32
	}{{8, 512, 3584, 0}, {8, 0, 4096, 0}, {1, 1 << 20, 0, 1<<20 - 512}, {8, 4095, 1, 0}, {1, 513, 0, 1}} {
		h := c.read(0, x.blocks)
		h.ExpectedLength = uint32(x.edtl)
		c.send(h, nil)
		moved, residual, over, under := 0, uint32(0), false, false
		for done := false; !done && c.err == nil; {
			p := c.next()
			if p == nil {
				return
			}
			switch p.BHS.Opcode() {
			case pdu.OpDataIn:
				var in pdu.DataIn
				in.Decode(&p.BHS)
				moved += len(p.Data)
				if done = in.HasStatus; done {
					residual, over, under = in.Residual, in.Overflow, in.Underflow
				}
			case pdu.OpSCSIResponse:
				var s pdu.SCSIResponse
				s.Decode(&p.BHS)
				residual, over, under, done = s.Residual, s.Overflow, s.Underflow, true
			default:
				c.failf("a read is answered with %s", p.BHS.Opcode())
			}
		}
		if moved > x.edtl || over != (x.over > 0) || under != (x.under > 0) || residual != x.over+x.under {
			c.failf("a read of %d blocks with %d bytes expected: %d bytes, residual %d, O %v, U %v", x.blocks, x.edtl, moved, residual, over, under)
		}
	}
	for _, x := range []struct{ blocks, sent int }{{1, 4096}, {8, 512}, {8, 0}} {
		h := c.write(0, x.blocks)
		h.ExpectedLength = uint32(x.sent)
		c.send(h, pattern(x.sent, 4))
		c.result(h) // an error or as much as came; but answered
	}
	c.alive("lengths that disagree")
}

// fourGiB announces as much as 32 bits can say.
func fourGiB(c *client) {
	const all = 1<<32 - 1
	read := c.command(cdb16(cdb.OpRead16, 0, all), all)
	read.Read = true
	write := c.command(cdb16(cdb.OpWrite16, 0, all), all)
	write.Write = true
	short := c.command(cdb16(cdb.OpRead16, 0, 1), all)
	short.Read = true
	same := c.command(cdb16(cdb.OpWriteSame16, 0, all), blockSize)
	same.Write = true
	same.ExpectedLength = all
	luns := c.command([16]byte{cdb.OpReportLUNs, 6: 0xff, 7: 0xff, 8: 0xff, 9: 0xff}, all)
	luns.Read = true
	pr := c.command([16]byte{cdb.OpPersistentReserveOut, 5: 0xff, 6: 0xff, 7: 0xff, 8: 0xff}, all)
	pr.Write = true
	verify := c.command(cdb16(cdb.OpVerify16, 0, all), all)
	verify.Write, verify.CDB[1] = true, 2
	compare := c.command(cdb16(cdb.OpCompareAndWrite, 0, 0xff), all)
	compare.Write, compare.CDB[13] = true, 0xff
	for _, x := range []struct {
		h    *pdu.SCSICommand
		good bool
	}{{read, false}, {write, false}, {short, true}, {same, false}, {luns, true}, {pr, false}, {verify, false}, {compare, false}} {
		c.send(x.h, nil)
		if status, _ := c.result(x.h); c.err == nil && (status == 0) != x.good {
			c.failf("operation %#02x with 4 GiB: status %#02x", x.h.CDB[0], status)
		}
	}
	c.alive("lengths of 4 GiB")
}

func beyondTheEnd(c *client) {
	for _, op := range []byte{cdb.OpRead16, cdb.OpWrite16, cdb.OpVerify16, cdb.OpSynchronizeCache16, cdb.OpWriteSame16, cdb.OpCompareAndWrite, cdb.OpOrWrite16} {
		for _, lba := range []uint64{volumeBytes / blockSize, 1<<64 - 1, 1 << 63, 1<<55 - 1} {
			b := cdb16(op, lba, 1)
			n := blockSize
			if op == cdb.OpCompareAndWrite {
				b[13], n = 1, 2*blockSize
			}
			h := c.command(b, 0)
			if op == cdb.OpRead16 {
				h.Read, h.ExpectedLength = true, blockSize
				c.send(h, nil)
			} else if op == cdb.OpVerify16 || op == cdb.OpSynchronizeCache16 {
				c.send(h, nil)
			} else {
				h.Write, h.ExpectedLength = true, uint32(n)
				c.send(h, pattern(n, 5))
			}
			if status, _ := c.result(h); status != cdb.StatusCheckCondition {
				c.failf("operation %#02x at LBA %#x: status %#02x", op, lba, status)
			}
		}
	}
	c.alive("LBAs beyond the end")
}

// wrongDirection sets R and W as the CDB does not mean it.
func wrongDirection(c *client) {
	for _, x := range []struct {
		op          byte
		read, write bool
		edtl, data  int
	}{{cdb.OpRead16, false, true, 512, 512}, {cdb.OpRead16, false, false, 512, 0}, {cdb.OpRead16, true, true, 512, 512}, {cdb.OpWrite16, true, false, 512, 0},
		{cdb.OpWrite16, false, false, 512, 0}, {cdb.OpTestUnitReady, true, false, 4096, 0}, {cdb.OpTestUnitReady, false, true, 4096, 4096}} {
		h := c.command(cdb16(x.op, 0, 1), x.edtl)
		if h.Read, h.Write = x.read, x.write; x.op == cdb.OpTestUnitReady {
			h.CDB = [16]byte{}
		}
		c.send(h, pattern(x.data, 6))
		c.result(h)
	}
	// Data with a command that has none to send.
	h := c.read(0, 1)
	c.send(h, pattern(512, 6))
	c.rejected("immediate data of a read", pdu.RejectProtocolError, pdu.RejectInvalidField)
	h = c.write(0, 1)
	c.send(h, pattern(1024, 6))
	c.rejected("more immediate data than is expected", pdu.RejectProtocolError, pdu.RejectInvalidField)
	c.alive("flags that don't fit")
}

// lyingLists sends parameter lists whose inner lengths are wrong.
func lyingLists(c *client) {
	list := make([]byte, 24)
	for _, lie := range []uint16{0, 7, 8, 0x1000, 0xffff} {
		binary.BigEndian.PutUint16(list[0:], lie)
		binary.BigEndian.PutUint16(list[2:], lie)
		binary.BigEndian.PutUint64(list[8:], 1<<64-1)
		binary.BigEndian.PutUint32(list[16:], 1<<32-1)
		for _, b := range [][16]byte{
			{cdb.OpUnmap, 7: 0, 8: 24}, {cdb.OpUnmap, 7: 0xff, 8: 0xff}, {cdb.OpModeSelect6, 0x10, 4: 24}, {cdb.OpModeSelect10, 0x10, 7: 0, 8: 24},
			{cdb.OpModeSelect10, 0x10, 7: 0xff, 8: 0xff}, {cdb.OpPersistentReserveOut, 7, 8: 24}, {cdb.OpPersistentReserveOut, 31, 0xff, 8: 24},
		} {
			h := c.command(b, len(list))
			h.Write = true
			c.send(h, list)
			c.result(h)
		}
	}
	c.alive("parameter lists that lie")
}

// damagedStreams sends what a session would, with bytes changed at random, to a volume of which nothing is
// expected. Whatever comes of it, the connection ends when we close our side.
func damagedStreams(ctx context.Context, r *rig) error {
	return many(8, func(worker int) error {
		rnd := rand.New(rand.NewPCG(uint64(worker), 99))
		for range 60 {
			c := r.ruin.dial(ctx).numbered(worker)
			loggedIn := rnd.IntN(4) > 0
			if loggedIn {
				c.login(wishes())
			}
			err := on(c, func(c *client) {
				stream := c.stream(loggedIn)
				for range 1 + rnd.IntN(8) {
					stream[rnd.IntN(len(stream))] ^= 1 << rnd.IntN(8)
				}
				c.raw(stream)
				_ = c.conn.CloseWrite() // it may be closed already
				c.eof("a damaged stream")
			})
			if err != nil {
				return fmt.Errorf("worker %d: %w", worker, err)
			}
		}
		return nil
	})
}

// stream is what a session sends, one PDU after the other.
func (c *client) stream(loggedIn bool) []byte {
	var b []byte
	add := func(h pdu.Header, data []byte) {
		var err error
		b, err = c.d.Append(b, h, nil, data)
		c.note(err)
	}
	if !loggedIn {
		add(c.loginRequest(false, 0, 0), pdu.AppendText(nil, append(c.names(), keys("AuthMethod=CHAP")...)...))
		add(c.loginRequest(false, 0, 0), pdu.AppendText(nil, keys("CHAP_A=5")...))
	}
	for i := range 6 {
		add(c.write(i*8, 8), pattern(8*blockSize, uint64(i)))
		add(c.read(i*8, 8), nil)
		long := c.write(i*8, 16)
		long.Final = false
		add(long, pattern(8*blockSize, 7))
		add(&pdu.DataOut{Final: true, ITT: long.ITT, TTT: pdu.NoTag, BufferOffset: 8 * blockSize}, pattern(8*blockSize, 8))
		add(&pdu.NOPOut{Immediate: true, ITT: 1000, TTT: pdu.NoTag, CmdSN: c.cmdSN}, []byte("ping"))
		add(&pdu.TaskRequest{Immediate: true, Function: pdu.TaskAbort, ITT: 1001, RefTag: long.ITT, RefCmdSN: long.CmdSN, CmdSN: c.cmdSN}, nil)
		add(&pdu.TextRequest{Final: true, Immediate: true, ITT: 1002, TTT: pdu.NoTag, CmdSN: c.cmdSN}, []byte("SendTargets=\x00"))
	}
	return b
}
