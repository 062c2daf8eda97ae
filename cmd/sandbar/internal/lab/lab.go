package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sandbar-san/sandbar/san"
)

// fileName is where a lab that is ready is described.
const fileName = "lab.json"

// CLI is how to talk to the lab's stations.
type CLI struct {
	Endpoints []string `json:"endpoints"`
	TokenFile string   `json:"tokenFile"`
	CAFile    string   `json:"caFile"`
}

// Process is one process of a lab. It can be started again from Argv and Env.
type Process struct {
	Role       string   `json:"role"`
	ID         string   `json:"id"`
	PID        int      `json:"pid"`
	Argv       []string `json:"argv"`
	Env        []string `json:"env"`
	NetNS      string   `json:"netns"`
	LogFile    string   `json:"logFile"`
	APIAddress string   `json:"apiAddress"`
	Portal     string   `json:"portal"`
	Media      []string `json:"media"`
	DNS        string   `json:"dns"`
	// Started is the kernel's start time of PID, so that a pid used again by another
	// program is never taken for ours.
	Started string `json:"started"`
}

// Lab describes a running lab.
type Lab struct {
	CLI       CLI        `json:"cli"`
	Processes []*Process `json:"processes"`
}

// Load reads the description of the lab in dir.
func Load(dir string) (*Lab, error) {
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if os.IsNotExist(err) {
		return nil, san.Errorf(san.KindNotFound, "there is no lab in %s (no %s); start one with 'sandbar demo --keep --dir %s'", dir, fileName, dir)
	}
	if err != nil {
		return nil, err
	}
	var l Lab
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, san.Errorf(san.KindInvalid, "%s can't be read: %w", filepath.Join(dir, fileName), err)
	}
	return &l, nil
}

func (l *Lab) write(dir string) error {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, fileName+".tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, fileName))
}

// Find returns the process of a role and id, nil if there is none.
func (l *Lab) Find(role, id string) *Process {
	for _, p := range l.Processes {
		if p.Role == role && p.ID == id {
			return p
		}
	}
	return nil
}

// Of returns the processes of a role, in order.
func (l *Lab) Of(role string) []*Process {
	var out []*Process
	for _, p := range l.Processes {
		if p.Role == role {
			out = append(out, p)
		}
	}
	return out
}

// Config says what a lab shall have.
type Config struct {
	Dir                                            string
	Exe                                            string // the program
	Stations, Units, SpareUnits, Hosts, SpareHosts int
	MediumSizeBytes                                int64
	RaftTiming                                     string // safe or lan
	ReadyWithin                                    time.Duration
	// DieWithParent has the kernel end the processes when this one dies, however it does.
	DieWithParent bool
}

// Check refuses what can't be started.
func (c *Config) Check() error {
	switch {
	case c.Stations != 1 && c.Stations != 3 && c.Stations != 5:
		return san.Errorf(san.KindInvalid, "--stations %d is not 1, 3 or 5", c.Stations)
	case c.Units < 0 || c.Units > 64:
		return san.Errorf(san.KindInvalid, "--units %d is not between 0 and 64", c.Units)
	case c.SpareUnits < 0 || c.SpareUnits > 0 && c.SpareUnits >= c.Units:
		return san.Errorf(san.KindInvalid, "--spare-units %d must leave at least one of %d units", c.SpareUnits, c.Units)
	case c.Hosts < 0 || c.Hosts > 64:
		return san.Errorf(san.KindInvalid, "--hosts %d is not between 0 and 64", c.Hosts)
	case c.SpareHosts != 0:
		return san.Errorf(san.KindInvalid, "--spare-hosts %d: spare hosts are not available yet", c.SpareHosts)
	case c.RaftTiming != "safe" && c.RaftTiming != "lan":
		return san.Errorf(san.KindInvalid, "--raft-timing %q is not one of safe, lan", c.RaftTiming)
	case c.MediumSizeBytes < 32<<20:
		return san.Errorf(san.KindInvalid, "--medium-size %s is below 32MiB", san.FormatSize(c.MediumSizeBytes))
	}
	if _, err := os.Stat(filepath.Join(c.Dir, fileName)); err == nil {
		return san.Errorf(san.KindConflict, "there is a lab in %s already; end it with 'sandbar demo --stop --dir %s'", c.Dir, c.Dir)
	}
	return nil
}

func name(role string, i int) string { return fmt.Sprintf("%s-%d", role, i+1) }
