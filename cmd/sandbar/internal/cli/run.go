package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/config"
	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/daemon"
	"github.com/sandbar-san/sandbar/san"
)

// annotationDaemon marks the commands that are daemons.
const annotationDaemon = "daemon"

func isDaemon(cmd *cobra.Command) bool { return cmd.Annotations[annotationDaemon] != "" }

// daemonCommand makes `sandbar ROLE run`, which reads its configuration and then runs.
func daemonCommand(keys config.Keys, short string, run func(ctx context.Context, v *config.Values) error) *cobra.Command {
	var file string
	c := &cobra.Command{Use: "run", Short: short, Args: takes()}
	c.Annotations = map[string]string{annotationDaemon: "yes"}
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if err := refuseClientFlags(cmd); err != nil {
			return err
		}
		v, err := config.Load(keys, cmd.Flags(), file, !cmd.Flags().Changed("config"))
		if err != nil {
			return err
		}
		err = run(cmd.Context(), v)
		if cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
			return nil // it was told to end, and did
		}
		return err
	})
	c.Flags().StringVar(&file, "config", keys.StandardFile(), "file with these settings, in YAML; the standard one need not exist")
	keys.AddFlags(c.Flags())
	c.Long = short + ".\n\nEach setting is a key of the file, a variable (" + keys.Env("log-level") + " for log-level) and a flag; a flag\n" +
		"wins over a variable and a variable over the file. SIGTERM and SIGINT end it in good order."
	help := c.HelpFunc()
	c.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { f.Hidden = true })
		help(cmd, args)
	})
	return c
}

// refuseClientFlags keeps a flag that means nothing to a daemon from looking as if it did.
func refuseClientFlags(cmd *cobra.Command) error {
	var err error
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		err = san.Errorf(san.KindInvalid, "--%s is for commands that ask stations and means nothing to '%s'", f.Name, cmd.CommandPath())
	})
	return err
}

func (a *App) stationRun() *cobra.Command {
	return daemonCommand(daemon.StationKeys(), "Run a control station", func(ctx context.Context, v *config.Values) error {
		cfg, err := daemon.Station(v, a.Version, a.Stderr)
		if err != nil {
			return err
		}
		return a.Station(ctx, cfg)
	})
}

func (a *App) unitRun() *cobra.Command {
	return daemonCommand(daemon.UnitKeys(), "Run a storage unit", func(ctx context.Context, v *config.Values) error {
		cfg, err := daemon.Unit(v, a.Version, a.Stderr)
		if err != nil {
			return err
		}
		return a.Unit(ctx, cfg)
	})
}

func (a *App) hostRun() *cobra.Command {
	return daemonCommand(daemon.HostKeys(), "Run a host's agent", func(ctx context.Context, v *config.Values) error {
		cfg, err := daemon.Host(v, a.Version, a.Stderr)
		if err != nil {
			return err
		}
		return a.Host(ctx, cfg)
	})
}
