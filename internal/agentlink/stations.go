package agentlink

import (
	"context"

	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// stations is the dialer on real connections.
type stations struct {
	*stationclient.Client
	identity *identity.Identity
	serial   string // of the certificate that the connections show
}

func newStations(id *identity.Identity, endpoints []string) (*stations, error) {
	s := &stations{identity: id}
	return s, s.connect(endpoints)
}

func (s *stations) connect(endpoints []string) error {
	serial := s.identity.Self().Serial
	c, err := stationclient.New(stationclient.Config{
		Endpoints: endpoints, TLS: identity.ClientTLS(s.identity, identity.Roles(san.RoleStation)),
	})
	if err != nil {
		return err
	}
	s.Client, s.serial = c, serial
	return nil
}

func (s *stations) open(ctx context.Context, endpoint string) stream {
	return s.Agents(endpoint).Session(ctx)
}

func (s *stations) stale() bool { return s.identity.Self().Serial != s.serial }

// renew gives up the connections with the client that holds them: a stream on one of them
// would still count as the old certificate's.
func (s *stations) renew() error {
	old := s.Client
	err := s.connect(old.Endpoints())
	old.Close()
	return err
}

func (s *stations) close() { s.Close() }
