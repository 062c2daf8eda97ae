package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

// floorName is the record of the floor, which no volume's id can be.
const floorName = "floor"

// store keeps the records on disk. Calls for one volume come one at a time.
type store struct {
	dir   disk.Dir
	floor *disk.Record

	mu   sync.Mutex
	open map[san.VolumeID]*disk.Record
}

// openStore reads what is there. A volume's record that is damaged is left alone and out: its
// volume stays closed until a station tells of it, which is when a new record is made.
func openStore(dir disk.Dir, log *slog.Logger) (s *store, floor san.Stamp, all []Record, err error) {
	s = &store{dir: dir, open: map[san.VolumeID]*disk.Record{}}
	if s.floor, err = disk.OpenRecord(dir, floorName); err != nil {
		return nil, floor, nil, err
	}
	b, err := s.floor.Load()
	if err == nil {
		err = json.Unmarshal(b, &floor)
	}
	if err != nil && !errors.Is(err, disk.ErrNoRecord) {
		return nil, floor, nil, san.Errorf(san.KindInternal, "the floor in %s can't be read: %w", dir.Name(), err)
	}
	names, err := disk.ListRecords(dir)
	if err != nil {
		return nil, floor, nil, err
	}
	for _, name := range names {
		if name == floorName {
			continue
		}
		r, err := s.load(san.VolumeID(name))
		if errors.Is(err, disk.ErrDamaged) {
			log.Error("an access record is damaged; nobody is let in to its volume until a station tells anew who may", "volume", name, "err", err)
			continue
		}
		if err != nil {
			return nil, floor, nil, err
		}
		all = append(all, r)
	}
	return s, floor, all, nil
}

func (s *store) load(id san.VolumeID) (Record, error) {
	rec, err := disk.OpenRecord(s.dir, string(id))
	if err != nil {
		return Record{}, err
	}
	b, err := rec.Load()
	if err != nil {
		return Record{}, fmt.Errorf("%w: %w", disk.ErrDamaged, err)
	}
	r, err := parseRecord(id, b)
	if err == nil {
		s.open[id] = rec
	}
	return r, err
}

// save makes r stable.
func (s *store) save(r Record) error {
	b, err := encodeRecord(r)
	if err != nil {
		return err
	}
	rec, err := s.record(r.Volume)
	if err != nil {
		return err
	}
	return rec.Save(b)
}

// record returns the record of a volume, in place of one that is damaged.
func (s *store) record(id san.VolumeID) (*disk.Record, error) {
	s.mu.Lock()
	rec := s.open[id]
	s.mu.Unlock()
	if rec != nil {
		return rec, nil
	}
	rec, err := disk.OpenRecord(s.dir, string(id))
	if errors.Is(err, disk.ErrDamaged) {
		if err = disk.RemoveRecord(s.dir, string(id)); err == nil {
			rec, err = disk.OpenRecord(s.dir, string(id))
		}
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[id] = rec
	return rec, nil
}

// forget removes a volume's record.
func (s *store) forget(id san.VolumeID) error {
	rec, err := s.record(id)
	if err == nil {
		err = rec.Remove()
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
	return nil
}

func (s *store) saveFloor(floor san.Stamp) error {
	b, err := json.Marshal(floor)
	if err != nil {
		return err
	}
	return s.floor.Save(b)
}
