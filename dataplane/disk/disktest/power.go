package disktest

import (
	"errors"
	"sync"
)

// ErrPowerCut is what every operation returns between a power cut and Restore.
var ErrPowerCut = errors.New("the power is cut")

// Seeds with a fixed meaning for Restore; any other keeps a random part.
const (
	// KeepNothing loses all that was not stable.
	KeepNothing uint64 = 0
	// KeepAll loses nothing, as a kill of the process with the machine alive.
	KeepAll uint64 = 1
)

// Power supplies a set of media and directories that lose power together. It counts
// their changing operations (write, zero, hole, size, sync, create, rename, remove), so
// that a test can cut the power at each one.
type Power struct {
	mu       sync.Mutex
	ops      int
	cutAt    int // 0: never
	cut      bool
	epoch    int // counts restorations; handles of a former one are dead
	disks    []*Disk
	dirs     []*Dir
	contents []*content // all that was ever made
}

// NewPower returns a supply that is on.
func NewPower() *Power { return &Power{} }

// Ops returns how many changing operations were begun.
func (p *Power) Ops() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ops
}

// CutAt cuts the power at the n-th changing operation counted from the first ever
// (Ops()+1 is the next): that one fails, having reached the cache if it is no sync, and
// all later ones fail. Zero takes the cut back.
func (p *Power) CutAt(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAt = n
}

// IsCut reports whether the power is cut.
func (p *Power) IsCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut
}

// Restore cuts the power, if it is not cut yet, and gives it back: what was not stable
// is kept or lost by seed, all open files and directories are dead and their locks gone.
// One seed always gives one outcome.
func (p *Power) Restore(seed uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range p.contents {
		c.crash(mix(seed, uint64(i)), seed)
	}
	for i, d := range p.dirs {
		d.crash(mix(seed, uint64(i)+1<<32), seed)
	}
	p.restart()
}

// Kill ends the process alone: open files are dead and their locks gone, but what was
// not stable is still in the machine's cache, neither lost nor stable.
func (p *Power) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restart()
}

func (p *Power) restart() {
	p.epoch++
	p.cut, p.cutAt = false, 0
	for _, d := range p.disks {
		d.open = false
	}
	for _, d := range p.dirs {
		d.open = false
	}
}

// begin counts a changing operation of a handle made in epoch and reports whether it is
// to take effect on the cache, and what it returns. p.mu is held.
func (p *Power) begin(epoch int) (effect bool, err error) {
	if p.cut || epoch != p.epoch {
		return false, ErrPowerCut
	}
	p.ops++
	if p.ops == p.cutAt {
		p.cut = true
		return true, ErrPowerCut
	}
	return true, nil
}

// alive is begin for operations that change nothing.
func (p *Power) alive(epoch int) error {
	if p.cut || epoch != p.epoch {
		return ErrPowerCut
	}
	return nil
}

// mix is splitmix64: a hash that makes each decision of a crash its own random number.
func mix(seed, n uint64) uint64 {
	z := seed*0x9e3779b97f4a7c15 + n*0xd1342543de82ef95 + 0x632be59bd9b4e019
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
