package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandbar-san/sandbar/san"
)

// maxFileName is the longest name that Linux file systems take.
const maxFileName = 255

// OSDir is a Dir on a directory of the machine.
type OSDir struct {
	d    *os.File
	path string
}

var _ Dir = (*OSDir)(nil)

// OpenDir opens the directory at path, making it (mode 0700) and its parents when they
// are not there, and takes it exclusively until Close: a second opener gets ErrLocked.
func OpenDir(path string) (*OSDir, error) {
	made := firstMissing(path)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, Error("make directory", path, pathCause(err))
	}
	d, err := os.Open(path)
	if err != nil {
		return nil, Error("open directory", path, pathCause(err))
	}
	dir := &OSDir{d: d, path: path}
	if err := flock(d); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = san.Errorf(san.KindConflict, "directory %s is in use by another process; only one may use it, so stop the other one or give this one its own: %w", path, ErrLocked)
		} else {
			err = Error("lock directory", path, err)
		}
		return nil, errors.Join(err, d.Close())
	}
	// A process that was killed may have left names that are in the cache only; what is
	// found from here on must not go away again.
	if err := dir.Sync(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if made != "" {
		if err := syncChain(filepath.Dir(made), filepath.Dir(path)); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return dir, nil
}

// firstMissing returns the topmost part of path that is not there yet, "" if all is.
func firstMissing(path string) string {
	missing := ""
	for p := filepath.Clean(path); ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			return missing
		}
		missing = p
		if p == filepath.Dir(p) {
			return missing
		}
	}
}

// syncChain makes the directories from down to top stable, so that a freshly made one is
// found after a power cut.
func syncChain(top, down string) error {
	for p := filepath.Clean(down); ; p = filepath.Dir(p) {
		if err := syncDirPath(p); err != nil {
			return err
		}
		if p == filepath.Clean(top) || p == filepath.Dir(p) {
			return nil
		}
	}
}

func syncDirPath(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return Error("open directory", path, pathCause(err))
	}
	err = Error("fsync directory", path, pathCause(d.Sync()))
	return errors.Join(err, Error("close directory", path, pathCause(d.Close())))
}

// checkFileName keeps names inside the directory and apart from hidden files.
func checkFileName(name string) error {
	if name == "" || len(name) > maxFileName || strings.ContainsAny(name, "/\x00") || name[0] == '.' {
		return san.Errorf(san.KindInvalid, "file name %q is not allowed; it must be one path element that does not begin with a dot", name)
	}
	return nil
}

// Name implements Dir.
func (d *OSDir) Name() string { return d.path }

// Open implements Dir.
func (d *OSDir) Open(name string) (File, error) { return d.open(name, os.O_RDWR) }

// Create implements Dir.
func (d *OSDir) Create(name string) (File, error) {
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (d *OSDir) open(name string, flags int) (File, error) {
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	f, err := openOSFile(filepath.Join(d.path, name), flags)
	if err != nil {
		return nil, err // not f: a nil *OSFile in the interface would not be nil
	}
	return f, nil
}

// Rename implements Dir.
func (d *OSDir) Rename(from, to string) error {
	if err := errors.Join(checkFileName(from), checkFileName(to)); err != nil {
		return err
	}
	err := os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to))
	var le *os.LinkError
	if errors.As(err, &le) {
		err = le.Err
	}
	return Error("rename", filepath.Join(d.path, from), err)
}

// Remove implements Dir.
func (d *OSDir) Remove(name string) error {
	if err := checkFileName(name); err != nil {
		return err
	}
	return Error("remove", filepath.Join(d.path, name), pathCause(os.Remove(filepath.Join(d.path, name))))
}

// List implements Dir; hidden files and directories are left out.
func (d *OSDir) List() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, Error("list", d.path, pathCause(err))
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && checkFileName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Sync implements Dir by fsync(2) on the directory.
func (d *OSDir) Sync() error { return Error("fsync directory", d.path, pathCause(d.d.Sync())) }

// Close implements Dir.
func (d *OSDir) Close() error { return Error("close directory", d.path, pathCause(d.d.Close())) }
