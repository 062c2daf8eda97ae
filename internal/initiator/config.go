package initiator

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// DefaultPort is iSCSI's TCP port (RFC 7143 §4.2.7.1), used when a portal names none.
const DefaultPort = "3260"

// DialFunc opens a connection to a portal; (*net.Dialer).DialContext is one.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// CHAP is a user and secret of the Challenge Handshake Authentication Protocol.
type CHAP struct {
	User   string
	Secret string
}

// RandomISID makes an ISID of the random format (RFC 7143 §11.12.5, type 10b).
func RandomISID() pdu.ISID {
	var id pdu.ISID
	rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	id[0] = 0x80
	return id
}

// DigestMode says what to do about header and data digests (CRC32C, RFC 7143 §13.1).
type DigestMode uint8

const (
	// DigestNone offers no digest: the default, for networks that protect their data.
	DigestNone DigestMode = iota
	// DigestPreferred offers CRC32C first and takes a session without if the target has none.
	DigestPreferred
	// DigestRequired logs in only with CRC32C.
	DigestRequired
)

// Config says whom to log in to, as whom, and how.
type Config struct {
	// Portal is the target's host:port or host; IPv6 literals in brackets.
	Portal string
	// Target is the target's iSCSI name. Discover ignores it.
	Target string
	// InitiatorName is our iSCSI name.
	InitiatorName string
	// ISID distinguishes this initiator's sessions to one target; the zero value takes a
	// random one. A login with an ISID in use takes the older session's place.
	ISID pdu.ISID
	// CHAP is how we prove ourselves; with an empty User the login offers AuthMethod=None alone.
	CHAP CHAP
	// MutualCHAP, with a User or Secret, is what the target must prove in turn. An empty User accepts any
	// name of the target's. Needs CHAP, and a different secret.
	MutualCHAP CHAP
	// CHAPAlgorithms are offered in this order, of which a target takes the first that it knows; empty
	// means MD5 before SHA-256. Put SHA-256 first for targets known to do it right: some, tgt
	// among them, take its number for SHA-1's.
	CHAPAlgorithms []pdu.CHAPAlgorithm
	// HeaderDigest and DataDigest choose CRC32C.
	HeaderDigest, DataDigest DigestMode
	// Limits bound time and memory; zero fields take the defaults.
	Limits Limits
	// Dial opens the connection; nil takes a net.Dialer.
	Dial DialFunc
	// Logger hears of login, loss and oddities, never of single requests; nil is silent.
	Logger *slog.Logger
}

// Limits bound a session's time and memory. Zero fields take the default in brackets.
type Limits struct {
	// QueueDepth is how many requests may be in flight (128; at most 4096). The target's
	// command window may allow fewer.
	QueueDepth int
	// MaxRecvDataSegmentBytes is the longest data segment that we accept (256 KiB; 512 to 16 MiB − 1).
	MaxRecvDataSegmentBytes int
	// MaxBurstBytes is the longest Data-In sequence or solicited Data-Out sequence that we offer (1 MiB).
	MaxBurstBytes int
	// FirstBurstBytes is the most immediate data that we offer (256 KiB).
	FirstBurstBytes int
	// LoginTimeout bounds dialling and login together (15 s).
	LoginTimeout time.Duration
	// RequestTimeout is how long a request may go unanswered before it is aborted (30 s).
	RequestTimeout time.Duration
	// AbortTimeout is how long the target may take to answer an abort before the session is given up (5 s).
	AbortTimeout time.Duration
	// PingInterval is how long the line may be silent before we ping (2 s).
	PingInterval time.Duration
	// PingTimeout is how long a ping may go unanswered before the session is given up (2 s).
	PingTimeout time.Duration
	// LogoutTimeout bounds Logout's wait for requests in flight and for the answer (5 s).
	LogoutTimeout time.Duration
	// LoginTextBytes bounds the text of one login answer (64 KiB).
	LoginTextBytes int
	// DiscoveryTextBytes bounds a whole SendTargets answer (1 MiB).
	DiscoveryTextBytes int
	// Redirects is how many times one login may be sent to another portal (4).
	Redirects int
}

const maxQueueDepth = 4096

func orDefault[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

func (l Limits) withDefaults() Limits {
	orDefault(&l.QueueDepth, 128)
	orDefault(&l.MaxRecvDataSegmentBytes, 256<<10)
	orDefault(&l.MaxBurstBytes, 1<<20)
	orDefault(&l.FirstBurstBytes, 256<<10)
	orDefault(&l.LoginTimeout, 15*time.Second)
	orDefault(&l.RequestTimeout, 30*time.Second)
	orDefault(&l.AbortTimeout, 5*time.Second)
	orDefault(&l.PingInterval, 2*time.Second)
	orDefault(&l.PingTimeout, 2*time.Second)
	orDefault(&l.LogoutTimeout, 5*time.Second)
	orDefault(&l.LoginTextBytes, 64<<10)
	orDefault(&l.DiscoveryTextBytes, 1<<20)
	orDefault(&l.Redirects, 4)
	l.FirstBurstBytes = min(l.FirstBurstBytes, l.MaxBurstBytes) // RFC 7143 §13.14
	return l
}

func (l Limits) check() error {
	const maxSegment = 1<<24 - 1 // RFC 7143 §13.12
	switch {
	case l.QueueDepth < 1 || l.QueueDepth > maxQueueDepth:
		return san.Errorf(san.KindInvalid, "initiator queue depth %d is out of range; use 1 to %d", l.QueueDepth, maxQueueDepth)
	case l.MaxRecvDataSegmentBytes < 512 || l.MaxRecvDataSegmentBytes > maxSegment:
		return san.Errorf(san.KindInvalid, "initiator data segment limit %d is out of range; use 512 to %d", l.MaxRecvDataSegmentBytes, maxSegment)
	case l.MaxBurstBytes < 512 || l.MaxBurstBytes > maxSegment:
		return san.Errorf(san.KindInvalid, "initiator burst limit %d is out of range; use 512 to %d", l.MaxBurstBytes, maxSegment)
	case l.FirstBurstBytes < 512:
		return san.Errorf(san.KindInvalid, "initiator first burst limit %d is out of range; use 512 or more", l.FirstBurstBytes)
	case l.LoginTextBytes < 512 || l.DiscoveryTextBytes < 512 || l.Redirects < 0:
		return san.Errorf(san.KindInvalid, "initiator text limits must be 512 bytes or more and redirects not negative")
	}
	for _, d := range []time.Duration{l.LoginTimeout, l.RequestTimeout, l.AbortTimeout, l.PingInterval, l.PingTimeout, l.LogoutTimeout} {
		if d < time.Millisecond {
			return san.Errorf(san.KindInvalid, "initiator time-out %v is too short; use a millisecond or more", d)
		}
	}
	return nil
}

// prepare fills in defaults and checks what can be checked without the network.
func (c Config) prepare(discovery bool) (Config, error) {
	c.Limits = c.Limits.withDefaults()
	if err := c.Limits.check(); err != nil {
		return c, err
	}
	if err := san.CheckInitiatorName(c.InitiatorName); err != nil {
		return c, err
	}
	if !discovery {
		if err := checkTargetName(c.Target); err != nil {
			return c, err
		}
	}
	if err := c.checkCHAP(); err != nil {
		return c, err
	}
	portal, err := normalizePortal(c.Portal)
	if err != nil {
		return c, err
	}
	c.Portal = portal
	if c.ISID == (pdu.ISID{}) {
		c.ISID = RandomISID()
	}
	if len(c.CHAPAlgorithms) == 0 {
		c.CHAPAlgorithms = []pdu.CHAPAlgorithm{pdu.CHAPMD5, pdu.CHAPSHA256}
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// checkTargetName accepts any name that can be carried in a login: third-party targets
// are free in what they call themselves.
func checkTargetName(s string) error {
	if s == "" || len(s) > san.MaxInitiatorNameLength || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return san.Errorf(san.KindInvalid, "target name %q is no iSCSI name; give one like iqn.2004-10.com.example:disk1", s)
	}
	return nil
}

func (c Config) mutual() bool { return c.MutualCHAP != (CHAP{}) }

func (c Config) checkCHAP() error {
	const maxText = 255 // RFC 7143 §6.1: a text value
	switch {
	case c.CHAP.User == "" && c.CHAP.Secret != "":
		return san.Errorf(san.KindInvalid, "a CHAP secret without a user was given for %s; give both", c.Target)
	case c.CHAP.User != "" && c.CHAP.Secret == "":
		return san.Errorf(san.KindInvalid, "the CHAP secret of user %q is empty; give both", c.CHAP.User)
	case c.mutual() && c.CHAP.User == "":
		return san.Errorf(san.KindInvalid, "mutual CHAP needs our own CHAP user and secret too")
	case c.mutual() && c.MutualCHAP.Secret == "":
		return san.Errorf(san.KindInvalid, "the target's CHAP secret is empty; give the one that it must prove")
	case c.mutual() && c.MutualCHAP.Secret == c.CHAP.Secret:
		return san.Errorf(san.KindInvalid, "both CHAP secrets are the same, which RFC 7143 §12.1.3 forbids; choose a different one for the target")
	}
	for _, a := range c.CHAPAlgorithms {
		if a.ChallengeBytes() == 0 {
			return san.Errorf(san.KindInvalid, "CHAP algorithm %d is not supported; use %d (MD5) or %d (SHA-256)", a, pdu.CHAPMD5, pdu.CHAPSHA256)
		}
	}
	for _, s := range []string{c.CHAP.User, c.CHAP.Secret, c.MutualCHAP.User, c.MutualCHAP.Secret} {
		if len(s) > maxText || strings.ContainsRune(s, 0) {
			return san.Errorf(san.KindInvalid, "a CHAP user or secret is longer than %d bytes or has a NUL in it", maxText)
		}
	}
	return nil
}

// normalizePortal gives portal a port if it has none, and drops the portal group tag of a TargetAddress
// (RFC 7143 §13.8).
func normalizePortal(portal string) (string, error) {
	addr, _, _ := strings.Cut(portal, ",")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port, err = net.SplitHostPort(addr + ":" + DefaultPort)
	}
	if err != nil || host == "" || port == "" {
		return "", san.Errorf(san.KindInvalid, "portal %q is no address; give host:port, with IPv6 in brackets", portal)
	}
	return net.JoinHostPort(host, port), nil
}

// String renders the configuration without its secrets.
func (c Config) String() string {
	return fmt.Sprintf("%s at %s as %s", c.Target, c.Portal, c.InitiatorName)
}

// LogValue keeps secrets out of logs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String hides the secret.
func (c CHAP) String() string { return c.User + ":(hidden)" }
