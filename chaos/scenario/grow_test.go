package scenario

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// TestGrow: a volume grows under its hosts' eyes, over the kill of its unit, up to the unit's last extent.
func TestGrow(t *testing.T) {
	t.Parallel()
	tool(t, "qemu-io", "qemu-img", "iscsi-readcapacity16")
	c := start(t, "--stations", "1", "--units", "1", "--hosts", "0", "--medium-size", "160MiB")
	c.ok("host", "add", "tools", "--initiator", otherIQN)
	c.ok("host", "add", "qemu", "--initiator", qemuIQN)
	v := c.give("disk", "24MiB", "tools")
	image := c.give("image", "16MiB", "qemu")

	dev := open(t, c.login("disk", "tools", otherIQN))
	var mu sync.Mutex
	var heard []cdb.ASC
	dev.OnUnitAttention(func(asc cdb.ASC) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, asc)
	})
	pattern := bytes.Repeat([]byte("sandbar!"), 64)
	if err := dev.WriteAt(t.Context(), pattern, v.SizeBytes-512); err != nil {
		t.Fatal(err)
	}
	c.ok("volume", "grow", "disk", "--size", "32768512", "--wait")
	if v = c.volume("disk"); v.State != "Ready" || v.SizeBytes != 32768512 || v.Assignments[0].Paths[0].EndLBA != 32768512/512-1 {
		t.Errorf("after it grew: %+v", v)
	}
	buf := make([]byte, 512)
	if err := dev.ReadAt(t.Context(), buf, 24<<20-512); err != nil || !bytes.Equal(buf, pattern) {
		t.Errorf("what was its last block: %v", err)
	}
	if err := dev.WriteAt(t.Context(), pattern, 32768512-512); err != nil {
		t.Errorf("its new last block: %v", err)
	}
	mu.Lock()
	if len(heard) != 1 || heard[0] != cdb.ASCCapacityChanged {
		t.Errorf("the open session met the attentions %v, want 2A/09 once", heard)
	}
	mu.Unlock()
	if got := do(t, "iscsi-readcapacity16", "-i", otherIQN, c.url("disk", "tools")); !strings.Contains(got, fmt.Sprintf("LOGICAL BLOCK ADDRESS:%d\n", 32768512/512-1)) {
		t.Errorf("iscsi-readcapacity16: %s", got)
	}

	growOverKill(t, c, image.SizeBytes)

	// All that the unit has, and a block more.
	pool, err := c.Pool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	most := c.volume("image").SizeBytes + pool.FreeBytes
	c.refused(4, []string{"unit-1", "free some volumes there or add media"}, "volume", "grow", "image", "--size", fmt.Sprint(most+512))
	c.refused(4, []string{"never shrinks", "16MiB"}, "volume", "grow", "image", "--size", "16MiB")
	c.refused(2, []string{"multiple of the block size"}, "volume", "grow", "image", "--size", "100000001")
	c.refused(3, []string{"no-such"}, "volume", "grow", "no-such", "--size", "1GiB")
	c.ok("volume", "grow", "image", "--size", fmt.Sprint(most), "--wait")
	if pool, err = c.Pool(t.Context()); err != nil || pool.FreeBytes != 0 || pool.ReservedBytes != pool.CapacityBytes {
		t.Errorf("the full pool: %+v, %v", pool, err)
	}
	if got := do(t, "qemu-img", "info", "--output=json", c.url("image", "qemu")); !strings.Contains(got, fmt.Sprintf(`"virtual-size": %d`, most)) {
		t.Errorf("qemu-img info: %s, want %d bytes", got, most)
	}
	c.take("image", "qemu")
	c.await("its room is free again", patience, func(ctx context.Context) error {
		p, err := c.Pool(ctx)
		if err == nil && p.FreeBytes+32<<20 != p.CapacityBytes {
			err = fmt.Errorf("%+v", p)
		}
		return err
	})
}

// growOverKill has the image grow while its unit is killed: the growth is there once the unit is, and the data too.
func growOverKill(t *testing.T, c *cluster, size int64) {
	t.Helper()
	do(t, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("write -P 0x5a 0 %d", size), "-c", "flush", c.url("image", "qemu"))
	unit := c.Process("unit-1")
	grown := size + 40<<20
	c.ok("volume", "grow", "image", "--size", fmt.Sprint(grown))
	c.kill(unit)
	c.restart(unit)
	c.whole()
	// The same size again changes nothing, and waits for what is under way.
	c.ok("volume", "grow", "image", "--size", fmt.Sprint(grown), "--wait")
	do(t, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("read -P 0x5a 0 %d", size), "-c", fmt.Sprintf("read -P 0 %d %d", size, grown-size),
		"-c", fmt.Sprintf("write -P 0x77 %d 4096", grown-4096), c.url("image", "qemu"))
}
