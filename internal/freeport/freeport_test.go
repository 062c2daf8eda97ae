package freeport

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/sandbar-san/sandbar/san"
)

func TestPortsAreFreeAndTheirOwn(t *testing.T) {
	got, err := Loopback(t.Context(), 40)
	if err != nil {
		t.Fatal(err)
	}
	low, high := 0, 0
	if text, err := os.ReadFile(rangeFile); err == nil {
		if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
			t.Fatal(err)
		}
	}
	spared := len(choice(fmt.Sprint(low, " ", high))) == 2
	for _, addr := range got {
		l, err := net.Listen("tcp4", addr) // kept: the next one must be another
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if port := l.Addr().(*net.TCPAddr).Port; port < firstPort || spared && port >= low && port <= high {
			t.Errorf("port %d, outgoing connections have %d to %d", port, low, high)
		}
	}
}

// TestNoPortIsGivenOutTwice: to nobody in this process, and not to another, be they listened on or not.
func TestNoPortIsGivenOutTwice(t *testing.T) {
	const callers, calls, each = 8, 5, 3
	got := make(chan string, callers*calls*each)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range calls {
				addrs, err := Loopback(t.Context(), each)
				if err != nil {
					t.Error(err)
				}
				for _, a := range addrs {
					got <- a
				}
			}
		})
	}
	wg.Wait()
	close(got)
	seen := map[string]bool{}
	for a := range got {
		if seen[a] {
			t.Errorf("%s twice", a)
		}
		seen[a] = true
	}
	if len(seen) != callers*calls*each {
		t.Errorf("%d ports were given out where %d were asked for", len(seen), callers*calls*each)
	}
	other := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestAnotherProcess$", "-test.v")
	other.Env = append(os.Environ(), wanted+"="+strings.Join(slices.Collect(maps.Keys(seen)), " "))
	if out, err := other.CombinedOutput(); err != nil || strings.Count(string(out), "is another's") != len(seen) {
		t.Errorf("another process: %v\n%s", err, out)
	}
}

// wanted names the variable with the addresses that another process tries to have.
const wanted = "SANDBAR_TEST_WANTED"

// TestAnotherProcess is the other process of TestNoPortIsGivenOutTwice.
func TestAnotherProcess(t *testing.T) {
	addrs := strings.Fields(os.Getenv(wanted))
	if len(addrs) == 0 {
		t.Skip("only TestNoPortIsGivenOutTwice starts this, as another process")
	}
	for _, a := range addrs {
		if err := claim(a); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s can be had: %v", a, err)
			continue
		}
		t.Logf("%s is another's", a)
	}
}

func TestTakenPortsAreLeftAlone(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if tryBoth(t.Context(), l.Addr().String()) == nil {
		t.Error("a port that TCP has is free")
	}
	p, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if tryBoth(t.Context(), p.LocalAddr().String()) == nil {
		t.Error("a port that UDP has is free")
	}
}

func TestChoiceOfPorts(t *testing.T) {
	for text, want := range map[string]string{
		"32768\t60999\n": "[{10000 32767} {61000 65535}]",
		"1024 65535":     "[{10000 65535}]",
		"1024 65000":     "[{10000 65535}]",
		"1024 20000":     "[{10000 1023} {20001 65535}]",
		"1024 9000":      "[{10000 1023} {10000 65535}]",
		"":               "[{10000 65535}]",
		"many few":       "[{10000 65535}]",
		"9 5":            "[{10000 65535}]",
	} {
		if got := fmt.Sprint(choice(text)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.IntRange(1, lastPort).Draw(t, "low")
		high := rapid.IntRange(low, lastPort).Draw(t, "high")
		spans := choice(fmt.Sprint(low, high))
		n := rapid.IntRange(0, 1<<28).Draw(t, "n")
		seen := map[int]bool{}
		for i := range 20 {
			port := at(spans, n+i)
			if seen[port] {
				t.Fatalf("port %d twice", port)
			}
			seen[port] = true
			if port < firstPort || port > lastPort || len(spans) == 2 && port >= low && port <= high {
				t.Fatalf("port %d of %v", port, spans)
			}
		}
	})
}

func TestASearchCanBeEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := Loopback(ctx, 3); !errors.Is(err, context.Canceled) || san.KindOf(err) != san.KindUnavailable {
		t.Errorf("got %v, %v", got, err)
	}
}
