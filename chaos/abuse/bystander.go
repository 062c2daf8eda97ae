package abuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sandbar-san/sandbar/internal/initiator"
)

const (
	slotBytes = 64 << 10
	slots     = 32
)

// bystander writes and reads a volume all the time and verifies what it reads. To it nothing may happen.
type bystander struct {
	name string
	dev  *initiator.Device
	base int64 // where its part of the volume begins

	turn sync.Mutex // held during an I/O, and while it is put aside

	mu    sync.Mutex
	ios   int
	worst time.Duration // since the last look
	err   error
}

// config is the door for an initiator that means well.
func (d door) config() initiator.Config {
	return initiator.Config{Portal: d.portal, Target: d.target, InitiatorName: d.initiator, CHAP: initiator.CHAP{User: d.user, Secret: d.secret}}
}

func newBystander(ctx context.Context, name string, d door, base int64) (*bystander, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := initiator.Dial(ctx, d.config())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	dev, err := initiator.OpenDevice(ctx, s, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, errors.Join(err, s.Close()))
	}
	return &bystander{name: name, dev: dev, base: base}, nil
}

// run does I/O until ctx ends or one fails.
func (b *bystander) run(ctx context.Context) {
	var seeds [slots]uint64
	got := make([]byte, slotBytes)
	for n := uint64(1); ctx.Err() == nil; n++ {
		err := b.one(ctx, n, &seeds, got)
		if err != nil && ctx.Err() == nil {
			b.mu.Lock()
			b.err = err
			b.mu.Unlock()
			return
		}
	}
}

// one writes a slot and verifies another.
func (b *bystander) one(ctx context.Context, n uint64, seeds *[slots]uint64, got []byte) error {
	b.turn.Lock()
	defer b.turn.Unlock()
	began := time.Now()
	w, r := n%slots, (n*7+3)%slots
	if err := b.dev.WriteAt(ctx, pattern(slotBytes, n), b.base+int64(w)*slotBytes); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	seeds[w] = n
	written := time.Now()
	if seeds[r] != 0 {
		if err := b.dev.ReadAt(ctx, got, b.base+int64(r)*slotBytes); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if !bytes.Equal(got, pattern(slotBytes, seeds[r])) {
			return fmt.Errorf("slot %d does not hold what was written there", r)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ios += 2
	b.worst = max(b.worst, written.Sub(began), time.Since(written))
	return nil
}

// look tells how many I/Os there have been, the slowest since the last look, and what has failed.
func (b *bystander) look() (ios int, worst time.Duration, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	worst, b.worst = b.worst, 0
	if b.err != nil {
		err = fmt.Errorf("%s: an I/O failed: %w", b.name, b.err)
	}
	return b.ios, worst, err
}
