package dataplane

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

// However fast the media fill, the stations are told at most each usageEvery, more rarely if a message is long, in the
// end of what is so, and never of what they know.
func TestUsageIsToldAtABoundedRate(t *testing.T) {
	for name, replicas := range map[string]int{"few replicas": 1, "many": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				apart := usageEvery + time.Duration(replicas)*usagePerReplica
				var used atomic.Uint32
				info := func() *pb.StorageInfo {
					return &pb.StorageInfo{Media: []*pb.MediumInfo{{Id: "m", UsedExtents: used.Load()}}, Replicas: make([]*pb.ReplicaInfo, replicas)}
				}
				u := newUsage()
				ctx, cancel := context.WithCancel(t.Context())
				var told []uint32
				ended := make(chan struct{}, 2)
				go func() {
					u.watch(ctx, func() map[san.MediumID]uint32 { return map[san.MediumID]uint32{"m": used.Load()} })
					ended <- struct{}{}
				}()
				go func() { // as the link does
					defer func() { ended <- struct{}{} }()
					for {
						select {
						case <-u.changed:
							told = append(told, u.tell(info()).Media[0].UsedExtents)
						case <-ctx.Done():
							return
						}
					}
				}()
				used.Store(1)
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(told) != 0 {
					t.Errorf("stations that have not asked were told %v", told)
				}
				u.tell(info()) // they ask
				const rounds = 10
				for range rounds * int(apart/time.Second) {
					used.Add(3)
					time.Sleep(time.Second)
				}
				time.Sleep(2 * apart)
				synctest.Wait()
				if n := len(told); n < rounds-1 || n > rounds+1 || told[n-1] != used.Load() {
					t.Errorf("told %v in %d times %v; %d are used", told, rounds, apart, used.Load())
				}
				before := len(told)
				time.Sleep(time.Hour)
				used.Add(^uint32(0))
				time.Sleep(apart)
				synctest.Wait()
				if len(told) != before+1 || told[before] != used.Load() {
					t.Errorf("one extent fewer: told %v", told[before:])
				}
				cancel()
				<-ended
				<-ended
			})
		})
	}
}

// Without a stream nothing piles up.
func TestUsageThatNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsage()
		u.tell(&pb.StorageInfo{Media: []*pb.MediumInfo{{Id: "m"}}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		u.watch(ctx, func() map[san.MediumID]uint32 { return map[san.MediumID]uint32{"m": 1} })
		if len(u.changed) != 1 {
			t.Errorf("%d signals wait", len(u.changed))
		}
	})
}
