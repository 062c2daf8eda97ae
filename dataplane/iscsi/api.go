package iscsi

import (
	"context"
	"net/netip"
	"time"

	"github.com/sandbar-san/sandbar/dataplane/iscsi/meter"
	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// Directory says who may reach what. The unit implements it on its assignments. Its
// methods are called from many logins at once and should answer from memory.
type Directory interface {
	// Discover lists the targets that initiator, calling from that address, may log in
	// to; an unknown initiator gets none.
	Discover(initiator string, from netip.Addr) []Target
	// DiscoveryCHAP returns the credentials that go with a user name in a discovery
	// session in which the initiator offers CHAP: a host has a secret for each of its volumes,
	// and any of them will do. None for an unknown user.
	DiscoveryCHAP(initiator, user string, from netip.Addr) []CHAP
	// Admit judges a login. It is asked twice: when the login begins, and again when the
	// session is listed in Sessions and about to begin, so that an assignment
	// withdrawn in between is seen either by that second question or by CloseSessions.
	//
	// The kinds of its errors become login statuses: KindNotFound 0203, KindDenied 0202,
	// KindUnauthenticated 0201, KindUnavailable 0301, any other 0300.
	Admit(target, initiator string, from netip.Addr) (Admission, error)
}

// Target is one entry of what SendTargets answers.
type Target struct {
	// Name is the target's iSCSI name.
	Name string
	// Portals are its addresses as "address:port,portal group tag" (RFC 7143 §13.8).
	Portals []string
}

// CHAP is a pair of credentials. An empty MutualSecret refuses initiators that ask the target
// to authenticate itself.
type CHAP struct {
	User, Secret             string
	MutualUser, MutualSecret string
}

// equal reports whether c and o ask for the same; nil asks for nothing.
func (c *CHAP) equal(o *CHAP) bool {
	if c == nil || o == nil {
		return c == o
	}
	return *c == *o
}

// Admission is the leave to log in.
type Admission struct {
	// Volume, Host and Generation name the assignment that admits.
	Volume     san.VolumeID
	Host       san.HostID
	Generation san.Generation
	// CHAP is what the initiator must know; nil asks for no authentication.
	CHAP *CHAP
	// PortalGroup is the target portal group tag.
	PortalGroup uint16
	// LU is the logical unit behind the target, at LUN 0.
	LU LogicalUnit
	// Meter counts what the target's sessions do; nil counts for nobody.
	Meter *meter.Target
	// RedirectTo, when set, sends the initiator to another portal, "address:port", for now.
	RedirectTo string
}

// LogicalUnit is the device server that a session's commands go to; *scsi.LU is one.
// It must be comparable: a reset is for all sessions whose LogicalUnit is equal.
type LogicalUnit interface {
	// OpenNexus begins the I_T nexus of one session.
	OpenNexus(initiatorPort string) *scsi.Nexus
	// CloseNexus ends it, after the last of its commands has ended.
	CloseNexus(n *scsi.Nexus)
	// Execute runs one command to its end. It is called from several goroutines at once.
	Execute(ctx context.Context, t *scsi.Task) scsi.Result
	// Reset follows LOGICAL UNIT RESET and TARGET WARM RESET, once all commands are gone.
	Reset(cause scsi.ResetCause, by *scsi.Nexus)
}

// QuickUnit is a LogicalUnit that can do some commands without waiting for anything; *scsi.LU is one.
// What it can the session's reader has it do by itself.
type QuickUnit interface {
	LogicalUnit
	// ExecuteNow is Execute for a command that needs to wait for nothing; else ok is false, and
	// nothing has happened.
	ExecuteNow(t *scsi.Task) (r scsi.Result, ok bool)
}

// SessionInfo describes one session.
type SessionInfo struct {
	// ID is the session's number, unique as long as the server lives.
	ID uint64
	// TSIH is the session's handle on the wire.
	TSIH uint16
	ISID pdu.ISID
	// Discovery sessions have neither Target, Host, Volume nor Generation.
	Discovery  bool
	Target     string
	Initiator  string
	Host       san.HostID
	Volume     san.VolumeID
	Generation san.Generation
	RemoteAddr netip.AddrPort
	Since      time.Time
}
