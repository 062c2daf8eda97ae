package iscsi

import (
	"context"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
)

// memoryStore is a volume in memory.
type memoryStore struct {
	mu   sync.RWMutex
	data []byte
}

func (m *memoryStore) SizeBytes() int64 { return int64(len(m.data)) }

func (m *memoryStore) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.data[off:])
	return nil
}

func (m *memoryStore) WriteAt(_ context.Context, p []byte, off int64, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:], p)
	return nil
}

func (m *memoryStore) MaxAtomicBytes() int64 { return 1 << 20 }

func (m *memoryStore) WriteAtomic(ctx context.Context, p []byte, off int64) error {
	return m.WriteAt(ctx, p, off, true)
}

func (m *memoryStore) Mapped(_ context.Context, _, length int64) (run int64, mapped bool, err error) {
	return length, true, nil
}

func (m *memoryStore) Flush(context.Context) error { return nil }

func (m *memoryStore) Zero(_ context.Context, off, length int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[off : off+length])
	return nil
}

// Other people's initiators, where they are installed, against the real device server with CHAP.
func TestPeers(t *testing.T) {
	r := newRig(t, Limits{})
	store := &memoryStore{data: make([]byte, 64<<20)}
	lu, err := scsi.NewLU(scsi.Config{ID: "0b1f3a62-7d7e-4a55-9a5e-0f6f0c9d2b11", BlockSizeBytes: blockSize, Store: store, TargetName: someTarget,
		RelativePort: 1, PortGroup: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.dir.set(func(d *directory) {
		d.lu, d.chap, d.everyone = lu, &CHAP{User: "joe", Secret: "twelve-bytes-long"}, true
	})
	portal := "iscsi://joe%" + r.dir.chap.Secret + "@" + r.addr
	url := portal + "/" + someTarget + "/0"
	for _, x := range []struct {
		name, want string
		args       []string
		fails      bool
	}{
		{"iscsi-ls", "Target:" + someTarget, []string{portal}, false},
		{"iscsi-inq", "SANDBAR", []string{url}, false},
		{"iscsi-readcapacity16", "Total size:67108864", []string{url}, false},
		{"iscsi-readcapacity16", "Authentication failure", []string{strings.Replace(url, "joe", "jim", 1)}, true},
		{"qemu-io", "wrote 11534336/11534336", []string{"-f", "raw", "-c", "write -P 7 1M 11M", "-c", "read -P 7 1M 11M", "-c", "flush",
			"-c", "discard 2M 1M", "-c", "read -P 0 2M 1M", "-c", "read -P 7 3M 9M", url}, false},
	} {
		path, err := exec.LookPath(x.name)
		if err != nil {
			t.Logf("%s is not installed", x.name)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		out, err := exec.CommandContext(ctx, path, x.args...).CombinedOutput()
		cancel()
		if (err != nil) != x.fails || !strings.Contains(string(out), x.want) || strings.Contains(string(out), "verification failed") {
			t.Errorf("%s %s: %v\n%s", x.name, strings.Join(x.args, " "), err, out)
		}
	}
	store.mu.RLock()
	defer store.mu.RUnlock()
	if store.data[1<<20] != 7 || store.data[2<<20] != 0 || store.data[12<<20-1] != 7 || store.data[12<<20] != 0 {
		t.Error("the volume does not hold what qemu-io wrote")
	}
}
