package dataplane

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// membership is the unit's place in its cluster.
type membership struct {
	dir      *datadir.Dir
	unit     san.UnitID
	store    *identity.Store
	identity *identity.Identity
	log      *slog.Logger

	mu   sync.Mutex
	join enrol.Join
}

// joinCluster finds the unit's identity in its folder, or enrols. It waits for a station
// until ctx ends.
func joinCluster(ctx context.Context, cfg *Config, dir *datadir.Dir) (*membership, error) {
	store, err := identity.OpenStore(dir.Path("identity"), identity.Holder{Role: san.RoleUnit, ID: string(cfg.ID)})
	if err != nil {
		return nil, err
	}
	m := &membership{dir: dir, unit: cfg.ID, store: store, log: cfg.Log}
	m.identity, err = store.Load()
	switch {
	case err == nil:
		err = m.resume(cfg)
	case san.KindOf(err) == san.KindNotFound:
		err = m.enrol(ctx, cfg)
	}
	return m, err
}

func (m *membership) resume(cfg *Config) error {
	if cfg.JoinToken != "" {
		tok, err := identity.ParseJoinToken(cfg.JoinToken)
		if err != nil {
			return err
		}
		if !tok.CA.Equal(m.identity.CAFingerprint()) {
			return san.Errorf(san.KindConflict, "data folder %s belongs to cluster %s, the join token to another one; give the unit a data folder and media of its own there", m.dir.Path(""), m.identity.Self().Cluster)
		}
	}
	if err := m.identity.CheckValid(time.Now()); err != nil {
		// What hosts were granted goes on; only the stations can't be reached.
		m.log.Error("stations will refuse this unit", "err", err)
	}
	join, err := enrol.Load(m.dir)
	if err != nil {
		return err
	}
	for _, ep := range cfg.Join {
		if !slices.Contains(join.Endpoints, ep) {
			join.Endpoints = append(join.Endpoints, ep)
		}
	}
	m.join = join
	return nil
}

func (m *membership) enrol(ctx context.Context, cfg *Config) error {
	if cfg.JoinToken == "" || len(cfg.Join) == 0 {
		return san.Errorf(san.KindInvalid, "unit %s is in no cluster yet; set 'join' to its stations and 'join-token-file' to a token made with: sandbar join-token create --role unit", cfg.ID)
	}
	var err error
	m.identity, m.join, err = enrol.Enrol(ctx, enrol.Request{
		Dir: m.dir, Store: m.store, Role: san.RoleUnit, ID: string(cfg.ID), Endpoints: cfg.Join, Token: cfg.JoinToken, Log: cfg.Log,
	})
	return err
}

func (m *membership) cluster() san.ClusterID { return m.identity.Self().Cluster }

func (m *membership) endpoints() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.join.Endpoints)
}

// gossip returns where to join the gossip.
func (m *membership) gossip() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.join.Gossip)
}

// welcomed keeps what a station says of where all stations are.
func (m *membership) welcomed(w *pb.Welcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(w.StationEndpoints) == 0 || len(w.StationEndpoints) > stationclient.MaxEndpoints || slices.Equal(w.StationEndpoints, m.join.Endpoints) {
		return
	}
	// What is kept is what the next start goes by, and one that can't be used would keep the unit from starting.
	if i := slices.IndexFunc(w.StationEndpoints, unusableEndpoint); i >= 0 {
		m.log.Warn("a station tells of an address that is not host:port; what is known is kept", "address", w.StationEndpoints[i])
		return
	}
	m.join.Endpoints = slices.Clone(w.StationEndpoints)
	if err := enrol.Keep(m.dir, m.join); err != nil {
		m.log.Warn("the stations' addresses can't be kept", "err", err)
	}
}

func unusableEndpoint(ep string) bool {
	_, _, err := net.SplitHostPort(ep)
	return err != nil
}

// renew keeps the certificate fresh until ctx ends.
func (m *membership) renew(ctx context.Context) error {
	r := &identity.Renewer{Store: m.store, Identity: m.identity, Log: m.log, Request: m.requestCertificate}
	return r.Run(ctx)
}

// requestCertificate asks for the certificate that follows the present one, which is what
// the request is made with.
func (m *membership) requestCertificate(ctx context.Context, csr []byte) ([]byte, error) {
	c, err := stationclient.New(stationclient.Config{
		Endpoints: m.endpoints(), TLS: identity.ClientTLS(m.identity, identity.Roles(san.RoleStation)),
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	req := &pb.EnrolRequest{Role: string(san.RoleUnit), Id: string(m.unit), CsrDer: csr}
	resp, err := stationclient.Call(ctx, c, func(ctx context.Context, ep string) (*connect.Response[pb.EnrolResponse], error) {
		return c.Enrol(ep).Enrol(ctx, connect.NewRequest(req))
	})
	if err != nil {
		return nil, err
	}
	return resp.Msg.CertificatePem, nil
}
