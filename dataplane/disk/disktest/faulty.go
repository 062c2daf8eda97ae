package disktest

import "github.com/sandbar-san/sandbar/dataplane/disk"

// OpKind names an operation on a file.
type OpKind string

// The operations that a rule may fail or delay.
const (
	OpRead     OpKind = "read"
	OpWrite    OpKind = "write"
	OpDatasync OpKind = "datasync"
	OpZero     OpKind = "zero"
	OpPunch    OpKind = "punch"
)

// Op is one operation about to happen.
type Op struct {
	Kind     OpKind
	File     string
	Off, Len int64
}

// Rule judges an operation: an error (syscall.EIO, syscall.ENOSPC …) is returned in its
// place, mapped as the real file maps it; a rule that takes its time is a slow medium.
// It is called from many goroutines.
type Rule func(Op) error

// WithFaults puts a rule before a file.
func WithFaults(f disk.File, rule Rule) disk.File { return &faulty{File: f, rule: rule} }

type faulty struct {
	disk.File
	rule Rule
}

func (f *faulty) judge(kind OpKind, off, length int64) error {
	return disk.Error(string(kind), f.Name(), f.rule(Op{Kind: kind, File: f.Name(), Off: off, Len: length}))
}

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	if err := f.judge(OpRead, off, int64(len(p))); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faulty) WriteAt(p []byte, off int64) (int, error) {
	if err := f.judge(OpWrite, off, int64(len(p))); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *faulty) Datasync() error {
	if err := f.judge(OpDatasync, 0, 0); err != nil {
		return err
	}
	return f.File.Datasync()
}

func (f *faulty) Zero(off, length int64) error {
	if err := f.judge(OpZero, off, length); err != nil {
		return err
	}
	return f.File.Zero(off, length)
}

func (f *faulty) PunchHole(off, length int64) error {
	if err := f.judge(OpPunch, off, length); err != nil {
		return err
	}
	return f.File.PunchHole(off, length)
}

// DirWithFaults puts a rule before every file that is opened or made in a directory.
func DirWithFaults(d disk.Dir, rule Rule) disk.Dir { return &faultyDir{Dir: d, rule: rule} }

type faultyDir struct {
	disk.Dir
	rule Rule
}

func (d *faultyDir) Open(name string) (disk.File, error) { return d.wrap(d.Dir.Open(name)) }

func (d *faultyDir) Create(name string) (disk.File, error) { return d.wrap(d.Dir.Create(name)) }

func (d *faultyDir) wrap(f disk.File, err error) (disk.File, error) {
	if err != nil {
		return nil, err
	}
	return WithFaults(f, d.rule), nil
}
