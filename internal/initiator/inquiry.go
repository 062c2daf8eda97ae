package initiator

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

// Inquiry is what a logical unit says of itself (SPC-4 §6.6.2).
type Inquiry struct {
	Vendor, Product, Revision string
	// TPGS is the asymmetric access support: 0 none, 1 implicit, 2 explicit, 3 both.
	TPGS uint8
}

// Designator types, code sets and associations (SPC-4 §7.8.6).
const (
	DesignatorT10          uint8 = 1
	DesignatorEUI64        uint8 = 2
	DesignatorNAA          uint8 = 3
	DesignatorRelativePort uint8 = 4
	DesignatorPortGroup    uint8 = 5

	AssociationLogicalUnit uint8 = 0
	AssociationTargetPort  uint8 = 1
)

// Designator is one entry of VPD page 83h.
type Designator struct {
	Type        uint8
	Association uint8
	Value       []byte
}

// VPD pages that a Device reads.
const (
	vpdSupported      = 0x00
	vpdIdentification = 0x83
	vpdBlockLimits    = 0xb0

	inquiryBytes     = 96
	vpdBytes         = 1024
	maxDesignators   = 64
	typeDisk         = 0x00
	qualifierPresent = 0
)

// parseInquiry reads standard INQUIRY data and refuses what is no disk.
func parseInquiry(b []byte) (Inquiry, error) {
	if len(b) < 36 {
		return Inquiry{}, protocolErrorf("INQUIRY data of %d bytes, 36 are the least", len(b))
	}
	switch qualifier, kind := b[0]>>5, b[0]&0x1f; {
	case qualifier != qualifierPresent:
		return Inquiry{}, san.Errorf(san.KindNotFound, "there is no such logical unit at the target; check the LUN and the assignment")
	case kind != typeDisk:
		return Inquiry{}, san.Errorf(san.KindInvalid, "the logical unit is of device type %02xh, not a disk", kind)
	}
	text := func(b []byte) string { return strings.TrimRight(string(b), " \x00") }
	return Inquiry{Vendor: text(b[8:16]), Product: text(b[16:32]), Revision: text(b[32:36]), TPGS: b[5] >> 4 & 3}, nil
}

// vpdPage returns the body of a VPD page, as far as it arrived.
func vpdPage(b []byte, page byte) ([]byte, error) {
	if len(b) < 4 || b[1] != page {
		return nil, protocolErrorf("VPD page %02xh is malformed", page)
	}
	body := b[4:]
	return body[:min(len(body), int(binary.BigEndian.Uint16(b[2:])))], nil
}

// parseDesignators reads the body of VPD page 83h; a cut or malformed tail is left out.
func parseDesignators(b []byte) []Designator {
	var list []Designator
	for len(b) >= 4 && len(b) >= 4+int(b[3]) && len(list) < maxDesignators {
		n := 4 + int(b[3])
		list = append(list, Designator{Type: b[1] & 0x0f, Association: b[1] >> 4 & 3, Value: slices.Clone(b[4:n])})
		b = b[n:]
	}
	return list
}

// wwid renders the designator that best tells logical units apart: NAA, then EUI-64, then
// T10 vendor id, of the logical unit itself.
func wwid(list []Designator) string {
	for _, want := range []struct {
		kind   uint8
		prefix string
	}{{DesignatorNAA, "naa."}, {DesignatorEUI64, "eui."}, {DesignatorT10, "t10."}} {
		for _, d := range list {
			if d.Type != want.kind || d.Association != AssociationLogicalUnit || len(d.Value) == 0 {
				continue
			}
			if d.Type == DesignatorT10 {
				return want.prefix + strings.TrimRight(string(d.Value), " \x00")
			}
			return want.prefix + hex.EncodeToString(d.Value)
		}
	}
	return ""
}

// blockLimits is VPD page B0h as far as it matters here (SBC-3 §6.6.4); zero means no limit told.
type blockLimits struct {
	maxTransferBlocks uint32
	maxUnmapBlocks    uint32 // 0: UNMAP is not offered
	unmapGranularity  uint32
}

func parseBlockLimits(b []byte) blockLimits {
	var f [60]byte // a short page reads as zeros
	copy(f[:], b)
	// Offsets are the standard's less the four bytes of the page's header.
	l := blockLimits{
		maxTransferBlocks: binary.BigEndian.Uint32(f[4:]),
		maxUnmapBlocks:    binary.BigEndian.Uint32(f[16:]),
		unmapGranularity:  binary.BigEndian.Uint32(f[24:]),
	}
	if binary.BigEndian.Uint32(f[20:]) == 0 { // no descriptor fits: no UNMAP
		l.maxUnmapBlocks = 0
	}
	return l
}

// identify asks the logical unit who it is and what its limits are.
func (d *Device) identify(ctx context.Context) error {
	b, err := d.ask(ctx, cdb.Inquiry(inquiryBytes), inquiryBytes)
	if err != nil {
		return err
	}
	if d.inquiry, err = parseInquiry(b); err != nil {
		return err
	}
	pages, err := d.vpd(ctx, vpdSupported)
	if err != nil {
		return err
	}
	if slices.Contains(pages, vpdIdentification) {
		body, err := d.vpd(ctx, vpdIdentification)
		if err != nil {
			return err
		}
		d.designators = parseDesignators(body)
	}
	if slices.Contains(pages, vpdBlockLimits) {
		body, err := d.vpd(ctx, vpdBlockLimits)
		if err != nil {
			return err
		}
		d.limits = parseBlockLimits(body)
	}
	return nil
}

// vpd reads the body of a page; one that the target refuses is empty.
func (d *Device) vpd(ctx context.Context, page byte) ([]byte, error) {
	b, err := d.ask(ctx, cdb.InquiryVPD(page, vpdBytes), vpdBytes)
	var sense *SenseError
	if errors.As(err, &sense) && sense.Sense.Key == cdb.KeyIllegalRequest {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return vpdPage(b, page)
}
