package secrets

import (
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

const (
	kindCHAP  = "chap"
	kindCAKey = "ca-key"
)

// NewCHAP makes the CHAP name and sealed secret of host h's access to volume v.
func NewCHAP(s *identity.Sealer, v san.VolumeID, h san.HostID) (user string, sealed []byte, err error) {
	sealed, err = s.Seal(kindCHAP, fsm.AssignmentKey(v, h), []byte(identity.NewCHAPSecret()))
	return string(h), sealed, err
}

// OpenCHAP returns the CHAP secret of an assignment.
func OpenCHAP(s *identity.Sealer, a *fsm.Assignment) (string, error) {
	b, err := s.Open(kindCHAP, fsm.AssignmentKey(a.Volume, a.Host), a.CHAPSecretSealed)
	return string(b), err
}

// SealCAKey seals the cluster CA's private key.
func SealCAKey(s *identity.Sealer, c san.ClusterID, keyPEM []byte) ([]byte, error) {
	return s.Seal(kindCAKey, string(c), keyPEM)
}

// OpenCA returns the cluster's CA.
func OpenCA(s *identity.Sealer, c *fsm.Cluster) (*identity.CA, error) {
	key, err := s.Open(kindCAKey, string(c.ID), c.CAKeySealed)
	if err != nil {
		return nil, err
	}
	return identity.LoadCA(c.CACertPEM, key)
}
