package dataplane

import (
	"errors"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/san"
)

// reservationStore keeps a volume's persistent reservations in a record of its own; it is a
// scsi.ReservationStore.
type reservationStore struct{ record *disk.Record }

func openReservations(dir disk.Dir, v san.VolumeID) (reservationStore, error) {
	r, err := disk.OpenRecord(dir, string(v))
	return reservationStore{r}, san.Wrap("reservations of volume "+string(v), err)
}

// Load implements scsi.ReservationStore.
func (s reservationStore) Load() ([]byte, error) {
	b, err := s.record.Load()
	if errors.Is(err, disk.ErrNoRecord) {
		return nil, nil
	}
	return b, err
}

// Save implements scsi.ReservationStore.
func (s reservationStore) Save(state []byte) error { return s.record.Save(state) }
