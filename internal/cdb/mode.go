package cdb

// ModeRequest is a decoded MODE SENSE or MODE SELECT CDB (SPC-4 §6.9 to §6.12).
type ModeRequest struct {
	// Long says that it is the 10-byte command, whose headers are 8 bytes, not 4.
	Long bool
	// NoBlockDescriptors is MODE SENSE's DBD.
	NoBlockDescriptors bool
	// Control is MODE SENSE's PC: 0 current, 1 changeable, 2 default, 3 saved.
	Control uint8
	// Page and Subpage are MODE SENSE's; 3Fh is all pages.
	Page, Subpage byte
	// PageFormat and Save are MODE SELECT's PF and SP.
	PageFormat, Save bool
	// Length is the allocation or parameter list length in bytes.
	Length uint16
}

// DecodeMode reads a MODE SENSE or MODE SELECT CDB of either length.
func DecodeMode(c []byte) (ModeRequest, error) {
	if err := needCDB(c); err != nil {
		return ModeRequest{}, err
	}
	var r ModeRequest
	switch c[0] {
	case OpModeSense6, OpModeSelect6:
		r.Length = uint16(c[4])
	case OpModeSense10, OpModeSelect10:
		r.Long, r.Length = true, be.Uint16(c[7:])
	default:
		return r, badField(0, -1, "operation code is not MODE SENSE or MODE SELECT")
	}
	if c[0] == OpModeSelect6 || c[0] == OpModeSelect10 {
		r.PageFormat, r.Save = c[1]&0x10 != 0, c[1]&1 != 0
		return r, nil
	}
	r.NoBlockDescriptors = c[1]&0x08 != 0
	r.Control, r.Page, r.Subpage = c[2]>>6, c[2]&0x3f, c[3]
	return r, nil
}

// ModePage is one mode page.
type ModePage struct {
	Page, Subpage byte
	// Data is what follows the page's header.
	Data []byte
	// Offset is where the page's header began in the parameter data.
	Offset int
}

// ModeData is parsed mode parameter data (SPC-4 §7.5).
type ModeData struct {
	// DeviceSpecific is, for a disk, WP (80h) and DPOFUA (10h).
	DeviceSpecific byte
	// BlockDescriptor are the block descriptors' bytes.
	BlockDescriptor []byte
	Pages           []ModePage
}

// Bits of ModeData.DeviceSpecific (SBC-3 §6.5.1).
const (
	ModeWriteProtected byte = 0x80
	ModeDPOFUA         byte = 0x10
)

// Mode page codes (SPC-4 §7.5.1, SBC-3 §6.5).
const (
	PageCaching               byte = 0x08
	PageControl               byte = 0x0a
	PageInformationExceptions byte = 0x1c
	PageAll                   byte = 0x3f
)

// maxModePages bounds what ParseMode reads.
const maxModePages = 64

// ParseMode reads mode parameter data, of a MODE SENSE answer or a MODE SELECT list;
// long says that it has the 10-byte commands' header. A page that is cut off is a
// LengthError. Data alias b.
func ParseMode(b []byte, long bool) (ModeData, error) {
	head := 4
	if long {
		head = 8
	}
	if err := need("mode parameter header", b, head); err != nil {
		return ModeData{}, err
	}
	m := ModeData{DeviceSpecific: b[2]}
	descriptors := int(b[3])
	if long {
		m.DeviceSpecific, descriptors = b[3], int(be.Uint16(b[6:]))
	}
	if err := need("mode block descriptors", b, head+descriptors); err != nil {
		return ModeData{}, err
	}
	m.BlockDescriptor = b[head : head+descriptors]
	for at := head + descriptors; at < len(b) && len(m.Pages) < maxModePages; {
		p, next, err := parsePage(b, at)
		if err != nil {
			return ModeData{}, err
		}
		m.Pages, at = append(m.Pages, p), next
	}
	return m, nil
}

// parsePage reads the page at b[at:] and tells where the next begins.
func parsePage(b []byte, at int) (ModePage, int, error) {
	p := ModePage{Offset: at, Page: b[at] & 0x3f}
	head := 2
	if b[at]&0x40 != 0 {
		head = 4
	}
	if err := need("mode page header", b, at+head); err != nil {
		return ModePage{}, 0, err
	}
	length := int(b[at+1])
	if head == 4 {
		p.Subpage, length = b[at+1], int(be.Uint16(b[at+2:]))
	}
	end := at + head + length
	if err := need("mode page", b, end); err != nil {
		return ModePage{}, 0, err
	}
	p.Data = b[at+head : end]
	return p, end, nil
}
