package agentlink

import (
	"sync"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
)

// Outbox holds the reports that wait for a stream. Of one object only the newest waits,
// so that it is never longer than the number of objects that the agent has. It is safe
// for concurrent use.
type Outbox struct {
	ready chan struct{} // has a value when something may wait

	mu      sync.Mutex
	waiting map[object]*pb.Report
	order   []object
}

// object is what a report is about: a replica (no host) or an assignment.
type object struct{ volume, host string }

// NewOutbox makes an empty Outbox.
func NewOutbox() *Outbox {
	return &Outbox{ready: make(chan struct{}, 1), waiting: map[object]*pb.Report{}}
}

// Put adds a report, in place of an older one on the same object. It never blocks.
func (o *Outbox) Put(r *pb.Report) {
	k := object{r.VolumeId, r.HostId}
	o.mu.Lock()
	if o.waiting[k] == nil {
		o.order = append(o.order, k)
	}
	o.waiting[k] = r
	o.mu.Unlock()
	o.wake()
}

func (o *Outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

// take removes and returns up to limit reports, the oldest objects first.
func (o *Outbox) take(limit int) []*pb.Report {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(limit, len(o.order))
	out := make([]*pb.Report, 0, n)
	for _, k := range o.order[:n] {
		out = append(out, o.waiting[k])
		delete(o.waiting, k)
	}
	if o.order = o.order[n:]; len(o.order) > 0 {
		o.wake()
	} else {
		o.order = nil
	}
	return out
}
