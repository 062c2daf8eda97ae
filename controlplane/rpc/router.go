package rpc

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/sandbar-san/sandbar/api/convert"
	"github.com/sandbar-san/sandbar/controlplane/replica"
	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/internal/stationclient"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// forwardedHeader marks a call that another station passed on: it is never passed on again.
	forwardedHeader = "Sandbar-Forwarded-By"
	// leaderWait is how long a call is held while there is no leader, an election's length
	// and some.
	leaderWait = 5 * time.Second
)

// Peers reaches other stations.
type Peers interface {
	// APIAddress is where station id answers; "" if that is not known.
	APIAddress(id san.StationID) string
	// Client carries this station's certificate.
	Client() *stationclient.Client
}

// router sends each call to where it must run.
type router struct {
	self    san.StationID
	replica *replica.Replica
	peers   Peers
	auth    *authn
	log     *slog.Logger
	settled atomic.Uint64 // the term in which this leader is known to have seen all that came before it
}

// settle waits, once per term, until this leader's tables have all that was committed
// before its term. Before that it could refuse what it merely has not seen yet, and let in who was
// shut out.
func (r *router) settle(ctx context.Context) error {
	term := r.replica.Term()
	if term != 0 && r.settled.Load() == term {
		return nil
	}
	if _, err := r.replica.ReadIndex(ctx); err != nil {
		return err
	}
	r.settled.Store(term)
	return nil
}

// remoteCall is the method of a service client at some station.
type remoteCall[Q, A any] func(ctx context.Context, ep string, req *connect.Request[Q]) (*connect.Response[A], error)

// lead runs local on the leader: here, or there through remote.
func lead[Q, A any](ctx context.Context, r *router, req *connect.Request[Q], remote remoteCall[Q, A], local func(context.Context, Caller, *Q) (*A, error)) (*connect.Response[A], error) {
	ensureRequestID(any(req.Msg).(proto.Message))
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	deadline := time.Now().Add(leaderWait)
	for {
		out, err := leadOnce(ctx, r, req, remote, local)
		if err == nil || !tryAgain(err) || time.Now().After(deadline) || req.Header().Get(forwardedHeader) != "" {
			return out, convert.ToConnect(err)
		}
		select {
		case <-ctx.Done():
			return nil, convert.ToConnect(err)
		case <-time.After(10*time.Millisecond + rand.N(40*time.Millisecond)):
		}
	}
}

func leadOnce[Q, A any](ctx context.Context, r *router, req *connect.Request[Q], remote remoteCall[Q, A], local func(context.Context, Caller, *Q) (*A, error)) (*connect.Response[A], error) {
	if r.replica.IsLeader() {
		out, err := leadHere(ctx, r, req, local)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(out), nil
	}
	if by := req.Header().Get(forwardedHeader); by != "" {
		return nil, san.Errorf(san.KindUnavailable, "station %s passed the call on to %s, which is not the leader now", by, r.self)
	}
	id, ok := r.replica.Leader()
	ep := ""
	if ok {
		ep = r.peers.APIAddress(id)
	}
	if ep == "" || id == r.self {
		return nil, san.Errorf(san.KindUnavailable, "the stations have no leader at present; a majority of them must run and reach each other")
	}
	freq := connect.NewRequest(req.Msg)
	freq.Header().Set(forwardedHeader, string(r.self))
	if err := r.auth.passOn(ctx, req.Header(), freq.Header()); err != nil {
		return nil, err
	}
	resp, err := remote(ctx, ep, freq)
	switch {
	case convert.Lost(err):
		return nil, san.Errorf(san.KindUnknown, "the leader, station %s, was lost before it answered; ask again with the same request id: %w", id, convert.FromConnect(err))
	case err != nil:
		return nil, convert.FromConnect(err)
	}
	return connect.NewResponse(resp.Msg), nil
}

// leadHere runs local on this station, which takes itself for the leader.
func leadHere[Q, A any](ctx context.Context, r *router, req *connect.Request[Q], local func(context.Context, Caller, *Q) (*A, error)) (*A, error) {
	if err := r.settle(ctx); err != nil {
		return nil, err
	}
	m := any(req.Msg).(proto.Message)
	v := r.replica.View()
	caller, err := r.auth.callerOf(ctx, req.Header(), v, m)
	if err == nil {
		var out *A
		if out, err = local(ctx, caller, req.Msg); err == nil || tryAgain(err) {
			return out, err
		}
	}
	// A refusal tells what the tables hold, which only a leader that still is one knows.
	now, lost := r.replica.ReadIndex(ctx)
	if lost != nil {
		return nil, lost
	}
	// The same request may have been answered meanwhile: a retry that overtook its first try.
	if id := requestID(m); id != "" && v.Request(caller.name(), id) == nil && now.Request(caller.name(), id) != nil {
		return local(ctx, caller, req.Msg)
	}
	return nil, err
}

// tryAgain tells whether another try, maybe at another leader, can help. An unknown
// outcome is safe to try again because the request id stays.
func tryAgain(err error) bool {
	k := san.KindOf(err)
	return !convert.IsFinal(err) && (k == san.KindUnavailable || k == san.KindUnknown)
}

// local answers from this station's own tables.
func local[Q, A any](ctx context.Context, r *router, req *connect.Request[Q], fn func(context.Context, Caller, fsm.View, *Q) (*A, error)) (*connect.Response[A], error) {
	v := r.replica.View()
	caller, err := r.auth.callerOf(ctx, req.Header(), v, any(req.Msg).(proto.Message))
	if err != nil {
		return nil, convert.ToConnect(err)
	}
	out, err := fn(ctx, caller, v, req.Msg)
	if err != nil {
		return nil, convert.ToConnect(err)
	}
	return connect.NewResponse(out), nil
}

// read answers a read: from this station's tables when stale is set, else linearizably
// by the leader.
func read[Q, A any](ctx context.Context, r *router, req *connect.Request[Q], stale bool, remote remoteCall[Q, A], fn func(context.Context, Caller, fsm.View, *Q) (*A, error)) (*connect.Response[A], error) {
	if stale {
		return local(ctx, r, req, fn)
	}
	return lead(ctx, r, req, remote, func(ctx context.Context, c Caller, q *Q) (*A, error) {
		v, err := r.replica.ReadIndex(ctx)
		if err != nil {
			return nil, err
		}
		return fn(ctx, c, v, q)
	})
}
