package rpc

import (
	"bytes"
	"context"
	"crypto/sha256"

	"connectrpc.com/connect"

	"github.com/sandbar-san/sandbar/api/convert"
	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/secrets"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// Enrol implements EnrolService: before the cluster's bootstrap the founder answers
// from its founding record, afterwards the leader does.
func (s *Server) Enrol(ctx context.Context, req *connect.Request[pb.EnrolRequest]) (*connect.Response[pb.EnrolResponse], error) {
	if s.founder != nil && s.replica.View().Cluster() == nil {
		// A log that was begun may hold what the founding record does not know.
		if begun, err := s.replica.HasState(); err != nil {
			return nil, convert.ToConnect(err)
		} else if !begun {
			return s.founder(ctx, req)
		}
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

// keyOf is the hash of the key that a unit's or host's present certificate is for. Whoever asks
// for a certificate for that key has proved to have it.
func keyOf(v fsm.View, role san.Role, id string) []byte {
	switch role {
	case san.RoleUnit:
		if u := v.Unit(san.UnitID(id)); u != nil {
			return u.PublicKey
		}
	case san.RoleHost:
		if h := v.Host(san.HostID(id)); h != nil {
			return h.PublicKey
		}
	}
	return nil
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
		if c.Superseded && !bytes.Equal(cmd.PublicKey, keyOf(v, cmd.Role, m.Id)) {
			return nil, san.Errorf(san.KindUnauthenticated, "%s %s was given a newer certificate than the one that it shows, for another key; enrol it with a join token", m.Role, m.Id)
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
		StationEndpoints: s.stations.Endpoints(),
	}
	role := san.Role(m.Role)
	if role == san.RoleHost {
		if h := s.replica.View().Host(san.HostID(m.Id)); h != nil {
			out.Initiators = h.Initiators
		}
	}
	if role == san.RoleStation || role == san.RoleUnit {
		out.GossipKey, out.GossipJoin = s.keys.Gossip, s.stations.GossipAddresses()
	}
	if role == san.RoleStation {
		out.ClusterKey = s.keys.Cluster
	}
	return out, nil
}
