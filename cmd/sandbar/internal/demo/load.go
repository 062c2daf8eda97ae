package demo

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"github.com/sandbar-san/sandbar/hostlib"
	"github.com/sandbar-san/sandbar/san"
)

const loadBlockBytes = 4096

// load writes blocks and reads each back, one after the other, and measures how long the
// longest of these steps took.
type load struct {
	quit chan struct{}
	once sync.Once
	done chan struct{}

	// These belong to the running goroutine until done is closed.
	n       int
	longest time.Duration
	err     error
}

// startLoad runs on length bytes of vol from base on.
func startLoad(vol *hostlib.Volume, base, length int64) *load {
	l := &load{quit: make(chan struct{}), done: make(chan struct{})}
	go func() { // ends with stop
		defer close(l.done)
		l.run(vol, base, length/loadBlockBytes)
	}()
	return l
}

func (l *load) run(vol *hostlib.Volume, base, blocks int64) {
	want, got := make([]byte, loadBlockBytes), make([]byte, loadBlockBytes)
	last := time.Now()
	for i := int64(0); ; i++ {
		select {
		case <-l.quit:
			return
		default:
		}
		for at := 0; at < len(want); at += 8 {
			binary.LittleEndian.PutUint64(want[at:], uint64(i)*31+uint64(at))
		}
		off := base + i%blocks*loadBlockBytes
		if _, l.err = vol.WriteAt(want, off); l.err != nil {
			return
		}
		if _, l.err = vol.ReadAt(got, off); l.err != nil {
			return
		}
		if !bytes.Equal(want, got) {
			l.err = san.Errorf(san.KindInternal, "block at %d reads back other bytes than were written", off)
			return
		}
		now := time.Now()
		l.longest, last = max(l.longest, now.Sub(last)), now
		l.n += 2
	}
}

// stop ends the load and returns how many I/Os were verified, and the longest gap.
func (l *load) stop() (n int, longest time.Duration, err error) {
	l.once.Do(func() { close(l.quit) })
	<-l.done
	return l.n, l.longest, l.err
}
