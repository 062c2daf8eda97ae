package disk

import (
	"errors"
	"io"
	"io/fs"
	"syscall"

	"github.com/sandbar-san/sandbar/san"
)

// The failures that callers tell apart. They are found by errors.Is in what this
// package returns, beside the errno that caused them.
var (
	// ErrNoSpace is a full file system or quota: nothing of the call may be relied on.
	ErrNoSpace = errors.New("no space left on the medium")
	// ErrIO is a medium that failed to read or write.
	ErrIO = errors.New("input/output error on the medium")
	// ErrReadOnly is a medium or file system that takes no writes.
	ErrReadOnly = errors.New("the medium is read-only")
	// ErrLocked is a medium or directory that another process has open.
	ErrLocked = errors.New("in use by another process")
	// ErrClosed is a use after Close.
	ErrClosed = errors.New("already closed")
	// ErrDamaged is metadata that fails its checksum or contradicts itself.
	ErrDamaged = errors.New("damaged")
	// ErrBlank is metadata that was never written: zeros.
	ErrBlank = errors.New("blank")
	// ErrNoRecord is a record that was never saved.
	ErrNoRecord = errors.New("no record")
)

// Error maps what a system call gave to an error that names the operation and the
// file and matches a sentinel. io.EOF and nil pass as they are.
func Error(op, name string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // a bare io.EOF is io.ReaderAt's contract
		return err
	}
	kind, sentinel := classify(err)
	if sentinel == nil {
		return san.Errorf(kind, "%s %s: %w", op, name, err)
	}
	if errors.Is(err, sentinel) {
		return san.Errorf(kind, "%s %s: %w", op, name, err)
	}
	return san.Errorf(kind, "%s %s: %w (%w)", op, name, sentinel, err)
}

func classify(err error) (kind san.Kind, sentinel error) {
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case is(ErrNoSpace), is(syscall.ENOSPC), is(syscall.EDQUOT), is(syscall.EFBIG):
		return san.KindNoSpace, ErrNoSpace
	case is(ErrReadOnly), is(syscall.EROFS):
		return san.KindConflict, ErrReadOnly
	case is(ErrLocked), is(syscall.EWOULDBLOCK), is(syscall.EBUSY):
		return san.KindConflict, ErrLocked
	case is(ErrClosed), is(fs.ErrClosed):
		return san.KindUnavailable, ErrClosed
	case is(fs.ErrNotExist):
		return san.KindNotFound, nil
	case is(fs.ErrPermission):
		return san.KindDenied, nil
	case is(ErrIO), is(syscall.EIO), is(syscall.ENXIO), is(syscall.ENODEV), is(syscall.EREMOTEIO),
		is(syscall.ENODATA), is(syscall.EILSEQ), is(syscall.ETIMEDOUT), is(syscall.ENOLINK):
		return san.KindUnavailable, ErrIO
	}
	return san.KindInternal, nil
}
