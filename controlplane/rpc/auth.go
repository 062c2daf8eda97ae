package rpc

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/sandbar-san/sandbar/controlplane/access"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// onBehalfHeader carries the principal that the first station knew by certificate. It
// counts only from a station's own certificate.
const onBehalfHeader = "Sandbar-On-Behalf-Of"

// Caller is who makes a call.
type Caller struct {
	access.Principal
	// Peer is the certificate at the other end of the connection; zero without one, and
	// for calls that another station passed on.
	Peer identity.Peer
}

// authn finds out who calls.
type authn struct{}

// caller judges a call by its certificate or its token, against the tables of v.
func (a *authn) caller(ctx context.Context, h http.Header, v fsm.View) (Caller, error) {
	peer, ok, err := identity.PeerFrom(ctx)
	if err != nil {
		return Caller{}, san.Errorf(san.KindUnauthenticated, "certificate: %w", err)
	}
	if ok && peer.Role == san.RoleStation && h.Get(onBehalfHeader) != "" {
		var p access.Principal
		if err := json.Unmarshal([]byte(h.Get(onBehalfHeader)), &p); err != nil {
			return Caller{}, san.Errorf(san.KindInvalid, "header %s of station %s: %w", onBehalfHeader, peer.ID, err)
		}
		return Caller{Principal: p}, nil
	}
	if bearer := h.Get("Authorization"); bearer != "" {
		p, err := byToken(bearer, v)
		return Caller{Principal: p}, err
	}
	if ok {
		p, err := byCertificate(peer, v)
		return Caller{Principal: p, Peer: peer}, err
	}
	return Caller{Principal: access.Anonymous()}, nil
}

// passOn copies to out what the leader needs to know the caller: the token as it came, or
// the principal that this station knows by certificate.
func (a *authn) passOn(ctx context.Context, in, out http.Header, v fsm.View) error {
	if bearer := in.Get("Authorization"); bearer != "" {
		out.Set("Authorization", bearer)
		return nil
	}
	p := access.Anonymous()
	if peer, ok, err := identity.PeerFrom(ctx); err != nil {
		return san.Errorf(san.KindUnauthenticated, "certificate: %w", err)
	} else if ok {
		if p, err = byCertificate(peer, v); err != nil {
			return err
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	out.Set(onBehalfHeader, string(b))
	return nil
}

func byToken(header string, v fsm.View) (access.Principal, error) {
	text, ok := strings.CutPrefix(header, "Bearer ")
	if !ok {
		return access.Principal{}, san.Errorf(san.KindUnauthenticated, "the Authorization header must be 'Bearer TOKEN'")
	}
	tok, err := identity.ParseOperatorToken(text)
	if err != nil {
		return access.Principal{}, err
	}
	row := v.Token(tok.ID)
	if row == nil || !tok.Verify(row.SecretHash) {
		return access.Principal{}, san.Errorf(san.KindUnauthenticated, "token %s is unknown or revoked; ask an administrator for a new one (sandbar token create)", tok.ID)
	}
	if err := access.CheckExpiry("token "+row.Name, row.ExpiresAt, time.Now()); err != nil {
		return access.Principal{}, err
	}
	return access.OfToken(row.Name, access.Role(row.Role), row.Host), nil
}

// byCertificate refuses certificates of parts that are no longer in the tables.
func byCertificate(p identity.Peer, v fsm.View) (access.Principal, error) {
	known, approved := p.Role == san.RoleStation && stationKnown(p, v), false
	switch p.Role {
	case san.RoleUnit:
		if u := v.Unit(san.UnitID(p.ID)); u != nil {
			known, approved = true, u.Approved
		}
	case san.RoleHost:
		if h := v.Host(san.HostID(p.ID)); h != nil {
			known, approved = h.Agent, h.Agent
		}
	}
	if !known {
		return access.Principal{}, san.Errorf(san.KindUnauthenticated, "%s %s is not enrolled in this cluster any more; enrol it with a new join token", p.Role, p.ID)
	}
	return access.OfPeer(p, approved), nil
}

// name is how the caller appears in the audit and as the owner of request ids.
func (c Caller) name() string { return c.Principal.String() }

// stationKnown refuses stations that were removed. While the tables are still empty (the
// bootstrap) every station with a certificate counts.
func stationKnown(p identity.Peer, v fsm.View) bool {
	return v.Cluster() == nil || v.Station(san.StationID(p.ID)) != nil
}
