package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testCluster san.ClusterID = "11111111-2222-4333-8444-555555555555"

var testTime = timestamppb.New(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))

// fakeCluster is a pool that answers as stations do, all at once on every read, from a few rows. A volume
// is Ready, assigned or released after it was read `slow` times.
type fakeCluster struct {
	sandbarv1connect.UnimplementedVolumeServiceHandler
	ca *identity.CA

	mu       sync.Mutex
	slow     int
	copyFail string // what units say of copies
	volumes  []*pb.Volume
	reads    map[string]int
	requests []proto.Message
	tokens   []string // authorization headers seen
	drop     int      // so many calls get no answer although they were carried out
	watch    func(req *pb.WatchRequest, stream *connect.ServerStream[pb.WatchResponse]) error
	next     int
}

func newFakeCluster(t testing.TB) *fakeCluster {
	t.Helper()
	ca, err := identity.NewCA(testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &fakeCluster{ca: ca, reads: map[string]int{}}
}

// station serves the cluster at one more endpoint.
func (f *fakeCluster) station(t testing.TB) string {
	t.Helper()
	id, err := f.ca.Issue(identity.Subject{Role: san.RoleStation, ID: "s1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(sandbarv1connect.NewVolumeServiceHandler(f))
	mux.Handle(sandbarv1connect.NewUnitServiceHandler(fakeUnits{f: f}))
	mux.Handle(sandbarv1connect.NewHostServiceHandler(fakeHosts{f: f}))
	mux.Handle(sandbarv1connect.NewStationServiceHandler(fakeStations{f: f}))
	mux.Handle(sandbarv1connect.NewTokenServiceHandler(fakeTokens{f: f}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux, TLSConfig: identity.ServerTLS(id, identity.ClientCertOptional, identity.Member)}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return l.Addr().String()
}

// run runs one command line and returns what it printed, stderr after stdout, and its exit code.
func (f *fakeCluster) run(t testing.TB, endpoints []string, args ...string) (string, int) {
	t.Helper()
	return f.runIn(t.Context(), t, endpoints, args...)
}

func (f *fakeCluster) runIn(ctx context.Context, t testing.TB, endpoints []string, args ...string) (string, int) {
	t.Helper()
	dir := t.TempDir()
	tokenFile, caFile := filepath.Join(dir, "token"), filepath.Join(dir, "ca.pem")
	token := identity.NewOperatorToken().Reveal() + "\n"
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(caFile, f.ca.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	all := append([]string{"--endpoint", strings.Join(endpoints, ","), "--token-file", tokenFile, "--ca-file", caFile}, args...)
	var out, errs bytes.Buffer
	app := App{Version: "v1.2.3", Stdout: &out, Stderr: &errs}
	code := app.Run(ctx, all)
	return out.String() + errs.String(), code
}

// note keeps a request, and fails the call after it if answers are being dropped.
func (f *fakeCluster) note(h http.Header, m proto.Message) {
	f.requests = append(f.requests, proto.Clone(m))
	f.tokens = append(f.tokens, h.Get("Authorization"))
}

func (f *fakeCluster) dropped() error {
	if f.drop > 0 {
		f.drop--
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("the leader is lost"))
	}
	return nil
}

func (f *fakeCluster) find(name string) (*pb.Volume, error) {
	for _, v := range f.volumes {
		if v.Name == name || v.Id == name {
			return v, nil
		}
	}
	return nil, convert.ToConnect(san.Errorf(san.KindNotFound, "volume %q does not exist", name))
}

func (f *fakeCluster) CreateVolume(_ context.Context, req *connect.Request[pb.CreateVolumeRequest]) (*connect.Response[pb.CreateVolumeResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := req.Msg
	f.note(req.Header(), m)
	if err := san.CheckVolumeSize(m.SizeBytes, m.BlockSizeBytes); err != nil {
		return nil, convert.ToConnect(err)
	}
	switch m.Name {
	case "huge":
		return nil, convert.ToConnect(san.Errorf(san.KindNoSpace, "no unit has room\nfor it"))
	case "denied":
		return nil, convert.ToConnect(san.Errorf(san.KindDenied, "you may not"))
	}
	v, err := f.find(m.Name)
	if err != nil {
		f.next++
		v = &pb.Volume{
			Id: fmt.Sprintf("00000000-0000-4000-8000-%012d", f.next), Name: m.Name, State: "Creating", SizeBytes: m.SizeBytes,
			BlockSizeBytes: m.BlockSizeBytes, Epoch: 1, Labels: m.Labels, CreatedAt: testTime, ModifyIndex: 7,
			Copies: []*pb.Copy{{UnitId: "u1", Role: "primary", State: "Creating", Error: f.copyFail, Slices: []*pb.Slice{{MediumId: "m1", Extents: 20}}}},
		}
		f.volumes = append(f.volumes, v)
		f.assign(v, m.HostId)
	}
	return connect.NewResponse(&pb.CreateVolumeResponse{Volume: proto.CloneOf(v)}), f.dropped()
}

func (f *fakeCluster) GrowVolume(_ context.Context, req *connect.Request[pb.GrowVolumeRequest]) (*connect.Response[pb.GrowVolumeResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(req.Header(), req.Msg)
	v, err := f.find(req.Msg.Volume)
	if err != nil {
		return nil, err
	}
	if req.Msg.SizeBytes < v.SizeBytes {
		return nil, convert.ToConnect(san.Errorf(san.KindConflict, "volume %q never shrinks", v.Name))
	}
	v.SizeBytes, v.State, v.Copies[0].State = req.Msg.SizeBytes, "Growing", "Growing"
	return connect.NewResponse(&pb.GrowVolumeResponse{Volume: proto.CloneOf(v)}), f.dropped()
}

func (f *fakeCluster) assign(v *pb.Volume, host string) {
	if host == "" {
		return
	}
	v.Assignments = []*pb.Assignment{{HostId: host, VolumeId: v.Id, State: "Pending", Generation: 1, Paths: []*pb.Path{{
		UnitId: "u1", Portal: "192.0.2.1:3260", TargetIqn: san.TargetName("u1", san.VolumeID(v.Id)), State: "Pending",
		EndLba: uint64(v.SizeBytes)/512 - 1,
	}}}}
}

// settle lets a volume come to what it is to be.
func (f *fakeCluster) settle(v *pb.Volume) {
	if f.reads[v.Id]++; f.reads[v.Id] <= f.slow || f.copyFail != "" {
		return
	}
	switch v.State {
	case "Deleting":
		f.volumes = slices.DeleteFunc(f.volumes, func(o *pb.Volume) bool { return o == v })
	case "Creating":
		v.State, v.Copies[0].State, v.Copies[0].SizeBytes = "Ready", "InSync", v.SizeBytes
	case "Growing":
		v.State, v.Copies[0].State, v.Copies[0].SizeBytes = "Ready", "InSync", v.SizeBytes
	}
	if len(v.Assignments) == 0 {
		return
	}
	if a := v.Assignments[0]; a.State == "Releasing" {
		v.Assignments = nil
	} else {
		a.State, a.Paths[0].State = "Assigned", "Ready"
	}
}

func (f *fakeCluster) GetVolume(_ context.Context, req *connect.Request[pb.GetVolumeRequest]) (*connect.Response[pb.GetVolumeResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(req.Header(), req.Msg)
	v, err := f.find(req.Msg.Volume)
	if err != nil {
		return nil, err
	}
	f.settle(v)
	if v, err = f.find(req.Msg.Volume); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.GetVolumeResponse{Volume: proto.CloneOf(v)}), nil
}

func (f *fakeCluster) ListVolumes(_ context.Context, req *connect.Request[pb.ListVolumesRequest]) (*connect.Response[pb.ListVolumesResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(req.Header(), req.Msg)
	out := &pb.ListVolumesResponse{}
	for i, v := range f.volumes {
		if v.Name <= req.Msg.PageToken {
			continue
		}
		if len(out.Volumes) == 2 { // small pages, whatever was asked for
			out.NextPageToken = f.volumes[i-1].Name
			break
		}
		out.Volumes = append(out.Volumes, proto.CloneOf(v))
	}
	return connect.NewResponse(out), nil
}

func (f *fakeCluster) AssignVolume(_ context.Context, req *connect.Request[pb.AssignVolumeRequest]) (*connect.Response[pb.AssignVolumeResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(req.Header(), req.Msg)
	v, err := f.find(req.Msg.Volume)
	if err != nil {
		return nil, err
	}
	if len(v.Assignments) > 0 {
		return nil, convert.ToConnect(san.Errorf(san.KindConflict, "volume %q is assigned to host %q", v.Name, v.Assignments[0].HostId))
	}
	f.reads[v.Id] = 0
	f.assign(v, req.Msg.HostId)
	return connect.NewResponse(&pb.AssignVolumeResponse{Volume: proto.CloneOf(v)}), f.dropped()
}

func (f *fakeCluster) UnassignVolume(_ context.Context, req *connect.Request[pb.UnassignVolumeRequest]) (*connect.Response[pb.UnassignVolumeResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(req.Header(), req.Msg)
	v, err := f.find(req.Msg.Volume)
	if err != nil {
		return nil, err
	}
	f.reads[v.Id] = 0
	v.Assignments[0].State = "Releasing"
	v.Assignments[0].Generation++
	return connect.NewResponse(&pb.UnassignVolumeResponse{Volume: proto.CloneOf(v)}), nil
}

func (f *fakeCluster) DeleteVolume(_ context.Context, req *connect.Request[pb.DeleteVolumeRequest]) (*connect.Response[pb.DeleteVolumeResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(req.Header(), req.Msg)
	v, err := f.find(req.Msg.Volume)
	if err != nil {
		return nil, err
	}
	f.reads[v.Id] = 0
	v.State = "Deleting"
	return connect.NewResponse(&pb.DeleteVolumeResponse{Volume: proto.CloneOf(v)}), nil
}

func (f *fakeCluster) GetCredentials(_ context.Context, req *connect.Request[pb.GetCredentialsRequest]) (*connect.Response[pb.GetCredentialsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(req.Header(), req.Msg)
	v, err := f.find(req.Msg.Volume)
	if err != nil {
		return nil, err
	}
	if assignmentOf(v, req.Msg.HostId) == nil {
		return nil, convert.ToConnect(san.Errorf(san.KindNotFound, "volume %s is not assigned to host %s; assign it first", v.Name, req.Msg.HostId))
	}
	return connect.NewResponse(&pb.GetCredentialsResponse{ChapUser: req.Msg.HostId, ChapSecret: "SECRET"}), nil
}

// GetVolumeStats says that a host has read 1000 times more whenever it is asked, a second after the last time.
func (f *fakeCluster) GetVolumeStats(_ context.Context, req *connect.Request[pb.GetVolumeStatsRequest]) (*connect.Response[pb.GetVolumeStatsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(req.Header(), req.Msg)
	v, err := f.find(req.Msg.Volume)
	if err != nil {
		return nil, err
	}
	st := &pb.VolumeStats{VolumeId: v.Id, VolumeName: v.Name, Io: &pb.IOStats{Reads: &pb.IOFigures{}, Writes: &pb.IOFigures{}, Other: &pb.IOFigures{}}}
	out := connect.NewResponse(&pb.GetVolumeStatsResponse{Stats: st})
	switch {
	case v.Name == "away":
		return nil, convert.ToConnect(convert.Final(san.Errorf(san.KindUnavailable, "unit u1 is Stopped")))
	case len(v.Assignments) == 0:
		return out, nil
	}
	f.reads["stats"]++
	n := uint64(f.reads["stats"]) * 1000
	at := timestamppb.New(testTime.AsTime().Add(time.Duration(f.reads["stats"]) * time.Second))
	reads := func() *pb.IOFigures {
		return &pb.IOFigures{Commands: n, Bytes: 4096 * n, Errors: 1, Iops: 999.5, BytesPerSecond: 4096 * 999.5,
			Latency: &pb.Latency{P50Micros: 130, P90Micros: 200, P99Micros: 1500, P999Micros: 20_000, MaxMicros: 1_200_000}}
	}
	st.At, st.Since = at, testTime
	st.Io.Reads, st.Io.QueueDepth, st.Io.QueueDepthMax, st.Io.Aborted, st.Io.IntervalMillis = reads(), 3, 32, 1, 1000
	if req.Msg.Histograms {
		st.Io.Reads.Histogram = &pb.Histogram{Buckets: []uint32{400}, Counts: []uint64{n}, MaxNanos: 100_000}
	}
	st.Sessions = []*pb.SessionStats{{UnitId: "u1", Initiator: "iqn.2004-10.com.example:h1", Address: "192.0.2.7:40000", HostId: "h1", Since: testTime, Io: &pb.IOStats{Reads: reads(), QueueDepth: 3}}}
	st.SessionsOmitted = 2
	return out, nil
}
