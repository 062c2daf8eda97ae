package scsi

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// First byte of INQUIRY data: peripheral qualifier and device type (SPC-4 §6.6.2).
const (
	peripheralDisk   byte = 0x00
	peripheralAbsent byte = 0x7f
)

// companyID is the IEEE company_id in the NAA designators: one from the locally administered
// range (U/L bit set), since the project has none of its own.
const companyID = 0x025342

// inquiry is INQUIRY (SPC-4 §6.6).
func (lu *LU) inquiry(r request) Result { return lu.inquiryAs(&r, peripheralDisk) }

// inquiryAs answers for a logical unit that is there, or is not (peripheralAbsent).
func (lu *LU) inquiryAs(r *request, peripheral byte) Result {
	q, err := cdb.DecodeInquiry(r.CDB)
	if err != nil {
		return decodeFailed(err)
	}
	if !q.EVPD {
		data, sense := lu.standardInquiry(peripheral)
		if sense != nil {
			return checkSense(*sense)
		}
		return r.parameterData(data, int(q.Allocation))
	}
	body, ok := lu.vpd(q.Page, peripheral)
	if !ok {
		return badCDB(2, 7)
	}
	return r.parameterData(cdb.VPDPage(peripheral, q.Page, body), int(q.Allocation))
}

// standardInquiry takes gotgt's data and mends what it can't be told: the version
// (SPC-4), third-party copy (3PC), no ALUA, and an absent logical unit.
func (lu *LU) standardInquiry(peripheral byte) ([]byte, *cdb.Sense) {
	c := cdb.Inquiry(255)
	data, sense := lu.base.run(c.Bytes(), lu.cfg.Store.SizeBytes())
	if sense != nil {
		return nil, sense
	}
	data = data[:5+int(data[4])]
	data[0], data[2] = peripheral, 6
	data[5] = data[5]&^0x30 | 0x08
	return data, nil
}

// vpd builds the body of a VPD page; ok is false for a page that is not there. An
// absent logical unit has only the list of pages.
func (lu *LU) vpd(page, peripheral byte) (body []byte, ok bool) {
	if peripheral == peripheralAbsent {
		return []byte{cdb.VPDSupportedPages}, page == cdb.VPDSupportedPages
	}
	switch page {
	case cdb.VPDSupportedPages:
		return []byte{cdb.VPDSupportedPages, cdb.VPDSerialNumber, cdb.VPDDeviceIdentification, cdb.VPDExtendedInquiry,
			cdb.VPDThirdPartyCopy, cdb.VPDBlockLimits, cdb.VPDBlockCharacteristics, cdb.VPDProvisioning}, true
	case cdb.VPDSerialNumber:
		return []byte(strings.ReplaceAll(string(lu.cfg.ID), "-", "")), true
	case cdb.VPDDeviceIdentification:
		return lu.designators(), true
	case cdb.VPDExtendedInquiry:
		// SIMPLE, ORDERED and HEAD OF QUEUE task attributes, and a volatile cache (SPC-4 §7.8.7).
		return append([]byte{0, 0x07, 0x01}, make([]byte, 57)...), true
	case cdb.VPDThirdPartyCopy:
		return lu.copyParameters().EncodeVPD(), true
	case cdb.VPDBlockLimits:
		return lu.limits.Encode(), true
	case cdb.VPDBlockCharacteristics:
		// Medium rotation rate 1 is non-rotating (SBC-3 §6.6.2).
		return append([]byte{0, 1}, make([]byte, 58)...), true
	case cdb.VPDProvisioning:
		return cdb.Provisioning{Unmap: true, WriteSame16: true, WriteSame10: true, ReadZeros: true, Type: 2}.Encode(), true
	}
	return nil, false
}

// NAA is the logical unit's NAA IEEE Registered Extended designator (SPC-4 §7.8.6.6.5), made
// of the volume's id alone: every copy and every path shows the same one.
func (lu *LU) NAA() [16]byte {
	var naa [16]byte
	sum := sha256.Sum256([]byte("sandbar logical unit " + string(lu.cfg.ID)))
	copy(naa[:], sum[:])
	naa[0] = 0x60 | companyID>>20
	naa[1], naa[2] = companyID>>12&0xff, companyID>>4&0xff
	naa[3] = companyID&0x0f<<4 | naa[3]&0x0f
	return naa
}

// designators is the body of the device identification page (SPC-4 §7.8.6).
func (lu *LU) designators() []byte {
	naa := lu.NAA()
	vendor := fmt.Sprintf("%-8s%s", vendorID, lu.cfg.ID)
	port := fmt.Sprintf("%s,t,0x%04x", lu.cfg.TargetName, lu.cfg.PortGroup)
	var b []byte
	for _, d := range []cdb.Designator{
		{CodeSet: cdb.CodeSetBinary, Type: cdb.DesignatorNAA, Value: naa[:]},
		{CodeSet: cdb.CodeSetASCII, Type: cdb.DesignatorT10Vendor, Value: []byte(vendor)},
		{CodeSet: cdb.CodeSetBinary, Association: cdb.AssociationTargetPort, Type: cdb.DesignatorRelativePort,
			Value: []byte{0, 0, byte(lu.cfg.RelativePort >> 8), byte(lu.cfg.RelativePort)}},
		{CodeSet: cdb.CodeSetBinary, Association: cdb.AssociationTargetPort, Type: cdb.DesignatorTargetPortGroup,
			Value: []byte{0, 0, byte(lu.cfg.PortGroup >> 8), byte(lu.cfg.PortGroup)}},
		{CodeSet: cdb.CodeSetUTF8, Association: cdb.AssociationTargetPort, Type: cdb.DesignatorSCSIName, Value: scsiName(port)},
		{CodeSet: cdb.CodeSetUTF8, Association: cdb.AssociationTargetDevice, Type: cdb.DesignatorSCSIName, Value: scsiName(lu.cfg.TargetName)},
	} {
		b = cdb.AppendDesignator(b, d)
	}
	return b
}

// scsiName ends a name with NULs up to a multiple of four bytes (SPC-4 §7.8.6.11).
func scsiName(name string) []byte {
	return append([]byte(name), make([]byte, 4-len(name)%4)...)
}

// Limits that the block limits page tells and the handlers hold to.
const (
	granularityBytes     = 4096
	optimalTransferBytes = 1 << 20
	maxUnmapBlocks       = 1 << 20
	maxUnmapDescriptors  = 256
	maxCompareBlocks     = 255
)

// blockLimits are the limits for a block size and a Store's longest atomic write.
func blockLimits(blockSizeBytes uint32, maxAtomicBytes int64) cdb.BlockLimits {
	granularity := max(1, granularityBytes/blockSizeBytes)
	return cdb.BlockLimits{
		WriteSameNonZero:   true,
		MaxCompareAndWrite: maxCompareBlocks,
		OptimalGranularity: uint16(granularity),
		MaxTransfer:        MaxTransferBytes / blockSizeBytes,
		OptimalTransfer:    optimalTransferBytes / blockSizeBytes,
		MaxUnmap:           maxUnmapBlocks, MaxUnmapDescriptors: maxUnmapDescriptors,
		UnmapGranularity: granularity, UnmapAlignmentValid: true,
		MaxWriteSame: MaxTransferBytes / uint64(blockSizeBytes),
		MaxAtomic:    uint32(min(maxAtomicBytes, MaxTransferBytes) / int64(blockSizeBytes)),
	}
}
