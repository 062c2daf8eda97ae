package dataplane

import (
	"context"
	"maps"
	"sync"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// usageEvery is the least time between two storage infos that a unit sends of its own accord. Each is one entry in
	// the stations' log.
	usageEvery = 5 * time.Second
	// usagePerReplica is added for each replica in the last one, which bounds the bytes in the log too: about
	// 60 in 5 ms.
	usagePerReplica = 5 * time.Millisecond
)

// usage has the stations told how full the media are, when that changes by an extent or more, in the
// message that they asked for when the unit came to them. A burst of changes is one message.
type usage struct {
	changed chan struct{} // has a value when they are to be told

	mu       sync.Mutex
	told     map[san.MediumID]uint32 // nil: nothing yet; they ask
	replicas int                     // in what was told
}

func newUsage() *usage { return &usage{changed: make(chan struct{}, 1)} }

// tell notes what is told.
func (u *usage) tell(info *pb.StorageInfo) *pb.StorageInfo {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.told, u.replicas = make(map[san.MediumID]uint32, len(info.Media)), len(info.Replicas)
	for _, m := range info.Media {
		u.told[san.MediumID(m.Id)] = m.UsedExtents
	}
	return info
}

// pause is how long to wait before the stations may be told again.
func (u *usage) pause() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return usageEvery + time.Duration(u.replicas)*usagePerReplica
}

// differs tells whether the stations were told something else.
func (u *usage) differs(used map[san.MediumID]uint32) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.told != nil && !maps.Equal(u.told, used)
}

// watch compares what is used with what was told until ctx ends.
func (u *usage) watch(ctx context.Context, used func() map[san.MediumID]uint32) {
	t := time.NewTimer(u.pause())
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if u.differs(used()) {
			select {
			case u.changed <- struct{}{}:
			default: // nobody took the last one: there is no stream
			}
		}
		t.Reset(u.pause())
	}
}
