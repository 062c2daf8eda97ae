package scsi

import (
	"context"
	"log/slog"
	"math/bits"
	"runtime/debug"
	"sync"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

// Config is what a logical unit is made of.
type Config struct {
	// ID is the volume's id. Serial number and NAA designator come from it alone, so
	// every copy of a volume shows the same ones.
	ID san.VolumeID
	// BlockSizeBytes is 512 or 4096.
	BlockSizeBytes uint32
	// Store holds the blocks.
	Store Store
	// TargetName is the iSCSI name of the target that the logical unit is behind.
	TargetName string
	// RelativePort and PortGroup identify the target port among all those through which
	// hosts reach the volume; both are at least 1.
	RelativePort, PortGroup uint16
	// Reservations keeps persistent reservations over restarts; nil if nothing does, and APTPL is refused.
	Reservations ReservationStore
	// Logger gets defects only.
	Logger *slog.Logger
}

func (c *Config) check() error {
	switch {
	case c.ID == "" || len(c.ID) > san.MaxNameLength:
		return san.Errorf(san.KindInvalid, "logical unit id %q has %d characters; give the volume's id, 1 to %d", c.ID, len(c.ID), san.MaxNameLength)
	case c.Store == nil || c.Logger == nil:
		return san.Errorf(san.KindInternal, "logical unit %s: store or logger is missing", c.ID)
	case c.RelativePort == 0 || c.PortGroup == 0:
		return san.Errorf(san.KindInvalid, "logical unit %s: relative port and port group begin at 1", c.ID)
	}
	if err := san.CheckInitiatorName(c.TargetName); err != nil {
		return san.Wrap("logical unit's target name", err)
	}
	return san.Wrap("logical unit "+string(c.ID), san.CheckVolumeSize(c.Store.SizeBytes(), c.BlockSizeBytes))
}

// LU is a logical unit's device server. All its methods are safe for concurrent use.
type LU struct {
	cfg Config
	// quick is cfg.Store, nil if that always may wait.
	quick QuickStore
	// shift is log2 of the block size.
	shift    uint
	limits   cdb.BlockLimits
	commands *commandSet
	base     *gotgtDevice
	ranges   rangeLock
	reserved *reservations
	buffers  bufferPool

	nexusMu sync.Mutex
	nexuses map[*Nexus]struct{}
}

// NewLU makes the device server of a logical unit. It fails on a Config that can't be.
func NewLU(cfg Config) (*LU, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	lu := &LU{
		cfg: cfg, shift: uint(bits.TrailingZeros32(cfg.BlockSizeBytes)),
		commands: newCommandSet(), nexuses: make(map[*Nexus]struct{}),
	}
	lu.limits = blockLimits(cfg.BlockSizeBytes, cfg.Store.MaxAtomicBytes())
	lu.quick, _ = cfg.Store.(QuickStore)
	base, err := newGotgtDevice(lu.shift)
	if err != nil {
		return nil, err
	}
	lu.base = base
	if lu.reserved, err = newReservations(cfg.Reservations); err != nil {
		return nil, san.Wrap("reservations of logical unit "+string(cfg.ID), err)
	}
	return lu, nil
}

// ID is the volume's id.
func (lu *LU) ID() san.VolumeID { return lu.cfg.ID }

// blocks is the present capacity.
func (lu *LU) blocks() uint64 { return uint64(lu.cfg.Store.SizeBytes()) >> lu.shift }

// bytes converts a number of blocks that is within the limits or the capacity.
func (lu *LU) bytes(blocks uint64) int64 { return int64(blocks << lu.shift) }

// Execute runs one command to its end and returns the answer. When ctx ends before the
// command has an effect the answer is TASK ABORTED; later it runs to its end. It
// blocks as long as the Store does.
func (lu *LU) Execute(ctx context.Context, t *Task) (res Result) {
	defer func() {
		if defect := recover(); defect != nil {
			lu.cfg.Logger.Error("scsi command failed by a defect; please report it", "volume", lu.cfg.ID,
				"tag", t.Tag, "cdb", t.CDB, "defect", defect, "stack", string(debug.Stack()))
			res = check(cdb.KeyHardwareError, cdb.ASCInternalTargetFailure)
		}
		if res.Release == nil {
			res.Release = released
		}
	}()
	if ctx.Err() != nil {
		return aborted()
	}
	if len(t.CDB) == 0 || len(t.CDB) < cdb.Length(t.CDB[0]) {
		return invalidOpcode()
	}
	r := request{Task: t, ctx: ctx}
	if number, ok := cdb.DecodeLUN(t.LUN); !ok || number != 0 {
		return lu.wrongLUN(&r)
	}
	return lu.dispatch(&r)
}

// dispatch answers with a waiting unit attention, else runs the command.
func (lu *LU) dispatch(r *request) Result {
	cmd := lu.commands.find(r.CDB)
	if cmd == nil || !cmd.duringAttention {
		if asc, ok := r.Nexus.take(); ok {
			return check(cdb.KeyUnitAttention, asc)
		}
	}
	if cmd == nil {
		return lu.unknown(r.CDB[0])
	}
	if lu.conflicts(r.Nexus, cmd.accessOf(r.CDB)) {
		return conflict()
	}
	// NACA asks for auto contingent allegiance, which standard INQUIRY says we have not.
	if last := cdb.Length(r.CDB[0]) - 1; r.CDB[last]&0x04 != 0 {
		return badCDB(last, 2)
	}
	if cmd.block != nil {
		b, err := cdb.DecodeBlock(r.CDB)
		if err != nil {
			return decodeFailed(err)
		}
		r.block = b
		return cmd.block(lu, *r)
	}
	return cmd.run(lu, *r)
}

// unknown answers what is not in the table: for PERSISTENT RESERVE and copies it is the service action that is wrong.
func (lu *LU) unknown(op byte) Result {
	switch op {
	case cdb.OpPersistentReserveIn, cdb.OpPersistentReserveOut, cdb.OpExtendedCopy, cdb.OpReceiveCopyResults:
		return badCDB(1, 4)
	}
	return invalidOpcode()
}

// wrongLUN answers commands to logical units that are not there (SPC-4 §6.6.2, §6.39):
// INQUIRY says so in its qualifier, REQUEST SENSE in its data, all others by CHECK CONDITION.
func (lu *LU) wrongLUN(r *request) Result {
	switch r.CDB[0] {
	case cdb.OpInquiry:
		return lu.inquiryAs(r, peripheralAbsent)
	case cdb.OpRequestSense:
		return lu.senseData(r, cdb.Sense{Key: cdb.KeyIllegalRequest, ASC: cdb.ASCLUNNotSupported})
	}
	return check(cdb.KeyIllegalRequest, cdb.ASCLUNNotSupported)
}
