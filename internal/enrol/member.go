package enrol

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// IdentityFolder is the folder in a part's data folder that holds its certificate.
const IdentityFolder = "identity"

// Part is a unit or a host's agent that is, or wants to be, in a cluster.
type Part struct {
	Dir  *datadir.Dir
	Role san.Role
	ID   string
	// Endpoints are API addresses of stations, and Token the join token: both are needed only
	// until the part is enrolled.
	Endpoints  []string
	Token      string
	Initiators []string // a host's, for its enrolment
	// Keep makes what else depends on the join stable, with each change of it. May be nil.
	Keep func(Join) error
	Log  *slog.Logger
}

// Member is a part's place in its cluster: its certificate, and where the stations are. It is safe for concurrent
// use once the part is enrolled.
type Member struct {
	part     Part
	store    *identity.Store
	identity *identity.Identity // nil until the part is enrolled

	mu   sync.Mutex
	join Join
}

// Find looks for the part's identity in its folder. It asks nobody: a part that is in no cluster yet must have
// what Enrol needs, and calls that when it is sure to be of use.
func Find(p Part) (*Member, error) {
	store, err := identity.OpenStore(p.Dir.Path(IdentityFolder), identity.Holder{Role: p.Role, ID: p.ID})
	if err != nil {
		return nil, err
	}
	m := &Member{part: p, store: store}
	m.identity, err = store.Load()
	switch {
	case err == nil:
		err = m.resume()
	case san.KindOf(err) == san.KindNotFound:
		m.identity, err = nil, m.checkPart()
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// checkPart reports whether the part has what an enrolment needs.
func (m *Member) checkPart() error {
	p := &m.part
	if p.Token == "" || len(p.Endpoints) == 0 {
		return san.Errorf(san.KindInvalid, "%s %s is in no cluster yet; set 'join' to its stations and 'join-token-file' to a token made with: sandbar join-token create --role %s", p.Role, p.ID, p.Role)
	}
	_, err := identity.ParseJoinToken(p.Token)
	return err
}

// resume goes on with what an earlier start kept.
func (m *Member) resume() error {
	if err := SameCluster(m.identity, m.part.Token); err != nil {
		return san.Wrap("data folder "+m.part.Dir.Path(""), err)
	}
	if err := m.identity.CheckValid(time.Now()); err != nil {
		// Volumes are served and used all the same; only the stations can't be reached.
		m.part.Log.Error("stations will refuse this "+string(m.part.Role), "err", err)
	}
	join, err := Load(m.part.Dir)
	if err != nil {
		return err
	}
	// A folder may hold what an earlier release, or a hand, put there.
	join.Endpoints = slices.DeleteFunc(join.Endpoints, func(ep string) bool {
		err := stationclient.CheckEndpoint(ep)
		if err != nil {
			m.part.Log.Warn("an address that was kept is left out", "folder", m.part.Dir.Path(""), "err", err)
		}
		return err != nil
	})
	for _, ep := range m.part.Endpoints {
		if !slices.Contains(join.Endpoints, ep) {
			join.Endpoints = append(join.Endpoints, ep)
		}
	}
	m.join = join
	return nil
}

// Enrolled tells whether the part has an identity.
func (m *Member) Enrolled() bool { return m.identity != nil }

// Enrol gets the part into its cluster if it is not in it yet. It waits for a station until ctx ends.
func (m *Member) Enrol(ctx context.Context) error {
	if m.Enrolled() {
		return nil
	}
	p := &m.part
	id, join, err := Enrol(ctx, Request{
		Dir: p.Dir, Store: m.store, Role: p.Role, ID: p.ID, Endpoints: p.Endpoints, Token: p.Token, Initiators: p.Initiators, Log: p.Log,
	})
	if err != nil {
		return err
	}
	m.identity, m.join = id, join
	return nil
}

// Identity is the part's certificate; nil before it is enrolled.
func (m *Member) Identity() *identity.Identity { return m.identity }

// Cluster is the cluster that the part belongs to; empty before it is enrolled.
func (m *Member) Cluster() san.ClusterID {
	if m.identity == nil {
		return ""
	}
	return m.identity.Self().Cluster
}

// Secret returns a key that the part was given when it enrolled, such as GossipKey.
func (m *Member) Secret(name string) ([]byte, error) { return m.store.Secret(name) }

// Endpoints returns the stations' API addresses.
func (m *Member) Endpoints() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.join.Endpoints)
}

// Gossip returns where to join the gossip.
func (m *Member) Gossip() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.join.Gossip)
}

// Initiators returns a host's names.
func (m *Member) Initiators() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.join.Initiators)
}

// SetInitiators replaces a host's names, stably.
func (m *Member) SetInitiators(names []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.join.Initiators = slices.Clone(names)
	return m.keep()
}

// keep makes the join stable. Needs mu.
func (m *Member) keep() error {
	if err := Keep(m.part.Dir, m.join); err != nil || m.part.Keep == nil {
		return err
	}
	return m.part.Keep(m.join)
}

// Welcomed keeps what a station says of where all stations are. What is kept is what the next start goes by, so a
// list with an address that nobody could dial changes nothing.
func (m *Member) Welcomed(w *pb.Welcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	eps := w.StationEndpoints
	if len(eps) == 0 || len(eps) > stationclient.MaxEndpoints || slices.Equal(eps, m.join.Endpoints) {
		return
	}
	if err := checkEndpoints(eps); err != nil {
		m.part.Log.Warn("a station tells of an address that can't be used; what is known is kept", "station", w.StationId, "err", err)
		return
	}
	m.join.Endpoints = slices.Clone(eps)
	if err := m.keep(); err != nil {
		m.part.Log.Warn("the stations' addresses can't be kept", "err", err)
	}
}

func checkEndpoints(eps []string) error {
	for _, ep := range eps {
		if err := stationclient.CheckEndpoint(ep); err != nil {
			return err
		}
	}
	return nil
}

// Renew keeps the certificate fresh until ctx ends.
func (m *Member) Renew(ctx context.Context) error {
	r := &identity.Renewer{Store: m.store, Identity: m.identity, Log: m.part.Log, Request: m.requestCertificate}
	return r.Run(ctx)
}

// requestCertificate asks for the certificate that follows the present one, which is what
// the request is made with.
func (m *Member) requestCertificate(ctx context.Context, csr []byte) ([]byte, error) {
	c, err := stationclient.New(stationclient.Config{
		Endpoints: m.Endpoints(), TLS: identity.ClientTLS(m.identity, identity.Roles(san.RoleStation)),
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	req := &pb.EnrolRequest{Role: string(m.part.Role), Id: m.part.ID, CsrDer: csr, Initiators: m.Initiators()}
	resp, err := stationclient.Call(ctx, c, func(ctx context.Context, ep string) (*connect.Response[pb.EnrolResponse], error) {
		return c.Enrol(ep).Enrol(ctx, connect.NewRequest(req))
	})
	if err != nil {
		return nil, err
	}
	return resp.Msg.CertificatePem, nil
}
