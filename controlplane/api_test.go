package controlplane

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/san"
)

const extent = san.ExtentSizeBytes

// TestCluster runs what needs stations and does not break them against one cluster.
func TestCluster(t *testing.T) {
	c := newCluster(t, 3)
	c.unit("u1", 1, 400)
	c.awaitUnit(c.admin(), "u1", "Online")
	addHost(t, c.admin(), "h1", "iqn.2004-10.com.example:h1")
	addHost(t, c.admin(), "h2", "iqn.2004-10.com.example:h2")
	for _, test := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"mutations at a follower", testFollower},
		{"request ids", testRequestIDs},
		{"bad volumes", testBadVolumes},
		{"growth", testGrow},
		{"assignments", testAssignments},
		{"hosts", testHosts},
		{"pages", testPages},
		{"reads", testReads},
		{"statistics", testStats},
		{"watch", testWatch},
		{"audit", testAudit},
		{"callers", testCallers},
		{"provisioner", testProvisioner},
		{"certificates", testCertificates},
		{"replaced certificate", testReplacedCertificate},
		{"joining", testJoining},
		{"pending unit", testPendingUnit},
		{"agent streams", testAgentStreams},
		{"lost unit", testLostUnit},
		{"lost host", testLostHost},
		{"strangers", testStrangers},
		{"transports", testTransports},
		{"api.md", testDocs},
		{"folders", testFolders},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, c.in(t)) })
	}
}

// testFollower: every mutation works at a station that does not lead.
func testFollower(t *testing.T, c *cluster) {
	_, follower := c.leader()
	cl := c.at(follower, c.read("admin.token"))
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	vol, err := once(volumes(cl).CreateVolume, &pb.CreateVolumeRequest{Name: "f1", SizeBytes: extent})
	must("create", err)
	_, err = once(volumes(cl).AssignVolume, &pb.AssignVolumeRequest{Volume: "f1", HostId: "h1"})
	must("assign", err)
	_, err = once(volumes(cl).GetCredentials, &pb.GetCredentialsRequest{Volume: vol.Volume.Id, HostId: "h1"})
	must("credentials", err)
	_, err = once(volumes(cl).UnassignVolume, &pb.UnassignVolumeRequest{Volume: "f1", HostId: "h1"})
	must("unassign", err)
	c.await("f1's release", func() error {
		v, err := show(cl, "f1")
		if err == nil && len(v.Assignments) > 0 {
			err = fmt.Errorf("%v", v.Assignments)
		}
		return err
	})
	_, err = once(volumes(cl).DeleteVolume, &pb.DeleteVolumeRequest{Volume: "f1"})
	must("delete", err)
	_, err = once(hosts(cl).AddHost, &pb.AddHostRequest{Id: "hf", Initiators: []string{"iqn.2004-10.com.example:hf"}})
	must("add host", err)
	_, err = once(hosts(cl).RemoveHost, &pb.RemoveHostRequest{Id: "hf"})
	must("remove host", err)
	unit, err := once(units(cl).SetUnit, &pb.SetUnitRequest{Id: "u1", Labels: map[string]string{"rack": "7"}})
	must("set unit", err)
	if unit.Unit.Labels["rack"] != "7" {
		t.Errorf("labels %v", unit.Unit.Labels)
	}
	_, err = once(units(cl).ApproveUnit, &pb.ApproveUnitRequest{Id: "u1"})
	must("approve", err)
	_, id := newToken(t, cl, &pb.CreateTokenRequest{Name: "f", Role: "viewer"})
	_, err = once(tokens(cl).DeleteToken, &pb.DeleteTokenRequest{Id: id})
	must("delete token", err)
	_, id = newJoinToken(t, cl, &pb.CreateJoinTokenRequest{Name: "f", Role: "unit"})
	_, err = once(tokens(cl).DeleteToken, &pb.DeleteTokenRequest{Id: id})
	must("delete join token", err)
	_, err = once(stations(cl).TransferLeadership, &pb.TransferLeadershipRequest{StationId: string(c.stations[follower].cfg.ID)})
	must("transfer", err)
	if leader, _ := c.leader(); leader != follower {
		t.Errorf("station %d leads after the leadership was given to %d", leader+1, follower+1)
	}
	_, err = once(stations(cl).TransferLeadership, &pb.TransferLeadershipRequest{StationId: "nobody"})
	wantErr(t, err, san.KindNotFound, "nobody")
}

// testRequestIDs: a retry gets the first answer, wherever it is asked and whoever leads.
func testRequestIDs(t *testing.T, c *cluster) {
	token := c.read("admin.token")
	a, b := c.at(0, token), c.at(1, token)
	m := &pb.CreateVolumeRequest{RequestId: uuid.NewString(), Name: "once", SizeBytes: extent}
	first, err := create(a, m)
	if err != nil {
		t.Fatal(err)
	}
	again := func(when string) {
		t.Helper()
		got, err := create(b, m)
		if err != nil || got.Id != first.Id {
			t.Errorf("%s: %v, %v", when, got, err)
		}
	}
	again("at another station")
	_, follower := c.leader()
	if _, err := once(stations(a).TransferLeadership, &pb.TransferLeadershipRequest{StationId: string(c.stations[follower].cfg.ID)}); err != nil {
		t.Fatal(err)
	}
	again("under another leader")
	_, err = create(b, &pb.CreateVolumeRequest{RequestId: m.RequestId, Name: "twice", SizeBytes: extent})
	wantErr(t, err, san.KindConflict, "used before with other content", m.RequestId)
	_, err = once(volumes(a).DeleteVolume, &pb.DeleteVolumeRequest{RequestId: m.RequestId, Volume: "once"})
	wantErr(t, err, san.KindConflict, "used before")
	_, err = create(a, &pb.CreateVolumeRequest{RequestId: "two words", Name: "once2", SizeBytes: extent})
	wantErr(t, err, san.KindInvalid, "request id")
	_, err = create(a, &pb.CreateVolumeRequest{RequestId: strings.Repeat("x", 65), Name: "once2", SizeBytes: extent})
	wantErr(t, err, san.KindInvalid, "request_id")

	// Retries of what came after, once the name belongs to another volume.
	gone := &pb.DeleteVolumeRequest{RequestId: uuid.NewString(), Volume: "once"}
	if _, err := once(volumes(a).DeleteVolume, gone); err != nil {
		t.Fatal(err)
	}
	c.await("once to be gone", func() error {
		if _, err := show(a, first.Id); err == nil {
			return fmt.Errorf("it is there")
		}
		return nil
	})
	other, err := create(a, &pb.CreateVolumeRequest{Name: "once", SizeBytes: extent})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := once(volumes(b).DeleteVolume, gone); err != nil || out.Volume.Id != first.Id {
		t.Errorf("a retried deletion answers %v, %v", out, err)
	}
	if v, err := show(a, "once"); err != nil || v.Id != other.Id || v.State == "Deleting" {
		t.Errorf("a retried deletion hit a later volume of that name: %v, %v", v, err)
	}
	_, err = create(b, m)
	wantErr(t, err, san.KindNotFound, "deleted since")

	// The text of a token is shown once: a retry says so rather than show one that does not work.
	tok := &pb.CreateTokenRequest{RequestId: uuid.NewString(), Name: "shown-once", Role: "viewer"}
	newToken(t, a, tok)
	_, err = once(tokens(b).CreateToken, tok)
	wantErr(t, err, san.KindConflict, "shown only once")
	remove(t, a, "once")

	// Tries of one request at the same time are one request.
	same := &pb.CreateVolumeRequest{RequestId: uuid.NewString(), Name: "same", SizeBytes: extent}
	type answer struct {
		v   *pb.Volume
		err error
	}
	got := make(chan answer, 16)
	for i := range cap(got) {
		cl := c.at(i%3, token)
		go func() {
			v, err := create(cl, same)
			got <- answer{v, err}
		}()
	}
	id := ""
	for range cap(got) {
		x := <-got
		if x.err != nil || id != "" && x.v.Id != id {
			t.Errorf("one of many tries: %v, %v (others: %s)", x.v, x.err, id)
			continue
		}
		id = x.v.Id
	}
	remove(t, a, "same")
}

func testBadVolumes(t *testing.T, c *cluster) {
	cl := c.admin()
	if _, err := create(cl, &pb.CreateVolumeRequest{Name: "taken", SizeBytes: extent}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		name string
		m    *pb.CreateVolumeRequest
		kind san.Kind
		says string
	}{
		{"zero", &pb.CreateVolumeRequest{Name: "b"}, san.KindInvalid, "not positive"},
		{"negative", &pb.CreateVolumeRequest{Name: "b", SizeBytes: -512}, san.KindInvalid, "not positive"},
		{"odd size", &pb.CreateVolumeRequest{Name: "b", SizeBytes: 1000}, san.KindInvalid, "next smaller size that is: 512"},
		{"huge", &pb.CreateVolumeRequest{Name: "b", SizeBytes: 1<<50 + 512}, san.KindInvalid, "1 PiB"},
		{"block size", &pb.CreateVolumeRequest{Name: "b", SizeBytes: extent, BlockSizeBytes: 1024}, san.KindInvalid, "512 or 4096"},
		{"no name", &pb.CreateVolumeRequest{SizeBytes: extent}, san.KindInvalid, "empty"},
		{"long name", &pb.CreateVolumeRequest{Name: strings.Repeat("n", 300), SizeBytes: extent}, san.KindInvalid, "300 characters"},
		{"long name of wide characters", &pb.CreateVolumeRequest{Name: strings.Repeat("ä", 300), SizeBytes: extent}, san.KindInvalid, "characters"},
		{"odd name", &pb.CreateVolumeRequest{Name: "a/b", SizeBytes: extent}, san.KindInvalid, `"/"`},
		{"taken name", &pb.CreateVolumeRequest{Name: "taken", SizeBytes: extent}, san.KindExists, "taken"},
		{"taken name, no room", &pb.CreateVolumeRequest{Name: "taken", SizeBytes: 1 << 40}, san.KindExists, "taken"},
		{"unknown host", &pb.CreateVolumeRequest{Name: "b", SizeBytes: extent, HostId: "nobody"}, san.KindNotFound, "host add"},
		{"full pool", &pb.CreateVolumeRequest{Name: "b", SizeBytes: 1 << 40}, san.KindNoSpace, "u1: full, needs 1TiB"},
		{"two copies", &pb.CreateVolumeRequest{Name: "b", SizeBytes: extent, Copies: 2}, san.KindInvalid, "ask for 1"},
		{"labels", &pb.CreateVolumeRequest{Name: "b", SizeBytes: extent, Labels: map[string]string{"a b": "c"}}, san.KindInvalid, "label"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			for i := range 2 { // the leader and who passes on say the same
				_, err := once(volumes(c.at(i, c.read("admin.token"))).CreateVolume, bad.m)
				wantErr(t, err, bad.kind, bad.says)
			}
		})
	}
	if _, err := show(cl, "b"); san.KindOf(err) != san.KindNotFound {
		t.Errorf("a refused volume is there: %v", err)
	}
	remove(t, cl, "taken")
}

func testAssignments(t *testing.T, c *cluster) {
	cl := c.admin()
	if _, err := create(cl, &pb.CreateVolumeRequest{Name: "a1", SizeBytes: extent, HostId: "h1"}); err != nil {
		t.Fatal(err)
	}
	wantErr(t, deleteVolume(cl, "a1"), san.KindConflict, "assigned to host", "sandbar volume unassign a1 --host h1")
	_, err := assign(cl, "a1", "h2")
	wantErr(t, err, san.KindConflict, "h1", "unassign it there first")
	_, err = assign(cl, "a1", "nobody")
	wantErr(t, err, san.KindNotFound, "nobody")
	_, err = assign(cl, "nothing", "h1")
	wantErr(t, err, san.KindNotFound, "nothing")
	_, err = assign(cl, "", "h1")
	wantErr(t, err, san.KindInvalid, "no volume")
	_, err = once(volumes(cl).UnassignVolume, &pb.UnassignVolumeRequest{Volume: "a1", HostId: "h2"})
	wantErr(t, err, san.KindNotFound, `"h1"`)
	_, err = once(volumes(cl).GetCredentials, &pb.GetCredentialsRequest{Volume: "a1", HostId: "h2"})
	wantErr(t, err, san.KindNotFound, "not assigned")
	_, err = once(hosts(cl).RemoveHost, &pb.RemoveHostRequest{Id: "h1"})
	wantErr(t, err, san.KindConflict, "a1", "unassign")
	m := &pb.UnassignVolumeRequest{RequestId: uuid.NewString(), Volume: "a1", HostId: "h1"}
	if _, err := once(volumes(cl).UnassignVolume, m); err != nil {
		t.Fatal(err)
	}
	c.await("the release", func() error {
		v, err := show(cl, "a1")
		if err == nil && len(v.Assignments) > 0 {
			err = fmt.Errorf("%v", v.Assignments)
		}
		return err
	})
	_, err = once(volumes(cl).UnassignVolume, &pb.UnassignVolumeRequest{Volume: "a1", HostId: "h1"})
	wantErr(t, err, san.KindNotFound, "not assigned to any host")
	remove(t, cl, "a1")
	if _, err := once(volumes(cl).UnassignVolume, m); err != nil {
		t.Errorf("a retry of an answered unassignment: %v", err)
	}
}

// testGrow: at whichever station, once per request id, confirmed by the unit, told to the host.
func testGrow(t *testing.T, c *cluster) {
	_, follower := c.leader()
	cl := c.at(follower, c.read("admin.token"))
	if _, err := create(cl, &pb.CreateVolumeRequest{Name: "g1", SizeBytes: extent, HostId: "h1"}); err != nil {
		t.Fatal(err)
	}
	confirmed := func(size int64) {
		t.Helper()
		c.await(fmt.Sprintf("g1 to have %d bytes", size), func() error {
			v, err := show(cl, "g1")
			if err == nil && (v.State != "Ready" || v.SizeBytes != size || v.Copies[0].SizeBytes != size || v.Assignments[0].Paths[0].EndLba != uint64(size)/512-1) {
				err = fmt.Errorf("%v", v)
			}
			return err
		})
	}
	confirmed(extent)
	m := &pb.GrowVolumeRequest{RequestId: uuid.NewString(), Volume: "g1", SizeBytes: 3*extent + 512}
	for range 2 {
		out, err := once(volumes(cl).GrowVolume, m)
		if err != nil || out.Volume.SizeBytes != m.SizeBytes {
			t.Fatalf("grow: %v, %v", out, err)
		}
	}
	confirmed(m.SizeBytes)
	for _, bad := range []struct {
		name string
		m    *pb.GrowVolumeRequest
		kind san.Kind
		says string
	}{
		{"smaller", &pb.GrowVolumeRequest{Volume: "g1", SizeBytes: extent}, san.KindConflict, "never shrinks"},
		{"negative", &pb.GrowVolumeRequest{Volume: "g1", SizeBytes: -512}, san.KindInvalid, "not positive"},
		{"odd size", &pb.GrowVolumeRequest{Volume: "g1", SizeBytes: 4*extent + 1}, san.KindInvalid, "no multiple of the block size"},
		{"overflow", &pb.GrowVolumeRequest{Volume: "g1", SizeBytes: 1<<63 - 512}, san.KindInvalid, "1 PiB"},
		{"full unit", &pb.GrowVolumeRequest{Volume: "g1", SizeBytes: 1 << 40}, san.KindNoSpace, "unit u1, which has"},
		{"unknown volume", &pb.GrowVolumeRequest{Volume: "g9", SizeBytes: 1 << 40}, san.KindNotFound, "g9"},
		{"no volume", &pb.GrowVolumeRequest{SizeBytes: 1 << 40}, san.KindInvalid, "no volume"},
		{"a request id that meant another size", &pb.GrowVolumeRequest{RequestId: m.RequestId, Volume: "g1", SizeBytes: 5 * extent}, san.KindConflict, "used before"},
	} {
		_, err := once(volumes(cl).GrowVolume, bad.m)
		t.Run(bad.name, func(t *testing.T) { wantErr(t, err, bad.kind, bad.says) })
	}
	// Many at once: each is the next size or was passed by a larger one, and the room adds up.
	answers := make(chan error, 12)
	for i := range cap(answers) {
		go func() {
			_, err := once(volumes(c.at(i%3, c.read("admin.token"))).GrowVolume, &pb.GrowVolumeRequest{Volume: "g1", SizeBytes: int64(4+i) * extent})
			answers <- err
		}()
	}
	for range cap(answers) {
		if err := <-answers; err != nil && !strings.Contains(err.Error(), "never shrinks") {
			t.Errorf("one of many: %v", err)
		}
	}
	confirmed(15 * extent)
	v, err := show(cl, "g1")
	if err != nil || len(v.Copies[0].Slices) != 1 || v.Copies[0].Slices[0].Extents != 15 {
		t.Errorf("its slices: %v, %v", v, err)
	}
	unassign(t, cl, "g1", "h1")
	c.await("g1 to be deletable", func() error { return deleteVolume(cl, "g1") })
	if out, err := once(volumes(cl).GrowVolume, m); err != nil || out.Volume.Name != "g1" && out.Volume.Name != "" {
		t.Errorf("a retry of an answered growth: %v, %v", out, err)
	}
}

func testHosts(t *testing.T, c *cluster) {
	cl := c.admin()
	long := make([]string, 33)
	for i := range long {
		long[i] = fmt.Sprintf("iqn.2004-10.com.example:l%d", i)
	}
	for _, bad := range []struct {
		name string
		m    *pb.AddHostRequest
		kind san.Kind
		says string
	}{
		{"taken initiator", &pb.AddHostRequest{Id: "hx", Initiators: []string{"IQN.2004-10.com.example:H1"}}, san.KindExists, `belongs to host "h1"`},
		{"taken id", &pb.AddHostRequest{Id: "h1", Initiators: []string{"iqn.2004-10.com.example:hx"}}, san.KindExists, "h1"},
		{"bad range", &pb.AddHostRequest{Id: "hx", Initiators: []string{"iqn.2004-10.com.example:hx"}, AllowFrom: []string{"10.0.0.0/33"}}, san.KindInvalid, "10.0.0.0/33"},
		{"no initiator", &pb.AddHostRequest{Id: "hx"}, san.KindInvalid, "--initiator"},
		{"bad initiator", &pb.AddHostRequest{Id: "hx", Initiators: []string{"hx"}}, san.KindInvalid, "iqn."},
		{"too many", &pb.AddHostRequest{Id: "hx", Initiators: long}, san.KindInvalid, "33"},
		{"bad id", &pb.AddHostRequest{Id: "-x", Initiators: []string{"iqn.2004-10.com.example:hx"}}, san.KindInvalid, "position 1"},
	} {
		_, err := once(hosts(cl).AddHost, bad.m)
		t.Run(bad.name, func(t *testing.T) { wantErr(t, err, bad.kind, bad.says) })
	}
	out, err := once(hosts(cl).AddHost, &pb.AddHostRequest{Id: "hy", Initiators: []string{"iqn.2004-10.com.example:HY", "iqn.2004-10.com.example:hy2"}, AllowFrom: []string{"10.1.2.3/8", "192.0.2.7"}})
	if err != nil {
		t.Fatal(err)
	}
	if h := out.Host; h.State != "Registered" || fmt.Sprint(h.AllowFrom) != "[10.0.0.0/8 192.0.2.7/32]" || h.Initiators[0] != "iqn.2004-10.com.example:hy" {
		t.Errorf("host %v", h)
	}
	if _, err := once(hosts(cl).RemoveHost, &pb.RemoveHostRequest{Id: "hy"}); err != nil {
		t.Error(err)
	}
	_, err = once(hosts(cl).RemoveHost, &pb.RemoveHostRequest{Id: "hy"})
	wantErr(t, err, san.KindNotFound, "hy")
}

func testPages(t *testing.T, c *cluster) {
	cl := c.admin()
	names := []string{"p1", "p2", "p3", "p4", "p5"}
	for _, n := range names {
		if _, err := create(cl, &pb.CreateVolumeRequest{Name: n, SizeBytes: extent}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	m := &pb.ListVolumesRequest{PageSize: 2}
	for {
		out, err := once(volumes(cl).ListVolumes, m)
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Volumes) > 2 {
			t.Errorf("a page of %d", len(out.Volumes))
		}
		for _, v := range out.Volumes {
			if v.State != "Deleting" { // another test's
				got = append(got, v.Name)
			}
		}
		if m.PageToken = out.NextPageToken; m.PageToken == "" {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("pages have %v", got)
	}
	_, err := once(volumes(cl).ListVolumes, &pb.ListVolumesRequest{PageSize: 1001})
	wantErr(t, err, san.KindInvalid, "page_size")
	for _, n := range names {
		remove(t, cl, n)
	}
	testOtherPages(t, c)
}

// testOtherPages: units, hosts and tokens come in pages too, with the same rows as all at once.
func testOtherPages(t *testing.T, c *cluster) {
	cl := c.admin()
	for _, kind := range []struct {
		name string
		list func(size uint32, token string) (ids []string, next string, err error)
	}{
		{"units", func(size uint32, token string) (ids []string, next string, err error) {
			out, err := once(units(cl).ListUnits, &pb.ListUnitsRequest{PageSize: size, PageToken: token})
			for _, r := range out.GetUnits() {
				ids = append(ids, r.Id)
			}
			return ids, out.GetNextPageToken(), err
		}},
		{"hosts", func(size uint32, token string) (ids []string, next string, err error) {
			out, err := once(hosts(cl).ListHosts, &pb.ListHostsRequest{PageSize: size, PageToken: token})
			for _, r := range out.GetHosts() {
				ids = append(ids, r.Id)
			}
			return ids, out.GetNextPageToken(), err
		}},
		{"tokens", func(size uint32, token string) (ids []string, next string, err error) {
			out, err := once(tokens(cl).ListTokens, &pb.ListTokensRequest{PageSize: size, PageToken: token})
			for _, r := range out.GetTokens() {
				ids = append(ids, fmt.Sprintf("%v %s", r.Join, r.Id))
			}
			return ids, out.GetNextPageToken(), err
		}},
	} {
		all, next, err := kind.list(0, "")
		if err != nil || next != "" || len(all) == 0 {
			t.Fatalf("all %s: %v, %q, %v", kind.name, all, next, err)
		}
		var paged []string
		for token := ""; ; {
			page, next, err := kind.list(1, token)
			if err != nil || len(page) != 1 {
				t.Fatalf("a page of %s: %v, %v", kind.name, page, err)
			}
			paged = append(paged, page...)
			if token = next; token == "" {
				break
			}
		}
		if !slices.Equal(all, paged) {
			t.Errorf("%s: pages have %v, all at once %v", kind.name, paged, all)
		}
		_, _, err = kind.list(1001, "")
		wantErr(t, err, san.KindInvalid, "page_size")
	}
}

// testReads: a read through any station sees every write answered before; a stale one may not,
// and does in the end.
func testReads(t *testing.T, c *cluster) {
	token := c.read("admin.token")
	for i := range 12 {
		name := fmt.Sprintf("r%d", i)
		if _, err := create(c.at(i%3, token), &pb.CreateVolumeRequest{Name: name, SizeBytes: extent}); err != nil {
			t.Fatal(err)
		}
		if _, err := once(volumes(c.at((i+1)%3, token)).GetVolume, &pb.GetVolumeRequest{Volume: name}); err != nil {
			t.Errorf("written at station %d, read at %d: %v", i%3+1, (i+1)%3+1, err)
		}
		cl := c.at((i+2)%3, token)
		c.await("a stale read to see "+name, func() error {
			_, err := once(volumes(cl).GetVolume, &pb.GetVolumeRequest{Volume: name, Stale: true})
			return err
		})
		remove(t, c.at(i%3, token), name)
	}
}

func testAudit(t *testing.T, c *cluster) {
	cl := c.admin()
	if _, err := create(cl, &pb.CreateVolumeRequest{Name: "audited", SizeBytes: extent, HostId: "h1"}); err != nil {
		t.Fatal(err)
	}
	credentials(t, cl, "audited", "h1")
	unassign(t, cl, "audited", "h1")
	c.await("audited to be deletable", func() error { return deleteVolume(cl, "audited") })
	var all []string
	from := uint64(0)
	for {
		out, err := once(stations(cl).ListAudit, &pb.ListAuditRequest{FromIndex: from, Limit: 7})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Entries) == 0 {
			break
		}
		for _, e := range out.Entries {
			if e.Index <= from || e.At.AsTime().After(time.Now().Add(time.Second)) {
				t.Fatalf("entry %v after index %d", e, from)
			}
			all, from = append(all, e.Principal+" "+e.Action+" "+e.Object), e.Index
		}
	}
	for _, want := range []string{"token:admin read credentials audited/h1", "token:admin volume.create", "token:admin volume.delete"} {
		if !strings.Contains(strings.Join(all, "\n"), want) {
			t.Errorf("the audit has no %q", want)
		}
	}
}
