package controlplane

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/internal/gossip"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

// testCallers: who may do what, by token, at the leader and at a station that passes calls on.
func testCallers(t *testing.T, c *cluster) {
	leader, follower := c.leader()
	admin := c.admin()
	viewer, _ := newToken(t, admin, &pb.CreateTokenRequest{Name: "viewer", Role: "viewer"})
	operator, _ := newToken(t, admin, &pb.CreateTokenRequest{Name: "operator", Role: "operator"})
	revoked, id := newToken(t, admin, &pb.CreateTokenRequest{Name: "revoked", Role: "admin"})
	if _, err := once(tokens(admin).DeleteToken, &pb.DeleteTokenRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	short, _ := newToken(t, admin, &pb.CreateTokenRequest{Name: "short", Role: "admin", TtlSeconds: 1})
	made := time.Now()
	if _, err := create(admin, &pb.CreateVolumeRequest{Name: "c1", SizeBytes: extent, HostId: "h1"}); err != nil {
		t.Fatal(err)
	}
	wrong := revoked[:len(revoked)-1] + map[bool]string{true: "1", false: "0"}[strings.HasSuffix(revoked, "0")]
	c.await("the short token's end", func() error {
		if time.Since(made) < 1100*time.Millisecond {
			return context.DeadlineExceeded
		}
		return nil
	})
	get := func(cl *stationclient.Client) error {
		_, err := once(volumes(cl).GetVolume, &pb.GetVolumeRequest{Volume: "c1"})
		return err
	}
	make := func(cl *stationclient.Client) error {
		_, err := once(volumes(cl).CreateVolume, &pb.CreateVolumeRequest{Name: "c2", SizeBytes: extent})
		return err
	}
	secret := func(cl *stationclient.Client) error {
		_, err := once(volumes(cl).GetCredentials, &pb.GetCredentialsRequest{Volume: "c1", HostId: "h1"})
		return err
	}
	mint := func(cl *stationclient.Client) error {
		_, err := once(tokens(cl).CreateToken, &pb.CreateTokenRequest{Name: "t", Role: "admin"})
		return err
	}
	for _, i := range []int{leader, follower} {
		for _, x := range []struct {
			name, token string
			call        func(*stationclient.Client) error
			kind        san.Kind
			says        string
		}{
			{"no token", "", get, san.KindUnauthenticated, "role admin"},
			{"not a token", "hello", get, san.KindUnauthenticated, "malformed"},
			{"join token", c.read("unit.join-token"), get, san.KindUnauthenticated, "this is a join token"},
			{"wrong secret", wrong, get, san.KindUnauthenticated, "unknown or revoked"},
			{"revoked", revoked, get, san.KindUnauthenticated, "unknown or revoked"},
			{"expired", short, get, san.KindUnauthenticated, "expired"},
			{"viewer changes", viewer, make, san.KindDenied, "viewer"},
			{"viewer reads a secret", viewer, secret, san.KindDenied, "viewer"},
			{"operator reads a secret", operator, secret, san.KindDenied, "operator"},
			{"operator makes an admin", operator, mint, san.KindDenied, "operator"},
		} {
			wantErr(t, x.call(c.at(i, x.token)), x.kind, x.says)
			if t.Failed() {
				t.Fatalf("case %s at station %d", x.name, i+1)
			}
		}
		if err := get(c.at(i, viewer)); err != nil {
			t.Errorf("viewer reads: %v", err)
		}
	}
	unassign(t, admin, "c1", "h1")
	c.await("c1 to be deletable", func() error { return deleteVolume(admin, "c1") })
}

// testProvisioner: a token for one host sees and changes what is that host's.
func testProvisioner(t *testing.T, c *cluster) {
	admin := c.admin()
	text, _ := newToken(t, admin, &pb.CreateTokenRequest{Name: "prov", Role: "provisioner", HostId: "h1"})
	cl := c.client(text)
	if _, err := create(cl, &pb.CreateVolumeRequest{Name: "mine", SizeBytes: extent, HostId: "h1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := create(admin, &pb.CreateVolumeRequest{Name: "theirs", SizeBytes: extent, HostId: "h2"}); err != nil {
		t.Fatal(err)
	}
	credentials(t, cl, "mine", "h1")
	_, err := create(cl, &pb.CreateVolumeRequest{Name: "mine2", SizeBytes: extent, HostId: "h2"})
	wantErr(t, err, san.KindDenied, "h1")
	for _, name := range []string{"theirs", "no-such"} {
		_, err = show(cl, name)
		wantErr(t, err, san.KindNotFound, name, "does not exist")
		wantErr(t, deleteVolume(cl, name), san.KindNotFound, "does not exist")
		_, err = once(volumes(cl).GetCredentials, &pb.GetCredentialsRequest{Volume: name, HostId: "h2"})
		wantErr(t, err, san.KindNotFound, "does not exist")
	}
	_, err = once(volumes(cl).GetCredentials, &pb.GetCredentialsRequest{Volume: "mine", HostId: "h2"})
	wantErr(t, err, san.KindDenied)
	list, err := once(volumes(cl).ListVolumes, &pb.ListVolumesRequest{})
	if err != nil || len(list.Volumes) != 1 || list.Volumes[0].Name != "mine" {
		t.Errorf("its list: %v, %v", list, err)
	}
	_, err = once(units(cl).ListUnits, &pb.ListUnitsRequest{})
	wantErr(t, err, san.KindDenied)
	next, stop := openWatch(cl, 0)
	if _, _, err := next(0); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("its watch: %v", err)
	}
	stop()
	for _, x := range [][2]string{{"mine", "h1"}, {"theirs", "h2"}} {
		unassign(t, admin, x[0], x[1])
		c.await(x[0]+" to be deletable", func() error { return deleteVolume(admin, x[0]) })
	}
}

// testCertificates: a part's certificate is good for what the part does, and for no more.
func testCertificates(t *testing.T, c *cluster) {
	leader, follower := c.leader()
	host, err := c.enrolAs(san.RoleHost, "hc", c.read("host.join-token"))
	if err != nil {
		t.Fatal(err)
	}
	unit, err := c.enrolAs(san.RoleUnit, "uc", c.read("unit.join-token"))
	if err != nil {
		t.Fatal(err)
	}
	// At a follower at once: its own tables may not have the host yet, the leader's do.
	cl := c.as(follower, host)
	if _, err := once(volumes(cl).CreateVolume, &pb.CreateVolumeRequest{Name: "hv", SizeBytes: extent}); err != nil {
		t.Fatalf("a host makes a volume: %v", err)
	}
	if _, err := once(volumes(cl).CreateVolume, &pb.CreateVolumeRequest{Name: "hv2", SizeBytes: extent, HostId: "h1"}); san.KindOf(err) != san.KindDenied {
		t.Errorf("a host makes a volume for another: %v", err)
	}
	if _, err := once(volumes(cl).DeleteVolume, &pb.DeleteVolumeRequest{Volume: "hv"}); err != nil {
		t.Errorf("a host deletes its volume: %v", err)
	}
	for _, i := range []int{leader, follower} {
		_, err := once(volumes(c.as(i, unit)).ListVolumes, &pb.ListVolumesRequest{})
		wantErr(t, err, san.KindDenied, "unit uc")
		for name, cl := range map[string]*stationclient.Client{"unit": c.as(i, unit), "host": c.as(i, host), "token": c.at(i, c.read("admin.token")), "nobody": c.at(i, "")} {
			_, err := once(peers(cl).BootstrapState, &pb.BootstrapStateRequest{})
			wantErr(t, err, san.KindDenied, "only stations")
			_, err = once(peers(cl).Propose, &pb.ProposeRequest{})
			wantErr(t, err, san.KindDenied, "only stations")
			_, err = once(peers(cl).Submit, &pb.SubmitRequest{})
			wantErr(t, err, san.KindDenied, "only stations")
			_, err = once(peers(cl).HeartbeatAges, &pb.HeartbeatAgesRequest{})
			wantErr(t, err, san.KindDenied, "only stations")
			if t.Failed() {
				t.Fatalf("PeerService by %s", name)
			}
		}
		// A forged word on whose behalf a call is made counts for nothing.
		for _, cl := range []*stationclient.Client{c.as(i, unit), c.at(i, "")} {
			for _, forged := range []string{`{"role":"host","id":"hc","serial":"` + host.Self().Serial + `"}`, `{"Kind":"token","Name":"admin","Role":"admin"}`} {
				req := connect.NewRequest(&pb.CreateVolumeRequest{Name: "forged", SizeBytes: extent})
				req.Header().Set("Sandbar-On-Behalf-Of", forged)
				_, err := volumes(cl).CreateVolume(context.Background(), req)
				if code := connect.CodeOf(err); code != connect.CodePermissionDenied && code != connect.CodeUnauthenticated {
					t.Errorf("forged %s: %v", forged, err)
				}
			}
		}
	}
	// One token more than a certificate: the token counts.
	req := connect.NewRequest(&pb.ListUnitsRequest{})
	req.Header().Set("Authorization", "Bearer "+c.read("admin.token"))
	if _, err := units(c.as(follower, unit)).ListUnits(context.Background(), req); err != nil {
		t.Errorf("token and certificate: %v", err)
	}
	_, err = once(hosts(c.admin()).RemoveHost, &pb.RemoveHostRequest{Id: "hc"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = once(volumes(cl).ListVolumes, &pb.ListVolumesRequest{})
	wantErr(t, err, san.KindUnauthenticated, "not enrolled in this cluster any more")
}

// testReplacedCertificate: a certificate of a host that was removed is no good for a later host of
// that name; one that was renewed is good for asking again, by whoever has the new key.
func testReplacedCertificate(t *testing.T, c *cluster) {
	token := c.read("host.join-token")
	former, err := c.enrolAs(san.RoleHost, "hr", token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := once(hosts(c.admin()).RemoveHost, &pb.RemoveHostRequest{Id: "hr"}); err != nil {
		t.Fatal(err)
	}
	renew := func(cl *stationclient.Client, csr []byte) error {
		_, err := once(cl.Enrol(cl.Endpoint()).Enrol, &pb.EnrolRequest{Role: "host", Id: "hr", CsrDer: csr})
		return err
	}
	request := func() []byte {
		key, err := identity.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := identity.NewCSR(key)
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	wantErr(t, renew(c.as(0, former), request()), san.KindUnauthenticated, "not enrolled")
	later, err := c.enrolIn(t.TempDir(), san.RoleHost, "hr", token)
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.stations {
		_, err = once(volumes(c.as(i, former)).ListVolumes, &pb.ListVolumesRequest{})
		wantErr(t, err, san.KindUnauthenticated, "newer certificate")
		if _, err := once(volumes(c.as(i, later)).ListVolumes, &pb.ListVolumesRequest{}); err != nil {
			t.Error(err)
		}
		wantErr(t, renew(c.as(i, former), request()), san.KindUnauthenticated, "another key")
	}
	csr := request()
	for try := range 2 { // the answer to the first was lost
		if err := renew(c.as(try, later), csr); err != nil {
			t.Errorf("renewal, try %d: %v", try+1, err)
		}
	}
	wantErr(t, renew(c.as(0, later), request()), san.KindUnauthenticated, "another key")
	_, err = once(c.as(0, later).Enrol(c.stations[0].cfg.APIListen).Enrol, &pb.EnrolRequest{Role: "station", Id: "hr", CsrDer: csr})
	wantErr(t, err, san.KindUnauthenticated, "needs a join token")
	_, err = once(c.as(0, later).Enrol(c.stations[0].cfg.APIListen).Enrol, &pb.EnrolRequest{Role: "host", Id: "h1", CsrDer: csr})
	wantErr(t, err, san.KindUnauthenticated, "needs a join token")
}

// enrolIn is enrolAs with a folder of one's own.
func (c *cluster) enrolIn(folder string, role san.Role, id, token string) (*identity.Identity, error) {
	dir, err := datadir.Open(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	store, err := identity.OpenStore(dir.Path("identity"), identity.Holder{Role: role, ID: id})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ident, _, err := enrol.Enrol(ctx, enrol.Request{Dir: dir, Store: store, Role: role, ID: id, Endpoints: c.endpoints(), Token: token, Log: testLog(c.t)})
	return ident, err
}

func testJoining(t *testing.T, c *cluster) {
	admin := c.admin()
	join := func(role san.Role, id, token string) error {
		_, err := c.enrolIn(t.TempDir(), role, id, token)
		return err
	}
	wantErr(t, join(san.RoleUnit, "j1", c.read("host.join-token")), san.KindUnauthenticated, "is for a host")
	wantErr(t, join(san.RoleUnit, "j/1", c.read("unit.join-token")), san.KindInvalid, "j/1")
	wantErr(t, join(san.RoleUnit, "j1", c.read("admin.token")), san.KindUnauthenticated, "operator token where a join token is wanted")
	text, id := newJoinToken(t, admin, &pb.CreateJoinTokenRequest{Name: "gone", Role: "unit"})
	if _, err := once(tokens(admin).DeleteToken, &pb.DeleteTokenRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	wantErr(t, join(san.RoleUnit, "j1", text), san.KindUnauthenticated, "unknown or revoked")
	text, _ = newJoinToken(t, admin, &pb.CreateJoinTokenRequest{Name: "brief", Role: "unit", TtlSeconds: 1})
	made := time.Now()
	one, _ := newJoinToken(t, admin, &pb.CreateJoinTokenRequest{Name: "one", Role: "unit", MaxUses: 1, Approve: true})
	if err := join(san.RoleUnit, "j2", one); err != nil {
		t.Fatal(err)
	}
	wantErr(t, join(san.RoleUnit, "j3", one), san.KindUnauthenticated, "as often as it may be")
	wantErr(t, join(san.RoleUnit, "j2", c.read("unit.join-token")), san.KindExists, "enrolled already", "own data folder")
	wantErr(t, join(san.RoleHost, "h1", c.read("host.join-token")), san.KindExists, "sandbar host remove h1")
	c.await("the brief token's end", func() error {
		if time.Since(made) < 1100*time.Millisecond {
			return context.DeadlineExceeded
		}
		return nil
	})
	wantErr(t, join(san.RoleUnit, "j1", text), san.KindUnauthenticated, "expired")

	// The same key with the same token is the same request, at whichever station.
	folder := filepath.Join(t.TempDir(), "again")
	if _, err := c.enrolIn(folder, san.RoleHost, "j4", c.read("host.join-token")); err != nil {
		t.Fatal(err)
	}
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := identity.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	m := &pb.EnrolRequest{JoinToken: c.read("host.join-token"), Role: "host", Id: "j5", CsrDer: csr}
	for i := range c.stations {
		cl := c.at(i, "")
		out, err := once(cl.Enrol(cl.Endpoint()).Enrol, m)
		if err != nil {
			t.Errorf("the same enrolment again: %v", err)
			continue
		}
		if len(out.GossipKey)+len(out.ClusterKey) > 0 {
			t.Error("a host was given the stations' keys")
		}
		if len(out.Initiators) != 1 || out.Initiators[0] != san.HostInitiatorName("j5") {
			t.Errorf("initiators %v", out.Initiators)
		}
	}

	// Another cluster's token: its bearer does not even talk to these stations.
	foreign, err := identity.NewCA(san.ClusterID(uuid.NewString()), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token := identity.NewJoinToken(foreign.Fingerprint()).Reveal()
	wantErr(t, join(san.RoleUnit, "j6", token), san.KindUnauthenticated, "certificate of the cluster that the join token is for")
	cl := c.at(0, "")
	_, err = once(cl.Enrol(cl.Endpoint()).Enrol, &pb.EnrolRequest{JoinToken: token, Role: "unit", Id: "j6", CsrDer: csr})
	wantErr(t, err, san.KindUnauthenticated, "of another cluster")
}

// testStrangers: a station of another cluster gets nowhere, whichever door it tries.
func testStrangers(t *testing.T, c *cluster) {
	self := c.stations[0].cfg
	foreign, err := identity.NewCA(san.ClusterID(uuid.NewString()), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id, err := foreign.Issue(identity.Subject{Role: san.RoleStation, ID: "station-2"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	unit, err := c.enrolAs(san.RoleUnit, "uc", c.read("unit.join-token"))
	if err != nil {
		t.Fatal(err)
	}
	// It believes whomever it meets; that it is refused is not its own doing.
	trusting := func(id *identity.Identity, protocol string) *tls.Config {
		cfg := identity.ClientTLS(id, identity.Member)
		cfg.VerifyConnection, cfg.NextProtos = nil, []string{protocol}
		return cfg
	}
	for _, x := range []struct {
		name, addr string
		id         *identity.Identity
		protocol   string
	}{
		{"API", self.APIListen, id, "h2"},
		{"raft", self.RaftListen, id, alpnRaft},
		{"raft by a unit", self.RaftListen, unit, alpnRaft},
		{"raft by an API client", self.RaftListen, unit, "h2"},
	} {
		conn, err := tls.Dial("tcp", x.addr, trusting(x.id, x.protocol))
		if err != nil {
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
		if err == nil || !strings.Contains(err.Error(), "tls:") && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: the stranger was not thrown out: %v", x.name, err)
		}
	}
	// And a client of this cluster refuses a foreign station's address.
	cl, err := stationclient.New(stationclient.Config{Endpoints: []string{self.APIListen}, TLS: identity.ClientTLS(id, identity.Roles(san.RoleStation))})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	_, err = ask(cl, 10*time.Second, func(ctx context.Context, ep string) (*connect.Response[pb.HealthResponse], error) {
		return cl.Stations(ep).Health(ctx, connect.NewRequest(&pb.HealthRequest{}))
	})
	wantErr(t, err, san.KindUnauthenticated, "parts of different clusters never talk")

	// Gossip: the right key alone does not let another cluster in, nor the right cluster alone.
	for name, cfg := range map[string]gossip.Config{
		"other key":     {Cluster: id.Self().Cluster, Key: identity.NewClusterKey()},
		"other cluster": {Cluster: id.Self().Cluster, Key: c.secret("gossip-key")},
		"wrong key":     {Cluster: c.cluster(), Key: identity.NewClusterKey()},
	} {
		cfg.Name, cfg.Bind, cfg.Timing, cfg.Logger = "station:stranger", freeAddr(t), gossip.Fast(), testLog(t)
		cfg.Join = func() []string { return []string{self.GossipListen} }
		m, err := gossip.Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		if err := m.Run(ctx); err != nil { // it tries to join all that time
			t.Error(err)
		}
		cancel()
		if seen := m.Members(); len(seen) > 1 {
			t.Errorf("%s: the stranger joined the gossip and sees %v", name, seen)
		}
	}
}

func (c *cluster) secret(name string) []byte {
	c.t.Helper()
	store, err := identity.OpenStore(filepath.Join(c.stations[0].cfg.Data, "identity"), identity.Holder{})
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := store.Secret(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *cluster) cluster() san.ClusterID {
	c.t.Helper()
	store, err := identity.OpenStore(filepath.Join(c.stations[0].cfg.Data, "identity"), identity.Holder{})
	if err != nil {
		c.t.Fatal(err)
	}
	return store.Holder().Cluster
}

// testTransports: the same call by each protocol that connect's clients speak.
func testTransports(t *testing.T, c *cluster) {
	_, follower := c.leader()
	for name, opts := range map[string][]connect.ClientOption{
		"connect": nil, "connect json": {connect.WithProtoJSON()}, "connect get": {connect.WithHTTPGet()},
		"grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()}, "grpc json": {connect.WithGRPC(), connect.WithProtoJSON()},
	} {
		t.Run(name, func(t *testing.T) {
			cl := newRawVolumes(t, c, follower, opts...)
			call := func(volume string) error {
				req := connect.NewRequest(&pb.GetVolumeRequest{Volume: volume})
				req.Header().Set("Authorization", "Bearer "+c.read("admin.token"))
				_, err := cl.GetVolume(context.Background(), req)
				return convert.FromConnect(err)
			}
			wantErr(t, call(strings.Repeat("ü", 200)), san.KindNotFound, "does not exist")
			req := connect.NewRequest(&pb.CreateVolumeRequest{Name: "by-" + strings.ReplaceAll(name, " ", "-"), SizeBytes: extent})
			req.Header().Set("Authorization", "Bearer "+c.read("admin.token"))
			out, err := cl.CreateVolume(context.Background(), req)
			if err != nil {
				t.Fatal(err)
			}
			if err := call(out.Msg.Volume.Id); err != nil {
				t.Error(err)
			}
			remove(t, c.admin(), out.Msg.Volume.Id)
		})
	}
}
