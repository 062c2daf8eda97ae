package rpc

import (
	"context"
	"crypto/sha256"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/secrets"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// Enrol implements EnrolService: before the cluster's bootstrap the founder answers
// from its founding record, afterwards the leader does.
func (s *Server) Enrol(ctx context.Context, req *connect.Request[pb.EnrolRequest]) (*connect.Response[pb.EnrolResponse], error) {
	if s.replica.View().Cluster() == nil && s.founder != nil {
		return s.founder(ctx, req)
	}
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.EnrolRequest]) (*connect.Response[pb.EnrolResponse], error) {
		return s.peers.Client().Enrol(ep).Enrol(ctx, r)
	}, s.enrol)
}

func (s *Server) enrol(ctx context.Context, c Caller, m *pb.EnrolRequest) (*pb.EnrolResponse, error) {
	v := s.replica.View()
	cluster := v.Cluster()
	if cluster == nil {
		return nil, san.Errorf(san.KindUnavailable, "the cluster is being bootstrapped; try again")
	}
	cmd, err := s.newEnrol(c, v, m)
	if err != nil {
		return nil, err
	}
	ca, err := secrets.OpenCA(s.sealer, cluster)
	if err != nil {
		return nil, err
	}
	certPEM, serial, err := SignMember(ca, m, cmd.H.At)
	if err != nil {
		return nil, err
	}
	cmd.CertSerial = serial
	if _, err := s.propose(ctx, cmd); err != nil {
		return nil, err
	}
	return s.enrolled(m, certPEM, ca.CertPEM(), cluster.ID)
}

// newEnrol judges the join token, or for a renewal the certificate in use.
func (s *Server) newEnrol(c Caller, v fsm.View, m *pb.EnrolRequest) (*fsm.Enrol, error) {
	cmd := &fsm.Enrol{H: fsm.Header{At: s.now(), Principal: c.name()}, Role: san.Role(m.Role), ID: m.Id, Initiators: hostInitiators(m)}
	if !cmd.Role.Valid() {
		return nil, san.Errorf(san.KindInvalid, "role %q is not one of station, unit, host", clip(m.Role))
	}
	if err := san.CheckName(m.Role, m.Id); err != nil {
		return nil, err
	}
	csr, err := ParseCSR(m.CsrDer)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	cmd.PublicKey = sum[:]
	if m.JoinToken == "" {
		if string(c.Principal.Kind) != m.Role || c.Principal.Name != m.Id {
			return nil, san.Errorf(san.KindUnauthenticated, "enrolling %s %s needs a join token; an administrator makes one with 'sandbar join-token create --role %s'", m.Role, m.Id, m.Role)
		}
		cmd.Renewal = true
		return cmd, nil
	}
	tok, err := identity.ParseJoinToken(m.JoinToken)
	if err != nil {
		return nil, err
	}
	if !tok.CA.Equal(s.identity.CAFingerprint()) {
		return nil, san.Errorf(san.KindUnauthenticated, "join token %s is of another cluster; make one in this cluster with 'sandbar join-token create'", tok.ID)
	}
	row := v.JoinToken(tok.ID)
	if row == nil || !tok.Verify(row.SecretHash) {
		return nil, san.Errorf(san.KindUnauthenticated, "join token %s is unknown or revoked; make a new one with 'sandbar join-token create'", tok.ID)
	}
	cmd.JoinToken, cmd.H.Principal = tok.ID, "join token "+row.Name
	return cmd, nil
}

// hostInitiators are the names that a host asked for, or the one made from its id.
func hostInitiators(m *pb.EnrolRequest) []string {
	if san.Role(m.Role) != san.RoleHost {
		return nil
	}
	if len(m.Initiators) == 0 {
		return []string{san.HostInitiatorName(san.HostID(m.Id))}
	}
	out := make([]string, 0, len(m.Initiators))
	for _, n := range m.Initiators {
		out = append(out, san.NormalizeInitiator(n))
	}
	return out
}

// enrolled is the answer: stations get the cluster's keys, units the gossip's.
func (s *Server) enrolled(m *pb.EnrolRequest, certPEM, caPEM []byte, cluster san.ClusterID) (*pb.EnrolResponse, error) {
	out := &pb.EnrolResponse{
		CertificatePem: certPEM, CaPem: caPEM, ClusterId: string(cluster),
		StationEndpoints: s.stations.Endpoints(), Initiators: hostInitiators(m),
	}
	role := san.Role(m.Role)
	if role == san.RoleStation || role == san.RoleUnit {
		out.GossipKey, out.GossipJoin = s.keys.Gossip, s.stations.GossipAddresses()
	}
	if role == san.RoleStation {
		out.ClusterKey = s.keys.Cluster
	}
	return out, nil
}
