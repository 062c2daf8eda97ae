package rpc

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/access"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// onBehalfHeader carries who the first station's caller is by certificate. It counts only from a
// station's own certificate.
const onBehalfHeader = "Sandbar-On-Behalf-Of"

// onBehalf is that header's content, in JSON. Without a role the caller showed neither token nor
// certificate. The leader judges it, by its own tables: another station's may be behind.
type onBehalf struct {
	Role   san.Role `json:"role,omitempty"`
	ID     string   `json:"id,omitempty"`
	Serial string   `json:"serial,omitempty"`
}

// Caller is who makes a call.
type Caller struct {
	access.Principal
	// Superseded says that the caller's certificate is not the one that its part was given last.
	// It is good for one thing: to ask again for the newer one, if its delivery was lost.
	Superseded bool
}

// authn finds out who calls.
type authn struct {
	// member tells whether a station is in the Raft group. Those that founded the cluster are before they are
	// in the tables.
	member func(san.StationID) bool
}

// callerOf judges the caller of the call with message m against the tables of v.
func (a *authn) callerOf(ctx context.Context, h http.Header, v fsm.View, m proto.Message) (Caller, error) {
	c, err := a.caller(ctx, h, v)
	if _, renewal := m.(*pb.EnrolRequest); err == nil && c.Superseded && !renewal {
		err = san.Errorf(san.KindUnauthenticated, "%s was given a newer certificate than the one that it shows; let it use that, or enrol it anew", c.name())
	}
	return c, err
}

func (a *authn) caller(ctx context.Context, h http.Header, v fsm.View) (Caller, error) {
	peer, ok, err := identity.PeerFrom(ctx)
	if err != nil {
		return Caller{}, san.Errorf(san.KindUnauthenticated, "certificate: %w", err)
	}
	if text := h.Get(onBehalfHeader); ok && peer.Role == san.RoleStation && text != "" {
		if !a.stationKnown(peer, v) {
			return Caller{}, notEnrolled(peer)
		}
		var who onBehalf
		if err := json.Unmarshal([]byte(text), &who); err != nil {
			return Caller{}, san.Errorf(san.KindInvalid, "header %s of station %s: %w", onBehalfHeader, peer.ID, err)
		}
		peer, ok = identity.Peer{Role: who.Role, ID: who.ID, Serial: who.Serial}, who.Role != ""
	} else if bearer := h.Get("Authorization"); bearer != "" {
		p, err := byToken(bearer, v)
		return Caller{Principal: p}, err
	}
	if ok {
		return a.byCertificate(peer, v)
	}
	return Caller{Principal: access.Anonymous()}, nil
}

// passOn copies to out what the leader needs to know the caller: the token as it came, or what
// the certificate says.
func (a *authn) passOn(ctx context.Context, in, out http.Header) error {
	if bearer := in.Get("Authorization"); bearer != "" {
		out.Set("Authorization", bearer)
		return nil
	}
	var who onBehalf
	if peer, ok, err := identity.PeerFrom(ctx); err != nil {
		return san.Errorf(san.KindUnauthenticated, "certificate: %w", err)
	} else if ok {
		who = onBehalf{Role: peer.Role, ID: peer.ID, Serial: peer.Serial}
	}
	b, err := json.Marshal(who)
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

// byCertificate refuses certificates of parts that are no longer in the tables. A unit's or
// host's must be the one that it was given last: a part of the same name may have been there before.
func (a *authn) byCertificate(p identity.Peer, v fsm.View) (Caller, error) {
	known, approved, serial := false, false, p.Serial
	switch p.Role {
	case san.RoleStation:
		known = a.stationKnown(p, v)
	case san.RoleUnit:
		if u := v.Unit(san.UnitID(p.ID)); u != nil {
			known, approved, serial = true, u.Approved, u.CertSerial
		}
	case san.RoleHost:
		if h := v.Host(san.HostID(p.ID)); h != nil {
			known, approved, serial = h.Agent, h.Agent, h.CertSerial
		}
	}
	if !known {
		return Caller{}, notEnrolled(p)
	}
	return Caller{Principal: access.OfPeer(p, approved), Superseded: serial != p.Serial}, nil
}

func notEnrolled(p identity.Peer) error {
	return san.Errorf(san.KindUnauthenticated, "%s %s is not enrolled in this cluster any more; enrol it with a new join token", p.Role, p.ID)
}

// name is how the caller appears in the audit and as the owner of request ids.
func (c Caller) name() string { return c.Principal.String() }

// stationKnown refuses stations that were removed. While the tables are still empty (the
// bootstrap) every station with a certificate counts.
func (a *authn) stationKnown(p identity.Peer, v fsm.View) bool {
	id := san.StationID(p.ID)
	return v.Cluster() == nil || v.Station(id) != nil || a.member(id)
}
