package initiator

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// BenchmarkTgtd measures the initiator with Debian's target on loopback.
func BenchmarkTgtd(b *testing.B) {
	daemon := startTgtd(b)
	const sizeBytes = 64 << 20
	name, _ := daemon.target(sizeBytes)
	d := openTest(b, daemon.config(name), 1)
	for _, c := range []struct {
		op    string
		bytes int
		depth int
	}{
		{"read", 4 << 10, 1}, {"read", 4 << 10, 32}, {"read", 1 << 20, 8},
		{"write", 4 << 10, 1}, {"write", 4 << 10, 32}, {"write", 1 << 20, 8},
	} {
		b.Run(fmt.Sprintf("%s/bytes=%d/depth=%d", c.op, c.bytes, c.depth), func(b *testing.B) {
			op := d.ReadAt
			if c.op == "write" {
				op = d.WriteAt
			}
			b.SetBytes(int64(c.bytes))
			b.ReportAllocs()
			var next atomic.Int64
			done := make(chan error, c.depth)
			for range c.depth {
				go func() {
					p := make([]byte, c.bytes)
					for {
						i := next.Add(1) - 1
						if i >= int64(b.N) {
							done <- nil
							return
						}
						off := i * 7919 % (sizeBytes / int64(c.bytes)) * int64(c.bytes)
						if err := op(b.Context(), p, off); err != nil {
							done <- err
							return
						}
					}
				}()
			}
			for range c.depth {
				if err := <-done; err != nil {
					b.Error(err)
				}
			}
		})
	}
}
