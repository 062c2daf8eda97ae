package dataplane

import (
	"errors"
	"io/fs"
	"time"

	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/extent"
	"github.com/sandbar-san/sandbar/san"
)

// claim is a medium's file that is open and locked, while it is nobody's medium yet.
type claim struct {
	path  string
	known san.MediumID // what it was at the last start
	file  disk.File    // nil once a medium has it
}

// claimMedia opens and locks the media's files. Of a unit that is in no cluster yet it looks at what is on them, too:
// what can't be its medium is to be found out before the stations have heard of it.
func (u *unit) claimMedia() error {
	u.opened(func() error {
		var errs []error
		for _, c := range u.claims {
			if c.file != nil {
				errs = append(errs, c.file.Close())
			}
		}
		return errors.Join(errs...)
	})
	for _, path := range u.cfg.Media {
		c := &claim{path: path, known: u.state.Media[path]}
		if err := u.openFile(c); err != nil {
			return err
		}
		u.claims = append(u.claims, c)
		if u.member.Enrolled() {
			continue
		}
		if err := u.checkNew(c.file); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) openFile(c *claim) error {
	// What was a medium once is never made anew: if it is not there, its disk is not mounted.
	f, err := disk.Open(c.path, disk.OpenOptions{Create: c.known == "" && u.cfg.MediumSizeBytes > 0, SizeBytes: u.cfg.MediumSizeBytes})
	switch {
	case errors.Is(err, fs.ErrNotExist) && c.known != "":
		return san.Errorf(san.KindNotFound, "medium %s (%s) is not there any more; bring it back, or take it off 'media' to start without it: %w", c.path, c.known, err)
	case errors.Is(err, fs.ErrNotExist):
		return san.Errorf(san.KindNotFound, "medium %s is not there; correct the path, or set 'medium-size' to have the file made: %w", c.path, err)
	case err != nil:
		return err
	}
	c.file = f
	return nil
}

// checkNew reports whether f can become a medium of a unit that is in no cluster yet. It changes nothing.
func (u *unit) checkNew(f disk.File) error {
	formatted, err := extent.Check(f, extent.Expect{})
	if err != nil || !formatted {
		return err
	}
	sb, err := extent.Inspect(f)
	if err != nil {
		return err
	}
	return san.Errorf(san.KindConflict, "medium %s belongs to unit %s in cluster %s already, and data folder %s is in no cluster yet; bring that unit's data folder back, or give this unit a medium of its own: %w",
		f.Name(), sb.Unit, sb.Cluster, u.cfg.Data, extent.ErrForeign)
}

// openMedia makes media of all claims, or of none.
func (u *unit) openMedia() (media []*extent.Medium, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeMedia(media))
			media = nil
		}
	}()
	changed := false
	for _, c := range u.claims {
		m, err := u.take(c)
		if err != nil {
			return media, err
		}
		if m == nil {
			continue
		}
		c.file = nil
		media = append(media, m)
		for _, note := range m.Notes() {
			u.log.Warn("medium", "path", c.path, "note", note)
		}
		if u.state.Media[c.path] != m.ID() {
			u.state.Media[c.path], changed = m.ID(), true
		}
	}
	if len(media) == 0 {
		return nil, san.Errorf(san.KindNoSpace, "unit %s has no medium but new ones, and can't keep note of them; make room in data folder %s", u.cfg.ID, u.cfg.Data)
	}
	if changed {
		u.keepState()
	}
	return media, nil
}

// take opens a medium, and formats one that is new. Without a note of it, which can't be kept now, a new one could be
// taken for a blank one later: it is left out, and nil returned.
func (u *unit) take(c *claim) (*extent.Medium, error) {
	want := extent.Expect{Cluster: u.member.Cluster(), Unit: u.cfg.ID, Medium: c.known}
	m, err := extent.Open(c.file, want)
	if errors.Is(err, extent.ErrNotFormatted) {
		if c.known != "" {
			return nil, san.Errorf(san.KindConflict, "medium %s was %s and is blank now; bring that medium back, or give the new one a path of its own: %w", c.path, c.known, err)
		}
		if !u.kept {
			u.log.Error("a new medium is left out until the unit is started again with room in its data folder", "alarm", "data folder", "path", c.path)
			return nil, nil
		}
		p := extent.Params{Medium: san.MediumID(uuid.NewString()), Cluster: u.member.Cluster(), Unit: u.cfg.ID, Incarnation: u.state.Incarnation, Created: time.Now()}
		if err := extent.Format(c.file, p); err != nil {
			return nil, err
		}
		u.log.Info("medium formatted", "path", c.path, "medium", p.Medium)
		m, err = extent.Open(c.file, want)
	}
	if err != nil {
		return nil, err
	}
	return m, m.SetIncarnation(u.state.Incarnation)
}

func closeMedia(media []*extent.Medium) error {
	var errs []error
	for _, m := range media {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
