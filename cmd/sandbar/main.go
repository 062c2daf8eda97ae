// Command sandbar is the whole product in one binary: the daemons (station run, unit run,
// host run) and the operator's commands.
//
// It owns the process: its signals, its exit code, and where settings come from. All
// else is the business of the packages that it starts; it must never hold a rule of theirs.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/cli"
	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/demo"
	"github.com/sandbar-san/sandbar/controlplane"
	"github.com/sandbar-san/sandbar/dataplane"
	"github.com/sandbar-san/sandbar/hostlib/agent"
)

// version is set by the build.
var version string

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		// The first signal asks for a good end, the second for one at once.
		<-signals
		cancel()
		<-signals
		os.Exit(cli.ExitFailed)
	}()
	app := cli.App{
		Version: buildVersion(), Stdout: os.Stdout, Stderr: os.Stderr,
		Demo:    demo.Run,
		Station: runStation, Unit: runUnit, Host: agent.Run,
	}
	os.Exit(app.Run(ctx, os.Args[1:]))
}

// buildVersion falls back on what the Go command noted.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// stationGC lets a station's heap grow to five times its live size between collections. Its
// tables are long-lived and its garbage short: at Go's default of two it spends more
// time marking the tables again and again than on serving (docs/benchmarks.md). GOGC overrides it.
const stationGC = 400

func runStation(ctx context.Context, cfg controlplane.Config) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(stationGC)
	}
	return controlplane.Run(ctx, cfg)
}

// unitMemory is from where on a unit collects garbage more eagerly: above what its buffers may hold
// (dataplane/iscsi/README.md, 512 MiB) with all that is needed besides. GOMEMLIMIT overrides it.
const unitMemory = 896 << 20

func runUnit(ctx context.Context, cfg dataplane.Config) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(unitMemory)
	}
	return dataplane.Run(ctx, cfg)
}
