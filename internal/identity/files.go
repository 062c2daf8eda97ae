package identity

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sandbar-san/sandbar/san"
)

// fileOps is the few acts on an identity folder's files, each durable once it returns. Tests
// make any of them fail.
type fileOps interface {
	// read returns a file's bytes, at most max; fs.ErrNotExist if there is none.
	read(path string, max int64) ([]byte, error)
	// replace puts data in path's place, whole or not at all, readable by its owner only.
	replace(path string, data []byte) error
	// rename moves a file within its folder.
	rename(from, to string) error
}

// diskFiles is fileOps on the operating system's files.
type diskFiles struct{}

func (diskFiles) read(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > max {
		return nil, san.Errorf(san.KindInvalid, "%s has more than %d bytes; it is no file of Sandbar's", path, max)
	}
	return data, nil
}

func (diskFiles) replace(path string, data []byte) error {
	// One name for the temporary file: what a crash leaves is used up by the next try.
	temp := path + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeSynced(temp, data); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return diskFiles{}.rename(temp, path)
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (diskFiles) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes dir for its owner only, and makes its name durable.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}
