package dataplane_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sandbar-san/sandbar/san"
)

// fullFolder is a data folder that is full while full is true.
type fullFolder struct {
	path string
	full atomic.Bool
}

func (f *fullFolder) ReadJSON(name string, v any) (bool, error) {
	b, err := os.ReadFile(filepath.Join(f.path, name))
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(b, v)
}

func (f *fullFolder) WriteJSON(name string, v any) error {
	if f.full.Load() {
		return fmt.Errorf("write %s: %w", name, syscall.ENOSPC)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(f.path, name), b, 0o600)
}

// A unit whose data folder is full serves what it has; the stations hear of the start once its number is stable, and a
// new medium, which could not be remembered, is left alone.
func TestAFullDataFolderKeepsNobodyFromTheirVolumes(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 4*mib)
	data := bytes.Repeat([]byte{0x5A}, 64<<10)
	if err := w.mustLogin(volumeA, "a", hostA).WriteThroughAt(t.Context(), data, 1*mib); err != nil {
		t.Fatal(err)
	}
	w.shutdown()

	folder := &fullFolder{path: w.cfg.Data}
	folder.full.Store(true)
	fresh := filepath.Join(filepath.Dir(w.cfg.Data), "m2")
	w.states, w.cfg.Media = folder, append(w.cfg.Media, fresh)
	w.start()
	d := w.mustLogin(volumeA, "a", hostA)
	got := make([]byte, len(data))
	if err := d.ReadAt(t.Context(), got, 1*mib); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read with a full data folder: %v, equal: %v", err, bytes.Equal(got, data))
	}
	if err := d.WriteThroughAt(t.Context(), data, 0); err != nil {
		t.Errorf("write with a full data folder: %v", err)
	}
	w.station.mu.Lock()
	hellos := len(w.station.hellos)
	w.station.mu.Unlock()
	if hellos != 1 {
		t.Errorf("%d starts were told of, of which one is on disk", hellos)
	}
	if b, err := os.ReadFile(fresh); err != nil || !bytes.Equal(b[:1*mib], make([]byte, 1*mib)) {
		t.Errorf("a medium that can't be remembered was formatted (%v)", err)
	}

	folder.full.Store(false)
	w.station.wait("second start", func() bool {
		return len(w.station.hellos) == 2 && w.station.hellos[1].Incarnation == 2 && len(w.station.storage) > 1
	})
	var kept struct{ Incarnation san.Incarnation }
	if _, err := folder.ReadJSON("unit.json", &kept); err != nil || kept.Incarnation != 2 {
		t.Errorf("start %d is on disk, %v", kept.Incarnation, err)
	}
	w.station.mu.Lock()
	media := w.station.storage[len(w.station.storage)-1].Media
	w.station.mu.Unlock()
	if len(media) != 1 {
		t.Errorf("it tells of media %v", media)
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Errorf("the return to the stations disturbed a session: %v", err)
	}
	w.shutdown()

	w.states = nil
	w.start()
	w.station.wait("the new medium", func() bool { return len(w.station.storage[len(w.station.storage)-1].Media) == 2 })
	w.shutdown()
}

// breakListener makes the socket of this process that listens at address useless, as a kernel in trouble might.
func breakListener(t *testing.T, address string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
			continue
		}
		at, err := unix.Getsockname(fd)
		if err != nil {
			continue
		}
		if a, ok := at.(*unix.SockaddrInet4); !ok || fmt.Sprintf("%d.%d.%d.%d:%d", a.Addr[0], a.Addr[1], a.Addr[2], a.Addr[3], a.Port) != address {
			continue
		}
		if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("nobody listens at %s", address)
}

// Without its probe listener a unit serves on, and listens anew.
func TestAUnitOutlivesItsProbeListener(t *testing.T) {
	w := newWorld(t)
	w.give(volumeA, "a", hostA, 4*mib)
	d := w.mustLogin(volumeA, "a", hostA)
	if _, err := w.station.probe(san.RoleStation, w.cfg.APIListen); err != nil {
		t.Fatal(err)
	}
	breakListener(t, w.cfg.APIListen)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for answered := false; !answered; {
		if err := d.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
			t.Fatalf("a session without the probe listener: %v", err)
		}
		m, err := w.station.probe(san.RoleStation, w.cfg.APIListen)
		answered = err == nil && m.Incarnation == 1
		select {
		case err := <-w.done:
			t.Fatalf("the unit ended: %v", err)
		default:
		}
	}
	if d.Session().Err() != nil {
		t.Error("the session was disturbed")
	}
	w.shutdown()
}
