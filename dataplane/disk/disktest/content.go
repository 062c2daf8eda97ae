package disktest

// SectorBytes is what a power cut tears at: a sector has one whole version or another.
const SectorBytes = 512

type sector = [SectorBytes]byte

// content is the bytes of one file: a stable state and, for each sector changed since,
// the versions that it went through. A nil version is zeros.
type content struct {
	stable     map[int64]*sector
	pending    map[int64][]*sector
	size       int64
	stableSize int64
}

func newContent(size int64) *content {
	return &content{stable: map[int64]*sector{}, pending: map[int64][]*sector{}, size: size, stableSize: size}
}

func (c *content) sector(i int64) *sector {
	if v := c.pending[i]; len(v) > 0 {
		return v[len(v)-1]
	}
	return c.stable[i]
}

func (c *content) set(i int64, s *sector) {
	if s == nil && c.sector(i) == nil && len(c.pending[i]) == 0 {
		return
	}
	c.pending[i] = append(c.pending[i], s)
}

// each calls do for every sector that [off, off+length) touches, with the part of the
// sector and the part of the range that meet.
func each(off, length int64, do func(i int64, from, to int, at int64)) {
	for at := int64(0); at < length; {
		i, from := (off+at)/SectorBytes, (off+at)%SectorBytes
		n := min(SectorBytes-from, length-at)
		do(i, int(from), int(from+n), at)
		at += n
	}
}

func (c *content) read(p []byte, off int64) {
	each(off, int64(len(p)), func(i int64, from, to int, at int64) {
		dst := p[at : at+int64(to-from)]
		if s := c.sector(i); s != nil {
			copy(dst, s[from:to])
		} else {
			clear(dst)
		}
	})
}

func (c *content) write(p []byte, off int64) {
	each(off, int64(len(p)), func(i int64, from, to int, at int64) {
		next := new(sector)
		if s := c.sector(i); s != nil {
			*next = *s
		}
		copy(next[from:to], p[at:])
		c.set(i, next)
	})
	c.size = max(c.size, off+int64(len(p)))
}

func (c *content) zero(off, length int64) {
	each(off, min(length, c.size-off), func(i int64, from, to int, _ int64) {
		if from == 0 && to == SectorBytes {
			c.set(i, nil)
			return
		}
		if s := c.sector(i); s != nil {
			next := *s
			clear(next[from:to])
			c.set(i, &next)
		}
	})
}

// mapped: a sector that was written is, until a hole is punched there.
func (c *content) mapped(off, length int64) (run int64, mapped bool) {
	mapped = c.sector(off/SectorBytes) != nil
	for run = SectorBytes - off%SectorBytes; run < length && (c.sector((off+run)/SectorBytes) != nil) == mapped; {
		run += SectorBytes
	}
	return min(run, length), mapped
}

func (c *content) truncate(size int64) {
	if size < c.size {
		c.zero(size, c.size-size)
	}
	c.size = size
}

func (c *content) sync() {
	for i, versions := range c.pending {
		c.settle(i, versions[len(versions)-1])
	}
	clear(c.pending)
	c.stableSize = c.size
}

func (c *content) settle(i int64, s *sector) {
	if s == nil {
		delete(c.stable, i)
		return
	}
	c.stable[i] = s
}

// crash gives each changed sector one of its versions or what was stable before.
func (c *content) crash(salt, seed uint64) {
	for i, versions := range c.pending {
		keep := len(versions) // the newest
		switch seed {
		case KeepAll:
		case KeepNothing:
			keep = 0
		default:
			keep = int(mix(salt, uint64(i)) % uint64(len(versions)+1))
		}
		if keep > 0 {
			c.settle(i, versions[keep-1])
		}
	}
	clear(c.pending)
	if seed == KeepNothing || seed != KeepAll && mix(salt, 1<<40)%2 == 0 {
		c.size = c.stableSize
	}
	c.stableSize = c.size
	for i := range c.stable {
		if i*SectorBytes >= c.size {
			delete(c.stable, i)
		}
	}
}
