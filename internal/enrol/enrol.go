package enrol

import (
	"context"
	"log/slog"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// Names of secrets in the identity folder.
const (
	ClusterKey = "cluster-key"
	GossipKey  = "gossip-key"

	joinFile = "join.json"
	retry    = 500 * time.Millisecond
)

// Join is what a part remembers of how to reach its cluster.
type Join struct {
	Endpoints  []string `json:"endpoints"`
	Gossip     []string `json:"gossip,omitempty"`
	Initiators []string `json:"initiators,omitempty"`
}

// Request says who wants to join.
type Request struct {
	Dir        *datadir.Dir
	Store      *identity.Store
	Role       san.Role
	ID         string
	Endpoints  []string // API addresses of stations
	Token      string
	Initiators []string // a host's
	Addresses  []string // a station's, for its certificate
	Log        *slog.Logger
}

// Enrol asks the stations, one after the other, until one of them answers for good or ctx
// ends. A lost answer is asked for again with the same key.
func Enrol(ctx context.Context, r Request) (*identity.Identity, Join, error) {
	tok, err := identity.ParseJoinToken(r.Token)
	if err != nil {
		return nil, Join{}, err
	}
	csr, err := r.Store.PendingCSR()
	if err != nil {
		return nil, Join{}, err
	}
	c, err := stationclient.New(stationclient.Config{Endpoints: r.Endpoints, TLS: identity.PinnedClientTLS(tok.CA)})
	if err != nil {
		return nil, Join{}, err
	}
	defer c.Close()
	req := &pb.EnrolRequest{JoinToken: r.Token, Role: string(r.Role), Id: r.ID, CsrDer: csr, Initiators: r.Initiators, Addresses: r.Addresses}
	for said := ""; ; {
		actx, cancel := context.WithTimeout(ctx, 5*time.Second)
		resp, err := stationclient.Call(actx, c, func(ctx context.Context, ep string) (*connect.Response[pb.EnrolResponse], error) {
			return c.Enrol(ep).Enrol(ctx, connect.NewRequest(req))
		})
		cancel()
		switch {
		case err == nil:
			return install(r, resp.Msg)
		case san.KindOf(err) != san.KindUnavailable && san.KindOf(err) != san.KindUnknown || ctx.Err() != nil:
			return nil, Join{}, san.Wrap("enrol "+string(r.Role)+" "+r.ID, err)
		case err.Error() != said:
			said = err.Error()
			r.Log.Info("not enrolled yet; trying again", "role", r.Role, "id", r.ID, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, Join{}, ctx.Err()
		case <-time.After(retry):
		}
	}
}

// install keeps the keys before the certificate: the certificate is what says that the part
// is enrolled.
func install(r Request, m *pb.EnrolResponse) (*identity.Identity, Join, error) {
	for name, key := range map[string][]byte{ClusterKey: m.ClusterKey, GossipKey: m.GossipKey} {
		if len(key) == 0 {
			continue
		}
		if err := r.Store.PutSecret(name, key); err != nil {
			return nil, Join{}, err
		}
	}
	j := Join{Endpoints: m.StationEndpoints, Gossip: m.GossipJoin, Initiators: m.Initiators}
	if len(j.Endpoints) == 0 || checkEndpoints(j.Endpoints) != nil {
		j.Endpoints = r.Endpoints // by which a station was reached just now
	}
	if err := r.Dir.WriteJSON(joinFile, j); err != nil {
		return nil, Join{}, err
	}
	id, err := r.Store.Install(m.CertificatePem, m.CaPem)
	if err != nil {
		return nil, Join{}, err
	}
	r.Log.Info("enrolled", "role", r.Role, "id", r.ID, "cluster", m.ClusterId)
	return id, j, nil
}

// SameCluster refuses a join token of another cluster than the one that id belongs to: the data folder is
// not the one that was meant. An empty token, or a used one of the same cluster, is fine.
func SameCluster(id *identity.Identity, token string) error {
	if token == "" {
		return nil
	}
	tok, err := identity.ParseJoinToken(token)
	if err != nil {
		return err
	}
	if !tok.CA.Equal(id.CAFingerprint()) {
		return san.Errorf(san.KindConflict, "%s %s is enrolled in cluster %s, and its join token is of another cluster; use another data folder to join that one, or take the token away", id.Self().Role, id.Self().ID, id.Self().Cluster)
	}
	return nil
}

// Load returns what Enrol kept; zero if the part never enrolled.
func Load(dir *datadir.Dir) (Join, error) {
	var j Join
	_, err := dir.ReadJSON(joinFile, &j)
	return j, err
}

// Keep replaces what is known of how to reach the cluster.
func Keep(dir *datadir.Dir, j Join) error { return dir.WriteJSON(joinFile, j) }
