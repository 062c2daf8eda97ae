package abuse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/chaos/lab"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
)

// What one unit must carry.
const (
	scaleTargets   = 1000
	scaleSessions  = 500
	scaleAtOnce    = 16 // logins, and calls of the API
	scaleRounds    = 6  // of logging all sessions in
	extentBytes    = 4 << 20
	maxIdleBytes   = 512 << 20
	maxLoginP99    = 100 * time.Millisecond
	targetsLimit   = 3 * time.Minute
	secondsOfQuiet = 5
)

// ScaleLabArgs are the arguments for the lab of Scale.
func ScaleLabArgs() []string {
	return []string{"--stations", "1", "--units", "1", "--spare-units", "0", "--hosts", "0", "--spare-hosts", "0",
		"--medium-size", fmt.Sprint((scaleTargets + 64) * extentBytes)}
}

// figures are what Scale measures.
type figures struct {
	create                 time.Duration     // all targets, until each is assigned
	bare, targets, session int64             // resident bytes: of the new unit, with all targets, with all sessions besides
	rounds                 [][]time.Duration // the logins of each
}

// Scale gives one unit 1,000 targets and 500 sessions, measures its memory and the logins' times, and prints them. Its error says
// that they are above what is promised.
func Scale(ctx context.Context, l *lab.Lab, out io.Writer) error {
	units := l.Of("unit")
	if len(units) != 1 {
		return fmt.Errorf("the lab has %d units, want one", len(units))
	}
	pid := units[0].PID
	var f figures
	var err error
	if f.bare, _, err = resident(pid); err != nil {
		return err
	}
	doors, spent, err := makeTargets(ctx, l)
	if err != nil {
		return err
	}
	f.create = spent
	if f.targets, err = quiet(ctx, pid); err != nil {
		return err
	}
	for round := range scaleRounds {
		if err := f.round(ctx, pid, doors[:scaleSessions], round == scaleRounds-1); err != nil {
			return err
		}
	}
	return f.judge(out)
}

// makeTargets makes volumes of one extent each, all of one host, and waits until the unit serves them.
func makeTargets(ctx context.Context, l *lab.Lab) ([]door, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, targetsLimit)
	defer cancel()
	if err := l.CLI(ctx, "host", "add", "many", "--initiator", attackerIQN).Err(); err != nil {
		return nil, 0, err
	}
	c, err := stations(l)
	if err != nil {
		return nil, 0, err
	}
	api := c.Volumes(l.Access.Endpoints[0])
	began := time.Now()
	err = inParallel(scaleTargets, func(i int) error {
		_, err := api.CreateVolume(ctx, connect.NewRequest(&pb.CreateVolumeRequest{
			RequestId: uuid.NewString(), Name: fmt.Sprintf("scale-%04d", i), SizeBytes: extentBytes, HostId: "many"}))
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	var volumes map[string]lab.Volume
	if err := lab.Until(ctx, 200*time.Millisecond, func(ctx context.Context) error {
		if volumes, err = l.Volumes(ctx); err != nil {
			return err
		}
		ready := 0
		for _, v := range volumes {
			if len(v.Assignments) == 1 && v.Assignments[0].State == "Assigned" {
				ready++
			}
		}
		if ready != scaleTargets {
			return fmt.Errorf("%d of %d volumes are assigned", ready, scaleTargets)
		}
		return nil
	}); err != nil {
		return nil, 0, err
	}
	spent := time.Since(began)
	doors := make([]door, scaleTargets)
	return doors, spent, inParallel(scaleSessions, func(i int) error {
		v := volumes[fmt.Sprintf("scale-%04d", i)]
		cred, err := api.GetCredentials(ctx, connect.NewRequest(&pb.GetCredentialsRequest{Volume: v.ID, HostId: "many"}))
		if err != nil {
			return err
		}
		p := v.Assignments[0].Paths[0]
		doors[i] = door{portal: p.Portal, target: p.TargetIQN, initiator: attackerIQN, user: cred.Msg.ChapUser, secret: cred.Msg.ChapSecret,
			from: netip.MustParseAddr("127.0.0.1")}
		return nil
	})
}

// stations makes a client of the lab's stations.
func stations(l *lab.Lab) (*stationclient.Client, error) {
	ca, err := os.ReadFile(l.Access.CAFile)
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(l.Access.TokenFile)
	if err != nil {
		return nil, err
	}
	tls, err := identity.CATLS(ca)
	if err != nil {
		return nil, err
	}
	return stationclient.New(stationclient.Config{Endpoints: l.Access.Endpoints, TLS: tls, Token: strings.TrimSpace(string(token))})
}

// inParallel runs f for all numbers below n, scaleAtOnce at a time.
func inParallel(n int, f func(i int) error) error {
	var next atomic.Int64
	return many(scaleAtOnce, func(int) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return nil
			}
			if err := f(i); err != nil {
				return fmt.Errorf("number %d: %w", i, err)
			}
		}
	})
}

// quiet tells how much memory a process has once that changes little any more: the median of some seconds.
func quiet(ctx context.Context, pid int) (int64, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var seen []int64
	for range secondsOfQuiet {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
		now, _, err := resident(pid)
		if err != nil {
			return 0, err
		}
		seen = append(seen, now)
	}
	slices.Sort(seen)
	return seen[len(seen)/2], nil
}

// round logs in to each door and does one I/O; with last it looks at the memory while all sessions are idle.
func (f *figures) round(ctx context.Context, pid int, doors []door, last bool) error {
	open := make([]*client, len(doors))
	defer func() {
		for _, c := range open {
			if c != nil {
				c.close()
			}
		}
	}()
	took := make([]time.Duration, len(doors))
	err := inParallel(len(doors), func(i int) error {
		began := time.Now()
		c := doors[i].dial(ctx)
		open[i] = c
		c.logIn(wishes())
		took[i] = time.Since(began)
		c.ready()
		h := c.write(0, 8)
		c.send(h, pattern(8*blockSize, uint64(i)))
		if status, _ := c.result(h); c.err == nil && status != 0 {
			c.failf("a write: status %#02x", status)
		}
		return c.err
	})
	slices.Sort(took)
	f.rounds = append(f.rounds, took)
	if err != nil || !last {
		return err
	}
	f.session, err = quiet(ctx, pid)
	for i, c := range open {
		c.patient()
		if c.alive("being idle"); c.err != nil {
			err = errors.Join(err, fmt.Errorf("session %d: %w", i, c.err))
		}
	}
	return err
}

// judge prints the figures and holds them against the promises. Of the rounds the one with the best p99 counts: what else
// the machine does makes logins slower, and nothing makes them faster.
func (f *figures) judge(out io.Writer) error {
	quantile := func(r []time.Duration, percent int) time.Duration { return r[min(len(r)*percent/100, len(r)-1)] }
	best := slices.MinFunc(f.rounds, func(a, b []time.Duration) int { return int(quantile(a, 99) - quantile(b, 99)) })
	p50, p99, worst := quantile(best, 50), quantile(best, 99), quantile(best, 100)
	var all []string
	for _, r := range f.rounds {
		all = append(all, fmt.Sprintf("%.1f", quantile(r, 99).Seconds()*1e3))
	}
	const mib = float64(1 << 20)
	_, err := fmt.Fprintf(out, "%d volumes made and assigned, %d at a time: %.1fs (%.0f a second)\n"+
		"memory of the unit: new %.0f MiB, with %d targets %.0f MiB, with %d idle sessions besides %.0f MiB\n"+
		"%d logins with CHAP, connecting included, %d at a time: p50 %.1f ms, p99 %.1f ms, longest %.1f ms (p99 of all rounds: %s)\n",
		scaleTargets, scaleAtOnce, f.create.Seconds(), scaleTargets/f.create.Seconds(),
		float64(f.bare)/mib, scaleTargets, float64(f.targets)/mib, scaleSessions, float64(f.session)/mib,
		len(best), scaleAtOnce, p50.Seconds()*1e3, p99.Seconds()*1e3, worst.Seconds()*1e3, strings.Join(all, ", "))
	if f.session > maxIdleBytes {
		err = errors.Join(err, fmt.Errorf("the idle unit takes %d MiB, at most %d are promised", f.session>>20, maxIdleBytes>>20))
	}
	if p99 > maxLoginP99 {
		err = errors.Join(err, fmt.Errorf("the slowest hundredth of logins takes %v or more, at most %v are promised", p99, maxLoginP99))
	}
	return err
}
