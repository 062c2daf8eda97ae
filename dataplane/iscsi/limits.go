package iscsi

import (
	"time"

	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/san"
)

// Limits bounds what clients can make the server do and hold. A zero field takes its
// default.
type Limits struct {
	// MaxConnections bounds the connections of the server; more are closed at once. 2048.
	MaxConnections int
	// MaxSessionsPerHost bounds one host's sessions with all targets. Half of MaxConnections.
	MaxSessionsPerHost int
	// MaxLogins bounds the connections that have not logged in yet, MaxLoginsPerAddress
	// those from one address. Beyond the first the address with the most loses one. 256 and 64.
	MaxLogins, MaxLoginsPerAddress int
	// LoginTimeout is the time from accept to the end of the login. 15 s.
	LoginTimeout time.Duration
	// MaxLoginBytes bounds what a connection may send before its login ends, MaxLoginPDUs
	// the steps that it may take. 64 KiB and 32.
	MaxLoginBytes, MaxLoginPDUs int
	// MaxTextBytes bounds the answer to SendTargets. 1 MiB.
	MaxTextBytes int
	// QueueDepth is the command window: how many commands with a CmdSN a session may have
	// open. 128. As many immediate ones as an eighth of it are taken besides.
	QueueDepth int
	// ParallelCommands bounds how many of a session's commands execute at a time. 32.
	ParallelCommands int
	// MaxRecvDataSegmentLength, FirstBurstLength and MaxBurstLength are what is offered in
	// negotiation, in bytes. 256 KiB, 256 KiB, 1 MiB.
	MaxRecvDataSegmentLength, FirstBurstLength, MaxBurstLength uint32
	// MaxOutstandingR2T bounds the transfers that are solicited for one command at a time. 8.
	MaxOutstandingR2T uint32
	// TotalBufferBytes bounds the data of all sessions' commands and answers: what has come of writes and what
	// reads have to send. Those that find no room wait; see budget for who gets it. 512 MiB.
	TotalBufferBytes int
	// OwnBufferBytes is what each session has of it for itself, whatever the others do. 128 KiB.
	OwnBufferBytes int
	// BufferBytes bounds what one session's whole commands may take of the rest. At least scsi.MaxTransferBytes. 64 MiB.
	BufferBytes int
	// PingInterval is the time of silence after which an initiator is asked whether it is there, by
	// NOP-In; PingTimeout that in which it must answer, and in which a blocked send must
	// make progress. 15 s and 30 s.
	PingInterval, PingTimeout time.Duration
	// ShutdownGrace is the time that commands in flight and their answers have when the server
	// stops. 3 s.
	ShutdownGrace time.Duration
}

func orDefault[T int | uint32 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// withDefaults fills in what is zero and refuses what can't work.
func (l Limits) withDefaults() (Limits, error) {
	orDefault(&l.MaxConnections, 2048)
	orDefault(&l.MaxSessionsPerHost, max(1, l.MaxConnections/2))
	orDefault(&l.MaxLogins, 256)
	orDefault(&l.MaxLoginsPerAddress, 64)
	orDefault(&l.LoginTimeout, 15*time.Second)
	orDefault(&l.MaxLoginBytes, 64<<10)
	orDefault(&l.MaxLoginPDUs, 32)
	orDefault(&l.MaxTextBytes, 1<<20)
	orDefault(&l.QueueDepth, 128)
	orDefault(&l.ParallelCommands, 32)
	orDefault(&l.MaxRecvDataSegmentLength, 256<<10)
	orDefault(&l.FirstBurstLength, 256<<10)
	orDefault(&l.MaxBurstLength, 1<<20)
	orDefault(&l.MaxOutstandingR2T, 8)
	orDefault(&l.TotalBufferBytes, 512<<20)
	orDefault(&l.OwnBufferBytes, 128<<10)
	orDefault(&l.BufferBytes, 64<<20)
	orDefault(&l.PingInterval, 15*time.Second)
	orDefault(&l.PingTimeout, 30*time.Second)
	orDefault(&l.ShutdownGrace, 3*time.Second)
	switch {
	case l.MaxConnections < 1 || l.MaxConnections > 60000:
		return l, san.Errorf(san.KindInvalid, "iscsi: connection limit %d is not within 1 to 60000", l.MaxConnections)
	case l.QueueDepth < 1 || l.QueueDepth > 4096 || l.ParallelCommands < 1 || l.ParallelCommands > 1024:
		return l, san.Errorf(san.KindInvalid, "iscsi: queue depth %d or parallel commands %d out of range; use 1 to 4096 and 1 to 1024", l.QueueDepth, l.ParallelCommands)
	case l.BufferBytes < scsi.MaxTransferBytes:
		return l, san.Errorf(san.KindInvalid, "iscsi: %d buffer bytes a session do not hold one command of %d", l.BufferBytes, scsi.MaxTransferBytes)
	case l.OwnBufferBytes < 0 || l.TotalBufferBytes-l.MaxConnections*l.OwnBufferBytes < budgetFloor:
		return l, san.Errorf(san.KindInvalid, "iscsi: %d buffer bytes are too few for %d connections of %d bytes each and %d more; raise the first or lower the others",
			l.TotalBufferBytes, l.MaxConnections, l.OwnBufferBytes, budgetFloor)
	case outside(l.MaxRecvDataSegmentLength) || outside(l.FirstBurstLength) || outside(l.MaxBurstLength) || l.FirstBurstLength > l.MaxBurstLength:
		return l, san.Errorf(san.KindInvalid, "iscsi: segment or burst lengths are not within 512 to 16777215 (RFC 7143 §13), or the first burst is above the maximum")
	case l.MaxOutstandingR2T < 1 || l.MaxOutstandingR2T > 64:
		return l, san.Errorf(san.KindInvalid, "iscsi: %d outstanding R2Ts are not within 1 to 64", l.MaxOutstandingR2T)
	}
	return l, nil
}

func outside(v uint32) bool { return v < 512 || v > 1<<24-1 }
