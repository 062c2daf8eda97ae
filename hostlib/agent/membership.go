package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/hostlib/internal/state"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// startsFile counts the agent's starts.
const startsFile = "starts.json"

// membership is the host's place in its cluster.
type membership struct {
	cfg      Config
	dir      *datadir.Dir
	store    *identity.Store
	identity *identity.Identity

	mu   sync.Mutex
	join enrol.Join
}

// joinCluster finds the host's identity in its folder, or enrols. It waits for a station until
// ctx ends.
func joinCluster(ctx context.Context, cfg Config, dir *datadir.Dir) (*membership, error) {
	store, err := identity.OpenStore(dir.Path(state.IdentityFolder), identity.Holder{Role: san.RoleHost, ID: string(cfg.ID)})
	if err != nil {
		return nil, err
	}
	m := &membership{cfg: cfg, dir: dir, store: store}
	m.identity, err = store.Load()
	switch {
	case err == nil:
		err = m.resume()
	case san.KindOf(err) == san.KindNotFound:
		err = m.enrol(ctx)
	}
	if err != nil {
		return nil, err
	}
	return m, m.settle()
}

func (m *membership) resume() error {
	if m.cfg.JoinToken != "" {
		tok, err := identity.ParseJoinToken(m.cfg.JoinToken)
		if err != nil {
			return err
		}
		if !tok.CA.Equal(m.identity.CAFingerprint()) {
			return san.Errorf(san.KindConflict, "data folder %s belongs to cluster %s, the join token to another one; give the host another data folder for that cluster", m.dir.Path(""), m.identity.Self().Cluster)
		}
	}
	if err := m.identity.CheckValid(time.Now()); err != nil {
		// Volumes can be opened all the same; only the stations can't be reached.
		m.cfg.Log.Error("stations will refuse this host", "err", err)
	}
	join, err := enrol.Load(m.dir)
	if err != nil {
		return err
	}
	for _, ep := range m.cfg.Join {
		if !slices.Contains(join.Endpoints, ep) {
			join.Endpoints = append(join.Endpoints, ep)
		}
	}
	m.join = join
	return nil
}

func (m *membership) enrol(ctx context.Context) error {
	if m.cfg.JoinToken == "" || len(m.cfg.Join) == 0 {
		return san.Errorf(san.KindInvalid, "host %s is in no cluster yet; set 'join' to its stations and 'join-token-file' to a token made with: sandbar join-token create --role host", m.cfg.ID)
	}
	var err error
	m.identity, m.join, err = enrol.Enrol(ctx, enrol.Request{
		Dir: m.dir, Store: m.store, Role: san.RoleHost, ID: string(m.cfg.ID), Endpoints: m.cfg.Join, Token: m.cfg.JoinToken,
		Initiators: m.cfg.Initiators, Log: m.cfg.Log,
	})
	return err
}

// settle decides on the host's names and keeps what programs on it need.
func (m *membership) settle() error {
	names := m.cfg.Initiators
	if len(names) == 0 {
		names = m.join.Initiators
	}
	if len(names) == 0 {
		names = []string{san.HostInitiatorName(m.cfg.ID)}
	}
	m.join.Initiators = names
	return m.keep()
}

// keep writes what is known of stations and names; m.mu is held, or m is not shared yet.
func (m *membership) keep() error {
	if err := enrol.Keep(m.dir, m.join); err != nil {
		return err
	}
	return state.WriteHost(m.dir, state.Host{ID: m.cfg.ID, Initiators: m.join.Initiators, Endpoints: m.join.Endpoints})
}

// begin counts this start of the agent, stable before the number is used.
func (m *membership) begin() (san.Incarnation, error) {
	var starts struct {
		Incarnation san.Incarnation `json:"incarnation"`
	}
	if _, err := m.dir.ReadJSON(startsFile, &starts); err != nil {
		return 0, err
	}
	starts.Incarnation++
	return starts.Incarnation, m.dir.WriteJSON(startsFile, starts)
}

func (m *membership) endpoints() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.join.Endpoints)
}

func (m *membership) initiators() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.join.Initiators)
}

// welcomed keeps what a station says of where all stations are.
func (m *membership) welcomed(w *pb.Welcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(w.StationEndpoints) == 0 || len(w.StationEndpoints) > stationclient.MaxEndpoints || slices.Equal(w.StationEndpoints, m.join.Endpoints) {
		return
	}
	m.join.Endpoints = slices.Clone(w.StationEndpoints)
	if err := m.keep(); err != nil {
		m.cfg.Log.Warn("the stations' addresses can't be kept", "err", err)
	}
}

// renew keeps the certificate fresh until ctx ends.
func (m *membership) renew(ctx context.Context) error {
	r := &identity.Renewer{Store: m.store, Identity: m.identity, Log: m.cfg.Log, Request: m.requestCertificate}
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
	req := &pb.EnrolRequest{Role: string(san.RoleHost), Id: string(m.cfg.ID), CsrDer: csr, Initiators: m.initiators()}
	resp, err := stationclient.Call(ctx, c, func(ctx context.Context, ep string) (*connect.Response[pb.EnrolResponse], error) {
		return c.Enrol(ep).Enrol(ctx, connect.NewRequest(req))
	})
	if err != nil {
		return nil, err
	}
	return resp.Msg.CertificatePem, nil
}
