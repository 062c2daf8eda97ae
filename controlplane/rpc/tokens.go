package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/controlplane/access"
	"github.com/sandbar-san/sandbar/controlplane/wire"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/identity"
	"github.com/sandbar-san/sandbar/san"
)

// defaultJoinTTL is how long a join token lives unless asked otherwise.
const defaultJoinTTL = 24 * time.Hour

func tokenObject(name string) access.Object {
	return access.Object{Kind: access.ObjectToken, Name: clip(name)}
}

// errShownOnce answers a retry of a token's creation: its secret is nowhere any more.
func errShownOnce(id string) error {
	return san.Errorf(san.KindConflict, "token %s was made by the first try of this request and its text is shown only once; delete it and make another", id)
}

// CreateToken implements TokenService.
func (s *Server) CreateToken(ctx context.Context, req *connect.Request[pb.CreateTokenRequest]) (*connect.Response[pb.CreateTokenResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.CreateTokenRequest]) (*connect.Response[pb.CreateTokenResponse], error) {
		return s.peers.Client().Tokens(ep).CreateToken(ctx, r)
	}, s.createToken)
}

func (s *Server) createToken(ctx context.Context, c Caller, m *pb.CreateTokenRequest) (*pb.CreateTokenResponse, error) {
	if err := access.Authorize(c.Principal, access.ActionTokenWrite, tokenObject(m.Name)); err != nil {
		return nil, err
	}
	h, replay, err := s.header(c, m)
	if err != nil {
		return nil, err
	}
	if replay != nil {
		return nil, errShownOnce(replay.Object)
	}
	if err := san.CheckName("token", m.Name); err != nil {
		return nil, err
	}
	if err := access.CheckRole(access.Role(m.Role), san.HostID(m.HostId)); err != nil {
		return nil, err
	}
	tok := identity.NewOperatorToken()
	row := fsm.Token{ID: tok.ID, Name: m.Name, Role: m.Role, Host: san.HostID(m.HostId), SecretHash: tok.Hash(), CreatedAt: h.At}
	if m.TtlSeconds > 0 {
		row.ExpiresAt = h.At.Add(time.Duration(m.TtlSeconds) * time.Second)
	}
	res, err := s.propose(ctx, &fsm.CreateToken{H: h, Token: row})
	if err != nil {
		return nil, err
	}
	if res.Replayed {
		return nil, errShownOnce(res.Object)
	}
	return &pb.CreateTokenResponse{Token: wire.Token(&row), Secret: tok.Reveal()}, nil
}

// CreateJoinToken implements TokenService.
func (s *Server) CreateJoinToken(ctx context.Context, req *connect.Request[pb.CreateJoinTokenRequest]) (*connect.Response[pb.CreateJoinTokenResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.CreateJoinTokenRequest]) (*connect.Response[pb.CreateJoinTokenResponse], error) {
		return s.peers.Client().Tokens(ep).CreateJoinToken(ctx, r)
	}, s.createJoinToken)
}

func (s *Server) createJoinToken(ctx context.Context, c Caller, m *pb.CreateJoinTokenRequest) (*pb.CreateJoinTokenResponse, error) {
	if err := access.Authorize(c.Principal, access.ActionTokenWrite, tokenObject(m.Name)); err != nil {
		return nil, err
	}
	h, replay, err := s.header(c, m)
	if err != nil {
		return nil, err
	}
	if replay != nil {
		return nil, errShownOnce(replay.Object)
	}
	if err := san.CheckName("join token", m.Name); err != nil {
		return nil, err
	}
	role := san.Role(m.Role)
	if !role.Valid() {
		return nil, san.Errorf(san.KindInvalid, "join token role %q is not one of station, unit, host", clip(m.Role))
	}
	ttl := time.Duration(m.TtlSeconds) * time.Second
	if ttl == 0 {
		ttl = defaultJoinTTL
	}
	tok := identity.NewJoinToken(s.identity.CAFingerprint())
	row := fsm.JoinToken{
		ID: tok.ID, Name: m.Name, Role: role, SecretHash: tok.Hash(), CreatedAt: h.At, ExpiresAt: h.At.Add(ttl),
		Approve: m.Approve, MaxUses: m.MaxUses,
	}
	res, err := s.propose(ctx, &fsm.CreateJoinToken{H: h, Token: row})
	if err != nil {
		return nil, err
	}
	if res.Replayed {
		return nil, errShownOnce(res.Object)
	}
	return &pb.CreateJoinTokenResponse{Token: wire.JoinToken(&row), Secret: tok.Reveal()}, nil
}

// ListTokens implements TokenService.
func (s *Server) ListTokens(ctx context.Context, req *connect.Request[pb.ListTokensRequest]) (*connect.Response[pb.ListTokensResponse], error) {
	return read(ctx, &s.router, req, false, func(ctx context.Context, ep string, r *connect.Request[pb.ListTokensRequest]) (*connect.Response[pb.ListTokensResponse], error) {
		return s.peers.Client().Tokens(ep).ListTokens(ctx, r)
	}, func(_ context.Context, c Caller, v fsm.View, m *pb.ListTokensRequest) (*pb.ListTokensResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionTokenWrite, tokenObject("")); err != nil {
			return nil, err
		}
		out := &pb.ListTokensResponse{}
		out.Tokens, out.NextPageToken = pageOf(allTokens(v), m.PageSize, m.PageToken, tokenKey, func(t *pb.Token) *pb.Token { return t })
		return out, nil
	})
}

// allTokens are the operator tokens and then the join tokens, each by id: the order of tokenKey.
func allTokens(v fsm.View) []*pb.Token {
	var out []*pb.Token
	for _, t := range v.Tokens() {
		out = append(out, wire.Token(t))
	}
	for _, t := range v.JoinTokens() {
		out = append(out, wire.JoinToken(t))
	}
	return out
}

func tokenKey(t *pb.Token) string {
	if t.Join {
		return "join/" + t.Id
	}
	return "/" + t.Id
}

// DeleteToken implements TokenService.
func (s *Server) DeleteToken(ctx context.Context, req *connect.Request[pb.DeleteTokenRequest]) (*connect.Response[pb.DeleteTokenResponse], error) {
	return lead(ctx, &s.router, req, func(ctx context.Context, ep string, r *connect.Request[pb.DeleteTokenRequest]) (*connect.Response[pb.DeleteTokenResponse], error) {
		return s.peers.Client().Tokens(ep).DeleteToken(ctx, r)
	}, func(ctx context.Context, c Caller, m *pb.DeleteTokenRequest) (*pb.DeleteTokenResponse, error) {
		if err := access.Authorize(c.Principal, access.ActionTokenWrite, tokenObject(m.Id)); err != nil {
			return nil, err
		}
		h, replay, err := s.header(c, m)
		if err != nil || replay != nil {
			return &pb.DeleteTokenResponse{}, err
		}
		id, v := san.TokenID(m.Id), s.replica.View()
		switch {
		case v.Token(id) != nil:
			_, err = s.propose(ctx, &fsm.DeleteToken{H: h, ID: id})
		case v.JoinToken(id) != nil:
			_, err = s.propose(ctx, &fsm.DeleteJoinToken{H: h, ID: id})
		default:
			err = san.Errorf(san.KindNotFound, "token %q does not exist; 'sandbar token list' shows those that do", clip(m.Id))
		}
		return &pb.DeleteTokenResponse{}, err
	})
}
