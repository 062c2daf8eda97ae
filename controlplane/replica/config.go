package replica

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// Timing is how fast a group of stations notices and repairs. All stations of a cluster should have the
// same.
type Timing struct {
	// Heartbeat is how long a follower hears nothing before it asks for an election.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes; at least Heartbeat.
	Election time.Duration
	// Lease is how long a leader without a quorum goes on; at most Heartbeat.
	Lease time.Duration
	// Commit bounds how late a follower learns on an idle group what was committed.
	Commit time.Duration
	// RPC bounds one exchange between stations; below Heartbeat, on which linearizable reads rely.
	RPC time.Duration
}

// Safe suits stations on any network with round trips up to some 50 ms.
func Safe() Timing {
	return Timing{Heartbeat: time.Second, Election: time.Second, Lease: 500 * time.Millisecond,
		Commit: 20 * time.Millisecond, RPC: 900 * time.Millisecond}
}

// LAN suits stations on one local network: a lost leader is replaced in well under a second.
func LAN() Timing {
	return Timing{Heartbeat: 300 * time.Millisecond, Election: 300 * time.Millisecond, Lease: 200 * time.Millisecond,
		Commit: 10 * time.Millisecond, RPC: 270 * time.Millisecond}
}

// Fast suits tests over loopback on a machine that has nothing else to do.
func Fast() Timing {
	return Timing{Heartbeat: 150 * time.Millisecond, Election: 150 * time.Millisecond, Lease: 100 * time.Millisecond,
		Commit: 5 * time.Millisecond, RPC: 140 * time.Millisecond}
}

func (t Timing) check() error {
	switch {
	case t.Heartbeat <= 0 || t.Commit <= 0 || t.RPC <= 0:
		return san.Errorf(san.KindInvalid, "raft timing has an empty field; start from replica.Safe() or replica.LAN()")
	case t.Election < t.Heartbeat:
		return san.Errorf(san.KindInvalid, "raft election timeout %v is below the heartbeat timeout %v; raise it", t.Election, t.Heartbeat)
	case t.Lease <= 0 || t.Lease > t.Heartbeat:
		return san.Errorf(san.KindInvalid, "raft leader lease %v is not between 0 and the heartbeat timeout %v", t.Lease, t.Heartbeat)
	case t.RPC >= t.Heartbeat:
		return san.Errorf(san.KindInvalid, "raft RPC timeout %v is not below the heartbeat timeout %v, on which linearizable reads rely", t.RPC, t.Heartbeat)
	}
	return nil
}

// Defaults and bounds.
const (
	// DefaultStallLimit is how long one write may hang before the replica gives up.
	DefaultStallLimit = 8 * time.Second
	// DefaultSnapshotThreshold is how many entries since the last snapshot make a new one worthwhile.
	DefaultSnapshotThreshold = 8192
	// DefaultSnapshotInterval is how often that is looked at; raft spreads it up to twice as long.
	DefaultSnapshotInterval = 30 * time.Second
	// DefaultTrailingEntries stay in the log after a snapshot, so that a follower that was away for a
	// moment needs no snapshot.
	DefaultTrailingEntries = 10240

	snapshotsRetained = 2
	// entriesPerAppend bounds one replication message and one group commit: 256 of the largest
	// commands (512 KiB) are 128 MiB.
	entriesPerAppend = 256
	logCacheEntries  = 512
	// enqueueLimit is how long a proposal may wait for raft to take it.
	enqueueLimit = 2 * time.Second
	// lockWait is how long Open waits for another process to give the folder up.
	lockWait = 500 * time.Millisecond
)

// Config is what a replica needs. Fields are required unless said otherwise.
type Config struct {
	// ID is this station, as its certificate says.
	ID san.StationID
	// Dir is the folder for log and snapshots; it is made if absent, and locked.
	Dir string
	// Advertise is host:port at which other stations reach Listener.
	Advertise string
	// Listener takes the other stations' raw connections. Open takes it over, also when it fails.
	Listener net.Listener
	// Dial opens a raw connection to a station; nil means TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// ServerTLS and ClientTLS authenticate both sides as stations of this cluster.
	ServerTLS, ClientTLS *tls.Config
	// PeerID tells which station a connection's certificate names. A station at another's address is
	// refused: its votes and acknowledgements would count twice.
	PeerID func(tls.ConnectionState) (san.StationID, error)
	// Machine is the state machine; the replica alone calls its Apply and Restore.
	Machine *fsm.Machine
	// Timing is optional; zero means Safe().
	Timing Timing
	// StallLimit is optional; 0 means DefaultStallLimit.
	StallLimit time.Duration
	// SnapshotThreshold, SnapshotInterval and TrailingEntries are optional; 0 means the defaults.
	SnapshotThreshold uint64
	SnapshotInterval  time.Duration
	TrailingEntries   uint64
	Logger            *slog.Logger

	// Tests: a slow or failing disk, and a disk that is not synced.
	wrapLog    func(raft.LogStore) raft.LogStore
	wrapStable func(raft.StableStore) raft.StableStore
	noSync     bool
}

func (c *Config) fill() error {
	if c.Timing == (Timing{}) {
		c.Timing = Safe()
	}
	if c.StallLimit == 0 {
		c.StallLimit = DefaultStallLimit
	}
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = DefaultSnapshotThreshold
	}
	if c.SnapshotInterval == 0 {
		c.SnapshotInterval = DefaultSnapshotInterval
	}
	if c.TrailingEntries == 0 {
		c.TrailingEntries = DefaultTrailingEntries
	}
	if c.Dial == nil {
		dialer := &net.Dialer{}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	if err := san.CheckName("station", string(c.ID)); err != nil {
		return err
	}
	switch {
	case c.Listener == nil || c.ServerTLS == nil || c.ClientTLS == nil || c.PeerID == nil:
		return san.Errorf(san.KindInternal, "replica of station %s has no listener or no TLS configuration", c.ID)
	case c.Machine == nil || c.Logger == nil:
		return san.Errorf(san.KindInternal, "replica of station %s has no state machine or no logger", c.ID)
	case c.Dir == "":
		return san.Errorf(san.KindInvalid, "station %s has no folder for its log; give one", c.ID)
	}
	if _, _, err := net.SplitHostPort(c.Advertise); err != nil {
		return san.Errorf(san.KindInvalid, "raft address %q of station %s is not host:port: %w", c.Advertise, c.ID, err)
	}
	return c.Timing.check()
}

func (c *Config) raftConfig() *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.ID)
	rc.HeartbeatTimeout = c.Timing.Heartbeat
	rc.ElectionTimeout = c.Timing.Election
	rc.LeaderLeaseTimeout = c.Timing.Lease
	rc.CommitTimeout = c.Timing.Commit
	rc.MaxAppendEntries = entriesPerAppend
	// Proposals queue in a buffer while the leader syncs its log, and go out as one group after.
	rc.BatchApplyCh = true
	rc.ShutdownOnRemove = false
	rc.TrailingLogs = c.TrailingEntries
	rc.SnapshotInterval = c.SnapshotInterval
	rc.SnapshotThreshold = c.SnapshotThreshold
	rc.NoLegacyTelemetry = true
	rc.Logger = newRaftLogger(c.Logger)
	return rc
}
