package controlplane

import (
	"context"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
)

func addHost(t *testing.T, cl *stationclient.Client, id string, initiators ...string) {
	t.Helper()
	m := &pb.AddHostRequest{RequestId: uuid.NewString(), Id: id, Initiators: initiators}
	if _, err := ask(cl, 20*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.AddHostResponse], error) {
		return cl.Hosts(ep).AddHost(ctx, connect.NewRequest(m))
	}); err != nil {
		t.Fatalf("add host %s: %v", id, err)
	}
}

func assign(cl *stationclient.Client, volume, host string) (*pb.Volume, error) {
	m := &pb.AssignVolumeRequest{RequestId: uuid.NewString(), Volume: volume, HostId: host}
	out, err := ask(cl, 20*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.AssignVolumeResponse], error) {
		return cl.Volumes(ep).AssignVolume(ctx, connect.NewRequest(m))
	})
	return out.GetVolume(), err
}

func unassign(t *testing.T, cl *stationclient.Client, volume, host string) {
	t.Helper()
	m := &pb.UnassignVolumeRequest{RequestId: uuid.NewString(), Volume: volume, HostId: host}
	if _, err := ask(cl, 20*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.UnassignVolumeResponse], error) {
		return cl.Volumes(ep).UnassignVolume(ctx, connect.NewRequest(m))
	}); err != nil {
		t.Fatalf("unassign %s: %v", volume, err)
	}
}

func deleteVolume(cl *stationclient.Client, volume string) error {
	m := &pb.DeleteVolumeRequest{RequestId: uuid.NewString(), Volume: volume}
	_, err := ask(cl, 20*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.DeleteVolumeResponse], error) {
		return cl.Volumes(ep).DeleteVolume(ctx, connect.NewRequest(m))
	})
	return err
}

func remove(t *testing.T, cl *stationclient.Client, volume string) {
	t.Helper()
	if err := deleteVolume(cl, volume); err != nil {
		t.Fatalf("delete %s: %v", volume, err)
	}
}

func credentials(t *testing.T, cl *stationclient.Client, volume, host string) *pb.GetCredentialsResponse {
	t.Helper()
	out, err := ask(cl, 20*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.GetCredentialsResponse], error) {
		return cl.Volumes(ep).GetCredentials(ctx, connect.NewRequest(&pb.GetCredentialsRequest{Volume: volume, HostId: host}))
	})
	if err != nil {
		t.Fatalf("credentials of %s for %s: %v", volume, host, err)
	}
	return out
}

// once makes one call to one station, without another try.
func once[Q, A any](fn func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), m *Q) (*A, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	resp, err := fn(ctx, connect.NewRequest(m))
	if err != nil {
		return nil, convert.FromConnect(err)
	}
	return resp.Msg, nil
}

func volumes(cl *stationclient.Client) sandbarv1connect.VolumeServiceClient {
	return cl.Volumes(cl.Endpoint())
}
func hosts(cl *stationclient.Client) sandbarv1connect.HostServiceClient {
	return cl.Hosts(cl.Endpoint())
}
func units(cl *stationclient.Client) sandbarv1connect.UnitServiceClient {
	return cl.Units(cl.Endpoint())
}
func stations(cl *stationclient.Client) sandbarv1connect.StationServiceClient {
	return cl.Stations(cl.Endpoint())
}
func tokens(cl *stationclient.Client) sandbarv1connect.TokenServiceClient {
	return cl.Tokens(cl.Endpoint())
}
func peers(cl *stationclient.Client) sandbarv1connect.PeerServiceClient {
	return cl.Peers(cl.Endpoint())
}

// newToken makes an operator token and returns its text and id.
func newToken(t *testing.T, cl *stationclient.Client, m *pb.CreateTokenRequest) (text, id string) {
	t.Helper()
	out, err := once(tokens(cl).CreateToken, m)
	if err != nil {
		t.Fatalf("token %s: %v", m.Name, err)
	}
	return out.Secret, out.Token.Id
}

func newJoinToken(t *testing.T, cl *stationclient.Client, m *pb.CreateJoinTokenRequest) (text, id string) {
	t.Helper()
	out, err := once(tokens(cl).CreateJoinToken, m)
	if err != nil {
		t.Fatalf("join token %s: %v", m.Name, err)
	}
	return out.Secret, out.Token.Id
}

// newRawVolumes is a client of connect's own, as other programs have it.
func newRawVolumes(t *testing.T, c *cluster, i int, opts ...connect.ClientOption) sandbarv1connect.VolumeServiceClient {
	t.Helper()
	tlsConfig, err := identity.CATLS([]byte(c.read("ca.pem")))
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return sandbarv1connect.NewVolumeServiceClient(&http.Client{Transport: tr}, "https://"+c.stations[i].cfg.APIListen, opts...)
}
