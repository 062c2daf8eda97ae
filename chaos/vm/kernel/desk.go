package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sandbar-san/sandbar/chaos/lab"
)

const (
	// deskEvery is how often requests are looked for.
	deskEvery = 100 * time.Millisecond
	// maxAskBytes bounds a request.
	maxAskBytes = 4096
	askPrefix   = "ask."
)

// desk does what a guest asks for. A request is a file ask.ID that was renamed into the folder, its words in
// one line; the answer is in answer.ID, and done.ID, which comes last, has 0 or 1.
type desk struct {
	dir  string
	acts map[string]func(ctx context.Context, args []string) (string, error)
}

// serve answers until ctx ends.
func (d *desk) serve(ctx context.Context) error {
	tick := time.NewTicker(deskEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		names, err := filepath.Glob(filepath.Join(d.dir, askPrefix+"*"))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := d.answer(ctx, name); err != nil {
				return err
			}
		}
	}
}

// answer does one request. Only what goes wrong on this side is an error.
func (d *desk) answer(ctx context.Context, name string) error {
	id := strings.TrimPrefix(filepath.Base(name), askPrefix)
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	text, code := "", "0"
	if info.Size() > maxAskBytes {
		err = fmt.Errorf("a request of %d bytes, %d are allowed", info.Size(), maxAskBytes)
	} else {
		text, err = d.do(ctx, name)
	}
	if err != nil {
		text, code = err.Error(), "1"
	}
	done := filepath.Join(d.dir, "done."+id)
	return errors.Join(
		os.WriteFile(filepath.Join(d.dir, "answer."+id), []byte(text+"\n"), 0o600),
		os.Remove(name),
		os.WriteFile(done+"~", []byte(code+"\n"), 0o600),
		os.Rename(done+"~", done),
	)
}

func (d *desk) do(ctx context.Context, name string) (string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	words := strings.Fields(string(b))
	if len(words) == 0 {
		return "", errors.New("a request without words")
	}
	act := d.acts[words[0]]
	if act == nil {
		return "", fmt.Errorf("%q is nothing that a guest may ask for", words[0])
	}
	return act(ctx, words[1:])
}

// newDesk answers with what l can do.
func newDesk(dir string, l *lab.Lab) *desk {
	unit := l.Of("unit")[0]
	return &desk{dir: dir, acts: map[string]func(context.Context, []string) (string, error){
		// grow VOLUME SIZE: the volume has that size, confirmed
		"grow": func(ctx context.Context, args []string) (string, error) {
			if len(args) != 2 {
				return "", errors.New("grow VOLUME SIZE")
			}
			return "", l.CLI(ctx, "volume", "grow", args[0], "--size", args[1], "--wait").Err()
		},
		// allocated: bytes that the unit's medium takes up on this machine's disk
		"allocated": func(context.Context, []string) (string, error) {
			n, err := allocated(unit.Media)
			return fmt.Sprint(n), err
		},
		// used: bytes of the unit's media that belong to volumes
		"used": func(ctx context.Context, _ []string) (string, error) {
			u, err := l.Unit(ctx, unit.ID)
			n := int64(0)
			for _, m := range u.Media {
				n += m.UsedBytes
			}
			return fmt.Sprint(n), err
		},
		"kill-unit": func(context.Context, []string) (string, error) { return "", unit.Kill() },
		// start-unit: the unit runs again, and the stations have taken it in
		"start-unit": func(ctx context.Context, _ []string) (string, error) {
			return "", errors.Join(l.Restart(unit), l.AwaitState(ctx, "unit", unit.ID, "Online", time.Minute))
		},
	}}
}

// allocated adds up what files take up on disk.
func allocated(files []string) (int64, error) {
	n := int64(0)
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return 0, err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return 0, &fs.PathError{Op: "stat", Path: f, Err: errors.ErrUnsupported}
		}
		n += st.Blocks * 512 // st_blocks counts these, whatever the file system's blocks are
	}
	return n, nil
}
