package convert

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"

	pb "github.com/sandbar-san/sandbar/api/gen/sandbar/v1"
	"github.com/sandbar-san/sandbar/api/gen/sandbar/v1/sandbarv1connect"
	"github.com/sandbar-san/sandbar/san"
)

// failing answers every call with its error.
type failing struct {
	sandbarv1connect.UnimplementedStationServiceHandler
	err error
}

func (f *failing) Health(context.Context, *connect.Request[pb.HealthRequest]) (*connect.Response[pb.HealthResponse], error) {
	return nil, ToConnect(f.err)
}

// TestKindsOverHTTP: an error's kind and message come over each protocol as they are.
func TestKindsOverHTTP(t *testing.T) {
	f := &failing{}
	mux := http.NewServeMux()
	mux.Handle(sandbarv1connect.NewStationServiceHandler(f))
	srv := httptest.NewUnstartedServer(mux)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	status := map[san.Kind]int{
		san.KindInternal: 500, san.KindInvalid: 400, san.KindNotFound: 404, san.KindExists: 409, san.KindConflict: 400, san.KindNoSpace: 429,
		san.KindUnauthenticated: 401, san.KindDenied: 403, san.KindUnavailable: 503, san.KindUnknown: 503,
	}
	for name, opts := range map[string][]connect.ClientOption{"connect": nil, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()}} {
		cl := sandbarv1connect.NewStationServiceClient(srv.Client(), srv.URL, opts...)
		for k := san.KindInternal; k <= san.KindUnknown; k++ {
			f.err = san.Wrap("create volume", san.Errorf(k, "nö such thing"))
			_, err := cl.Health(context.Background(), connect.NewRequest(&pb.HealthRequest{}))
			if got := FromConnect(err); san.KindOf(got) != k || got.Error() != "create volume: nö such thing" {
				t.Errorf("%s: %v came as %v: %v", name, k, san.KindOf(got), got)
			}
			if Lost(err) {
				t.Errorf("%s: an answer counts as lost", name)
			}
			resp, err := srv.Client().Post(srv.URL+sandbarv1connect.StationServiceHealthProcedure, "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != status[k] {
				t.Errorf("%v has HTTP status %d, docs/api.md says %d", k, resp.StatusCode, status[k])
			}
		}
	}
}

func TestContextErrors(t *testing.T) {
	for _, x := range []struct {
		err  error
		code connect.Code
	}{
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
		{fmt.Errorf("wait: %w", context.Canceled), connect.CodeUnavailable},
		{san.Errorf(san.KindUnknown, "gave up: %w", context.Canceled), connect.CodeUnavailable},
		{san.Errorf(san.KindConflict, "busy: %w", context.DeadlineExceeded), connect.CodeFailedPrecondition},
		{connect.NewError(connect.CodeAborted, errors.New("x")), connect.CodeAborted},
	} {
		if got := connect.CodeOf(ToConnect(x.err)); got != x.code {
			t.Errorf("%v has code %v, want %v", x.err, got, x.code)
		}
	}
}

func TestLost(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer srv.Close()
	cl := sandbarv1connect.NewStationServiceClient(srv.Client(), srv.URL)
	_, err := cl.Health(context.Background(), connect.NewRequest(&pb.HealthRequest{}))
	if !Lost(err) || san.KindOf(FromConnect(err)) != san.KindUnavailable {
		t.Errorf("a connection that broke: %v, lost %v", err, Lost(err))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = cl.Health(ctx, connect.NewRequest(&pb.HealthRequest{}))
	if got := FromConnect(err); !errors.Is(got, context.Canceled) {
		t.Errorf("a call that its caller cancelled: %v", got)
	}
	refused := connect.NewError(connect.CodeUnavailable, san.Errorf(san.KindUnauthenticated, "another cluster's certificate"))
	if got := FromConnect(refused); san.KindOf(got) != san.KindUnauthenticated {
		t.Errorf("what TLS refused: %v", got)
	}
	for _, err := range []error{nil, errors.New("x")} {
		if Lost(err) || FromConnect(err) != err {
			t.Errorf("%v is no answer of a station", err)
		}
	}
}

// TestFinalOverHTTP: that there is no use in asking again comes over the wire, and over a second one.
func TestFinalOverHTTP(t *testing.T) {
	f := &failing{}
	mux := http.NewServeMux()
	mux.Handle(sandbarv1connect.NewStationServiceHandler(f))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	cl := sandbarv1connect.NewStationServiceClient(srv.Client(), srv.URL)
	away := san.Errorf(san.KindUnavailable, "unit u1 is Stopped")
	for _, x := range []struct {
		err   error
		final bool
	}{{away, false}, {Final(away), true}, {fmt.Errorf("volume v: %w", Final(away)), true}} {
		f.err = x.err
		for range 2 {
			_, err := cl.Health(context.Background(), connect.NewRequest(&pb.HealthRequest{}))
			if IsFinal(err) != x.final || san.KindOf(FromConnect(err)) != san.KindUnavailable || FromConnect(err).Error() != x.err.Error() {
				t.Errorf("%v came as %v, final: %v", x.err, err, IsFinal(err))
			}
			f.err = FromConnect(err) // as a station passes it on
		}
	}
	if Final(nil) != nil || IsFinal(nil) {
		t.Error("no error is final")
	}
}
