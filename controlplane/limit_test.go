package controlplane

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestTooManyConnections: those beyond the bound are closed at once, the others go on, and one that ends
// makes room for another.
func TestTooManyConnections(t *testing.T) {
	inner, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const limit = 3
	said := newSaid()
	l := newLimitListener(inner, limit, slog.New(slog.NewTextHandler(said, nil)))
	accepted, ended := make(chan net.Conn, 10), make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	defer func() {
		l.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepting ended with %v", err)
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp4", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	works := func(client, server net.Conn) {
		t.Helper()
		if _, err := server.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	var clients, servers []net.Conn
	for range limit {
		clients = append(clients, dial())
		servers = append(servers, <-accepted)
	}
	for range 2 {
		if n, err := dial().Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("one too many: %d bytes, %v", n, err)
		}
	}
	if err := said.has("turned away"); err != nil || strings.Count(said.text.String(), "\n") != 1 {
		t.Errorf("the log says %q: %v", said.text.String(), err)
	}
	for i := range clients {
		works(clients[i], servers[i])
	}
	for range 2 { // twice is once
		servers[0].Close()
	}
	clients, servers = append(clients, dial()), append(servers, <-accepted)
	works(clients[limit], servers[limit])
	if _, err := dial().Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many after one had gone: %v", err)
	}
	for len(accepted) > 0 {
		t.Error("more were accepted than the bound allows")
		(<-accepted).Close()
	}
	for _, s := range servers {
		s.Close()
	}
}
