package controlplane

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
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
