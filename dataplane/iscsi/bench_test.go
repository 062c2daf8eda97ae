package iscsi

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// swiftLU answers reads and writes at once, so that the transport alone is measured.
type swiftLU struct {
	*memoryLU
	page []byte
}

func (s *swiftLU) Execute(_ context.Context, t *scsi.Task) scsi.Result {
	if t.CDB[0] == 0x8a {
		return scsi.Result{DataOutTotal: len(t.DataOut)}
	}
	return scsi.Result{DataIn: s.page[:t.DataInLimit], DataInTotal: t.DataInLimit}
}

func (s *swiftLU) ExecuteNow(t *scsi.Task) (scsi.Result, bool) {
	return s.Execute(context.Background(), t), true
}

// BenchmarkLoopback measures the transport over the loopback, by size, direction and depth.
func BenchmarkLoopback(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		for _, depth := range []int{1, 8, 32} {
			for _, write := range []bool{false, true} {
				b.Run(fmt.Sprintf("size=%d/depth=%d/write=%v", size, depth, write), func(b *testing.B) {
					loopback(b, size, depth, write)
				})
			}
		}
	}
}

func loopback(b *testing.B, size, depth int, write bool) {
	r := newRig(b, Limits{})
	r.dir.set(func(d *directory) { d.lu = &swiftLU{r.lu, make([]byte, size)} })
	w := wishes()
	w.MaxRecvDataSegmentLength, w.FirstBurstLength, w.MaxBurstLength, w.MaxOutstandingR2T = 256<<10, 256<<10, 1<<20, 8
	c := r.dial()
	_ = c.conn.SetDeadline(time.Time{})
	c.login(w)
	data := pattern(size, 1)
	imm := min(size, int(c.params.FirstBurstLength), int(c.params.MaxSendDataSegmentLength))
	send := func() {
		if write {
			c.send(c.write(0, size/blockSize), data[:imm])
			return
		}
		c.send(c.read(0, size/blockSize), nil)
	}
	buf := bytes.Repeat([]byte{0}, 256<<10)
	var bhs pdu.BHS
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for range min(depth, b.N) {
		send()
	}
	for sent, done := min(depth, b.N), 0; done < b.N; {
		if _, err := c.r.ReadHeader(&bhs); err != nil {
			b.Fatal(err)
		}
		if err := c.r.ReadData(buf[:bhs.DataLength()]); err != nil {
			b.Fatal(err)
		}
		switch bhs.Opcode() {
		case pdu.OpR2T:
			var ask pdu.R2T
			ask.Decode(&bhs)
			c.burstOf(&ask, data)
			continue
		case pdu.OpDataIn:
			if bhs[1]&1 == 0 {
				continue
			}
		}
		done++
		if sent < b.N {
			sent++
			send()
		}
	}
	b.StopTimer()
	r.stop()
}

func (c *client) burstOf(ask *pdu.R2T, data []byte) {
	from, to := ask.BufferOffset, ask.BufferOffset+ask.DesiredLength
	for sn := uint32(0); from < to; sn++ {
		end := min(to, from+c.params.MaxSendDataSegmentLength)
		c.send(&pdu.DataOut{Final: end == to, ITT: ask.ITT, TTT: ask.TTT, DataSN: sn, BufferOffset: from}, data[from:end])
		from = end
	}
}
