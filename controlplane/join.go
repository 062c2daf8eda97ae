package controlplane

import (
	"context"
	"net"
	"os"
	"time"

	"github.com/sandbar-san/sandbar/controlplane/rpc"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// self is who this station is, however it came to be.
type self struct {
	identity *identity.Identity
	store    *identity.Store
	sealer   *identity.Sealer
	keys     rpc.Keys
	founding *founding // non-nil until the cluster's first entry is committed
	join     enrol.Join
}

// become loads the station's identity, or enrols with a join token, or founds a cluster.
func become(ctx context.Context, cfg *Config, dir *datadir.Dir) (*self, error) {
	store, err := identity.OpenStore(dir.Path("identity"), identity.Holder{Role: san.RoleStation, ID: string(cfg.ID)})
	if err != nil {
		return nil, err
	}
	s := &self{store: store}
	var f founding
	founded, err := dir.ReadJSON(foundingFile, &f)
	if err != nil {
		return nil, err
	}
	s.identity, err = store.Load()
	switch {
	case err == nil:
		if err := enrol.SameCluster(s.identity, cfg.JoinToken); err != nil {
			return nil, san.Wrap("data folder "+cfg.Data, err)
		}
		if has := s.identity.Self().Cluster; founded && f.Cluster != has {
			return nil, san.Errorf(san.KindConflict, "data folder %s: its %s is of cluster %s and its identity of cluster %s; restore the one that belongs to the other, or start with an empty folder", cfg.Data, foundingFile, f.Cluster, has)
		}
	case san.KindOf(err) != san.KindNotFound:
		return nil, err
	case hasLog(dir):
		return nil, san.Errorf(san.KindConflict, "data folder %s has a Raft log but no identity; restore its identity folder from a backup, or give station %s an empty folder and another id", cfg.Data, cfg.ID)
	case cfg.JoinToken != "" && !founded:
		s.identity, s.join, err = enrol.Enrol(ctx, enrol.Request{
			Dir: dir, Store: store, Role: san.RoleStation, ID: string(cfg.ID), Endpoints: cfg.Join, Token: cfg.JoinToken,
			Addresses: certAddresses(cfg), Log: cfg.Log,
		})
		if err != nil {
			return nil, err
		}
	case cfg.BootstrapExpect > 0:
		if err := found(cfg, dir, s, founded, &f); err != nil {
			return nil, err
		}
		founded = true
	default:
		return nil, san.Errorf(san.KindInvalid, "station %s has no identity: give it a join-token-file to join a cluster, or bootstrap-expect to found one", cfg.ID)
	}
	if founded {
		s.founding = &f
		if err := f.handOut(dir); err != nil {
			return nil, err
		}
	}
	if s.join.Endpoints == nil {
		if s.join, err = enrol.Load(dir); err != nil {
			return nil, err
		}
	}
	return s, s.loadKeys()
}

// hasLog tells whether a station ran from the folder before.
func hasLog(dir *datadir.Dir) bool {
	_, err := os.Stat(dir.Path(raftFolder))
	return err == nil
}

// found makes a new cluster, or goes on with one whose founder crashed.
func found(cfg *Config, dir *datadir.Dir, s *self, founded bool, f *founding) error {
	now := time.Now().UTC()
	if !founded {
		made, err := newFounding(dir, s.store, now)
		if err != nil {
			return err
		}
		*f = *made
		cfg.Log.Info("founding a new cluster", "cluster", f.Cluster, "station", cfg.ID)
	}
	clusterKey, err := s.store.Secret(clusterKeyName)
	if err != nil {
		return err
	}
	sealer, err := identity.NewSealer(clusterKey)
	if err != nil {
		return err
	}
	ca, err := f.openCA(sealer)
	if err != nil {
		return err
	}
	csr, err := s.store.PendingCSR()
	if err != nil {
		return err
	}
	certPEM, err := ca.Sign(csr, rpc.Subject(san.RoleStation, string(cfg.ID), certAddresses(cfg)), now)
	if err != nil {
		return err
	}
	s.identity, err = s.store.Install(certPEM, f.CACertPEM)
	return err
}

func (s *self) loadKeys() error {
	var err error
	if s.keys.Cluster, err = s.store.Secret(clusterKeyName); err != nil {
		return err
	}
	if s.keys.Gossip, err = s.store.Secret(gossipKeyName); err != nil {
		return err
	}
	s.sealer, err = identity.NewSealer(s.keys.Cluster)
	return err
}

// certAddresses are what clients that check host names may call this station.
func certAddresses(cfg *Config) []string {
	var out []string
	if host, _, err := net.SplitHostPort(cfg.APIAdvertise); err == nil {
		out = append(out, host)
	}
	if name, err := os.Hostname(); err == nil && name != "" && san.CheckName("host", name) == nil {
		out = append(out, name)
	}
	return out
}
