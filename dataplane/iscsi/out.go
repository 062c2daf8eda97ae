package iscsi

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/sandbar-san/sandbar/internal/pdu"
)

const (
	// headerChunk is the size of the blocks in which headers and small data are laid
	// down one after the other, so that they go out as one piece.
	headerChunk = 16 << 10
	// copyBelow is the size under which data is copied beside its header; above, it is
	// sent from where it lies.
	copyBelow = 1 << 10
	// maxQueuedBytes is how much may wait in the queue before those who add answers
	// that no command window bounds (pings, texts, rejects) have to wait.
	maxQueuedBytes = 64 << 10
)

// outQueue collects the PDUs of one connection and sends what has gathered with one
// vectored write. Whoever calls flush while nobody is sending does the sending; the others
// leave theirs to him. So a response costs no hand-over to a goroutine of its own, and
// under load many responses share one system call.
type outQueue struct {
	conn    net.Conn
	digests pdu.Digests // set once, at the end of the login
	// writes counts the starts and ends of sends: odd while one is under way. The
	// watchdog looks at it.
	writes atomic.Uint64
	// freed is told the sum of the room of what has been sent.
	freed func(room)

	mu      sync.Mutex
	space   sync.Cond
	pieces  net.Buffers
	spare   net.Buffers
	chunk   []byte
	done    []lent // what to give back once the pieces are sent
	spareDo []lent
	rest    net.Buffers // what the sender has still to send
	bytes   int
	count   int // of PDUs in pieces
	sending bool
	failed  bool
	statSN  uint32
}

// lent is memory that a queued PDU refers to: release gives it back, room is what it holds of
// the buffer budget.
type lent struct {
	release func()
	room    room
}

func newOutQueue(conn net.Conn) *outQueue {
	q := &outQueue{conn: conn}
	q.space.L = &q.mu
	return q
}

// lay copies b into the current chunk, beside what was laid before. q.mu is held.
func (q *outQueue) lay(b []byte) {
	start := q.room(len(b))
	q.chunk = append(q.chunk, b...)
	q.piece(start)
}

// room makes room for n bytes in the current chunk and returns where they go. q.mu is held.
func (q *outQueue) room(n int) (start int) {
	if cap(q.chunk)-len(q.chunk) < n {
		q.chunk = make([]byte, 0, max(headerChunk, n))
	}
	return len(q.chunk)
}

// piece queues the chunk from start on, as part of the piece before where they touch.
func (q *outQueue) piece(start int) {
	fresh := q.chunk[start:len(q.chunk):len(q.chunk)]
	q.bytes += len(fresh)
	if n := len(q.pieces); n > 0 && start > 0 {
		last := q.pieces[n-1]
		if len(last) <= start && &last[0] == &q.chunk[start-len(last)] {
			q.pieces[n-1] = q.chunk[start-len(last) : len(q.chunk) : len(q.chunk)]
			return
		}
	}
	q.pieces = append(q.pieces, fresh)
}

// add queues one PDU. q.mu is held. data must stay as it is until it has been sent; see lend.
func (q *outQueue) add(b *pdu.BHS, data []byte) {
	b.SetLengths(0, len(data))
	q.count++
	start := q.room(pdu.BHSLength + pdu.DigestLength)
	q.chunk = q.digests.AppendHeader(q.chunk, b, nil)
	q.piece(start)
	if len(data) == 0 {
		return
	}
	if len(data) < copyBelow {
		q.lay(data)
	} else {
		q.pieces = append(q.pieces, data)
		q.bytes += len(data)
	}
	var tail [3 + pdu.DigestLength]byte
	if t := q.digests.AppendTrailer(tail[:0], data); len(t) > 0 {
		q.lay(t)
	}
}

// lend has l given back once all that is queued so far has been sent, or never will be. q.mu is held.
func (q *outQueue) lend(l lent) { q.done = append(q.done, l) }

// nextStatSN takes a status number. q.mu is held.
func (q *outQueue) nextStatSN() uint32 {
	n := q.statSN
	q.statSN++
	return n
}

// waitSpace blocks while too much is queued. What nobody is sending the caller will send himself. q.mu is held.
func (q *outQueue) waitSpace() {
	for q.bytes > maxQueuedBytes && q.sending && !q.failed {
		q.space.Wait()
	}
}

// unsent tells whether there is something to send that nobody is sending.
func (q *outQueue) unsent() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count > 0 && !q.sending
}

// plenty is unsent for so much that it should not wait any longer.
func (q *outQueue) plenty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.sending && (q.count >= directAnswers || q.bytes >= directAnswerBytes)
}

// flush sends what is queued unless somebody else is at it, who then sends it.
func (q *outQueue) flush() {
	q.mu.Lock()
	if q.sending {
		q.mu.Unlock()
		return
	}
	q.sending = true
	for len(q.pieces) > 0 || len(q.done) > 0 {
		pieces, done, failed := q.pieces, q.done, q.failed
		q.pieces, q.done, q.bytes = q.spare[:0], q.spareDo[:0], 0
		q.count = 0
		q.space.Broadcast()
		q.mu.Unlock()
		failed = failed || !q.send(pieces)
		q.giveBack(done)
		clear(pieces)
		clear(done)
		q.mu.Lock()
		q.spare, q.spareDo, q.failed = pieces, done, q.failed || failed
		if len(q.pieces) == 0 {
			q.chunk = q.chunk[:0] // nothing refers to it any more
		}
	}
	q.sending = false
	q.space.Broadcast()
	q.mu.Unlock()
}

// drain waits until all that is queued has been sent, or never will be.
func (q *outQueue) drain() {
	q.flush()
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.sending && !q.failed {
		q.space.Wait()
	}
}

// drop makes the queue forget what it holds and refuse to send more.
func (q *outQueue) drop() {
	q.mu.Lock()
	q.failed = true
	q.space.Broadcast()
	q.mu.Unlock()
	q.flush()
}

// send writes the pieces out and reports success. A connection that failed is closed,
// which wakes its reader, which ends the session.
func (q *outQueue) send(pieces net.Buffers) bool {
	q.writes.Add(1)
	defer q.writes.Add(1)
	q.rest = pieces // WriteTo eats its receiver
	if _, err := q.rest.WriteTo(q.conn); err != nil {
		_ = q.conn.Close()
		return false
	}
	return true
}

func (q *outQueue) giveBack(done []lent) {
	var sum room
	for _, l := range done {
		if l.release != nil {
			l.release()
		}
		sum.add(l.room)
	}
	if sum != (room{}) && q.freed != nil {
		q.freed(sum)
	}
}
