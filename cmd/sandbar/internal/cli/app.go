package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/output"
	"github.com/sandbar-san/sandbar/controlplane"
	"github.com/sandbar-san/sandbar/dataplane"
	"github.com/sandbar-san/sandbar/hostlib/agent"
	"github.com/sandbar-san/sandbar/san"
)

// App is the command line.
type App struct {
	Version        string
	Stdout, Stderr io.Writer
	// Demo runs a whole cluster on this machine.
	Demo DemoFunc
	// Station runs a control station until ctx ends.
	Station func(ctx context.Context, cfg controlplane.Config) error
	// Unit runs a storage unit until ctx ends.
	Unit func(ctx context.Context, cfg dataplane.Config) error
	// Host runs a host's agent until ctx ends.
	Host func(ctx context.Context, cfg agent.Config) error
}

// The exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2 // flags, arguments, configuration or values that can never work
	ExitNotFound    = 3
	ExitRefused     = 4 // taken, busy, no room, no right
	ExitUnavailable = 5 // nobody answered, or not in time
)

// ExitCode tells what the process ends with after err.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	switch san.KindOf(err) {
	case san.KindInvalid:
		return ExitUsage
	case san.KindNotFound:
		return ExitNotFound
	case san.KindExists, san.KindConflict, san.KindNoSpace, san.KindDenied, san.KindUnauthenticated:
		return ExitRefused
	case san.KindUnavailable, san.KindUnknown:
		return ExitUnavailable
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return ExitUnavailable
	}
	return ExitFailed
}

// ranError marks errors of commands, to tell them from those of the command line's grammar.
type ranError struct{ err error }

func (e *ranError) Error() string { return e.err.Error() }
func (e *ranError) Unwrap() error { return e.err }

// runE makes a cobra handler of fn.
func runE(fn func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := fn(cmd, args); err != nil {
			return &ranError{err}
		}
		return nil
	}
}

// Run carries out the command that args say and returns the exit code. It ends early when
// ctx does.
func (a *App) Run(ctx context.Context, args []string) int {
	for _, arg := range args {
		// A request can't carry it, and no station is to blame for that.
		if !utf8.ValidString(arg) {
			fmt.Fprintf(a.Stderr, "sandbar: argument %q is not UTF-8\n", arg)
			return ExitUsage
		}
	}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	var ran *ranError
	switch {
	case !errors.As(err, &ran):
		err = san.Errorf(san.KindInvalid, "%s; see '%s --help'", strings.TrimSpace(firstLine(err.Error())), cmd.CommandPath())
	case ctx.Err() != nil && !isDaemon(cmd):
		err = errors.New("interrupted; a change that was asked for may still happen")
	}
	fmt.Fprintf(a.Stderr, "sandbar: %s\n", oneLine(err.Error()))
	return ExitCode(err)
}

// firstLine drops the suggestions that cobra appends.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// oneLine joins the lines of a message.
func oneLine(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return output.Clean(strings.Join(lines, "; "))
}

func (a *App) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "sandbar",
		Short: "A highly available IP SAN: stations, units, hosts",
		Long: "Sandbar serves block volumes over iSCSI from units straight to hosts, under the control\n" +
			"of a group of stations. This program runs the daemons and tells the stations what to do.",
		Version:       a.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	addClientFlags(root)
	root.AddCommand(
		a.volumeCommand(), a.hostCommand(), a.unitCommand(), a.poolCommand(), a.stationCommand(),
		a.tokenCommand(), a.joinTokenCommand(), a.auditCommand(), a.demoCommand(), a.watchCommand(), a.versionCommand(),
	)
	return root
}

// noun groups verbs; by itself it says which there are.
func noun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Args: cobra.ArbitraryArgs}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, v := range cmd.Commands() {
			if v.IsAvailableCommand() {
				names = append(names, v.Name())
			}
		}
		if len(args) == 0 {
			return fmt.Errorf("'%s' needs a verb: %s", cmd.CommandPath(), strings.Join(names, ", "))
		}
		return fmt.Errorf("unknown verb %q for '%s', which has %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))
	}
	c.AddCommand(verbs...)
	return c
}

// takes checks that there is one argument for each name.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("'%s' needs %s", cmd.CommandPath(), strings.Join(names[len(args):], " and "))
		case len(args) > len(names):
			return fmt.Errorf("'%s' has no use for %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

func (a *App) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: takes(),
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			p, err := a.printer(cmd)
			if err != nil {
				return err
			}
			return p.Value(map[string]string{"version": a.Version}, func(page *output.Page) {
				page.Line("sandbar %s", a.Version)
			})
		}),
	}
}
