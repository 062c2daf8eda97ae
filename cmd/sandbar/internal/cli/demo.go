package cli

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/demo"
	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/lab"
	"github.com/sandbar-san/sandbar/san"
)

// readyWithin bounds how long a lab may take until all of it runs.
const readyWithin = 90 * time.Second

// demoCommand makes `sandbar demo`: a whole cluster on one machine.
func (a *App) demoCommand() *cobra.Command {
	var (
		o    demo.Options
		stop bool
		size string
	)
	c := &cobra.Command{
		Use: "demo", Short: "Run a whole cluster on this machine and tell its story", Args: cobra.NoArgs,
		Long: "Starts stations, units and hosts as processes of this machine, on loopback, and tells what they do.\n" +
			"With --keep they stay, described in DIR/lab.json, until 'sandbar demo --stop --dir DIR'.",
	}
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if stop {
			if o.Lab.Dir == "" {
				return san.Errorf(san.KindInvalid, "--stop needs the lab's folder: --dir DIR")
			}
			return lab.Stop(o.Lab.Dir)
		}
		if o.Keep && o.Lab.Dir == "" {
			return san.Errorf(san.KindInvalid, "--keep needs a folder to keep it in: --dir DIR")
		}
		var err error
		if o.Lab.MediumSizeBytes, err = san.ParseSize(size); err != nil {
			return err
		}
		if o.Lab.Exe, err = os.Executable(); err != nil {
			return err
		}
		o.Lab.ReadyWithin, o.Lab.DieWithParent, o.Out = readyWithin, !o.Keep, a.Stdout
		return a.Demo(cmd.Context(), o)
	})
	f := c.Flags()
	f.BoolVar(&o.Keep, "keep", false, "leave the processes running")
	f.BoolVar(&stop, "stop", false, "end the lab in --dir")
	f.StringVar(&o.Story, "story", "main", "what to tell: main or none")
	f.StringVar(&o.Lab.Dir, "dir", "", "folder of the lab (default a temporary one)")
	f.IntVar(&o.Lab.Stations, "stations", 3, "control stations: 1, 3 or 5")
	f.IntVar(&o.Lab.Units, "units", 3, "units, spares included")
	f.IntVar(&o.Lab.SpareUnits, "spare-units", 0, "how many of the units are spares")
	f.IntVar(&o.Lab.Hosts, "hosts", 2, "hosts with an agent, spares included")
	f.IntVar(&o.Lab.SpareHosts, "spare-hosts", 0, "how many of the hosts are spares")
	f.StringVar(&size, "medium-size", "1GiB", "size of each unit's medium")
	f.StringVar(&o.Lab.RaftTiming, "raft-timing", "lan", "how soon a lost leader is replaced: safe or lan")
	return c
}

// DemoFunc runs a demo.
type DemoFunc func(ctx context.Context, o demo.Options) error
