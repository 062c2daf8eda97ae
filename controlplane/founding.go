package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/access"
	"github.com/sandbar-san/sandbar/controlplane/rpc"
	"github.com/sandbar-san/sandbar/controlplane/secrets"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/datadir"
	"github.com/sandbar-san/sandbar/internal/enrol"
	"github.com/sandbar-san/sandbar/internal/gossip"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

const (
	foundingFile = "founding.json"
	// foundingTTL is how long the founder's join tokens live.
	foundingTTL = 24 * time.Hour
	// maxFounding bounds the stations that enrol before the bootstrap.
	maxFounding = 64

	clusterKeyName = enrol.ClusterKey
	gossipKeyName  = enrol.GossipKey
)

// founding is what the founder keeps until the cluster's first log entry has it: the CA and
// the first tokens. The CA's key is in it only as an envelope.
type founding struct {
	Cluster     san.ClusterID     `json:"cluster"`
	CACertPEM   []byte            `json:"caCertPem"`
	CAKeySealed []byte            `json:"caKeySealed"`
	At          time.Time         `json:"at"`
	Tokens      []fsm.Token       `json:"tokens"`
	JoinTokens  []fsm.JoinToken   `json:"joinTokens"`
	Files       map[string]string `json:"files"`    // tokens' texts, until they are in files of their own
	Stations    map[string]string `json:"stations"` // enrolled before the bootstrap: id → hash of the public key
}

// newFounding makes the CA, the keys and the first tokens. What it makes is on disk before
// anything of it is used, so that a founder that crashed goes on with the same cluster.
func newFounding(dir *datadir.Dir, store *identity.Store, now time.Time) (*founding, error) {
	f := &founding{Cluster: san.ClusterID(uuid.NewString()), At: now, Files: map[string]string{}, Stations: map[string]string{}}
	ca, err := identity.NewCA(f.Cluster, now)
	if err != nil {
		return nil, err
	}
	clusterKey := identity.NewClusterKey()
	sealer, err := identity.NewSealer(clusterKey)
	if err != nil {
		return nil, err
	}
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		return nil, err
	}
	if f.CAKeySealed, err = secrets.SealCAKey(sealer, f.Cluster, keyPEM); err != nil {
		return nil, err
	}
	f.CACertPEM = ca.CertPEM()
	f.addTokens(ca)
	if err := store.PutSecret(clusterKeyName, clusterKey); err != nil {
		return nil, err
	}
	if err := store.PutSecret(gossipKeyName, identity.NewClusterKey()); err != nil {
		return nil, err
	}
	return f, dir.WriteJSON(foundingFile, f)
}

func (f *founding) addTokens(ca *identity.CA) {
	admin := identity.NewOperatorToken()
	f.Tokens = []fsm.Token{{ID: admin.ID, Name: "admin", Role: string(access.RoleAdmin), SecretHash: admin.Hash(), CreatedAt: f.At}}
	f.Files["admin.token"] = admin.Reveal()
	for _, role := range []san.Role{san.RoleStation, san.RoleUnit, san.RoleHost} {
		tok := identity.NewJoinToken(ca.Fingerprint())
		f.JoinTokens = append(f.JoinTokens, fsm.JoinToken{
			ID: tok.ID, Name: "founding-" + string(role), Role: role, SecretHash: tok.Hash(),
			CreatedAt: f.At, ExpiresAt: f.At.Add(foundingTTL), Approve: true,
		})
		f.Files[string(role)+".join-token"] = tok.Reveal()
	}
}

// openCA puts the CA together.
func (f *founding) openCA(s *identity.Sealer) (*identity.CA, error) {
	return secrets.OpenCA(s, &fsm.Cluster{ID: f.Cluster, CACertPEM: f.CACertPEM, CAKeySealed: f.CAKeySealed})
}

// handOut puts the first tokens and the CA's certificate where the operator finds them.
func (f *founding) handOut(dir *datadir.Dir) error {
	for name, text := range f.Files {
		if err := dir.Write(name, []byte(text+"\n")); err != nil {
			return err
		}
	}
	return dir.Write("ca.pem", f.CACertPEM)
}

// founder answers enrolments until the bootstrap, carries the bootstrap out, and then
// forgets what it kept.
type founder struct {
	dir    *datadir.Dir
	ca     *identity.CA
	keys   rpc.Keys
	self   san.StationID
	expect int
	gossip string // own gossip address
	api    string
	log    *slog.Logger

	mu sync.Mutex
	f  *founding
}

// enrol answers an enrolment while there is no cluster: only stations may join now.
func (fo *founder) enrol(_ context.Context, req *connect.Request[pb.EnrolRequest]) (*connect.Response[pb.EnrolResponse], error) {
	m := req.Msg
	if san.Role(m.Role) != san.RoleStation {
		return nil, convert.ToConnect(san.Errorf(san.KindUnavailable, "the cluster is not bootstrapped yet: %d stations must join first; try again", fo.expect))
	}
	out, err := fo.enrolStation(m, time.Now().UTC())
	if err != nil {
		return nil, convert.ToConnect(err)
	}
	return connect.NewResponse(out), nil
}

func (fo *founder) enrolStation(m *pb.EnrolRequest, now time.Time) (*pb.EnrolResponse, error) {
	if err := san.CheckName("station", m.Id); err != nil {
		return nil, err
	}
	tok, err := identity.ParseJoinToken(m.JoinToken)
	if err != nil {
		return nil, err
	}
	fo.mu.Lock()
	defer fo.mu.Unlock()
	if err := fo.checkToken(tok, now); err != nil {
		return nil, err
	}
	csr, err := rpc.ParseCSR(m.CsrDer)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	key := hex.EncodeToString(sum[:])
	if have, ok := fo.f.Stations[m.Id]; ok && have != key || m.Id == string(fo.self) {
		return nil, san.Errorf(san.KindExists, "station %s is enrolled already with another key; choose another id, or start it with the data folder that it enrolled with", m.Id)
	}
	if _, again := fo.f.Stations[m.Id]; !again && len(fo.f.Stations) >= maxFounding {
		return nil, san.Errorf(san.KindConflict, "%d stations have enrolled for a cluster that is to be founded by %d; start those that are missing", len(fo.f.Stations), fo.expect)
	}
	certPEM, _, err := rpc.SignMember(fo.ca, m, now)
	if err != nil {
		return nil, err
	}
	fo.f.Stations[m.Id] = key
	if err := fo.dir.WriteJSON(foundingFile, fo.f); err != nil {
		return nil, err
	}
	return &pb.EnrolResponse{
		CertificatePem: certPEM, CaPem: fo.f.CACertPEM, ClusterId: string(fo.f.Cluster),
		GossipKey: fo.keys.Gossip, ClusterKey: fo.keys.Cluster,
		StationEndpoints: []string{fo.api}, GossipJoin: []string{fo.gossip},
	}, nil
}

func (fo *founder) checkToken(tok identity.JoinToken, now time.Time) error {
	if !tok.CA.Equal(fo.ca.Fingerprint()) {
		return san.Errorf(san.KindUnauthenticated, "join token %s is of another cluster", tok.ID)
	}
	for _, row := range fo.f.JoinTokens {
		if row.ID == tok.ID && tok.Verify(row.SecretHash) {
			return access.CheckJoin(access.JoinGrant{Name: row.Name, Role: row.Role, ExpiresAt: row.ExpiresAt}, san.RoleStation, now)
		}
	}
	return san.Errorf(san.KindUnauthenticated, "join token %s is unknown; use the one in the founder's station.join-token", tok.ID)
}

// initCommand is the cluster's first command.
func (fo *founder) initCommand() *fsm.InitCluster {
	fo.mu.Lock()
	defer fo.mu.Unlock()
	return &fsm.InitCluster{
		H:  fsm.Header{At: fo.f.At.Truncate(time.Millisecond), Principal: "station " + string(fo.self)},
		ID: fo.f.Cluster, CACertPEM: fo.f.CACertPEM, CAKeySealed: fo.f.CAKeySealed,
		Tokens: fo.f.Tokens, JoinTokens: fo.f.JoinTokens,
	}
}

// voters returns the stations to bootstrap with once all that are expected are there, agree,
// and bring no state of their own; else why not yet.
func (fo *founder) voters(ctx context.Context, nodes []gossip.Node, ask func(ctx context.Context, api string) (*pb.BootstrapStateResponse, error)) (map[san.StationID]string, string) {
	found := map[san.StationID]string{}
	for _, n := range nodes {
		if n.Role != san.RoleStation || n.Status != gossip.StatusAlive {
			continue
		}
		if n.ID != string(fo.self) {
			st, err := ask(ctx, n.Tags[tagAPI])
			switch {
			case err != nil:
				return nil, "station " + n.ID + " does not answer: " + err.Error()
			case st.HasState:
				return nil, "station " + n.ID + " brings raft state of its own; it belongs to a cluster already, or its data folder must be emptied"
			case int(st.Expect) != fo.expect:
				return nil, fmt.Sprintf("station %s has bootstrap-expect %d and this one, %s, has %d; make them equal", n.ID, st.Expect, fo.self, fo.expect)
			case st.ClusterId != string(fo.f.Cluster):
				return nil, "station " + n.ID + " is of another cluster"
			}
		}
		found[san.StationID(n.ID)] = n.Tags[tagRaft]
	}
	if len(found) < fo.expect {
		return nil, fmt.Sprintf("%d of %d stations are there; start the others with this one's station.join-token", len(found), fo.expect)
	}
	// Of more than enough, the founder and the first by name; the others are taken in afterwards.
	rest := slices.Sorted(maps.Keys(found))
	rest = slices.DeleteFunc(rest, func(id san.StationID) bool { return id == fo.self })
	for _, id := range rest[fo.expect-1:] {
		delete(found, id)
	}
	return found, ""
}
