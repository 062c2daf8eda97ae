package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/lab"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// Options say what to run.
type Options struct {
	Lab   lab.Config
	Story string // main or none
	Keep  bool   // leave the processes running at the end
	Out   io.Writer
}

// Run starts the lab, tells the story and ends the lab, unless it is to be kept.
func Run(ctx context.Context, o Options) (err error) {
	if o.Story != "main" && o.Story != "none" {
		return san.Errorf(san.KindInvalid, "story %q is not one of main, none", o.Story)
	}
	if o.Story == "main" && (o.Lab.Units-o.Lab.SpareUnits < 2 || o.Lab.Hosts < 1 || o.Lab.Stations < 3) {
		return san.Errorf(san.KindInvalid, "the story needs at least 3 stations, 2 units that are no spares, and 1 host; use --story=none for a smaller lab")
	}
	if o.Lab.Dir == "" {
		if o.Lab.Dir, err = os.MkdirTemp("", "sandbar-demo-"); err != nil {
			return err
		}
		if !o.Keep {
			defer func() { err = errors.Join(err, os.RemoveAll(o.Lab.Dir)) }()
		}
	}
	if o.Lab.Dir, err = filepath.Abs(o.Lab.Dir); err != nil {
		return err
	}
	s := &story{out: o.Out, began: time.Now()}
	s.say("Sandbar: %d stations, %d units, %d hosts, each a process of its own, in %s", o.Lab.Stations, o.Lab.Units, o.Lab.Hosts, o.Lab.Dir)
	if s.lab, err = lab.Start(ctx, o.Lab); err != nil {
		return err
	}
	defer func() {
		if o.Keep && err == nil {
			return
		}
		if serr := s.lab.Stop(); err == nil {
			err = serr
		}
	}()
	if s.api, err = s.lab.Client(); err != nil {
		return err
	}
	defer s.api.Close()
	if o.Story == "main" {
		if err := s.tell(ctx); err != nil {
			return err
		}
	}
	if o.Keep {
		s.say("The lab goes on: see %s; end it with 'sandbar demo --stop --dir %s'", filepath.Join(o.Lab.Dir, "lab.json"), o.Lab.Dir)
	}
	if o.Story == "main" {
		fmt.Fprintln(o.Out, "demo: PASS")
	}
	return nil
}

// story is one telling.
type story struct {
	out   io.Writer
	began time.Time
	lab   *lab.Running
	api   *stationclient.Client
	wrote []byte // SHA-256 of what chapter 2 wrote
}

// say prints a line with the time since the beginning.
func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// chapter prints a heading.
func (s *story) chapter(n int, title string) { fmt.Fprintf(s.out, "\n%d. %s\n", n, title) }

// tell tells the chapters in order.
func (s *story) tell(ctx context.Context) error {
	for i, c := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"The pool builds itself (Fig. 3)", s.pool},
		{"A host asks for storage and uses it directly (Fig. 6)", s.storage},
		{"The leading station is killed while I/O runs", s.failover},
		{"A unit shuts down and comes back (Fig. 3f)", s.unitAway},
	} {
		s.chapter(i+1, c.title)
		if err := c.tell(ctx); err != nil {
			return san.Wrap(fmt.Sprintf("chapter %d", i+1), err)
		}
	}
	return nil
}
