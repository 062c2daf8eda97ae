package scsi

import (
	"bytes"

	"github.com/gostor/gotgt/pkg/api"

	"github.com/sandbar-san/sandbar/internal/cdb"
)

// modePages are the mode pages as gotgt's MODE SENSE wants them: current values, then
// the mask of what can be changed, which is nothing.
func modePages() []api.ModePage {
	return []api.ModePage{
		// Caching: WCE, a volatile write cache that SYNCHRONIZE CACHE and FUA empty (SBC-3 §6.5.4).
		modePage(cdb.PageCaching, 18, map[int]byte{0: 0x04}),
		// Control: TST 001b, a task set for each I_T nexus; GLTSD, unrestricted reordering, BUSY TIMEOUT
		// PERIOD unlimited (SPC-4 §7.5.7).
		modePage(cdb.PageControl, 10, map[int]byte{0: 0x22, 1: 0x10, 6: 0xff, 7: 0xff}),
		// Informational exceptions: DEXCPT, none are reported (SPC-4 §7.5.11).
		modePage(cdb.PageInformationExceptions, 10, map[int]byte{0: 0x08}),
	}
}

// modePage makes a page of length bytes after its header, zero but for values.
func modePage(code byte, length uint8, values map[int]byte) api.ModePage {
	data := make([]byte, 2*int(length))
	for at, v := range values {
		data[at] = v
	}
	return api.ModePage{PageCode: code, Size: length, Data: data}
}

// modeSense is MODE SENSE (6) and (10) (SPC-4 §6.11, §6.12). gotgt builds the data for an
// allocation length that is never too short, which is then cut here.
func (lu *LU) modeSense(r request) Result {
	q, err := cdb.DecodeMode(r.CDB)
	if err != nil {
		return decodeFailed(err)
	}
	// gotgt takes a subpage code only literally; FFh, all subpages, is the page itself
	// here, where there are none.
	subpage := q.Subpage
	if subpage == 0xff {
		subpage = 0
	}
	var c cdb.CDB
	if q.Long {
		c = cdb.ModeSense10(q.Page, subpage, q.NoBlockDescriptors, gotgtBuffer)
	} else {
		c = cdb.ModeSense6(q.Page, subpage, q.NoBlockDescriptors, 255)
	}
	c[2] |= q.Control << 6
	data, sense := lu.base.run(c.Bytes(), lu.cfg.Store.SizeBytes())
	if sense != nil {
		return checkSense(*sense)
	}
	length := 1 + int(data[0])
	if q.Long {
		length = 2 + int(data[0])<<8 + int(data[1])
	}
	return r.parameterData(data[:length], int(q.Length))
}

// modeSelect is MODE SELECT (6) and (10) (SPC-4 §6.9, §6.10). Nothing can be changed, so
// it accepts only lists that ask for what is.
func (lu *LU) modeSelect(r request) Result {
	q, err := cdb.DecodeMode(r.CDB)
	if err != nil {
		return decodeFailed(err)
	}
	res := good()
	res.DataOutTotal = int(q.Length)
	switch {
	case !q.PageFormat:
		return badCDB(1, 4)
	case q.Save:
		return badCDB(1, 0)
	case q.Length == 0:
		return res
	case len(r.DataOut) < int(q.Length):
		return check(cdb.KeyIllegalRequest, cdb.ASCParameterListLength)
	}
	list, err := cdb.ParseMode(r.DataOut[:q.Length], q.Long)
	if err != nil {
		return decodeFailed(err)
	}
	if at, ok := lu.unchanged(list, q.Long); !ok {
		return badParameter(at)
	}
	return res
}

// unchanged reports whether list asks for the present values, else where it does not.
func (lu *LU) unchanged(list cdb.ModeData, long bool) (at int, ok bool) {
	if n := len(list.BlockDescriptor); n != 0 {
		at = 4
		if long {
			at = 8
		}
		want := blockDescriptor(lu.cfg.Store.SizeBytes(), lu.shift)
		// A number of blocks of 0 or all ones means "as it is" (SBC-3 §6.5.2.2).
		count := list.BlockDescriptor[:min(4, n)]
		same := bytes.Equal(count, want[:4]) || bytes.Equal(count, []byte{0, 0, 0, 0}) || bytes.Equal(count, []byte{255, 255, 255, 255})
		if n != 8 || !same || !bytes.Equal(list.BlockDescriptor[5:], want[5:]) {
			return at, false
		}
	}
	for _, p := range list.Pages {
		if !lu.pageUnchanged(p) {
			return p.Offset, false
		}
	}
	return 0, true
}

func (lu *LU) pageUnchanged(p cdb.ModePage) bool {
	for _, own := range lu.base.lu.ModePages {
		if own.PageCode == p.Page && own.SubPageCode == p.Subpage {
			return bytes.Equal(p.Data, own.Data[:own.Size])
		}
	}
	return false
}
