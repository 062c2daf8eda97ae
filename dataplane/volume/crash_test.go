package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/sandbar-san/sandbar/dataplane/disk/disktest"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

// life is a unit under a scripted load, with what was acknowledged so far.
type life struct {
	*unit
	specs    map[byte]volume.Spec
	grown    map[byte]volume.Spec // what volumes grow to
	ready    map[byte]bool        // creation acknowledged, deletion not
	flushed  map[byte]int         // bytes from the beginning that are acknowledged as stable
	creating byte                 // the volume being created, 0 for none
	growing  byte                 // the volume that grows, 0 for none
	deleting map[byte]bool        // deletions begun and not acknowledged
}

func newLife(t *testing.T) *life {
	return &life{unit: newUnit(t), ready: map[byte]bool{}, deleting: map[byte]bool{}, flushed: map[byte]int{}, specs: map[byte]volume.Spec{
		1: specOf(1, 4, 3), 2: specOf(2, 0, 5), 3: specOf(3, 5, 6), 4: specOf(4, 1)},
		grown: map[byte]volume.Spec{2: plus(specOf(2, 0, 5), 5120, volume.Slice{Medium: mediumID(0), Extents: 1}, volume.Slice{Medium: mediumID(1), Extents: 1}),
			3: plus(specOf(3, 5, 6), 512)}}
}

func (l *life) create(n byte) error {
	l.creating = n
	r, err := l.manager.Create(context.Background(), l.specs[n])
	if err != nil {
		return err
	}
	l.creating, l.ready[n] = 0, true
	got, err := readAll(r)
	if err == nil && bytes.Count(got, []byte{0}) != len(got) {
		return fmt.Errorf("new volume %d has bytes in it", n)
	}
	return err
}

// grow continues volume n by what more says, and compares its bytes with those before.
func (l *life) grow(n byte) error {
	r, err := l.manager.Lookup(volumeID(n))
	if err != nil {
		return err
	}
	before, err := readAll(r)
	if err != nil {
		return err
	}
	l.growing = n
	if _, err := l.manager.Grow(context.Background(), l.grown[n]); err != nil {
		return err
	}
	l.growing, l.specs[n] = 0, l.grown[n]
	after, err := readAll(r)
	switch {
	case err != nil:
		return err
	case int64(len(after)) != l.grown[n].SizeBytes:
		return fmt.Errorf("volume %d has %d bytes after it grew to %d", n, len(after), l.grown[n].SizeBytes)
	case !bytes.Equal(after[:len(before)], before):
		return fmt.Errorf("the bytes of volume %d changed as it grew", n)
	case len(before) < len(after) && bytes.Count(after[len(before):], []byte{0}) != len(after)-len(before):
		return fmt.Errorf("volume %d gained bytes that are not zero", n)
	}
	return nil
}

func (l *life) write(n byte, length int, flush func(*volume.Replica) error) error {
	r, err := l.manager.Lookup(volumeID(n))
	if err != nil {
		return err
	}
	if err := r.WriteAt(context.Background(), filled(n, int64(length)), 0, false); err != nil {
		return err
	}
	if err := flush(r); err != nil {
		return err
	}
	l.flushed[n] = length
	return nil
}

func (l *life) remove(n byte) error {
	l.deleting[n] = true
	if err := l.manager.Delete(context.Background(), volumeID(n)); err != nil {
		return err
	}
	l.forget(n)
	return nil
}

func (l *life) forget(n byte) {
	delete(l.ready, n)
	delete(l.flushed, n)
	delete(l.deleting, n)
}

func (l *life) script() error {
	ctx := context.Background()
	flush := func(r *volume.Replica) error { return r.Flush(ctx) }
	fua := func(r *volume.Replica) error {
		n, err := byte(2), error(nil)
		for off := int64(0); off < r.SizeBytes() && err == nil; off += 15 * 512 {
			err = r.WriteAt(ctx, filled(n, min(15*512, r.SizeBytes()-off)), off, true)
		}
		return err
	}
	size := func(n byte) int { return int(l.specs[n].SizeBytes) }
	steps := []func() error{
		l.start,
		func() error { return l.create(1) },
		func() error { return l.write(1, size(1), flush) },
		func() error { return l.create(2) },
		func() error { return l.write(2, size(2), fua) },
		func() error { return l.grow(2) },
		func() error { return l.write(2, size(2), fua) },
		func() error { return l.remove(1) },
		func() error { return l.create(3) },
		func() error { return l.write(3, size(3)/2, flush) },
		func() error { return l.grow(3) },
		func() error { return l.write(3, size(3), flush) },
		func() error { return l.create(4) },
		func() error { return l.remove(2) },
		func() error { return l.manager.Close() },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// check holds a unit that has started again to the invariants.
func (l *life) check() error {
	states := map[byte]volume.State{}
	for _, i := range l.manager.List() {
		for n, s := range l.specs {
			if s.ID == i.Spec.ID {
				states[n] = i.State
			}
		}
		if i.Problem != nil {
			return fmt.Errorf("volume %s: %w", i.Spec.ID, i.Problem)
		}
	}
	for n := range l.specs {
		if err := l.checkVolume(n, states[n]); err != nil {
			return err
		}
	}
	if l.used() != l.recorded() {
		return fmt.Errorf("%d extents are used, volumes have %d", l.used(), l.recorded())
	}
	return nil
}

func (l *life) checkVolume(n byte, state volume.State) error {
	switch {
	case l.ready[n] && !l.deleting[n] && state != volume.StateReady:
		return fmt.Errorf("volume %d is %q, it was ready", n, state)
	case !l.ready[n] && l.creating != n && state != "":
		return fmt.Errorf("volume %d is %q, it was not there", n, state)
	case state == volume.StateDeleting:
		return fmt.Errorf("the deletion of volume %d was not finished by the start", n)
	case state != volume.StateReady:
		return nil
	}
	r, err := l.manager.Lookup(volumeID(n))
	if err != nil {
		return err
	}
	if size := r.SizeBytes(); size != l.specs[n].SizeBytes && (l.growing != n || size != l.grown[n].SizeBytes) {
		return fmt.Errorf("volume %d has %d bytes, it had %d; growing: %v", n, size, l.specs[n].SizeBytes, l.growing == n)
	}
	got, err := readAll(r)
	if err != nil {
		return err
	}
	if own := bytes.Count(got, []byte{0}) + bytes.Count(got, []byte{n}); own != len(got) {
		return fmt.Errorf("volume %d reads %d bytes that it never wrote", n, len(got)-own)
	}
	if want := l.flushed[n]; bytes.Count(got[:want], []byte{n}) != want {
		return fmt.Errorf("volume %d lost flushed bytes", n)
	}
	return nil
}

// goOn repeats the call that was cut, and then empties the unit.
func (l *life) goOn() error {
	if n := l.creating; n != 0 {
		if err := l.create(n); err != nil {
			return err
		}
	}
	if n := l.growing; n != 0 {
		if err := l.grow(n); err != nil {
			return err
		}
	}
	for n := range l.specs { // those that are not there too: deletion can be repeated
		if err := l.remove(n); err != nil {
			return err
		}
	}
	if list := l.manager.List(); len(list) != 0 || l.used() != 0 {
		return fmt.Errorf("after everything was deleted there is %v, and %d extents are used", list, l.used())
	}
	return nil
}

func TestPowerCutAtEveryOperation(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 3
	}
	for k, done := 1, false; !done; k++ {
		for seed := range seeds {
			l := newLife(t)
			if seed%2 == 0 { // a medium that can't punch holes keeps freed bytes
				l.rule = func(op disktest.Op) error {
					if op.Kind == disktest.OpPunch {
						return errors.New("not supported")
					}
					return nil
				}
			}
			l.power.CutAt(l.power.Ops() + k)
			err := l.script()
			if done = err == nil; !done && !errors.Is(err, disktest.ErrPowerCut) {
				t.Fatalf("cut at %d: %v", k, err)
			}
			l.power.Restore(seed)
			l.finish(t, fmt.Sprintf("cut at %d, seed %d", k, seed))
		}
	}
}

// finish starts the unit again, checks it, goes on, and checks the result of another cut.
func (l *life) finish(t *testing.T, when string) {
	t.Helper()
	for _, step := range []func() error{l.start, l.check, l.goOn} {
		if err := step(); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	l.power.Restore(disktest.KeepNothing)
	if err := l.start(); err != nil {
		t.Fatalf("%s, third start: %v", when, err)
	}
	if n := len(l.manager.List()); n != 0 || l.used() != 0 {
		t.Fatalf("%s: what was deleted is back: %d volumes, %d extents", when, n, l.used())
	}
}

// A kill of the process loses nothing, but its successor starts on half-made changes
// that are in the cache only, and the power may go soon after.
func TestKillThenPowerCut(t *testing.T) {
	for k, done := 1, false; !done; k += 3 {
		for cut := 2; cut <= 14; cut += 4 {
			l := newLife(t)
			l.power.CutAt(l.power.Ops() + k)
			err := l.script()
			if done = err == nil; !done && !errors.Is(err, disktest.ErrPowerCut) {
				t.Fatalf("kill at %d: %v", k, err)
			}
			l.power.Kill()
			l.power.CutAt(l.power.Ops() + cut)
			if l.start() == nil && l.check() == nil {
				_ = l.goOn()
			}
			l.power.Restore(uint64(k*31 + cut))
			// What goOn acknowledged before the cut is in l; the rest is as it was.
			if err := l.start(); err != nil {
				t.Fatalf("kill at %d, cut at +%d: %v", k, cut, err)
			}
			if err := l.check(); err != nil {
				t.Fatalf("kill at %d, cut at +%d: %v", k, cut, err)
			}
		}
	}
}

func TestDeletedVolumeGivesNoData(t *testing.T) {
	u := startUnit(t)
	r := mustCreate(t, u, specOf(1, mediumExtents))
	if err := r.WriteAt(context.Background(), filled(7, r.SizeBytes()), 0, true); err != nil {
		t.Fatal(err)
	}
	if err := u.manager.Delete(context.Background(), volumeID(1)); err != nil {
		t.Fatal(err)
	}
	if err := r.ReadAt(context.Background(), make([]byte, 512), 0); !errors.Is(err, volume.ErrClosed) || san.KindOf(err) != san.KindUnavailable {
		t.Errorf("a replica that was deleted: %v", err)
	}
	got, err := readAll(mustCreate(t, u, specOf(2, mediumExtents)))
	if err != nil || bytes.Count(got, []byte{0}) != len(got) {
		t.Errorf("the next owner reads %d bytes of the former (%v)", len(got)-bytes.Count(got, []byte{0}), err)
	}
}
