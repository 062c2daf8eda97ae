package tail

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// file is what the package needs of a file. Sync makes what was written before durable.
type file interface {
	io.WriterAt
	io.Closer
	Sync() error
}

// osFile is a file of the operating system.
type osFile struct{ *os.File }

// Sync syncs the content and what is needed to read it.
func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// unsyncedFile leaves it to the operating system when to write.
type unsyncedFile struct{ osFile }

// Sync does nothing.
func (unsyncedFile) Sync() error { return nil }

// openFile opens the file at path, which is made and filled with zeros up to size if it is shorter, and
// reads it. The parent folder is not synced.
func openFile(path string, size int64) (*os.File, []byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	image, err := io.ReadAll(f)
	if missing := size - int64(len(image)); err == nil && missing > 0 {
		zeros := make([]byte, missing)
		if _, err = f.WriteAt(zeros, int64(len(image))); err == nil {
			err = f.Sync()
		}
		image = append(image, zeros...)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read or prepare %s: %w", path, err), f.Close())
	}
	return f, image, nil
}

func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
