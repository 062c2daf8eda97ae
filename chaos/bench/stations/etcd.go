package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sandbar-san/sandbar/internal/freeport"
)

// etcd is three members. They are spoken to in gRPC with hand-made messages, so that no client
// library of one side is measured against none of the other.
type etcd struct {
	members []*member
	conns   []*http.Client
	leader  atomic.Pointer[member]
	value   []byte
	n       atomic.Uint64
}

type member struct {
	name, client, peer string
	args               []string
	log                string
	id                 uint64
	cmd                *exec.Cmd
}

func startEtcd(ctx context.Context, dir string) (_ *etcd, err error) {
	e := &etcd{value: make([]byte, 256)}
	if _, err := rand.Read(e.value); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	var cluster []string
	for i := range 3 {
		addrs, err := freeport.Loopback(ctx, 2)
		if err != nil {
			return nil, err
		}
		m := &member{name: fmt.Sprintf("etcd-%d", i+1), client: addrs[0], peer: addrs[1]}
		m.log = filepath.Join(dir, m.name+".log")
		cluster = append(cluster, m.name+"=http://"+m.peer)
		e.members = append(e.members, m)
	}
	for _, m := range e.members {
		m.args = []string{"--name", m.name, "--data-dir", filepath.Join(dir, m.name),
			"--listen-client-urls", "http://" + m.client, "--advertise-client-urls", "http://" + m.client,
			"--listen-peer-urls", "http://" + m.peer, "--initial-advertise-peer-urls", "http://" + m.peer,
			"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new"}
		if err := m.start(); err != nil {
			return nil, fmt.Errorf("etcd (Debian: etcd-server): %w", err)
		}
	}
	for range maxClients / clientsPerConnection {
		tr := &http.Transport{Protocols: &http.Protocols{}}
		tr.Protocols.SetUnencryptedHTTP2(true)
		e.conns = append(e.conns, &http.Client{Transport: tr})
	}
	for end := time.Now().Add(30 * time.Second); ; {
		if err = e.findLeader(ctx); err == nil {
			return e, nil
		}
		if time.Now().After(end) {
			return nil, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (m *member) start() error {
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	m.cmd = exec.Command("etcd", m.args...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	return m.cmd.Start()
}

// rawCodec carries protobuf messages that are bytes already.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(m any) ([]byte, error) { return *m.(*[]byte), nil }

func (rawCodec) Unmarshal(b []byte, m any) error {
	*m.(*[]byte) = bytes.Clone(b)
	return nil
}

func (e *etcd) call(ctx context.Context, conn int, addr, method string, msg []byte) ([]byte, error) {
	c := connect.NewClient[[]byte, []byte](e.conns[conn%len(e.conns)], "http://"+addr+"/etcdserverpb."+method, connect.WithGRPC(), connect.WithCodec(rawCodec{}))
	resp, err := c.CallUnary(ctx, connect.NewRequest(&msg))
	if err != nil {
		return nil, err
	}
	return *resp.Msg, nil
}

// op puts a new key (PutRequest: key = 1, value = 2).
func (e *etcd) op(ctx context.Context, client int) error {
	var msg []byte
	msg = protowire.AppendTag(msg, 1, protowire.BytesType)
	msg = protowire.AppendString(msg, fmt.Sprintf("bench-%d", e.n.Add(1)))
	msg = protowire.AppendTag(msg, 2, protowire.BytesType)
	msg = protowire.AppendBytes(msg, e.value)
	_, err := e.call(ctx, client/clientsPerConnection, e.leader.Load().client, "KV/Put", msg)
	return err
}

// findLeader asks each member for its status (StatusResponse: header = 1 with member_id = 2,
// leader = 4).
func (e *etcd) findLeader(ctx context.Context) error {
	leader := uint64(0)
	for _, m := range e.members {
		actx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		resp, err := e.call(actx, 0, m.client, "Maintenance/Status", nil)
		cancel()
		if err != nil {
			continue
		}
		if header, ok := field(resp, 1); ok {
			if id, ok := varint(header, 2); ok {
				m.id = id
			}
		}
		if id, ok := varint(resp, 4); ok && id != 0 {
			leader = id
		}
	}
	for _, m := range e.members {
		if leader != 0 && m.id == leader {
			e.leader.Store(m)
			return nil
		}
	}
	return errors.New("no member of etcd knows a leader")
}

// field returns the length-delimited field num of a message.
func field(b []byte, num protowire.Number) ([]byte, bool) {
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return nil, false
		}
		b = b[size:]
		if n == num && typ == protowire.BytesType {
			v, size := protowire.ConsumeBytes(b)
			return v, size >= 0
		}
		if size = protowire.ConsumeFieldValue(n, typ, b); size < 0 {
			return nil, false
		}
		b = b[size:]
	}
	return nil, false
}

// varint returns the varint field num of a message.
func varint(b []byte, num protowire.Number) (uint64, bool) {
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return 0, false
		}
		b = b[size:]
		if n == num && typ == protowire.VarintType {
			v, size := protowire.ConsumeVarint(b)
			return v, size >= 0
		}
		if size = protowire.ConsumeFieldValue(n, typ, b); size < 0 {
			return 0, false
		}
		b = b[size:]
	}
	return 0, false
}

// level compares the members' applied indexes (StatusResponse: raftAppliedIndex = 7).
func (e *etcd) level(ctx context.Context) error {
	var low, high uint64
	for i, m := range e.members {
		resp, err := e.call(ctx, 0, m.client, "Maintenance/Status", nil)
		if err != nil {
			return err
		}
		at, ok := varint(resp, 7)
		if !ok {
			return fmt.Errorf("%s tells no applied index", m.name)
		}
		if high = max(high, at); i == 0 || at < low {
			low = at
		}
	}
	if high-low > levelWithin {
		return fmt.Errorf("a member of etcd is %d entries behind", high-low)
	}
	return nil
}

func (e *etcd) killLeader() (func() error, error) {
	m := e.leader.Load()
	if err := m.cmd.Process.Kill(); err != nil {
		return nil, err
	}
	_ = m.cmd.Wait() // it was killed
	return m.start, nil
}

func (e *etcd) stop() {
	for _, m := range e.members {
		if m.cmd != nil && m.cmd.Process != nil {
			_ = m.cmd.Process.Kill() // measured; nothing of it is needed any more
			_ = m.cmd.Wait()
		}
	}
}
