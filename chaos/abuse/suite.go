package abuse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

const (
	// MaxResidentBytes is what the unit's process may take of memory in any case: its budget for data
	// (dataplane/iscsi/README.md, 512 MiB), as much again that the collector has not come to yet, and the rest of the unit.
	MaxResidentBytes = 1 << 30
	// spareSockets is how many more sockets the unit may have after a case than before it: its own links come and go.
	spareSockets = 3
	// settleLimit is how long it may take until what a case had open is gone.
	settleLimit = 25 * time.Second
)

// Options say what to run.
type Options struct {
	// Short leaves out the cases that take long.
	Short bool
	// Only, when set, leaves out the cases whose name does not match.
	Only *regexp.Regexp
}

// Summary is how the cases ended.
type Summary struct{ Passed, Failed int }

// attack is one case. Its run attacks; what it returns is what the unit did wrong.
type attack struct {
	name string
	// long cases are left out of the short form.
	long bool
	// apart: the case resets the logical unit, by which commands of its other sessions end unanswered (SAM-5 §6.3.3).
	apart bool
	run   func(ctx context.Context, r *rig) error
}

// rig is a unit under attack.
type rig struct {
	lab  *lab.Lab
	unit *lab.Process
	// prey is where attacks go: the lower half of a volume whose upper half a bystander uses. ruin is a volume
	// that may end up with anything. other is another host's.
	prey, ruin, other door
	bystanders        []*bystander
}

const (
	attackerIQN  = "iqn.2026-11.example:attacker"
	neighbourIQN = "iqn.2026-11.example:neighbour" // the attacking host's other name
	otherIQN     = "iqn.2026-11.example:other"

	volumeBytes = 64 << 20
	// preyBlocks is how much of the prey attacks may write.
	preyBlocks = volumeBytes / 2 / blockSize
)

// LabArgs are the arguments for a lab with one unit.
func LabArgs() []string {
	return []string{"--stations", "1", "--units", "1", "--spare-units", "0", "--hosts", "0", "--spare-hosts", "0", "--medium-size", "512MiB"}
}

// Run attacks the unit of a lab made with LabArgs. Its error says that the attacks could not be made; what the unit
// did wrong is in the summary, and printed to out. The lab's unit is not usable afterwards.
func Run(ctx context.Context, l *lab.Lab, out io.Writer, o Options) (Summary, error) {
	var sum Summary
	r, err := newRig(ctx, l)
	if err != nil {
		return sum, err
	}
	running, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	for _, b := range r.bystanders {
		wait.Go(func() { b.run(running) })
	}
	defer wait.Wait()
	defer stop()
	for _, a := range attacks() {
		if o.Short && a.long || o.Only != nil && !o.Only.MatchString(a.name) {
			continue
		}
		line, err := r.try(ctx, a)
		if ctx.Err() != nil {
			return sum, ctx.Err()
		}
		verdict := "passed"
		if sum.Passed++; err != nil {
			sum.Passed--
			sum.Failed++
			verdict = "FAILED"
			line += "\n        " + strings.ReplaceAll(err.Error(), "\n", "\n        ")
		}
		if _, err := fmt.Fprintf(out, "%s %-40s %s\n", verdict, a.name, line); err != nil {
			return sum, err
		}
	}
	stop()
	wait.Wait()
	if err := r.leftOver(ctx); err != nil {
		sum.Failed++
		_, err = fmt.Fprintf(out, "FAILED what is left when all have gone: %v\n", err)
		return sum, err
	}
	sum.Passed++
	_, err = fmt.Fprintln(out, "passed what is left when all have gone")
	return sum, err
}

func newRig(ctx context.Context, l *lab.Lab) (*rig, error) {
	units := l.Of("unit")
	if len(units) != 1 {
		return nil, fmt.Errorf("the lab has %d units, want one", len(units))
	}
	r := &rig{lab: l, unit: units[0]}
	if err := errors.Join(l.CLI(ctx, "host", "add", "attacker", "--initiator", attackerIQN, "--initiator", neighbourIQN).Err(),
		l.CLI(ctx, "host", "add", "other", "--initiator", otherIQN).Err()); err != nil {
		return nil, err
	}
	var err error
	if r.prey, err = give(ctx, l, "prey", "attacker", attackerIQN); err != nil {
		return nil, err
	}
	if r.ruin, err = give(ctx, l, "ruin", "attacker", attackerIQN); err != nil {
		return nil, err
	}
	if r.other, err = give(ctx, l, "other", "other", otherIQN); err != nil {
		return nil, err
	}
	near := r.prey
	near.initiator = neighbourIQN
	for _, who := range []struct {
		name string
		door door
		base int64
	}{{"the neighbour on the same volume", near, volumeBytes / 2}, {"another host on its own volume", r.other, 0}} {
		b, err := newBystander(ctx, who.name, who.door, who.base)
		if err != nil {
			return nil, err
		}
		r.bystanders = append(r.bystanders, b)
	}
	return r, nil
}

// give makes a volume for a host and tells how to get at it.
func give(ctx context.Context, l *lab.Lab, name, host, iqn string) (door, error) {
	if err := l.CLI(ctx, "volume", "create", name, "--size", fmt.Sprint(volumeBytes), "--host", host, "--wait").Err(); err != nil {
		return door{}, err
	}
	v, err := l.Volume(ctx, name)
	if err != nil {
		return door{}, err
	}
	if len(v.Assignments) != 1 || len(v.Assignments[0].Paths) != 1 {
		return door{}, fmt.Errorf("volume %s has assignments %+v, want one with one path", name, v.Assignments)
	}
	cred, err := l.Credentials(ctx, name, host)
	p := v.Assignments[0].Paths[0]
	return door{portal: p.Portal, target: p.TargetIQN, initiator: iqn, user: cred.User, secret: cred.Secret, from: netip.MustParseAddr("127.0.0.1")}, err
}

// try runs one case and looks at what it did to the unit. It returns figures for the case's line.
func (r *rig) try(ctx context.Context, a attack) (line string, err error) {
	if a.apart {
		r.bystanders[0].turn.Lock()
		defer r.bystanders[0].turn.Unlock()
	}
	before := make([]int, len(r.bystanders))
	for i, b := range r.bystanders {
		before[i], _, _ = b.look()
	}
	had, err := sockets(r.unit.PID)
	if err != nil {
		return "", err
	}
	if err := resetPeak(r.unit.PID); err != nil {
		return "", err
	}
	began := time.Now()
	err = a.run(ctx, r)
	spent := time.Since(began)
	_, peak, lost := resident(r.unit.PID)
	err = errors.Join(err, lost)
	if peak > MaxResidentBytes {
		err = errors.Join(err, fmt.Errorf("the unit took %d MiB of memory, at most %d are allowed", peak>>20, int64(MaxResidentBytes)>>20))
	}
	worst := time.Duration(0)
	for i, b := range r.bystanders {
		if a.apart && i == 0 {
			continue
		}
		w, still := r.goesOn(ctx, b, before[i])
		worst = max(worst, w)
		err = errors.Join(err, still)
	}
	return fmt.Sprintf("%6.2fs  peak %4d MiB, a bystander's slowest I/O %v", spent.Seconds(), peak>>20, worst.Round(time.Millisecond)),
		errors.Join(err, r.settles(ctx, had))
}

// goesOn waits until a bystander has had another I/O, for it may have had none in a case that was over at once.
func (r *rig) goesOn(ctx context.Context, b *bystander, before int) (worst time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var failed error
	waited := lab.Until(ctx, 10*time.Millisecond, func(context.Context) error {
		ios, w, err := b.look()
		worst = max(worst, w)
		if failed = err; err == nil && ios <= before {
			return fmt.Errorf("%s has had no I/O", b.name)
		}
		return nil
	})
	return worst, errors.Join(failed, waited)
}

// settles waits until the unit has let go of the case's connections.
func (r *rig) settles(ctx context.Context, had int) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	return lab.Until(ctx, 20*time.Millisecond, func(context.Context) error {
		now, err := sockets(r.unit.PID)
		if err == nil && now > had+spareSockets {
			err = fmt.Errorf("the unit has %d sockets open, %d before the case", now, had)
		}
		return err
	})
}

// leftOver has the unit end with the stacks of its goroutines, when the bystanders have gone too: no session's may be left.
func (r *rig) leftOver(ctx context.Context) error {
	had, err := sockets(r.unit.PID)
	if err != nil {
		return err
	}
	for _, b := range r.bystanders {
		if err := b.dev.Session().Close(); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	if err := r.settles(ctx, had-len(r.bystanders)-spareSockets); err != nil {
		return err
	}
	panics, err := r.lab.Panics()
	if err != nil || len(panics) > 0 {
		return errors.Join(err, fmt.Errorf("%d processes crashed: %q", len(panics), panics))
	}
	if err := r.unit.Signal(syscall.SIGQUIT); err != nil {
		return err
	}
	if err := r.unit.WaitGone(patience); err != nil {
		return err
	}
	log, err := r.unit.Log()
	if err != nil {
		return err
	}
	_, dump, found := strings.Cut(log, "SIGQUIT: quit")
	if !found {
		return errors.New("the unit did not show its goroutines")
	}
	if n := strings.Count(log, "by a defect"); n > 0 {
		return fmt.Errorf("the unit has logged %d defects:\n%s", n, r.lab.Trouble())
	}
	all := strings.Count(dump, "\ngoroutine ")
	for _, of := range []string{"iscsi.(*session)", "iscsi.(*Server).serveConn"} {
		if n := strings.Count(dump, of); n > 0 {
			return fmt.Errorf("%d frames of %s are left in %d goroutines", n, of, all)
		}
	}
	return nil
}
