package scenario

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

// TestUnitSequence follows a unit through stop, crash and return (Fig. 3).
func TestUnitSequence(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "3", "--units", "2", "--hosts", "0")
	ctx := t.Context()
	c.ok("host", "add", "a", "--initiator", otherIQN)
	v := c.give("v", "16MiB", "a")
	id := v.Copies[0].UnitID
	u := c.Process(id)
	cfg := c.login("v", "a", otherIQN)
	dev := open(t, cfg)
	data := bytes.Repeat([]byte("kept"), 1024)
	if err := dev.WriteAt(ctx, data, 8192); err != nil {
		t.Fatal(err)
	}
	if err := dev.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	before, err := c.Unit(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if len(before.Volumes) != 1 || before.Volumes[0].StartLBA != 0 || before.Volumes[0].LengthBlocks != 32768 || before.Volumes[0].EndLBA != 32767 {
		t.Errorf("the unit told the volumes %+v, want one of LBA 0 to 32767", before.Volumes)
	}
	pool, err := c.Pool(ctx)
	if err != nil || pool.UnitsOnline != 2 || pool.ReservedBytes != 16<<20 {
		t.Errorf("the pool: %+v, %v", pool, err)
	}
	states := func(what string, end func(*lab.Process), state string, limit time.Duration) {
		t.Helper()
		end(u)
		if err := c.AwaitState(ctx, "unit", id, state, limit); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		p, err := c.Pool(ctx)
		if err != nil || p.Units != 2 || p.UnitsOnline != 1 || p.Volumes != 1 {
			t.Errorf("%s: the pool: %+v, %v", what, p, err)
		}
		// The other unit serves, and nothing is placed on the one that is away.
		c.give("while", "16MiB", "a")
		if on := c.volume("while").Copies[0].UnitID; on == id {
			t.Errorf("%s: a volume is placed on it", what)
		}
		c.take("while", "a")
		c.restart(u)
		if err := c.AwaitState(ctx, "unit", id, "Online", patience); err != nil {
			t.Fatalf("%s and start: %v", what, err)
		}
		c.cameBack(before, what)
		got := make([]byte, len(data))
		if err := open(t, cfg).ReadAt(ctx, got, 8192); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: what was flushed: %v, equal: %v", what, err, bytes.Equal(got, data))
		}
	}
	states("SIGTERM", c.terminate, "Stopped", 5*time.Second)
	states("kill -9", c.kill, "Unreachable", patience)
}

// cameBack checks that a unit has the media and volumes that it had.
func (c *cluster) cameBack(before lab.Unit, what string) {
	c.t.Helper()
	c.await(what+": the unit has all that it had", patience, func(ctx context.Context) error {
		now, err := c.Unit(ctx, before.ID)
		if err != nil {
			return err
		}
		for i, m := range before.Media {
			if i >= len(now.Media) || now.Media[i].ID != m.ID || now.Media[i].CapacityBytes != m.CapacityBytes || now.Media[i].State != "Online" {
				return fmt.Errorf("it has the media %+v, had %+v", now.Media, before.Media)
			}
			// It told what is in use when it started; more may have been placed on it since.
			if used := now.Media[i].UsedBytes; used < m.ReservedBytes {
				return fmt.Errorf("%d bytes are in use of a medium that had volumes of %d", used, m.ReservedBytes)
			}
		}
		for _, v := range before.Volumes {
			if !slices.Contains(now.Volumes, v) {
				return fmt.Errorf("it has the volumes %+v, had %+v", now.Volumes, before.Volumes)
			}
		}
		return nil
	})
}

// TestSuperblock damages a medium's superblock, once in one copy and once in both.
func TestSuperblock(t *testing.T) {
	t.Parallel()
	c := start(t, "--stations", "1", "--units", "1", "--hosts", "0")
	c.ok("host", "add", "a", "--initiator", otherIQN)
	v := c.give("v", "16MiB", "a")
	u := c.Process(v.Copies[0].UnitID)
	const copySize, twin = 4096, 512 << 10 // where the two copies are is part of the medium's format
	medium := u.Media[0]

	c.terminate(u)
	spoil(t, medium, 0, copySize)
	c.restart(u)
	if err := c.AwaitState(t.Context(), "unit", u.ID, "Online", patience); err != nil {
		t.Fatalf("one copy damaged: %v", err)
	}
	log, err := u.Log()
	if err != nil {
		t.Fatal(err)
	}
	if len(linesWith(log, "superblock")) == 0 {
		t.Errorf("the log says nothing of the superblock that was repaired")
	}
	open(t, c.login("v", "a", otherIQN))

	// It was repaired: the other copy may go now.
	c.terminate(u)
	spoil(t, medium, twin, copySize)
	c.restart(u)
	if err := c.AwaitState(t.Context(), "unit", u.ID, "Online", patience); err != nil {
		t.Fatalf("the other copy damaged: %v", err)
	}
	open(t, c.login("v", "a", otherIQN))

	c.terminate(u)
	spoil(t, medium, 0, copySize)
	spoil(t, medium, twin, copySize)
	c.restart(u)
	code, said := c.ends(u)
	if code == 0 || code == -1 {
		t.Errorf("both copies damaged: exit code %d", code)
	}
	checkWords(t, u.ID, said, filepath.Base(medium), "superblock", "restore")
}
