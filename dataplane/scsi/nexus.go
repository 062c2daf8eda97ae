package scsi

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// Nexus is an I_T nexus: one initiator port as this logical unit sees it. It holds the
// unit attentions that the initiator has not been told yet (SAM-5 §5.14).
type Nexus struct {
	name string
	// pending mirrors len(attentions), so that a command learns without the lock that
	// there is none.
	pending    atomic.Int32
	mu         sync.Mutex
	attentions []cdb.ASC
	abort      func()
	// copies are the results of EXTENDED COPY that the initiator may ask for.
	copies []copyResult
}

// Name is the initiator port's name, "iqn…,i,0xISID".
func (n *Nexus) Name() string { return n.name }

// OnAbort sets what PREEMPT AND ABORT of another nexus calls: abort aborts all commands of this
// one and returns when they are gone. Without it they run to their ends.
func (n *Nexus) OnAbort(abort func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.abort = abort
}

func (n *Nexus) abortTasks() {
	n.mu.Lock()
	abort := n.abort
	n.mu.Unlock()
	if abort != nil {
		abort()
	}
}

// establish queues a unit attention. One that waits already is not queued twice; a
// reset (ASC 29h) takes the place of all that wait (SAM-5 §5.14).
func (n *Nexus) establish(asc cdb.ASC) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if asc>>8 == cdb.ASCPowerOnOrReset>>8 {
		n.attentions = n.attentions[:0]
	}
	if !slices.Contains(n.attentions, asc) {
		n.attentions = append(n.attentions, asc)
	}
	n.pending.Store(int32(len(n.attentions)))
}

// waiting reports whether there is a unit attention to be told.
func (n *Nexus) waiting() bool { return n != nil && n.pending.Load() != 0 }

// take removes and returns the oldest unit attention.
func (n *Nexus) take() (cdb.ASC, bool) {
	if !n.waiting() {
		return 0, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.attentions) == 0 {
		return 0, false
	}
	asc := n.attentions[0]
	n.attentions = slices.Delete(n.attentions, 0, 1)
	n.pending.Store(int32(len(n.attentions)))
	return asc, true
}

// OpenNexus begins an I_T nexus. initiatorPort is the initiator port's name,
// "name,i,0xISID". Its first command that can be told so gets POWER ON, RESET OR BUS
// DEVICE RESET OCCURRED (29/00).
func (lu *LU) OpenNexus(initiatorPort string) *Nexus {
	n := &Nexus{name: initiatorPort}
	n.establish(cdb.ASCPowerOnOrReset)
	lu.nexusMu.Lock()
	defer lu.nexusMu.Unlock()
	lu.nexuses[n] = struct{}{}
	return n
}

// CloseNexus ends an I_T nexus and what it holds by RESERVE (6). Commands that are still running
// on it end normally.
func (lu *LU) CloseNexus(n *Nexus) {
	lu.reserved.drop(n)
	lu.nexusMu.Lock()
	defer lu.nexusMu.Unlock()
	delete(lu.nexuses, n)
}

// ResetCause says what reset the logical unit.
type ResetCause uint8

// The causes of a reset.
const (
	// ResetLogicalUnit is the task management function LOGICAL UNIT RESET (29/03).
	ResetLogicalUnit ResetCause = iota
	// ResetTarget is TARGET WARM RESET or TARGET COLD RESET (29/02).
	ResetTarget
	// ResetInternal is a restart of the service behind the logical unit (29/04).
	ResetInternal
)

// asc is the unit attention that tells of the reset.
func (c ResetCause) asc() cdb.ASC {
	switch c {
	case ResetLogicalUnit:
		return cdb.ASCDeviceReset
	case ResetTarget:
		return cdb.ASCBusReset
	}
	return cdb.ASCInternalReset
}

// Reset establishes the unit attention of a reset for every nexus but by, the one that
// asked for it (nil: every nexus). The transport has aborted the commands before, by
// ending their contexts and waiting for them. A RESERVE (6) ends (SPC-2 §5.5.1); persistent
// reservations stay.
func (lu *LU) Reset(cause ResetCause, by *Nexus) {
	lu.reserved.drop(nil)
	lu.attention(cause.asc(), by)
}

// Grown tells every nexus that the capacity has changed (2A/09). Call it after the
// Store's SizeBytes did.
func (lu *LU) Grown() { lu.attention(cdb.ASCCapacityChanged, nil) }

func (lu *LU) attention(asc cdb.ASC, except *Nexus) {
	lu.nexusMu.Lock()
	defer lu.nexusMu.Unlock()
	for n := range lu.nexuses {
		if n != except {
			n.establish(asc)
		}
	}
}
