package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/freeport"
	"github.com/sandbar-san/sandbar/san"
)

func TestExitCodes(t *testing.T) {
	for kind, want := range map[san.Kind]int{
		san.KindInternal: 1, san.KindInvalid: 2, san.KindNotFound: 3, san.KindExists: 4, san.KindConflict: 4, san.KindNoSpace: 4,
		san.KindUnauthenticated: 4, san.KindDenied: 4, san.KindUnavailable: 5, san.KindUnknown: 5,
	} {
		if got := ExitCode(fmt.Errorf("outer: %w", san.Errorf(kind, "x"))); got != want {
			t.Errorf("%v gives %d, want %d", kind, got, want)
		}
	}
	if ExitCode(nil) != 0 || ExitCode(errors.New("x")) != 1 || ExitCode(context.DeadlineExceeded) != 5 {
		t.Error("nil, a plain error and a deadline give", ExitCode(nil), ExitCode(errors.New("x")), ExitCode(context.DeadlineExceeded))
	}
}

// mustSay checks an answer's exit code and some of its words.
func mustSay(t *testing.T, out string, code, want int, says ...string) {
	t.Helper()
	if code != want {
		t.Errorf("exit code %d, want %d: %s", code, want, out)
	}
	for _, s := range says {
		if !strings.Contains(out, s) {
			t.Errorf("%q does not say %q", out, s)
		}
	}
}

func TestEveryTryOfAChangeHasTheSameRequestID(t *testing.T) {
	f := newFakeCluster(t)
	f.drop = 3
	endpoints := []string{f.station(t), f.station(t)}
	out, code := f.run(t, endpoints, "volume", "create", "v1", "--size", "1MiB")
	mustSay(t, out, code, 0, "v1")
	if len(f.requests) != 4 {
		t.Fatalf("%d tries, want 4", len(f.requests))
	}
	first := f.requests[0].(*pb.CreateVolumeRequest).RequestId
	for _, m := range f.requests {
		if id := m.(*pb.CreateVolumeRequest).RequestId; id != first || id == "" {
			t.Errorf("request ids %q and %q", first, id)
		}
	}
	if len(f.volumes) != 1 {
		t.Errorf("%d volumes were made", len(f.volumes))
	}
	f.run(t, endpoints, "volume", "create", "v2", "--size", "1MiB")
	if id := f.requests[4].(*pb.CreateVolumeRequest).RequestId; id == first {
		t.Error("two commands had one request id")
	}
	for _, h := range f.tokens {
		if !strings.HasPrefix(h, "Bearer sbt_") || strings.ContainsAny(h, "\n") {
			t.Errorf("authorization %q", h)
		}
	}
}

func TestListsHaveAllPages(t *testing.T) {
	f := newFakeCluster(t)
	endpoints := []string{f.station(t)}
	for i := range 5 {
		f.run(t, endpoints, "volume", "create", fmt.Sprintf("v%d", i), "--size", "1MiB")
	}
	out, code := f.run(t, endpoints, "volume", "list")
	mustSay(t, out, code, 0, "v0", "v1", "v2", "v3", "v4")
	out, code = f.run(t, endpoints, "audit", "list", "--limit", "0", "--from", "2")
	mustSay(t, out, code, 0, "\n3 ", "\n2500 ")
	if n := strings.Count(out, "\n"); n != 2499 {
		t.Errorf("%d lines of audit, want 2499", n)
	}
}

func TestAWaitThatEndsTooEarlySaysWhatIsMissing(t *testing.T) {
	f := newFakeCluster(t)
	f.copyFail = "medium m1: no such device"
	endpoints := []string{f.station(t)}
	f.run(t, endpoints, "volume", "create", "v3", "--size", "1MiB")
	f.run(t, endpoints, "volume", "create", "v5", "--size", "1MiB")
	f.run(t, endpoints, "volume", "create", "v4", "--size", "1MiB", "--host", "h1")
	for _, x := range []struct {
		args []string
		says []string
	}{
		{[]string{"create", "v1", "--size", "1MiB"}, []string{"volume v1 is still Creating", "unit u1 says: medium m1: no such device", "volume show v1"}},
		{[]string{"create", "v2", "--size", "1MiB", "--host", "h1"}, []string{"assignment to host h1 still Pending"}},
		{[]string{"grow", "v5", "--size", "2MiB"}, []string{"volume v5 is still Growing", "unit u1 has 0B of 2MiB", "unit u1 says: medium m1: no such device"}},
		{[]string{"delete", "v3"}, []string{"volume v3 is still Deleting"}},
		{[]string{"unassign", "v4", "--host", "h1"}, []string{"volume v4 is still being released by host h1"}},
	} {
		t.Run(x.args[0]+" "+x.args[1], func(t *testing.T) {
			t.Parallel()
			// Long enough that a busy machine gets to the waiting at all.
			out, code := f.run(t, endpoints, append(append([]string{"volume"}, x.args...), "--wait", "--timeout", "3s")...)
			mustSay(t, out, code, 5, x.says...)
		})
	}
}

func TestAWaitEndsWhenItsGoalIsLost(t *testing.T) {
	vol := func(state, assignment string, generation uint64) *pb.Volume {
		v := &pb.Volume{Name: "v", State: state}
		if assignment != "" {
			v.Assignments = []*pb.Assignment{{HostId: "h1", State: assignment, Generation: generation}}
		}
		return v
	}
	for _, c := range []struct {
		name  string
		cond  condition
		now   *pb.Volume
		done  bool
		fails bool
	}{
		{"creating", madeAndAssigned(""), vol("Creating", "", 0), false, false},
		{"ready", madeAndAssigned(""), vol("Ready", "", 0), true, false},
		{"deleted", madeAndAssigned(""), vol("Deleting", "", 0), false, true},
		{"ready is not assigned", madeAndAssigned("h1"), vol("Ready", "Pending", 1), false, false},
		{"assigned", madeAndAssigned("h1"), vol("Ready", "Assigned", 1), true, false},
		{"taken away", madeAndAssigned("h1"), vol("Ready", "Releasing", 2), false, true},
		{"gone", madeAndAssigned("h1"), vol("Ready", "", 0), false, true},
		{"growing", hasSize(2), &pb.Volume{State: "Growing", Copies: []*pb.Copy{{SizeBytes: 2}, {SizeBytes: 1}}}, false, false},
		{"grown", hasSize(2), &pb.Volume{State: "Ready", Copies: []*pb.Copy{{SizeBytes: 2}, {SizeBytes: 2}}}, true, false},
		{"grows on", hasSize(2), &pb.Volume{State: "Growing", Copies: []*pb.Copy{{SizeBytes: 2}, {SizeBytes: 3}}}, true, false},
		{"deleted as it grew", hasSize(2), vol("Deleting", "", 0), false, true},
		{"releasing", released(vol("Ready", "Releasing", 2), "h1"), vol("Ready", "Releasing", 2), false, false},
		{"released", released(vol("Ready", "Releasing", 2), "h1"), vol("Ready", "", 0), true, false},
		{"released and given again", released(vol("Ready", "Releasing", 2), "h1"), vol("Ready", "Pending", 3), true, false},
	} {
		done, _, err := c.cond(c.now)
		if done != c.done || (err != nil) != c.fails {
			t.Errorf("%s: done %v, error %v", c.name, done, err)
		}
		if err != nil && san.KindOf(err) != san.KindConflict {
			t.Errorf("%s: kind %v", c.name, san.KindOf(err))
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	f := newFakeCluster(t)
	frees, err := freeport.Loopback(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	free := frees[0]
	out, code := f.run(t, []string{free}, "volume", "list", "--timeout", "3s")
	mustSay(t, out, code, 5, free, "refused")
	// One of several is enough.
	out, code = f.run(t, []string{free, f.station(t)}, "volume", "list")
	mustSay(t, out, code, 0)
}

func TestStationsOfAnotherClusterAreRefusedAtOnce(t *testing.T) {
	ours, theirs := newFakeCluster(t), newFakeCluster(t)
	start := time.Now()
	out, code := ours.run(t, []string{theirs.station(t), theirs.station(t)}, "volume", "list")
	mustSay(t, out, code, 4, "certificate")
	if time.Since(start) > 20*time.Second {
		t.Error("it waited for its timeout")
	}
	if strings.Contains(out, "no station answered") {
		t.Errorf("the reason is hidden: %s", out)
	}
	out, code = ours.run(t, []string{theirs.station(t), ours.station(t)}, "volume", "list")
	mustSay(t, out, code, 0)
}

func TestAnInterruptEndsACommand(t *testing.T) {
	f := newFakeCluster(t)
	f.copyFail = "x"
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	out, code := f.runIn(ctx, t, []string{f.station(t)}, "volume", "create", "v", "--size", "1MiB", "--wait")
	mustSay(t, out, code, ExitFailed, "interrupted", "may still happen")
}

func TestWhoAsksWhomCanComeFromTheEnvironment(t *testing.T) {
	f := newFakeCluster(t)
	app := App{Stdout: &strings.Builder{}, Version: "v"}
	try := func(env map[string]string, args ...string) (string, int) {
		t.Helper()
		for _, k := range []string{"SANDBAR_ENDPOINT", "SANDBAR_TOKEN_FILE", "SANDBAR_CA_FILE"} {
			t.Setenv(k, env[k])
		}
		var errs strings.Builder
		app.Stderr = &errs
		code := app.Run(t.Context(), args)
		return errs.String(), code
	}
	dir := t.TempDir()
	token, ca := filepath.Join(dir, "t"), filepath.Join(dir, "ca")
	if err := errors.Join(os.WriteFile(token, []byte("sbt_0123456789abcdef_"+strings.Repeat("ab", 32)), 0o600), os.WriteFile(ca, f.ca.CertPEM(), 0o600)); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"SANDBAR_ENDPOINT": "127.0.0.1:1, " + f.station(t), "SANDBAR_TOKEN_FILE": token, "SANDBAR_CA_FILE": ca}
	if out, code := try(all, "volume", "list"); code != 0 {
		t.Errorf("all by the environment: %d %s", code, out)
	}
	if _, code := try(all, "volume", "list", "--endpoint", "127.0.0.1:1", "--timeout", "100ms"); code != 5 {
		t.Errorf("a flag wins over a variable: %d", code)
	}
}

func TestWhatIsNotSetIsNamed(t *testing.T) {
	f := newFakeCluster(t)
	dir := t.TempDir()
	token, ca, junk := filepath.Join(dir, "t"), filepath.Join(dir, "ca"), filepath.Join(dir, "junk")
	if err := errors.Join(os.WriteFile(token, []byte("sbt_0123456789abcdef_"+strings.Repeat("ab", 32)), 0o600),
		os.WriteFile(ca, f.ca.CertPEM(), 0o600), os.WriteFile(junk, []byte(strings.Repeat("secret", 20000)), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"SANDBAR_ENDPOINT", "SANDBAR_TOKEN_FILE", "SANDBAR_CA_FILE"} {
		t.Setenv(k, "")
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"no endpoint", nil, 2, []string{"--endpoint", "SANDBAR_ENDPOINT"}},
		{"bad endpoint", []string{"--endpoint", "nowhere", "--token-file", token, "--ca-file", ca}, 2, []string{"nowhere", "host:port"}},
		{"no token", []string{"--endpoint", "a:1"}, 2, []string{"--token-file", "SANDBAR_TOKEN_FILE", "admin.token"}},
		{"token missing", []string{"--endpoint", "a:1", "--token-file", "/nonexistent"}, 2, []string{"/nonexistent", "no such file"}},
		{"token too big", []string{"--endpoint", "a:1", "--token-file", junk}, 2, []string{junk, "more than"}},
		{"token malformed", []string{"--endpoint", "a:1", "--token-file", ca}, 4, []string{ca, "malformed"}},
		{"no CA", []string{"--endpoint", "a:1", "--token-file", token}, 2, []string{"--ca-file", "SANDBAR_CA_FILE", "ca.pem"}},
		{"CA malformed", []string{"--endpoint", "a:1", "--token-file", token, "--ca-file", token}, 2, []string{"CA file " + token}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs strings.Builder
			app := App{Stdout: &out, Stderr: &errs}
			code := app.Run(t.Context(), append([]string{"volume", "list"}, c.args...))
			mustSay(t, errs.String(), code, c.code, c.says...)
			if !strings.HasPrefix(errs.String(), "sandbar: ") || strings.Count(errs.String(), "\n") != 1 || out.Len() > 0 {
				t.Errorf("printed %q and, as its error, %q", out.String(), errs.String())
			}
		})
	}
}

// failAfter lets a watch send some changes and then breaks it.
func failAfter(code connect.Code) error { return connect.NewError(code, errors.New("broken")) }

func change(index uint64, id string) *pb.WatchResponse {
	return &pb.WatchResponse{Index: index, Changes: []*pb.Change{{Index: index, Table: "hosts", Id: id,
		Row: &pb.Change_Host{Host: &pb.Host{Id: id, State: "Online"}}}}}
}

func TestAWatchGoesOnWhereItWasBroken(t *testing.T) {
	f := newFakeCluster(t)
	var froms []uint64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.watch = func(req *pb.WatchRequest, stream *connect.ServerStream[pb.WatchResponse]) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		froms = append(froms, req.FromIndex)
		switch len(froms) {
		case 1: // lost before anything came
			return failAfter(connect.CodeUnavailable)
		case 2: // the greeting's index lies ahead of what follows
			return errors.Join(stream.Send(&pb.WatchResponse{Index: 90}), stream.Send(change(7, "a")), stream.Send(change(9, "b")), failAfter(connect.CodeUnavailable))
		case 3:
			return errors.Join(stream.Send(&pb.WatchResponse{Index: 90}), stream.Send(change(12, "c")))
		}
		cancel()
		return nil
	}
	out, code := f.runIn(ctx, t, []string{f.station(t)}, "watch", "--from", "5", "-o", "json")
	if code != 0 {
		t.Errorf("an interrupted watch gives %d: %s", code, out)
	}
	if want := "[5 5 9 12]"; fmt.Sprint(froms) != want {
		t.Errorf("it began after %v, want %s", froms, want)
	}
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 3 || !strings.Contains(lines[2], `"id":"c"`) {
		t.Errorf("printed %q", out)
	}
}

func TestAWatchSaysWhyItEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code int
		says string
	}{
		{"too far behind", failAfter(connect.CodeAborted), 4, "after index 5 are not all kept"},
		{"not allowed", failAfter(connect.CodePermissionDenied), 4, "broken"},
		{"no such table", failAfter(connect.CodeInvalidArgument), 2, "broken"},
	} {
		for _, sent := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s after %d", c.name, sent), func(t *testing.T) {
				f := newFakeCluster(t)
				f.watch = func(_ *pb.WatchRequest, stream *connect.ServerStream[pb.WatchResponse]) error {
					if sent > 0 {
						if err := stream.Send(&pb.WatchResponse{Index: 5}); err != nil {
							return err
						}
					}
					return c.err
				}
				out, code := f.run(t, []string{f.station(t)}, "watch", "--from", "5", "--timeout", "10s")
				mustSay(t, out, code, c.code, c.says)
			})
		}
	}
}

func TestAWatchIsBoundedByItsTimeoutOnly(t *testing.T) {
	t.Parallel() // it waits for that
	f := newFakeCluster(t)
	f.watch = func(_ *pb.WatchRequest, stream *connect.ServerStream[pb.WatchResponse]) error {
		return errors.Join(stream.Send(change(7, "a")), failAfter(connect.CodeUnavailable))
	}
	out, code := f.run(t, []string{f.station(t)}, "watch", "--timeout", "3s")
	mustSay(t, out, code, 0, "7        hosts        a  Online")
}

func TestChangesInWords(t *testing.T) {
	for _, c := range []struct {
		change *pb.Change
		want   string
	}{
		{&pb.Change{Index: 3, Table: "volumes", Id: "x", Row: &pb.Change_Volume{Volume: &pb.Volume{Name: "v1", State: "Ready", SizeBytes: 1 << 20}}}, "3        volumes      x  v1  Ready  1MiB"},
		{&pb.Change{Index: 4, Table: "units", Id: "u1", Row: &pb.Change_Unit{Unit: &pb.Unit{State: "Unreachable", Reason: "lost"}}}, "4        units        u1  Unreachable  lost"},
		{&pb.Change{Index: 5, Table: "assignments", Id: "x/h", Row: &pb.Change_Assignment{Assignment: &pb.Assignment{HostId: "h", State: "Assigned", Generation: 2}}}, "5        assignments  x/h  h  Assigned  generation 2"},
		{&pb.Change{Index: 6, Table: "media", Id: "m", Row: &pb.Change_Medium{Medium: &pb.Medium{UnitId: "u1", State: "Missing", Path: "/d"}}}, "6        media        m  u1  Missing  /d"},
		{&pb.Change{Index: 7, Table: "stations", Id: "s", Row: &pb.Change_Station{Station: &pb.Station{ApiAddress: "a:1", Version: "v"}}}, "7        stations     s  a:1  v"},
		{&pb.Change{Index: 8, Table: "hosts", Id: "h", Deleted: true}, "8        hosts        h  deleted"},
	} {
		if got := changeLine(c.change); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestLifetimes(t *testing.T) {
	for s, want := range map[string]int64{"": 0, "30m": 1800, "90d": 90 * 86400, "1s": 1, "99999999d": maxTTLDays * 86400} {
		if got, err := parseTTL(s); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"x", "-1h", "0s", "1ms", "d", "-3d", "1.5d", "10"} {
		if got, err := parseTTL(s); san.KindOf(err) != san.KindInvalid {
			t.Errorf("%q is %d, %v", s, got, err)
		}
	}
}
