package cdb

// Builders of the CDBs that an initiator sends. LBA and lengths are in logical
// blocks; allocation lengths are in bytes.

// TestUnitReady asks whether the logical unit is ready (SPC-4 §6.47).
func TestUnitReady() CDB { return CDB{OpTestUnitReady} }

// RequestSense asks for fixed-format sense data (SPC-4 §6.39).
func RequestSense(allocation uint8) CDB {
	return CDB{0: OpRequestSense, 4: allocation}
}

// Inquiry asks for standard INQUIRY data (SPC-4 §6.6).
func Inquiry(allocation uint16) CDB {
	c := CDB{0: OpInquiry}
	be.PutUint16(c[3:], allocation)
	return c
}

// InquiryVPD asks for a vital product data page (SPC-4 §6.6, §7.8).
func InquiryVPD(page byte, allocation uint16) CDB {
	c := CDB{0: OpInquiry, 1: 1, 2: page}
	be.PutUint16(c[3:], allocation)
	return c
}

// ReportLUNs asks for the logical units behind the target port, SELECT REPORT 0
// (SPC-4 §6.33). An allocation below 16 is refused by targets.
func ReportLUNs(allocation uint32) CDB {
	c := CDB{0: OpReportLUNs}
	be.PutUint32(c[6:], allocation)
	return c
}

// ReadCapacity10 asks for the capacity in 32 bits (SBC-3 §5.15).
func ReadCapacity10() CDB { return CDB{OpReadCapacity10} }

// ReadCapacity16 asks for capacity, block size and provisioning (SBC-3 §5.16).
func ReadCapacity16(allocation uint32) CDB {
	c := CDB{0: OpServiceActionIn16, 1: SAIReadCapacity16}
	be.PutUint32(c[10:], allocation)
	return c
}

// GetLBAStatus asks which blocks from lba on are mapped (SBC-3 §5.4).
func GetLBAStatus(lba uint64, allocation uint32) CDB {
	c := CDB{0: OpServiceActionIn16, 1: SAIGetLBAStatus}
	be.PutUint64(c[2:], lba)
	be.PutUint32(c[10:], allocation)
	return c
}

// Read16 reads blocks; fua makes it bypass volatile cache (SBC-3 §5.13).
func Read16(lba uint64, blocks uint32, fua bool) CDB {
	return Block{Op: OpRead16, LBA: lba, Blocks: blocks, FUA: fua}.Encode()
}

// Write16 writes blocks; fua makes them stable before the status (SBC-3 §5.34).
func Write16(lba uint64, blocks uint32, fua bool) CDB {
	return Block{Op: OpWrite16, LBA: lba, Blocks: blocks, FUA: fua}.Encode()
}

// SynchronizeCache16 makes blocks stable; 0 blocks mean all from lba on, so 0, 0 is
// the whole logical unit (SBC-3 §5.23).
func SynchronizeCache16(lba uint64, blocks uint32) CDB {
	return Block{Op: OpSynchronizeCache16, LBA: lba, Blocks: blocks}.Encode()
}

// SynchronizeCache10 is SynchronizeCache16 for targets without it (SBC-3 §5.22).
func SynchronizeCache10(lba uint32, blocks uint16) CDB {
	return Block{Op: OpSynchronizeCache10, LBA: uint64(lba), Blocks: uint32(blocks)}.Encode()
}

// WriteSame16 repeats one block of data out, or zeros with ndob, over blocks; unmap
// lets the target deallocate instead (SBC-3 §5.42).
func WriteSame16(lba uint64, blocks uint32, unmap, ndob bool) CDB {
	return Block{Op: OpWriteSame16, LBA: lba, Blocks: blocks, Unmap: unmap, NDOB: ndob}.Encode()
}

// CompareAndWrite compares blocks with the first half of the data out and, when equal,
// writes the second half (SBC-3 §5.2).
func CompareAndWrite(lba uint64, blocks uint8, fua bool) CDB {
	return Block{Op: OpCompareAndWrite, LBA: lba, Blocks: uint32(blocks), FUA: fua}.Encode()
}

// Unmap announces a parameter list of listBytes bytes, see AppendUnmapList (SBC-3 §5.26).
func Unmap(listBytes uint16) CDB {
	c := CDB{0: OpUnmap}
	be.PutUint16(c[7:], listBytes)
	return c
}

// ModeSense6 asks for the current values of a mode page (SPC-4 §6.11). dbd leaves out
// the block descriptors.
func ModeSense6(page, subpage byte, dbd bool, allocation uint8) CDB {
	return CDB{0: OpModeSense6, 1: flag(dbd, 0x08), 2: page & 0x3f, 3: subpage, 4: allocation}
}

// ModeSense10 is ModeSense6 with a 16-bit length (SPC-4 §6.12).
func ModeSense10(page, subpage byte, dbd bool, allocation uint16) CDB {
	c := CDB{0: OpModeSense10, 1: flag(dbd, 0x08), 2: page & 0x3f, 3: subpage}
	be.PutUint16(c[7:], allocation)
	return c
}

// ReportTargetPortGroups asks for the ALUA states, parameter data format 0 (SPC-4 §6.37).
func ReportTargetPortGroups(allocation uint32) CDB {
	c := CDB{0: OpMaintenanceIn, 1: MIReportTargetPortGroups}
	be.PutUint32(c[6:], allocation)
	return c
}

// ReportSupportedOpcode asks whether the target knows op, or with options 2 or 3 op
// with that service action (SPC-4 §6.35). Options 0 asks for all commands.
func ReportSupportedOpcode(options, op byte, serviceAction uint16, rctd bool, allocation uint32) CDB {
	c := CDB{0: OpMaintenanceIn, 1: MIReportSupportedOpcodes, 2: flag(rctd, 0x80) | options&7, 3: op}
	be.PutUint16(c[4:], serviceAction)
	be.PutUint32(c[6:], allocation)
	return c
}

// StartStopUnit starts or stops the logical unit (SBC-3 §5.25).
func StartStopUnit(immed, loej, start bool) CDB {
	return CDB{0: OpStartStopUnit, 1: flag(immed, 1), 4: flag(loej, 2) | flag(start, 1)}
}

// Reserve6 and Release6 are SPC-2's logical unit reservation (SPC-2 §7.21, §7.16).
func Reserve6() CDB { return CDB{OpReserve6} }

// Release6 gives a Reserve6 back.
func Release6() CDB { return CDB{OpRelease6} }

// PersistentReserveIn asks for what action names, see the PRIn constants (SPC-4 §6.15).
func PersistentReserveIn(action byte, allocation uint16) CDB {
	c := CDB{0: OpPersistentReserveIn, 1: action & 0x1f}
	be.PutUint16(c[7:], allocation)
	return c
}

// PersistentReserveOut announces a parameter list of listBytes bytes (SPC-4 §6.16).
func PersistentReserveOut(action byte, typ PRType, listBytes uint32) CDB {
	c := CDB{0: OpPersistentReserveOut, 1: action & 0x1f, 2: byte(typ) & 0x0f}
	be.PutUint32(c[5:], listBytes)
	return c
}
