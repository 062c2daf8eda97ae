package scenario

import (
	"bytes"
	"context"
	"fmt"
	"testing"
)

// TestReuse: a pool is filled to its end, and what is deleted never shows up with its next owner.
func TestReuse(t *testing.T) {
	t.Parallel()
	tool(t, "qemu-io", "qemu-img")
	c := start(t, "--stations", "1", "--units", "2", "--hosts", "0", "--medium-size", "40MiB")
	c.ok("host", "add", "qemu", "--initiator", qemuIQN)
	c.ok("host", "add", "other", "--initiator", otherIQN)
	pool, err := c.Pool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	per := pool.CapacityBytes / 2
	size := fmt.Sprint(per)
	first, second := c.give("first", size, "qemu"), c.give("second", size, "qemu")
	if a, b := first.Copies[0].UnitID, second.Copies[0].UnitID; a == b {
		t.Fatalf("both volumes are on %s", a)
	}
	c.refused(4, []string{"unit-1: full", "unit-2: full", "free some"}, "volume", "create", "third", "--size", "4MiB")
	if pool, err = c.Pool(t.Context()); err != nil || pool.FreeBytes != 0 || pool.ReservedBytes != pool.CapacityBytes {
		t.Errorf("the full pool: %+v, %v", pool, err)
	}
	c.await("the units have told that they are full", patience, func(ctx context.Context) error {
		p, err := c.Pool(ctx)
		if err == nil && p.UsedBytes != p.CapacityBytes {
			err = fmt.Errorf("%+v", p)
		}
		return err
	})
	for _, name := range []string{"first", "second"} {
		do(t, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("write -P 0xee 0 %d", per), "-c", "flush", "-c", fmt.Sprintf("read -P 0xee 0 %d", per), c.url(name, "qemu"))
		c.take(name, "qemu")
	}
	c.await("the pool is empty again", patience, func(ctx context.Context) error {
		p, err := c.Pool(ctx)
		if err == nil && (p.FreeBytes != p.CapacityBytes || p.UsedBytes != 0 || p.ReservedBytes != 0 || p.Volumes != 0) {
			err = fmt.Errorf("%+v", p)
		}
		return err
	})
	// Every extent that there is has held the pattern, so that these must reuse them.
	for _, name := range []string{"first", "next"} {
		c.give(name, size, "other")
		dev := open(t, c.login(name, "other", otherIQN))
		readsZeros(t, dev, per)
	}
	// Writing a little must not uncover more than was written.
	dev := open(t, c.login("next", "other", otherIQN))
	if err := dev.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 512), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := dev.WriteAt(t.Context(), make([]byte, 512), 1<<20); err != nil {
		t.Fatal(err)
	}
	readsZeros(t, dev, per)
}

func readsZeros(t *testing.T, dev interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
}, size int64) {
	t.Helper()
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		if err := dev.ReadAt(t.Context(), buf, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf, zeros) {
			t.Fatalf("a former owner's bytes within 1 MiB after byte %d", off)
		}
	}
}
