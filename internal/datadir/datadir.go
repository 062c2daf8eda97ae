package datadir

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sandbar-san/sandbar/san"
)

const lockName = "lock"

// Dir is a data folder that this process holds.
type Dir struct {
	path string
	lock *os.File
}

// Open makes the folder if there is none and takes it; san.KindConflict if another process
// has it.
func Open(path string) (*Dir, error) {
	if path == "" {
		return nil, san.Errorf(san.KindInvalid, "no data folder given; set 'data'")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, san.Errorf(san.KindInvalid, "data folder %s can't be made: %w", path, err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, san.Errorf(san.KindInvalid, "data folder %s can't be used: %w", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, san.Errorf(san.KindConflict, "data folder %s is in use by another process; stop that one first, or give this one a folder of its own", path)
		}
		return nil, san.Errorf(san.KindInternal, "data folder %s can't be locked: %w", path, err)
	}
	return &Dir{path: path, lock: f}, nil
}

// Close gives the folder up.
func (d *Dir) Close() error { return d.lock.Close() }

// Path returns the full path of name in the folder.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// Write replaces file name with b: after a crash it holds the old content or the new, and
// after Write returned, the new.
func (d *Dir) Write(name string, b []byte) error {
	tmp, err := os.CreateTemp(d.path, name+".*.tmp")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // it is gone already unless something failed
	if _, err = tmp.Write(b); err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return san.Errorf(san.KindInternal, "%s can't be written: %w", d.Path(name), err)
	}
	if err := os.Rename(tmp.Name(), d.Path(name)); err != nil {
		return san.Errorf(san.KindInternal, "%s can't be replaced: %w", d.Path(name), err)
	}
	return d.sync()
}

func (d *Dir) sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Remove deletes file name; it is no error if there is none.
func (d *Dir) Remove(name string) error {
	if err := os.Remove(d.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.sync()
}

// WriteJSON replaces file name with v.
func (d *Dir) WriteJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return d.Write(name, append(b, '\n'))
}

// ReadJSON reads file name into v and tells whether there was one.
func (d *Dir) ReadJSON(name string, v any) (bool, error) {
	b, err := os.ReadFile(d.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return true, san.Errorf(san.KindInternal, "%s is damaged (%v); restore it from a backup, or remove the data folder and enrol anew", d.Path(name), err)
	}
	return true, nil
}
