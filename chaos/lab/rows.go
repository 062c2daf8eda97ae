package lab

import (
	"context"
	"fmt"
	"time"
)

// Volume is what `sandbar volume show -o json` tells, as far as outsiders may rely on it.
type Volume struct {
	ID             string       `json:"id"`
	Name           string       `json:"name"`
	State          string       `json:"state"`
	SizeBytes      int64        `json:"sizeBytes,string"`
	BlockSizeBytes int64        `json:"blockSizeBytes"`
	Epoch          uint64       `json:"epoch,string"`
	Copies         []Copy       `json:"copies"`
	Assignments    []Assignment `json:"assignments"`
}

// Copy is a volume's copy at a unit.
type Copy struct {
	UnitID string `json:"unitId"`
	Role   string `json:"role"`
	State  string `json:"state"`
}

// Assignment is a volume's host.
type Assignment struct {
	HostID     string `json:"hostId"`
	State      string `json:"state"`
	Generation uint64 `json:"generation,string"`
	Paths      []Path `json:"paths"`
}

// Path is a way to a volume.
type Path struct {
	UnitID    string `json:"unitId"`
	Portal    string `json:"portal"`
	TargetIQN string `json:"targetIqn"`
	LUN       uint64 `json:"lun"`
	State     string `json:"state"`
	StartLBA  uint64 `json:"startLba,string"`
	EndLBA    uint64 `json:"endLba,string"`
}

// Credentials are what `sandbar volume credentials -o json` tells.
type Credentials struct {
	User   string `json:"chapUser"`
	Secret string `json:"chapSecret"`
}

// Unit is what `sandbar unit show -o json` tells.
type Unit struct {
	ID    string `json:"id"`
	State string `json:"state"`
	Media []struct {
		ID            string `json:"id"`
		State         string `json:"state"`
		CapacityBytes int64  `json:"capacityBytes,string"`
		ReservedBytes int64  `json:"reservedBytes,string"`
		UsedBytes     int64  `json:"usedBytes,string"`
	} `json:"media"`
	Volumes []struct {
		VolumeID     string `json:"volumeId"`
		StartLBA     uint64 `json:"startLba,string"`
		LengthBlocks uint64 `json:"lengthBlocks,string"`
		EndLBA       uint64 `json:"endLba,string"`
	} `json:"volumes"`
}

// Station is a row of `sandbar station list -o json`.
type Station struct {
	ID           string `json:"id"`
	Leader       bool   `json:"leader"`
	GossipStatus string `json:"gossipStatus"`
}

// Pool is what `sandbar pool show -o json` tells.
type Pool struct {
	Units         int   `json:"units"`
	UnitsOnline   int   `json:"unitsOnline"`
	Media         int   `json:"media"`
	Volumes       int   `json:"volumes"`
	CapacityBytes int64 `json:"capacityBytes,string"`
	ReservedBytes int64 `json:"reservedBytes,string"`
	UsedBytes     int64 `json:"usedBytes,string"`
	FreeBytes     int64 `json:"freeBytes,string"`
}

// Volume shows a volume.
func (l *Lab) Volume(ctx context.Context, name string) (v Volume, err error) {
	err = l.CLI(ctx, "volume", "show", name, "-o", "json").JSON(&v)
	return v, err
}

// Volumes lists all volumes by name.
func (l *Lab) Volumes(ctx context.Context) (map[string]Volume, error) {
	var list struct {
		Volumes []Volume `json:"volumes"`
	}
	if err := l.CLI(ctx, "volume", "list", "-o", "json").JSON(&list); err != nil {
		return nil, err
	}
	out := make(map[string]Volume, len(list.Volumes))
	for _, v := range list.Volumes {
		out[v.Name] = v
	}
	return out, nil
}

// Credentials tells how a host logs in to a volume.
func (l *Lab) Credentials(ctx context.Context, volume, host string) (c Credentials, err error) {
	err = l.CLI(ctx, "volume", "credentials", volume, "--host", host, "-o", "json").JSON(&c)
	return c, err
}

// Unit shows a unit.
func (l *Lab) Unit(ctx context.Context, id string) (u Unit, err error) {
	err = l.CLI(ctx, "unit", "show", id, "-o", "json").JSON(&u)
	return u, err
}

// Pool shows the pool.
func (l *Lab) Pool(ctx context.Context) (p Pool, err error) {
	err = l.CLI(ctx, "pool", "show", "-o", "json").JSON(&p)
	return p, err
}

// Stations lists the stations.
func (l *Lab) Stations(ctx context.Context) ([]Station, error) {
	var list struct {
		Stations []Station `json:"stations"`
	}
	err := l.CLI(ctx, "station", "list", "-o", "json").JSON(&list)
	return list.Stations, err
}

// Leader is the id of the station that leads.
func (l *Lab) Leader(ctx context.Context) (string, error) {
	stations, err := l.Stations(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range stations {
		if s.Leader {
			return s.ID, nil
		}
	}
	return "", fmt.Errorf("none of %d stations leads", len(stations))
}

// AwaitState waits until a unit or host is in a state.
func (l *Lab) AwaitState(ctx context.Context, role, id, state string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return Until(ctx, 100*time.Millisecond, func(ctx context.Context) error {
		var row struct {
			State string `json:"state"`
		}
		if err := l.CLI(ctx, role, "show", id, "-o", "json").JSON(&row); err != nil {
			return err
		}
		if row.State != state {
			return fmt.Errorf("%s %s is %s, not %s", role, id, row.State, state)
		}
		return nil
	})
}

// AwaitWhole waits until all stations answer and hear each other, all units and hosts with an
// agent are online.
func (l *Lab) AwaitWhole(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := Until(ctx, 100*time.Millisecond, func(ctx context.Context) error {
		stations, err := l.Stations(ctx)
		if err != nil {
			return err
		}
		leaders := 0
		for _, s := range stations {
			if s.GossipStatus != "alive" {
				return fmt.Errorf("station %s is %s to the others", s.ID, s.GossipStatus)
			}
			if s.Leader {
				leaders++
			}
		}
		if want := len(l.Of("station")); leaders != 1 || len(stations) != want {
			return fmt.Errorf("%d stations with %d leaders, want %d with one", len(stations), leaders, want)
		}
		return nil
	})
	for _, p := range l.members {
		if p.Role == "station" || err != nil {
			continue
		}
		err = l.AwaitState(ctx, p.Role, p.ID, "Online", limit)
	}
	return err
}
