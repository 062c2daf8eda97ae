package dataplane

import (
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/san"
)

const stateFile = "unit.json"

// state is what a unit remembers of itself.
type state struct {
	Unit        san.UnitID              `json:"unit"`
	Incarnation san.Incarnation         `json:"incarnation"`
	Media       map[string]san.MediumID `json:"media"` // by path
}

// beginIncarnation counts this start, on disk, before anything else happens in it.
func beginIncarnation(dir *datadir.Dir, unit san.UnitID) (*state, error) {
	st := &state{}
	if _, err := dir.ReadJSON(stateFile, st); err != nil {
		return nil, err
	}
	if st.Unit != "" && st.Unit != unit {
		return nil, san.Errorf(san.KindConflict, "data folder %s is unit %s's, not %s's; set 'id' or 'data' right", dir.Path(""), st.Unit, unit)
	}
	st.Unit = unit
	st.Incarnation++
	if st.Media == nil {
		st.Media = map[string]san.MediumID{}
	}
	return st, dir.WriteJSON(stateFile, st)
}

// mediaOpener opens a unit's media.
type mediaOpener struct {
	cfg     *Config
	cluster san.ClusterID
	dir     *datadir.Dir
	state   *state
	log     *slog.Logger
}

// open opens all media, or none.
func (o *mediaOpener) open() (media []*extent.Medium, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeMedia(media))
			media = nil
		}
	}()
	for _, path := range o.cfg.Media {
		m, err := o.openOne(path)
		if err != nil {
			return media, err
		}
		media = append(media, m)
		for _, note := range m.Notes() {
			o.log.Warn("medium", "path", path, "note", note)
		}
		o.state.Media[path] = m.ID()
	}
	return media, o.dir.WriteJSON(stateFile, o.state)
}

// openOne opens one medium, and formats one that is new.
func (o *mediaOpener) openOne(path string) (*extent.Medium, error) {
	known := o.state.Media[path]
	// What was a medium once is never made anew: if it is not there, its disk is not mounted.
	f, err := disk.Open(path, disk.OpenOptions{Create: known == "" && o.cfg.MediumSizeBytes > 0, SizeBytes: o.cfg.MediumSizeBytes})
	switch {
	case errors.Is(err, fs.ErrNotExist) && known != "":
		return nil, san.Errorf(san.KindNotFound, "medium %s (%s) is not there any more; bring it back, or take it off 'media' to start without it: %w", path, known, err)
	case errors.Is(err, fs.ErrNotExist):
		return nil, san.Errorf(san.KindNotFound, "medium %s is not there; correct the path, or set 'medium-size' to have the file made: %w", path, err)
	case err != nil:
		return nil, err
	}
	m, err := o.take(f, known)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m, nil
}

func (o *mediaOpener) take(f disk.File, known san.MediumID) (*extent.Medium, error) {
	want := extent.Expect{Cluster: o.cluster, Unit: o.cfg.ID, Medium: known}
	m, err := extent.Open(f, want)
	if errors.Is(err, extent.ErrNotFormatted) {
		if known != "" {
			return nil, san.Errorf(san.KindConflict, "medium %s was %s and is blank now; bring that medium back, or give the new one a path of its own: %w", f.Name(), known, err)
		}
		p := extent.Params{Medium: san.MediumID(uuid.NewString()), Cluster: o.cluster, Unit: o.cfg.ID, Incarnation: o.state.Incarnation, Created: time.Now()}
		if err := extent.Format(f, p); err != nil {
			return nil, err
		}
		o.log.Info("medium formatted", "path", f.Name(), "medium", p.Medium)
		m, err = extent.Open(f, want)
	}
	if err != nil {
		return nil, err
	}
	return m, m.SetIncarnation(o.state.Incarnation)
}

func closeMedia(media []*extent.Medium) error {
	var errs []error
	for _, m := range media {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
