package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sandbar-san/sandbar/san"
)

// zeroChunkBytes bounds the buffer with which zeros are written where the file system
// has no call for it.
const zeroChunkBytes = 1 << 20

// OpenOptions says how Open treats a path that is not there or empty.
type OpenOptions struct {
	// Create makes a regular file when nothing has the path.
	Create bool
	// SizeBytes is the size given to a file that has none yet; it is sparse.
	SizeBytes int64
}

// OSFile is a File on a regular file or a block device.
type OSFile struct {
	f      *os.File
	raw    syscall.RawConn // f's descriptor
	cached cachedReads
	name   string
	size   atomic.Int64
	block  bool
}

var _ File = (*OSFile)(nil)

// Open opens a medium, a regular file or a block device, for reading and writing and
// takes it exclusively until Close: a second opener, in this process or another, gets
// ErrLocked.
func Open(path string, opt OpenOptions) (*OSFile, error) {
	info, err := os.Stat(path)
	created := false
	flags := os.O_RDWR
	switch {
	case errors.Is(err, fs.ErrNotExist) && opt.Create:
		flags |= os.O_CREATE
		created = true
	case err != nil:
		return nil, Error("open medium", path, err)
	case info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0:
		// O_EXCL without O_CREAT claims a block device: a mounted or otherwise used
		// one refuses with EBUSY (open(2)).
		flags |= unix.O_EXCL
	case !info.Mode().IsRegular():
		return nil, san.Errorf(san.KindInvalid, "medium %s is neither a regular file nor a block device but %s; give the path of one", path, info.Mode().Type())
	}
	f, err := openOSFile(path, flags)
	if err != nil {
		if errors.Is(err, ErrLocked) {
			return nil, san.Errorf(san.KindConflict, "medium %s is in use: mounted, or held by another device or process; stop that use or take another medium: %w", path, err)
		}
		return nil, err
	}
	if err := f.claim(created, opt.SizeBytes); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// claim locks a freshly opened medium and gives a new one its size.
func (o *OSFile) claim(created bool, sizeBytes int64) error {
	if err := flock(o.f); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return san.Errorf(san.KindConflict, "medium %s is open in another process; only one unit may use it, so stop the other one first: %w", o.name, ErrLocked)
		}
		return Error("lock medium", o.name, err)
	}
	if !o.block && o.SizeBytes() == 0 && sizeBytes > 0 {
		if err := o.Truncate(sizeBytes); err != nil {
			return err
		}
	}
	if !created {
		return nil
	}
	if err := o.Datasync(); err != nil {
		return err
	}
	return syncDirPath(filepath.Dir(o.name))
}

func openOSFile(path string, flags int) (*OSFile, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, Error("open", path, pathCause(err))
	}
	o := &OSFile{f: f, name: path}
	info, err := f.Stat()
	if err == nil {
		o.raw, err = f.SyscallConn()
	}
	if err == nil {
		o.block = info.Mode()&fs.ModeDevice != 0
		var size int64
		// A block device has no size in its inode; its end is where seeking says.
		if size, err = f.Seek(0, io.SeekEnd); err == nil {
			o.size.Store(size)
			return o, nil
		}
	}
	return nil, errors.Join(Error("size of", path, pathCause(err)), f.Close())
}

// pathCause strips the os package's own "open <path>:" so that messages name a path once.
func pathCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func flock(f *os.File) error {
	return control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
}

// control runs a system call on f's descriptor, again when a signal cut it, and keeps
// the descriptor from being closed (and its number reused) meanwhile.
func control(f *os.File, call func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return pathCause(err)
	}
	var callErr error
	err = rc.Control(func(fd uintptr) {
		for {
			if callErr = call(int(fd)); !errors.Is(callErr, unix.EINTR) {
				return
			}
		}
	})
	if err != nil {
		return fs.ErrClosed // the only reason for which Control itself refuses
	}
	return callErr
}

// Name implements File.
func (o *OSFile) Name() string { return o.name }

// SizeBytes implements File.
func (o *OSFile) SizeBytes() int64 { return o.size.Load() }

// ReadAt implements File.
func (o *OSFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.f.ReadAt(p, off)
	if err != nil {
		return n, Error("read", o.name, pathCause(err))
	}
	return n, nil
}

// WriteAt implements File.
func (o *OSFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.f.WriteAt(p, off)
	if err != nil {
		return n, Error("write", o.name, pathCause(err))
	}
	o.grew(off + int64(n))
	return n, nil
}

// grew raises the known size to end, for a regular file that a write extended.
func (o *OSFile) grew(end int64) {
	for {
		size := o.size.Load()
		if end <= size || o.size.CompareAndSwap(size, end) {
			return
		}
	}
}

// Datasync implements File by fdatasync(2).
func (o *OSFile) Datasync() error {
	return Error("fdatasync", o.name, control(o.f, unix.Fdatasync))
}

// Truncate implements File.
func (o *OSFile) Truncate(sizeBytes int64) error {
	if o.block {
		return san.Errorf(san.KindInvalid, "%s is a block device; its size can't be set", o.name)
	}
	if err := o.f.Truncate(sizeBytes); err != nil {
		return Error("set the size of", o.name, pathCause(err))
	}
	o.size.Store(sizeBytes)
	return nil
}

// Zero implements File: by ZERO_RANGE, else by a hole that is then given space, else
// by writing zeros.
func (o *OSFile) Zero(off, length int64) error {
	if length <= 0 {
		return nil
	}
	err := o.fallocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	if unsupported(err) && !o.block {
		if err = o.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length); err == nil {
			if err = o.fallocate(unix.FALLOC_FL_KEEP_SIZE, off, length); unsupported(err) {
				err = nil // zeros already; only the reservation is not to be had here
			}
		}
	}
	if unsupported(err) {
		return o.writeZeros(off, length)
	}
	return Error("zero a range of", o.name, err)
}

// PunchHole implements File: by PUNCH_HOLE, which block devices carry out as an
// offloaded write of zeros with deallocation, else as Zero does.
func (o *OSFile) PunchHole(off, length int64) error {
	if length <= 0 {
		return nil
	}
	err := o.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	if unsupported(err) {
		return o.Zero(off, length)
	}
	return Error("punch a hole in", o.name, err)
}

// Mapped implements File by SEEK_DATA and SEEK_HOLE. It moves the file's position, which nothing
// here uses. Space that was reserved and never written is not mapped to a file system.
func (o *OSFile) Mapped(off, length int64) (run int64, mapped bool, err error) {
	if o.block {
		return length, true, nil
	}
	data, err := o.seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // no data from here to the end
		return length, false, nil
	case unsupported(err):
		return length, true, nil
	case err != nil:
		return 0, false, Error("look for data in", o.name, err)
	case data > off:
		return min(data-off, length), false, nil
	}
	hole, err := o.seek(off, unix.SEEK_HOLE)
	if err != nil {
		return 0, false, Error("look for holes in", o.name, err)
	}
	// A hole may have been punched since; the byte was mapped a moment ago.
	return min(max(hole-off, 1), length), true, nil
}

func (o *OSFile) seek(off int64, whence int) (at int64, err error) {
	err = control(o.f, func(fd int) (err error) {
		at, err = unix.Seek(fd, off, whence)
		return err
	})
	return at, err
}

func (o *OSFile) fallocate(mode uint32, off, length int64) error {
	return control(o.f, func(fd int) error { return unix.Fallocate(fd, mode, off, length) })
}

// unsupported reports whether fallocate's failure means that this file system or
// device can't do it in that way. EINVAL is a block device's answer to a range that is
// not aligned to its sectors.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL)
}

func (o *OSFile) writeZeros(off, length int64) error {
	zeros := make([]byte, min(length, zeroChunkBytes))
	for length > 0 {
		n := min(length, int64(len(zeros)))
		if _, err := o.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

// Close implements File.
func (o *OSFile) Close() error { return Error("close", o.name, pathCause(o.f.Close())) }
