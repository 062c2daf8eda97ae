package hostlib

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/sandbar-san/sandbar/san"
)

// access is what a client did to one block: wrote value, or read and saw it.
type access struct {
	write bool
	block int
	value uint64
}

// registers is a volume as a set of blocks, each of which is what was last written to it.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		blocks := map[int][]porcupine.Operation{}
		for _, o := range history {
			b := o.Input.(access).block
			blocks[b] = append(blocks[b], o)
		}
		var out [][]porcupine.Operation
		for _, ops := range blocks {
			out = append(out, ops)
		}
		return out
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		a := input.(access)
		if a.write {
			return true, a.value
		}
		return output.(uint64) == state.(uint64), state
	},
}

// TestConcurrentRequestsAreLinearizable has clients read and write a few blocks, in whole and in part of two, while
// the unit loses sessions and its cache, and some clients don't wait for the end.
func TestConcurrentRequestsAreLinearizable(t *testing.T) {
	for range 5 {
		synctest.Test(t, checkLinearizable)
	}
}

func checkLinearizable(t *testing.T) {
	const blocks, clients, requests, block = 4, 8, 120, 512
	u := newFakeUnit(blocks*block, block)
	u.judge = func(string) fate {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		switch rand.IntN(150) {
		case 5:
			return powerLater
		case 0:
			return lostBefore
		case 1:
			return lostAfter
		case 2:
			return powerBefore
		case 3:
			return powerAfter
		case 4:
			return busy
		}
		return fine
	}
	u.linger = func() { time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond) }
	v := openFake(t, u, volumeOptions{unflushedBytes: minUnflushedBytes})
	var mu sync.Mutex
	var history []porcupine.Operation
	began := time.Now()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 1))
			for i := range requests {
				a := access{write: rng.IntN(2) == 0, block: rng.IntN(blocks), value: uint64(c*requests + i + 1)}
				ctx, cancel := context.WithCancel(t.Context())
				if rng.IntN(8) == 0 {
					cancel = after(ctx, cancel, time.Duration(rng.IntN(400))*time.Microsecond)
				}
				o := porcupine.Operation{ClientId: c, Input: a, Call: int64(time.Since(began))}
				// The value's eight bytes lie in the middle of the block, so that each write is a
				// read and a write of the whole.
				p := make([]byte, 8)
				off := int64(a.block)*block + 100
				var err error
				if a.write {
					binary.BigEndian.PutUint64(p, a.value)
					_, err = v.WriteAtContext(ctx, p, off)
				} else {
					_, err = v.ReadAtContext(ctx, p, off)
				}
				cancel()
				o.Return, o.Output = int64(time.Since(began)), binary.BigEndian.Uint64(p)
				switch {
				case err == nil:
				case san.KindOf(err) == san.KindUnknown:
					o.Return = math.MaxInt64 - int64(c) // it may take effect whenever it likes
				default:
					continue // nothing happened
				}
				mu.Lock()
				history = append(history, o)
				mu.Unlock()
				if rng.IntN(10) == 0 {
					if err := v.Flush(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	// A client that gave a write up goes on under another name: porcupine takes one operation of a client at a time.
	for i := range history {
		history[i].ClientId = i % clients
	}
	if got := porcupine.CheckOperationsTimeout(registers, history, 30*time.Second); got != porcupine.Ok {
		t.Errorf("%d operations over %d sessions: %v", len(history), u.dials, got)
	}
	if u.dials < 10 {
		t.Errorf("only %d sessions: nothing was tested", u.dials)
	}
}

// after cancels ctx in a while.
func after(ctx context.Context, cancel func(), d time.Duration) func() {
	t := time.AfterFunc(d, cancel)
	return func() { t.Stop(); cancel() }
}
