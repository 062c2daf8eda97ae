package dataplane

import (
	"context"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

const (
	stateFile = "unit.json"
	// stateRetry is how long to wait after the unit's own state could not be written, and stateAlarm how
	// often that is said.
	stateRetry = time.Second
	stateAlarm = time.Minute
)

// state is what a unit remembers of itself.
type state struct {
	Unit        san.UnitID              `json:"unit"`
	Incarnation san.Incarnation         `json:"incarnation"`
	Media       map[string]san.MediumID `json:"media"` // by path
}

// stateDir is where a unit's own state is; *datadir.Dir is one.
type stateDir interface {
	ReadJSON(name string, v any) (bool, error)
	WriteJSON(name string, v any) error
}

// readState returns the state that the last start left, with nothing but the name in it if there was none.
func readState(dir stateDir, unit san.UnitID) (*state, error) {
	st := &state{}
	if _, err := dir.ReadJSON(stateFile, st); err != nil {
		return nil, err
	}
	if st.Unit != "" && st.Unit != unit {
		return nil, san.Errorf(san.KindConflict, "%s in the data folder is unit %s's, not %s's; set 'id' or 'data' right", stateFile, st.Unit, unit)
	}
	st.Unit = unit
	if st.Media == nil {
		st.Media = map[string]san.MediumID{}
	}
	return st, nil
}

// begin counts this start before anything else happens in it. If the number can't be made stable, because the data
// folder is full, the unit goes on all the same with what it has, and nobody is told of the number: the next start
// may bear it too.
func (u *unit) begin() {
	u.state.Incarnation++
	u.keepState()
}

// keepState makes the unit's own state stable, and tells whether it is.
func (u *unit) keepState() bool {
	err := u.states.WriteJSON(stateFile, u.state)
	if err != nil && (u.alarmed.IsZero() || time.Since(u.alarmed) >= stateAlarm) {
		u.alarmed = time.Now()
		u.log.Error("the unit's own state can't be written; it serves what it has and stays away from the stations until this is put right: make room in the data folder",
			"alarm", "data folder", "folder", u.cfg.Data, "err", err)
	}
	u.kept = err == nil
	return u.kept
}

// awaitKept returns once the unit's own state is stable, or ctx has ended: then it returns false.
func (u *unit) awaitKept(ctx context.Context) bool {
	if u.kept {
		return true
	}
	t := time.NewTicker(stateRetry)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if u.keepState() {
				u.log.Info("the unit's own state is written; the unit goes to the stations", "alarm", "data folder", "over", true)
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}
