package disktest

import (
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/sandbar-san/sandbar/dataplane/disk"
)

// Disk is a medium in memory.
type Disk struct {
	power *Power
	name  string
	c     *content
	open  bool
}

// NewDisk adds a medium of sizeBytes, all zeros, to the supply.
func (p *Power) NewDisk(name string, sizeBytes int64) *Disk {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &Disk{power: p, name: name, c: newContent(sizeBytes)}
	p.disks = append(p.disks, d)
	p.contents = append(p.contents, d.c)
	return d
}

// Open opens the medium, exclusively as disk.Open does.
func (d *Disk) Open() (disk.File, error) {
	d.power.mu.Lock()
	defer d.power.mu.Unlock()
	if d.power.cut {
		return nil, disk.Error("open", d.name, ErrPowerCut)
	}
	if d.open {
		return nil, disk.Error("open", d.name, disk.ErrLocked)
	}
	d.open = true
	return &file{power: d.power, name: d.name, c: d.c, epoch: d.power.epoch, disk: d}, nil
}

// file is an open handle.
type file struct {
	power  *Power
	name   string
	c      *content
	epoch  int
	disk   *Disk // whose lock it holds; nil for a directory's file
	closed bool
}

var (
	_ disk.File   = (*file)(nil)
	_ disk.Cacher = (*file)(nil)
)

func (f *file) Name() string { return f.name }

func (f *file) SizeBytes() int64 {
	f.power.mu.Lock()
	defer f.power.mu.Unlock()
	return f.c.size
}

func (f *file) check(op string, off int64) error {
	switch {
	case f.closed:
		return disk.Error(op, f.name, disk.ErrClosed)
	case off < 0:
		return disk.Error(op, f.name, fmt.Errorf("negative offset %d", off))
	}
	return nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.power.mu.Lock()
	defer f.power.mu.Unlock()
	if err := f.check("read", off); err != nil {
		return 0, err
	}
	if err := f.power.alive(f.epoch); err != nil {
		return 0, disk.Error("read", f.name, err)
	}
	n := int(max(0, min(int64(len(p)), f.c.size-off)))
	f.c.read(p[:n], off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// ReadCached implements disk.Cacher: all of a medium in memory is in memory.
func (f *file) ReadCached(p []byte, off int64) bool {
	n, err := f.ReadAt(p, off)
	return err == nil && n == len(p)
}

// change runs one counted operation.
func (f *file) change(op string, off int64, do func()) error {
	f.power.mu.Lock()
	defer f.power.mu.Unlock()
	if err := f.check(op, off); err != nil {
		return err
	}
	effect, err := f.power.begin(f.epoch)
	if effect {
		do()
	}
	return disk.Error(op, f.name, err)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.change("write", off, func() { f.c.write(p, off) }); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *file) Zero(off, length int64) error {
	return f.change("zero a range of", off, func() { f.c.zero(off, length) })
}

func (f *file) PunchHole(off, length int64) error {
	return f.change("punch a hole in", off, func() { f.c.zero(off, length) })
}

func (f *file) Mapped(off, length int64) (run int64, mapped bool, err error) {
	f.power.mu.Lock()
	defer f.power.mu.Unlock()
	if err := f.check("look for data in", off); err != nil {
		return 0, false, err
	}
	if err := f.power.alive(f.epoch); err != nil {
		return 0, false, disk.Error("look for data in", f.name, err)
	}
	run, mapped = f.c.mapped(off, length)
	return run, mapped, nil
}

func (f *file) Truncate(size int64) error {
	return f.change("set the size of", size, func() { f.c.truncate(size) })
}

func (f *file) Datasync() error {
	f.power.mu.Lock()
	defer f.power.mu.Unlock()
	if err := f.check("fdatasync", 0); err != nil {
		return err
	}
	_, err := f.power.begin(f.epoch)
	if err == nil { // one that the cut hits makes nothing stable
		f.c.sync()
	}
	return disk.Error("fdatasync", f.name, err)
}

func (f *file) Close() error {
	f.power.mu.Lock()
	defer f.power.mu.Unlock()
	if f.closed {
		return disk.Error("close", f.name, disk.ErrClosed)
	}
	f.closed = true
	if f.disk != nil && f.epoch == f.power.epoch {
		f.disk.open = false
	}
	return nil
}

// Dir is a directory in memory.
type Dir struct {
	power   *Power
	name    string
	open    bool
	names   map[string]*content
	stable  map[string]*content
	pending []func(map[string]*content)
}

// NewDir adds an empty directory to the supply.
func (p *Power) NewDir(name string) *Dir {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := &Dir{power: p, name: name, names: map[string]*content{}, stable: map[string]*content{}}
	p.dirs = append(p.dirs, d)
	return d
}

// Open opens the directory, exclusively and making its names stable as disk.OpenDir does.
func (d *Dir) Open() (disk.Dir, error) {
	d.power.mu.Lock()
	defer d.power.mu.Unlock()
	if d.power.cut {
		return nil, disk.Error("open directory", d.name, ErrPowerCut)
	}
	if d.open {
		return nil, disk.Error("open directory", d.name, disk.ErrLocked)
	}
	d.open = true
	d.settle(d.names)
	return &dirHandle{d: d, epoch: d.power.epoch}, nil
}

// crash keeps some of the name changes that were not stable.
func (d *Dir) crash(salt, seed uint64) {
	for i, change := range d.pending {
		if seed == KeepAll || seed != KeepNothing && mix(salt, uint64(i))%2 == 0 {
			change(d.stable)
		}
	}
	d.settle(d.stable)
}

func (d *Dir) settle(names map[string]*content) {
	d.pending = nil
	now, stable := map[string]*content{}, map[string]*content{}
	for n, c := range names {
		now[n], stable[n] = c, c
	}
	d.names, d.stable = now, stable
}

type dirHandle struct {
	d      *Dir
	epoch  int
	closed bool
}

var _ disk.Dir = (*dirHandle)(nil)

func (h *dirHandle) Name() string { return h.d.name }

func (h *dirHandle) alive(op string) error {
	if h.closed {
		return disk.Error(op, h.d.name, disk.ErrClosed)
	}
	return disk.Error(op, h.d.name, h.d.power.alive(h.epoch))
}

func (h *dirHandle) Open(name string) (disk.File, error) {
	h.d.power.mu.Lock()
	defer h.d.power.mu.Unlock()
	if err := h.alive("open " + name + " in"); err != nil {
		return nil, err
	}
	c, ok := h.d.names[name]
	if !ok {
		return nil, disk.Error("open", h.d.name+"/"+name, fs.ErrNotExist)
	}
	return h.file(name, c), nil
}

func (h *dirHandle) file(name string, c *content) *file {
	return &file{power: h.d.power, name: h.d.name + "/" + name, c: c, epoch: h.epoch}
}

// change runs one counted operation on the names.
func (h *dirHandle) change(op string, do func(map[string]*content)) error {
	if h.closed {
		return disk.Error(op, h.d.name, disk.ErrClosed)
	}
	effect, err := h.d.power.begin(h.epoch)
	if effect {
		do(h.d.names)
		h.d.pending = append(h.d.pending, do)
	}
	return disk.Error(op, h.d.name, err)
}

func (h *dirHandle) Create(name string) (disk.File, error) {
	h.d.power.mu.Lock()
	defer h.d.power.mu.Unlock()
	c := newContent(0)
	err := h.change("create "+name+" in", func(names map[string]*content) { names[name] = c })
	h.d.power.contents = append(h.d.power.contents, c)
	if err != nil {
		return nil, err
	}
	return h.file(name, c), nil
}

func (h *dirHandle) Rename(from, to string) error {
	h.d.power.mu.Lock()
	defer h.d.power.mu.Unlock()
	moved, ok := h.d.names[from]
	if !ok {
		return disk.Error("rename", h.d.name+"/"+from, fs.ErrNotExist)
	}
	return h.change("rename "+from+" in", func(names map[string]*content) {
		if names[from] == moved {
			delete(names, from)
			names[to] = moved
		}
	})
}

func (h *dirHandle) Remove(name string) error {
	h.d.power.mu.Lock()
	defer h.d.power.mu.Unlock()
	if _, ok := h.d.names[name]; !ok {
		return disk.Error("remove", h.d.name+"/"+name, fs.ErrNotExist)
	}
	return h.change("remove "+name+" in", func(names map[string]*content) { delete(names, name) })
}

func (h *dirHandle) List() ([]string, error) {
	h.d.power.mu.Lock()
	defer h.d.power.mu.Unlock()
	if err := h.alive("list"); err != nil {
		return nil, err
	}
	names := make([]string, 0, len(h.d.names))
	for n := range h.d.names {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

func (h *dirHandle) Sync() error {
	h.d.power.mu.Lock()
	defer h.d.power.mu.Unlock()
	if h.closed {
		return disk.Error("fsync directory", h.d.name, disk.ErrClosed)
	}
	_, err := h.d.power.begin(h.epoch)
	if err == nil {
		h.d.settle(h.d.names)
	}
	return disk.Error("fsync directory", h.d.name, err)
}

func (h *dirHandle) Close() error {
	h.d.power.mu.Lock()
	defer h.d.power.mu.Unlock()
	h.closed = true
	if h.epoch == h.d.power.epoch {
		h.d.open = false
	}
	return nil
}
