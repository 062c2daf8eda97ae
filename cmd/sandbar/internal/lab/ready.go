package lab

import (
	"context"
	"os"
	"strings"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// Client opens a client to the lab's stations with its admin token.
func (l *Lab) Client() (*stationclient.Client, error) {
	ca, err := os.ReadFile(l.CLI.CAFile)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := identity.CATLS(ca)
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(l.CLI.TokenFile)
	if err != nil {
		return nil, err
	}
	return stationclient.New(stationclient.Config{Endpoints: l.CLI.Endpoints, TLS: tlsConfig, Token: strings.TrimSpace(string(token))})
}

// awaitReady waits until the pool has what was asked for, and marks the spares.
func (r *Running) awaitReady(ctx context.Context) error {
	c, err := r.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := r.await(ctx, "the stations", func(ctx context.Context) error { return r.stationsReady(ctx, c) }); err != nil {
		return err
	}
	if err := r.await(ctx, "the units", func(ctx context.Context) error { return r.unitsReady(ctx, c) }); err != nil {
		return err
	}
	if err := r.await(ctx, "the hosts", func(ctx context.Context) error { return r.hostsReady(ctx, c) }); err != nil {
		return err
	}
	for i := r.cfg.Units - r.cfg.SpareUnits; i < r.cfg.Units; i++ {
		spare := true
		_, err := stationclient.Call(ctx, c, func(ctx context.Context, ep string) (*connect.Response[pb.SetUnitResponse], error) {
			return c.Units(ep).SetUnit(ctx, connect.NewRequest(&pb.SetUnitRequest{RequestId: "lab-spare-" + name("unit", i), Id: name("unit", i), Spare: &spare}))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Running) stationsReady(ctx context.Context, c *stationclient.Client) error {
	resp, err := stationclient.Call(ctx, c, func(ctx context.Context, ep string) (*connect.Response[pb.ListStationsResponse], error) {
		return c.Stations(ep).ListStations(ctx, connect.NewRequest(&pb.ListStationsRequest{}))
	})
	if err != nil {
		return err
	}
	if n := len(resp.Msg.Stations); n != r.cfg.Stations {
		return san.Errorf(san.KindUnavailable, "%d of %d stations are in the table", n, r.cfg.Stations)
	}
	return nil
}

func (r *Running) unitsReady(ctx context.Context, c *stationclient.Client) error {
	resp, err := stationclient.Call(ctx, c, func(ctx context.Context, ep string) (*connect.Response[pb.ListUnitsResponse], error) {
		return c.Units(ep).ListUnits(ctx, connect.NewRequest(&pb.ListUnitsRequest{}))
	})
	if err != nil {
		return err
	}
	n := 0
	for _, u := range resp.Msg.Units {
		if u.State == "Online" {
			n++
		}
	}
	if n != r.cfg.Units {
		return san.Errorf(san.KindUnavailable, "%d of %d units are online", n, r.cfg.Units)
	}
	return nil
}

func (r *Running) hostsReady(ctx context.Context, c *stationclient.Client) error {
	resp, err := stationclient.Call(ctx, c, func(ctx context.Context, ep string) (*connect.Response[pb.ListHostsResponse], error) {
		return c.Hosts(ep).ListHosts(ctx, connect.NewRequest(&pb.ListHostsRequest{}))
	})
	if err != nil {
		return err
	}
	n := 0
	for _, h := range resp.Msg.Hosts {
		if h.State == "Online" {
			n++
		}
	}
	if n != r.cfg.Hosts {
		return san.Errorf(san.KindUnavailable, "%d of %d hosts are online", n, r.cfg.Hosts)
	}
	return nil
}
