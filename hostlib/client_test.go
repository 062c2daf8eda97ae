package hostlib

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/hostlib/agent"
	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/hostlib/internal/stationtest"
	"github.com/sandbar-san/sandbar/san"
)

// runAgent runs a host's agent as long as the test and returns its folder.
func runAgent(t *testing.T, s *stationtest.Station) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cfg := agent.Config{Data: t.TempDir(), ID: "host-1", Join: []string{s.Endpoint()}, JoinToken: s.JoinToken(), Log: stationtest.Log(t)}
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	})
	s.AwaitHellos(1)
	return cfg.Data
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	cfg.Logger = stationtest.Log(t)
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.timing = timing{agent: 200 * time.Millisecond, refusal: 200 * time.Millisecond, watchAgent: 10 * time.Millisecond, watchStations: 10 * time.Millisecond}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	return c
}

func byToken(s *stationtest.Station) Config {
	ca, token := s.Credentials()
	return Config{Endpoints: []string{s.Endpoint()}, CAFile: ca, TokenFile: token, Host: "host-1"}
}

// within bounds a test's requests.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestMainJob: a host asks for storage, gets it once all have confirmed, and reads and writes it; then again with
// all stations down.
func TestMainJob(t *testing.T) {
	s, d := stationtest.New(t), startTgtd(t)
	c := newClient(t, Config{DataDir: runAgent(t, s)})
	ctx := within(t)
	prepared := d.volume("data")
	prepared.Agent = true
	s.Put(prepared)
	a, err := c.RequestStorage(ctx, StorageRequest{Name: "data", SizeBytes: diskBytes})
	if err != nil {
		t.Fatal(err)
	}
	if p := a.Paths[0]; c.Host() != "host-1" || a.State != StateAssigned || a.Generation != 1 || a.FromAgent || p.Unit != "unit-1" || p.Portal != d.portal || p.EndLBA != diskBytes/512-1 {
		t.Errorf("assignment %+v", a)
	}
	want := make([]byte, 3<<20)
	rand.Read(want)
	write := func() {
		v, err := c.Open(ctx, "data")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.WriteAt(want, 777); err != nil {
			t.Fatal(err)
		}
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(io.NewSectionReader(v, 777, int64(len(want))), got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%v, equal %v", err, bytes.Equal(got, want))
		}
		if v.CanDiscard() {
			t.Error("tgtd's disk can't discard")
		}
		if err := v.Discard(0, 4096); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("discard: %v", err)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write()
	s.Stop()
	rand.Read(want)
	write()
	a, err = c.Assignment(ctx, "data")
	if err != nil || !a.FromAgent || a.Generation != 1 {
		t.Errorf("with no station: %+v, %v", a, err)
	}
	all, err := c.Assignments(ctx)
	if err != nil || len(all) != 1 || !all[0].FromAgent {
		t.Errorf("with no station: %+v, %v", all, err)
	}
	if _, err := c.Assignment(ctx, "other"); san.KindOf(err) != san.KindNotFound {
		t.Errorf("with no station: %v", err)
	}
}

// TestUnitRestartsLikeAPause: a unit is killed again and again under load, and once it loses its cache: nobody sees
// an error or other bytes than were written.
func TestUnitRestartsLikeAPause(t *testing.T) {
	s, d := stationtest.New(t), startTgtd(t)
	prepared := d.volume("data")
	prepared.Host, prepared.Generation = "host-1", 1
	s.Put(prepared)
	c := newClient(t, byToken(s))
	v, err := c.Open(within(t), "data")
	if err != nil {
		t.Fatal(err)
	}
	early := bytes.Repeat([]byte("written before, never flushed "), 100)
	if _, err := v.WriteAt(early, 8<<20+5); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			p, q := make([]byte, 3000), make([]byte, 3000)
			base := int64(g) << 20
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				rand.Read(p)
				off := base + int64(i%100)*5000
				if _, err := v.WriteAt(p, off); err != nil {
					t.Error(err)
					return
				}
				if _, err := v.ReadAt(q, off); err != nil || !bytes.Equal(p, q) {
					t.Errorf("%v, equal %v", err, bytes.Equal(p, q))
					return
				}
			}
		})
	}
	s.Stop()
	for range 3 {
		pause(t.Context(), 100*time.Millisecond)
		d.kill()
		if err := os.WriteFile(d.disk, make([]byte, diskBytes), 0o600); err != nil { // all that was not flushed is lost
			t.Fatal(err)
		}
		d.start()
	}
	pause(t.Context(), 100*time.Millisecond)
	close(stop)
	wg.Wait()
	got := make([]byte, len(early))
	if _, err := v.ReadAt(got, 8<<20+5); err != nil || !bytes.Equal(got, early) {
		t.Errorf("%v, equal %v", err, bytes.Equal(got, early))
	}
}

// TestAnotherVolumeAnswers: what comes back under the same address is not taken for what was there.
func TestAnotherVolumeAnswers(t *testing.T) {
	s, d := stationtest.New(t), startTgtd(t)
	prepared := d.volume("data")
	prepared.Host, prepared.Generation = "host-1", 1
	s.Put(prepared)
	c := newClient(t, byToken(s))
	ctx := within(t)
	v, err := c.Open(ctx, "data")
	if err != nil {
		t.Fatal(err)
	}
	d.kill()
	d.tid = "2"
	d.start()
	if _, err := v.ReadAtContext(ctx, make([]byte, 10), 0); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
}

// TestTakenAwayWhileOpen: the volume says so instead of waiting for ever.
func TestTakenAwayWhileOpen(t *testing.T) {
	for name, change := range map[string]func(*stationtest.Volume){
		"unassigned":     func(v *stationtest.Volume) { v.Host = "" },
		"assigned anew":  func(v *stationtest.Volume) { v.Generation = 7 },
		"being released": func(v *stationtest.Volume) { v.Releasing = true },
	} {
		for _, withAgent := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s, d := stationtest.New(t), startTgtd(t)
				prepared := d.volume("data")
				prepared.Host, prepared.Generation, prepared.Agent = "host-1", 1, withAgent
				s.Put(prepared)
				cfg := byToken(s)
				if withAgent {
					cfg = Config{DataDir: runAgent(t, s)}
				}
				c := newClient(t, cfg)
				ctx := within(t)
				v, err := c.Open(ctx, "data")
				if err != nil {
					t.Fatal(err)
				}
				d.kill()
				change(&prepared)
				s.Put(prepared)
				if _, err := v.ReadAtContext(ctx, make([]byte, 10), 0); !errors.Is(err, ErrGone) {
					t.Errorf("%v", err)
				}
			})
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	s, d := stationtest.New(t), startTgtd(t)
	c := newClient(t, byToken(s))
	ctx := within(t)
	if _, err := c.Open(ctx, "nothing"); san.KindOf(err) != san.KindNotFound {
		t.Errorf("no such volume: %v", err)
	}
	other := d.volume("other")
	other.Host, other.Generation = "host-2", 1
	s.Put(other)
	if _, err := c.Open(ctx, "other"); san.KindOf(err) != san.KindNotFound || !strings.Contains(err.Error(), "assign it first") {
		t.Errorf("another host's: %v", err)
	}
	short := d.volume("short")
	short.Host, short.Generation = "host-1", 1
	short.Path.EndLba++
	s.Put(short)
	if _, err := c.Open(ctx, "short"); san.KindOf(err) != san.KindConflict {
		t.Errorf("a unit that has less than was assigned: %v", err)
	}
	wrong := d.volume("wrong")
	wrong.Host, wrong.Generation, wrong.CHAPSecret = "host-1", 1, "no secret of host-1"
	s.Put(wrong)
	if _, err := c.Open(ctx, "wrong"); san.KindOf(err) != san.KindUnauthenticated {
		t.Errorf("wrong secret: %v", err)
	}
	away := d.volume("away")
	away.Host, away.Generation = "host-1", 1
	s.Put(away)
	d.kill()
	soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := c.Open(soon, "away"); san.KindOf(err) != san.KindUnavailable {
		t.Errorf("unit away: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	d.start()
	if _, err := c.Open(ctx, "away"); !errors.Is(err, ErrClosed) {
		t.Errorf("closed client: %v", err)
	}
}

func TestRequestsToStations(t *testing.T) {
	s := stationtest.New(t)
	c := newClient(t, byToken(s))
	ctx := within(t)
	if _, err := c.RequestStorage(ctx, StorageRequest{Name: "no name", SizeBytes: 1 << 20}); san.KindOf(err) != san.KindInvalid {
		t.Errorf("bad name: %v", err)
	}
	r := StorageRequest{Name: "a", SizeBytes: 1 << 20, RequestID: "r-1"}
	first, err := c.RequestStorage(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.RequestStorage(ctx, r)
	if err != nil || !again.equal(first) {
		t.Errorf("the same request again: %+v, %v", again, err)
	}
	r.RequestID = ""
	if _, err := c.RequestStorage(ctx, r); san.KindOf(err) != san.KindExists {
		t.Errorf("another request of that name: %v", err)
	}
	if _, err := c.RequestStorage(ctx, StorageRequest{Name: "b", SizeBytes: 1 << 20}); err != nil {
		t.Error(err)
	}
	all, err := c.Assignments(ctx)
	if err != nil || len(all) != 2 || all[0].Name != "a" || all[1].Name != "b" {
		t.Errorf("%+v, %v", all, err)
	}
	if err := c.Delete(ctx, "a"); san.KindOf(err) != san.KindConflict {
		t.Errorf("delete what is assigned: %v", err)
	}
	released := make(chan error, 1)
	go func() { released <- c.Release(ctx, "a") }()
	s.Await("the release", func() bool { return true })
	for !s.Get("id-a").Releasing {
		pause(ctx, time.Millisecond)
	}
	if _, err := c.Wait(ctx, "a"); san.KindOf(err) != san.KindConflict {
		t.Errorf("waiting for what is being taken away: %v", err)
	}
	gone := s.Get("id-a")
	gone.Host, gone.Releasing = "", false
	s.Put(gone)
	if err := <-released; err != nil {
		t.Error(err)
	}
	if err := c.Release(ctx, "a"); err != nil {
		t.Errorf("released again: %v", err)
	}
	if err := c.Delete(ctx, "a"); err != nil {
		t.Error(err)
	}
	if _, err := c.Assignment(ctx, "a"); san.KindOf(err) != san.KindNotFound {
		t.Errorf("a deleted one: %v", err)
	}
}

// TestWaitSaysForWhom: when time is up the error names who has not confirmed.
func TestWaitSaysForWhom(t *testing.T) {
	s := stationtest.New(t)
	c := newClient(t, byToken(s))
	s.Put(stationtest.Volume{ID: "x", Name: "x", SizeBytes: 1 << 20, Host: "host-1", Generation: 1, Agent: true})
	var err error
	for limit := 100 * time.Millisecond; limit < time.Minute; limit *= 2 { // until the station had time to answer
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		_, err = c.Wait(ctx, "x")
		cancel()
		if err == nil || !strings.Contains(err.Error(), "no station answered") {
			break
		}
	}
	if san.KindOf(err) != san.KindUnavailable || !strings.Contains(err.Error(), "sandbar host run") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestWatch(t *testing.T) {
	for _, source := range []string{"agent", "stations"} {
		t.Run(source, func(t *testing.T) { testWatch(t, source) })
	}
}

func testWatch(t *testing.T, source string) {
	s := stationtest.New(t)
	cfg := byToken(s)
	if source == "agent" {
		cfg = Config{DataDir: runAgent(t, s)}
	}
	c := newClient(t, cfg)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	events, done := make(chan AssignmentEvent, 100), make(chan error, 1)
	go func() {
		done <- c.Watch(ctx, func(e AssignmentEvent) error { events <- e; return nil })
	}()
	expect := func(change Change, generation uint64) {
		t.Helper()
		select {
		case e := <-events:
			if e.Change != change || e.Assignment.Generation != generation || e.Assignment.Name != "w" {
				t.Errorf("%v %+v", e.Change, e.Assignment)
			}
		case <-ctx.Done():
			t.Fatalf("no %s", change)
		}
	}
	v := stationtest.Volume{ID: "w", Name: "w", SizeBytes: 1 << 20, Host: "host-1", Generation: 1}
	v.Path = (&tgtd{portal: "192.0.2.1:3260"}).path()
	s.Put(v)
	expect(ChangeAdded, 1)
	v.Generation = 2
	s.Put(v)
	expect(ChangeChanged, 2)
	v.Host = ""
	s.Put(v)
	expect(ChangeRemoved, 2)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatchEndsWithItsFunction(t *testing.T) {
	s := stationtest.New(t)
	c := newClient(t, byToken(s))
	s.Put(stationtest.Volume{ID: "z", Name: "z", SizeBytes: 1 << 20, Host: "host-1", Generation: 1})
	enough := errors.New("enough")
	if err := c.Watch(within(t), func(AssignmentEvent) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("a function that fails: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	s := stationtest.New(t)
	good := byToken(s)
	empty := t.TempDir()
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, state.HostFileName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		edit func(*Config)
		kind san.Kind
	}{
		"nothing":            {func(c *Config) { *c = Config{} }, san.KindInvalid},
		"no host":            {func(c *Config) { c.Host = "" }, san.KindInvalid},
		"no such token file": {func(c *Config) { c.TokenFile += "x" }, san.KindInvalid},
		"token is no token":  {func(c *Config) { c.TokenFile = c.CAFile }, san.KindUnauthenticated},
		"CA is no CA":        {func(c *Config) { c.CAFile = c.TokenFile }, san.KindInvalid},
		"no endpoint":        {func(c *Config) { c.Endpoints = []string{"here"} }, san.KindInvalid},
		"both":               {func(c *Config) { c.DataDir = empty }, san.KindInvalid},
		"no agent's folder":  {func(c *Config) { *c = Config{DataDir: empty} }, san.KindNotFound},
		"damaged folder":     {func(c *Config) { *c = Config{DataDir: damaged} }, san.KindInternal},
		"bad initiator":      {func(c *Config) { c.Initiator = "me" }, san.KindInvalid},
		"negative limit":     {func(c *Config) { c.RetryLimit = -1 }, san.KindInvalid},
		"little memory":      {func(c *Config) { c.UnflushedBytes = 1 }, san.KindInvalid},
	} {
		cfg := good
		c.edit(&cfg)
		if _, err := New(cfg); san.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := runAgent(t, s)
	if _, err := New(Config{DataDir: dir, Host: "host-2"}); san.KindOf(err) != san.KindConflict {
		t.Errorf("another host's folder: %v", err)
	}
}
