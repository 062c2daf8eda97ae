package controlplane

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/stationclient"
)

// openWatch begins a watch and returns what it brings, up to n changes, and the index to go on from.
func openWatch(cl *stationclient.Client, from uint64, tables ...string) (next func(n int) ([]*pb.Change, uint64, error), stop func()) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	stream, err := stations(cl).Watch(ctx, connect.NewRequest(&pb.WatchRequest{FromIndex: from, Tables: tables}))
	return func(n int) ([]*pb.Change, uint64, error) {
			if err != nil {
				return nil, 0, err
			}
			var out []*pb.Change
			for stream.Receive() {
				out = append(out, stream.Msg().Changes...)
				if len(out) >= n {
					return out, stream.Msg().Index, nil
				}
			}
			return out, 0, stream.Err()
		}, func() {
			cancel()
			if stream != nil {
				_ = stream.Close() // it was cancelled
			}
		}
}

func testWatch(t *testing.T, c *cluster) {
	admin := c.read("admin.token")
	_, follower := c.leader()
	cl := c.at(follower, admin)
	next, stop := openWatch(cl, 0, "hosts")
	_, start, err := next(0)
	if err != nil {
		t.Fatal(err)
	}
	const n = 12
	var want []string
	for i := range n {
		id := fmt.Sprintf("w%d", i)
		addHost(t, c.admin(), id, "iqn.2004-10.com.example:"+id)
		want = append(want, id)
	}
	// Part of it, then another watch, at another station, from where that one stood; then all anew.
	var got []string
	note := func(changes []*pb.Change) {
		for _, ch := range changes {
			if ch.Table != "hosts" || ch.GetHost() == nil {
				t.Errorf("change %v in a watch of hosts", ch)
			}
			got = append(got, ch.Id)
		}
	}
	changes, at, err := next(n / 3)
	if err != nil {
		t.Fatal(err)
	}
	note(changes)
	stop()
	next, stop = openWatch(c.at((follower+1)%3, admin), at, "hosts")
	changes, _, err = next(n - len(got))
	if err != nil {
		t.Fatal(err)
	}
	note(changes)
	stop()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("two watches, one after the other, saw %v", got)
	}
	got = nil
	next, stop = openWatch(cl, start, "hosts")
	changes, _, err = next(n)
	note(changes)
	stop()
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a watch from before it all saw %v, %v", got, err)
	}
	next, stop = openWatch(cl, 0, "secrets")
	if _, _, err := next(1); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("an unknown table: %v", err)
	}
	stop()
	for _, id := range want {
		if _, err := once(hosts(cl).RemoveHost, &pb.RemoveHostRequest{Id: id}); err != nil {
			t.Error(err)
		}
	}
	testWatchRevoked(t, c, cl)
}

// testWatchRevoked: a watch ends with its token.
func testWatchRevoked(t *testing.T, c *cluster, cl *stationclient.Client) {
	text, id := newToken(t, c.admin(), &pb.CreateTokenRequest{Name: "watcher", Role: "viewer"})
	var next func(int) ([]*pb.Change, uint64, error)
	var stop func()
	c.await("the watch", func() error { // the station may not know the token yet
		next, stop = openWatch(c.at(0, text), 0)
		_, _, err := next(0)
		if err != nil {
			stop()
		}
		return err
	})
	defer stop()
	if _, err := once(tokens(cl).DeleteToken, &pb.DeleteTokenRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	addHost(t, c.admin(), "seen", "iqn.2004-10.com.example:seen")
	var got []*pb.Change
	var err error
	for err == nil { // changes from before may come first
		got, _, err = next(1)
		if slices.ContainsFunc(got, func(ch *pb.Change) bool { return ch.Id == "seen" }) || len(got) == 0 && err == nil {
			t.Fatalf("after its token was revoked a watch brought %v", got)
		}
	}
	if connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a watch whose token was revoked ended with %v", err)
	}
	if _, err := once(hosts(cl).RemoveHost, &pb.RemoveHostRequest{Id: "seen"}); err != nil {
		t.Error(err)
	}
}
