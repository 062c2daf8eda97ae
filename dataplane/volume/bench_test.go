package volume_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

const (
	benchBlock = 4096
	benchSize  = 256 << 20
)

// benchReplica is a replica on a real file; path is its medium's.
func benchReplica(b *testing.B) (r *volume.Replica, path string) {
	b.Helper()
	path = filepath.Join(b.TempDir(), "medium")
	f, err := disk.Open(path, disk.OpenOptions{Create: true, SizeBytes: benchSize + 16<<20})
	if err != nil {
		b.Fatal(err)
	}
	id := san.MediumID(uuid.NewString())
	if err := extent.Format(f, extent.Params{Medium: id, Cluster: "c", Unit: "u", Created: time.Now()}); err != nil {
		b.Fatal(err)
	}
	m, err := extent.Open(f, extent.Expect{})
	if err != nil {
		b.Fatal(err)
	}
	d, err := disk.OpenDir(filepath.Join(filepath.Dir(path), "records"))
	if err != nil {
		b.Fatal(err)
	}
	mgr, err := volume.Open(volume.Config{Media: []*extent.Medium{m}, Records: d, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	r = mustCreate(b, &unit{manager: mgr}, volume.Spec{ID: san.VolumeID(uuid.NewString()), SizeBytes: benchSize, BlockSizeBytes: 512,
		Slices: []volume.Slice{{Medium: id, Extents: san.ExtentsFor(benchSize)}}})
	b.Cleanup(func() {
		for _, c := range []func() error{mgr.Close, m.Close, d.Close} {
			if err := c(); err != nil {
				b.Error(err)
			}
		}
	})
	for off := int64(0); off < benchSize; off += 1 << 20 {
		if err := r.WriteAt(ctx, make([]byte, 1<<20), off, false); err != nil {
			b.Fatal(err)
		}
	}
	return r, path
}

// Benchmark4K compares a replica with pread and pwrite on the file beneath it, which is
// in the page cache: what is measured is what a replica adds.
func Benchmark4K(b *testing.B) {
	r, path := benchReplica(b)
	raw, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	base := int64(2 << 20) // the first extent
	for _, c := range []struct {
		name string
		do   func(p []byte, off int64) error
	}{
		{"read/replica", func(p []byte, off int64) error { return r.ReadAt(ctx, p, off) }},
		{"read/raw", func(p []byte, off int64) error { _, err := raw.ReadAt(p, base+off); return err }},
		{"write/replica", func(p []byte, off int64) error { return r.WriteAt(ctx, p, off, false) }},
		{"write/raw", func(p []byte, off int64) error { _, err := raw.WriteAt(p, base+off); return err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(benchBlock)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				p := make([]byte, benchBlock)
				for pb.Next() {
					if err := c.do(p, rand.Int64N(benchSize/benchBlock)*benchBlock); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkAtomic16K measures atomic writes of database pages, by one writer and by many, who share
// the journal's syncs; beside them writes with FUA, which are only stable.
func BenchmarkAtomic16K(b *testing.B) {
	r, _ := benchReplica(b)
	const page = 16 << 10
	p := make([]byte, page)
	for _, writers := range []int{1, 32} {
		for name, write := range map[string]func(off int64) error{
			"atomic": func(off int64) error { return r.WriteAtomic(ctx, p, off) },
			"fua":    func(off int64) error { return r.WriteAt(ctx, p, off, true) },
		} {
			b.Run(fmt.Sprintf("%s/writers=%d", name, writers), func(b *testing.B) {
				b.SetBytes(page)
				var next atomic.Int64
				var g errgroup.Group
				for range writers {
					g.Go(func() error {
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							if err := write(i * page % benchSize); err != nil {
								return err
							}
						}
						return nil
					})
				}
				if err := g.Wait(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
