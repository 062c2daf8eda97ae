package cdb

// Block is a CDB that names a range of logical blocks: READ, WRITE, WRITE AND VERIFY,
// VERIFY, WRITE SAME, SYNCHRONIZE CACHE, PRE-FETCH, ORWRITE, WRITE ATOMIC and COMPARE
// AND WRITE, of every CDB length. Fields that a command has not are zero.
type Block struct {
	Op byte
	// LBA is the first block.
	LBA uint64
	// Blocks is the length in blocks. READ (6) and WRITE (6) encode 256 as 0; Block holds 256.
	// For COMPARE AND WRITE it is the blocks compared, half of the data out.
	Blocks uint32
	// Protect is RDPROTECT, WRPROTECT, VRPROTECT or ORPROTECT.
	Protect uint8
	// ByteCheck is BYTCHK: 0 none, 1 compare with the data out, 3 compare with one block repeated.
	ByteCheck uint8
	// Group is the group number.
	Group uint8
	// DPO and FUA are the cache hints of READ and WRITE.
	DPO, FUA bool
	// Immed asks for the status before the work is done (SYNCHRONIZE CACHE, PRE-FETCH).
	Immed bool
	// Boundary is WRITE ATOMIC's ATOMIC BOUNDARY: 0, or the blocks in each part that is to be atomic by itself.
	Boundary uint16
	// Unmap, Anchor, PBData, LBData and NDOB are WRITE SAME's bits; NDOB only in (16).
	Unmap, Anchor, PBData, LBData, NDOB bool
}

// form tells how a block command's byte 1 is laid out.
type form uint8

const (
	formNone form = iota
	formRead
	formVerify
	formSame
	formCache
)

// formOf classifies op; formNone means that op is no block command. READ (6) and
// WRITE (6) have no flags and are formCache with none set.
func formOf(op byte) form {
	switch op {
	case OpRead10, OpRead12, OpRead16, OpWrite10, OpWrite12, OpWrite16, OpCompareAndWrite, OpOrWrite16, OpWriteAtomic16:
		return formRead
	case OpWriteAndVerify10, OpWriteAndVerify12, OpWriteAndVerify16, OpVerify10, OpVerify12, OpVerify16:
		return formVerify
	case OpWriteSame10, OpWriteSame16:
		return formSame
	case OpRead6, OpWrite6, OpSynchronizeCache10, OpSynchronizeCache16, OpPreFetch10, OpPreFetch16:
		return formCache
	}
	return formNone
}

// Encode builds the CDB. Values too large for the CDB's fields are cut to them; the
// 16-byte commands hold every value (COMPARE AND WRITE up to 255 blocks, WRITE
// ATOMIC up to 65535).
func (b Block) Encode() CDB {
	c := CDB{0: b.Op}
	if b.Op == OpRead6 || b.Op == OpWrite6 {
		c[1], c[2], c[3] = byte(b.LBA>>16)&0x1f, byte(b.LBA>>8), byte(b.LBA)
		c[4] = byte(b.Blocks)
		return c
	}
	c[1] = b.flags()
	switch Length(b.Op) {
	case 10:
		be.PutUint32(c[2:], uint32(b.LBA))
		c[6] = b.Group & 0x1f
		be.PutUint16(c[7:], uint16(b.Blocks))
	case 12:
		be.PutUint32(c[2:], uint32(b.LBA))
		be.PutUint32(c[6:], b.Blocks)
		c[10] = b.Group & 0x1f
	default:
		be.PutUint64(c[2:], b.LBA)
		switch b.Op {
		case OpCompareAndWrite:
			c[13] = byte(b.Blocks)
		case OpWriteAtomic16:
			be.PutUint16(c[10:], b.Boundary)
			be.PutUint16(c[12:], uint16(b.Blocks))
		default:
			be.PutUint32(c[10:], b.Blocks)
		}
		c[14] = b.Group & 0x1f
	}
	return c
}

// flags builds byte 1.
func (b *Block) flags() byte {
	switch formOf(b.Op) {
	case formRead:
		return b.Protect<<5 | flag(b.DPO, 0x10) | flag(b.FUA, 0x08)
	case formVerify:
		return b.Protect<<5 | flag(b.DPO, 0x10) | b.ByteCheck&3<<1
	case formSame:
		return b.Protect<<5 | flag(b.Anchor, 0x10) | flag(b.Unmap, 0x08) |
			flag(b.PBData, 0x04) | flag(b.LBData, 0x02) | flag(b.NDOB && b.Op == OpWriteSame16, 0x01)
	case formCache:
		return flag(b.Immed, 0x02)
	}
	return 0
}

// DecodeBlock reads a block CDB. It refuses other operation codes (FieldError at byte
// 0) and CDBs that are too short; it judges no field's value.
func DecodeBlock(c []byte) (Block, error) {
	if err := needCDB(c); err != nil {
		return Block{}, err
	}
	b := Block{Op: c[0]}
	kind := formOf(b.Op)
	if kind == formNone {
		return Block{}, badField(0, -1, "operation code names no range of blocks")
	}
	if b.Op == OpRead6 || b.Op == OpWrite6 {
		b.LBA = uint64(c[1]&0x1f)<<16 | uint64(c[2])<<8 | uint64(c[3])
		if b.Blocks = uint32(c[4]); b.Blocks == 0 {
			b.Blocks = 256
		}
		return b, nil
	}
	b.setFlags(kind, c[1])
	switch Length(b.Op) {
	case 10:
		b.LBA, b.Group, b.Blocks = uint64(be.Uint32(c[2:])), c[6]&0x1f, uint32(be.Uint16(c[7:]))
	case 12:
		b.LBA, b.Group, b.Blocks = uint64(be.Uint32(c[2:])), c[10]&0x1f, be.Uint32(c[6:])
	default:
		b.LBA, b.Group = be.Uint64(c[2:]), c[14]&0x1f
		switch b.Op {
		case OpCompareAndWrite:
			b.Blocks = uint32(c[13])
		case OpWriteAtomic16:
			b.Boundary, b.Blocks = be.Uint16(c[10:]), uint32(be.Uint16(c[12:]))
		default:
			b.Blocks = be.Uint32(c[10:])
		}
	}
	return b, nil
}

// setFlags reads byte 1.
func (b *Block) setFlags(kind form, v byte) {
	if kind != formCache {
		b.Protect = v >> 5
	}
	switch kind {
	case formRead:
		b.DPO, b.FUA = v&0x10 != 0, v&0x08 != 0
	case formVerify:
		b.DPO, b.ByteCheck = v&0x10 != 0, v>>1&3
	case formSame:
		b.Anchor, b.Unmap = v&0x10 != 0, v&0x08 != 0
		b.PBData, b.LBData = v&0x04 != 0, v&0x02 != 0
		b.NDOB = v&0x01 != 0 && b.Op == OpWriteSame16
	case formCache:
		b.Immed = v&0x02 != 0
	}
}
