package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/agentlink"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

const (
	simulatedUnits = 4
	// unlimited is the room of a simulated medium: 4 PiB.
	unlimitedExtents = 1 << 30
	// clientsPerConnection spreads clients over connections, for both systems alike.
	clientsPerConnection = 16
	maxClients           = 1024
)

// labFile is the part of lab.json that is needed here.
type labFile struct {
	CLI struct {
		Endpoints []string `json:"endpoints"`
		TokenFile string   `json:"tokenFile"`
		CAFile    string   `json:"caFile"`
	} `json:"cli"`
	Processes []*process `json:"processes"`
}

type process struct {
	Role       string   `json:"role"`
	ID         string   `json:"id"`
	PID        int      `json:"pid"`
	Argv       []string `json:"argv"`
	Env        []string `json:"env"`
	LogFile    string   `json:"logFile"`
	APIAddress string   `json:"apiAddress"`

	again *exec.Cmd // the process, once it was started again here
}

// sandbar is three stations and simulated units.
type sandbar struct {
	bin, dir string
	lab      labFile
	clients  []*stationclient.Client
	leader   atomic.Pointer[process]
	units    *errgroup.Group
	endUnits context.CancelFunc
}

func startSandbar(ctx context.Context, o options, dir string) (_ *sandbar, err error) {
	s := &sandbar{bin: o.bin, dir: dir}
	cmd := exec.CommandContext(ctx, o.bin, "demo", "--keep", "--story=none", "--dir", dir, "--stations", "3", "--units", "0", "--hosts", "0", "--spare-units", "0", "--spare-hosts", "0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	b, err := os.ReadFile(filepath.Join(dir, "lab.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &s.lab); err != nil {
		return nil, err
	}
	if err := s.connect(); err != nil {
		return nil, err
	}
	return s, s.simulate(ctx)
}

func (s *sandbar) connect() error {
	ca, err := os.ReadFile(s.lab.CLI.CAFile)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(s.lab.CLI.TokenFile)
	if err != nil {
		return err
	}
	for range maxClients / clientsPerConnection {
		tlsConfig, err := identity.CATLS(ca)
		if err != nil {
			return err
		}
		c, err := stationclient.New(stationclient.Config{Endpoints: s.lab.CLI.Endpoints, TLS: tlsConfig, Token: strings.TrimSpace(string(token))})
		if err != nil {
			return err
		}
		s.clients = append(s.clients, c)
	}
	return nil
}

// simulate enrols units that have no disks: they say that they made whatever they are told to.
func (s *sandbar) simulate(ctx context.Context) error {
	uctx, cancel := context.WithCancel(ctx)
	s.endUnits = cancel
	s.units, uctx = errgroup.WithContext(uctx)
	for i := range simulatedUnits {
		if err := s.simulateUnit(uctx, fmt.Sprintf("sim-%d", i+1)); err != nil {
			return err
		}
	}
	for {
		resp, err := s.clients[0].Units(s.lab.CLI.Endpoints[0]).ListUnits(ctx, connect.NewRequest(&pb.ListUnitsRequest{}))
		if err != nil {
			return err
		}
		online := 0
		for _, u := range resp.Msg.Units {
			if u.State == "Online" {
				online++
			}
		}
		if online == simulatedUnits {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *sandbar) simulateUnit(ctx context.Context, id string) error {
	log := slog.New(slog.DiscardHandler)
	dir, err := datadir.Open(filepath.Join(s.dir, id))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // the folder goes with the lab
	store, err := identity.OpenStore(dir.Path("identity"), identity.Holder{Role: san.RoleUnit, ID: id})
	if err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(filepath.Dir(s.lab.CLI.TokenFile), "unit.join-token"))
	if err != nil {
		return err
	}
	ident, _, err := enrol.Enrol(ctx, enrol.Request{Dir: dir, Store: store, Role: san.RoleUnit, ID: id, Endpoints: s.lab.CLI.Endpoints, Token: strings.TrimSpace(string(token)), Log: log})
	if err != nil {
		return err
	}
	medium, outbox := uuid.NewString(), agentlink.NewOutbox()
	s.units.Go(func() error {
		return agentlink.Run(ctx, agentlink.Config{
			Identity: ident, Endpoints: s.lab.CLI.Endpoints, Reports: outbox, Log: log,
			Hello: func() *pb.Hello {
				return &pb.Hello{Incarnation: 1, Version: "simulated", Portal: "127.0.0.1:1", ApiAddress: "127.0.0.1:1"}
			},
			StorageInfo: func() *pb.StorageInfo {
				return &pb.StorageInfo{Media: []*pb.MediumInfo{{Id: medium, Path: "simulated", CapacityExtents: unlimitedExtents}}}
			},
			OnDesired: func(d *pb.DesiredState) error {
				for _, r := range d.Replicas {
					outbox.Put(&pb.Report{Kind: pb.ReportKind_REPORT_KIND_REPLICA_READY, VolumeId: r.VolumeId})
				}
				return nil
			},
		})
	})
	return nil
}

func (s *sandbar) op(ctx context.Context, client int) error {
	id := uuid.NewString()
	req := connect.NewRequest(&pb.CreateVolumeRequest{RequestId: id, Name: "bench-" + id, SizeBytes: 1 << 30})
	c := s.clients[client/clientsPerConnection%len(s.clients)]
	_, err := c.Volumes(s.leader.Load().APIAddress).CreateVolume(ctx, req)
	return err
}

func (s *sandbar) findLeader(ctx context.Context) error {
	var last error
	for _, p := range s.lab.Processes {
		resp, err := s.clients[0].Stations(p.APIAddress).Health(ctx, connect.NewRequest(&pb.HealthRequest{}))
		if err != nil {
			last = err
			continue
		}
		for _, q := range s.lab.Processes {
			if q.ID == resp.Msg.LeaderId {
				s.leader.Store(q)
				return nil
			}
		}
	}
	return errors.Join(errors.New("no station knows a leader"), last)
}

// levelWithin is how many entries a member may be behind and still count as level: followers
// learn of a commit a moment after the leader.
const levelWithin = 200

func (s *sandbar) level(ctx context.Context) error {
	var low, high uint64
	for i, p := range s.lab.Processes {
		resp, err := s.clients[0].Stations(p.APIAddress).Health(ctx, connect.NewRequest(&pb.HealthRequest{}))
		if err != nil {
			return err
		}
		at := resp.Msg.AppliedIndex
		if high = max(high, at); i == 0 || at < low {
			low = at
		}
	}
	if high-low > levelWithin {
		return fmt.Errorf("a station is %d entries behind", high-low)
	}
	return nil
}

func (s *sandbar) killLeader() (func() error, error) {
	p := s.leader.Load()
	if p.again != nil {
		if err := p.again.Process.Kill(); err != nil {
			return nil, err
		}
		_ = p.again.Wait() // it was killed
	} else if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		return nil, err
	}
	return func() error {
		log, err := os.OpenFile(p.LogFile, os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer func() { _ = log.Close() }() // the child has its own
		p.again = exec.Command(p.Argv[0], p.Argv[1:]...)
		p.again.Env, p.again.Stdout, p.again.Stderr = p.Env, log, log
		return p.again.Start()
	}, nil
}

func (s *sandbar) stop() {
	if s.endUnits != nil {
		s.endUnits()
		_ = s.units.Wait() // they end because they were told to
	}
	for _, p := range s.lab.Processes {
		if p.again != nil {
			_ = p.again.Process.Kill() // measured; nothing of it is needed any more
			_ = p.again.Wait()
		}
	}
	if out, err := exec.Command(s.bin, "demo", "--stop", "--dir", s.dir).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "bench-stations: stopping the lab: %v: %s\n", err, out)
	}
}
