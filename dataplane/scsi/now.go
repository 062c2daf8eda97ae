package scsi

import (
	"context"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// ExecuteNow is Execute for reads and writes that need to wait for nothing: their blocks
// are in memory, no other command is in their way, and there is nothing to be told to the
// initiator first. Otherwise ok is false; then nothing has happened, and the command is for Execute.
func (lu *LU) ExecuteNow(t *Task) (res Result, ok bool) {
	if lu.quick == nil || t.LUN != 0 || len(t.CDB) == 0 || len(t.CDB) < cdb.Length(t.CDB[0]) || t.Nexus.waiting() {
		return res, false
	}
	cmd := lu.commands.find(t.CDB)
	if cmd == nil || cmd.now == nil || t.CDB[cdb.Length(t.CDB[0])-1]&0x04 != 0 || lu.conflicts(t.Nexus, cmd.access) {
		return res, false
	}
	b, err := cdb.DecodeBlock(t.CDB)
	if err != nil {
		return res, false
	}
	r := request{Task: t, ctx: context.Background(), block: b}
	if _, ok := lu.checkRange(&r.block, uint64(lu.limits.MaxTransfer)); !ok || b.Blocks == 0 {
		return res, false
	}
	if res, ok = cmd.now(lu, &r); ok && res.Release == nil {
		res.Release = released
	}
	return res, ok
}

func (lu *LU) readNow(r *request) (res Result, ok bool) {
	n := int(lu.bytes(uint64(r.block.Blocks)))
	if n > r.inLimit() {
		return res, false
	}
	buf := lu.buffers.get(n)
	if !lu.quick.ReadNow(buf.b[:n], lu.bytes(r.block.LBA)) {
		buf.release()
		return res, false
	}
	return Result{Status: cdb.StatusGood, DataInTotal: n, DataIn: buf.b[:n], Release: buf.release}, true
}

func (lu *LU) writeNow(r *request) (res Result, ok bool) {
	b := &r.block
	n := int(lu.bytes(uint64(b.Blocks)))
	if b.FUA || len(r.DataOut) < n {
		return res, false
	}
	held := lu.ranges.try(b.LBA, uint64(b.Blocks))
	if held == nil {
		return res, false
	}
	defer lu.ranges.release(held)
	done, err := lu.quick.WriteNow(r.DataOut[:n], lu.bytes(b.LBA))
	if !done {
		return res, false
	}
	res = Result{Status: cdb.StatusGood}
	if err != nil {
		res = writeFailed(err)
	}
	res.DataOutTotal = n
	return res, true
}
