package disk

import "io"

// File is a medium or a metadata file: random access, no position. All methods are
// safe for concurrent use; what overlapping calls do to each other is the caller's
// business. Errors match the package's sentinels by errors.Is.
type File interface {
	// Name says which file it is in messages: a path.
	Name() string
	// ReadAt fills p from byte off; fewer bytes come with an error, io.EOF at the end.
	io.ReaderAt
	// WriteAt stores p at byte off. Nothing is stable before Datasync returned.
	io.WriterAt
	// Datasync makes all writes, zeroings and size changes that returned before it
	// stable. After a failure the kernel may have dropped what it could not write and
	// a second call can succeed all the same: a caller never takes that for success.
	Datasync() error
	// Zero makes the range read as zeros and keeps or takes space for it, so that a
	// later write there needs none.
	Zero(off, length int64) error
	// PunchHole makes the range read as zeros and gives its space back where the
	// medium can.
	PunchHole(off, length int64) error
	// Mapped says whether the file holds space for the byte at off, and for how many of the length
	// bytes from there on that is so, at least one. What is not mapped reads as zeros; a file that can't
	// tell is mapped.
	Mapped(off, length int64) (run int64, mapped bool, err error)
	// SizeBytes is the present size.
	SizeBytes() int64
	// Truncate sets the size of a regular file; new bytes read as zeros. A block
	// device refuses.
	Truncate(sizeBytes int64) error
	// Close releases the file and its lock. It does not make anything stable.
	Close() error
}

// Cacher is a File that can tell whether a read would wait for the device.
type Cacher interface {
	// ReadCached fills p from off if all of it is in memory. Otherwise, or in doubt, it
	// reports false without having waited, and p holds anything.
	ReadCached(p []byte, off int64) bool
}

// Dir is a flat directory of metadata files. A name is one path element that begins
// with a letter or a digit. Errors for a missing name match fs.ErrNotExist.
type Dir interface {
	// Name says which directory it is in messages: a path.
	Name() string
	// Open opens a file that is there.
	Open(name string) (File, error)
	// Create makes an empty file, in place of one that was there.
	Create(name string) (File, error)
	// Rename gives a file a new name, atomically in place of one that has it.
	Rename(from, to string) error
	// Remove removes a name.
	Remove(name string) error
	// List returns the names in it, sorted.
	List() ([]string, error)
	// Sync makes creations, renames and removals that returned before it stable.
	Sync() error
	// Close releases the directory and its lock.
	Close() error
}
