package fsm

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/sandbar-san/sandbar/san"
)

// Bounds on what a row may hold. They keep rows small, whoever proposes them.
const (
	maxShortText    = 128  // versions, serials, actions
	maxLongText     = 1024 // reasons, errors, paths
	maxAddressText  = 261  // 253 of a DNS name, brackets or colon, and a port
	maxSealed       = 4096 // an envelope around a secret
	maxHash         = 64   // a digest
	maxLabels       = 64
	maxLabelValue   = 255
	maxAddresses    = 64
	maxTokens       = 4096
	maxMediaPerUnit = 256
	maxReplicas     = 65536 // per unit
	maxReports      = 4096  // per command
	maxSlices       = 1024  // per copy
	maxCHAPUser     = 255
)

func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return refuse(san.KindInvalid, "%s has %d bytes, %d are allowed; shorten it", what, len(s), limit)
	}
	return nil
}

func checkBytes(what string, b []byte, limit int) error {
	if len(b) == 0 || len(b) > limit {
		return refuse(san.KindInvalid, "%s has %d bytes; 1 to %d are allowed", what, len(b), limit)
	}
	return nil
}

// count renders "1 volume", "2 volumes".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// clip shortens what an agent says, without cutting a character in two.
func clip(s string) string {
	if len(s) <= maxLongText {
		return s
	}
	n := maxLongText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// checkAddress reports whether s is host:port.
func checkAddress(what, s string) error {
	if err := checkText(what, s, maxAddressText); err != nil {
		return err
	}
	if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
		return refuse(san.KindInvalid, "%s %q is not host:port; write it like 192.0.2.1:3260", what, s)
	}
	return nil
}

// mergeLabels returns have with change applied; an empty value removes a label.
func mergeLabels(have, change map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(have)+len(change))
	for k, v := range have {
		out[k] = v
	}
	// Sorted, so that of several bad labels every replica names the same one.
	keys := make([]string, 0, len(change))
	for k := range change {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := san.CheckName("label", k); err != nil {
			return nil, err
		}
		if err := checkText("label "+k, change[k], maxLabelValue); err != nil {
			return nil, err
		}
		if change[k] == "" {
			delete(out, k)
		} else {
			out[k] = change[k]
		}
	}
	if len(out) > maxLabels {
		return nil, refuse(san.KindInvalid, "%d labels, %d are allowed; remove some", len(out), maxLabels)
	}
	return out, nil
}

// claimInitiators returns names in the form in which they compare, each once, after checking that
// none belongs to another host than id.
func (x *tx) claimInitiators(id san.HostID, names []string) ([]string, error) {
	if len(names) > san.MaxInitiatorsPerHost {
		return nil, refuse(san.KindInvalid, "host %q has %d initiator names, %d are allowed; remove some", id, len(names), san.MaxInitiatorsPerHost)
	}
	var out []string
	for _, n := range names {
		if err := san.CheckInitiatorName(n); err != nil {
			return nil, err
		}
		n = san.NormalizeInitiator(n)
		if other := x.HostByInitiator(n); other != nil && other.ID != id {
			return nil, refuse(san.KindExists, "initiator name %s belongs to host %q; give host %q a name of its own, or remove host %q first", n, other.ID, id, other.ID)
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// parsePrefixes returns the canonical form of prefixes; a bare address means itself alone.
func parsePrefixes(prefixes []string) ([]string, error) {
	if len(prefixes) > san.MaxAllowFromPerHost {
		return nil, refuse(san.KindInvalid, "%d address ranges, %d are allowed; use wider ones", len(prefixes), san.MaxAllowFromPerHost)
	}
	var out []string
	for _, s := range prefixes {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil || a.Zone() != "" {
				return nil, refuse(san.KindInvalid, "%q is no address range; write it like 192.0.2.0/24", clip(s))
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if s = p.Masked().String(); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, nil
}

// parseAddresses returns the canonical form of IP addresses.
func parseAddresses(addresses []string) ([]string, error) {
	if len(addresses) > maxAddresses {
		return nil, refuse(san.KindInvalid, "%d addresses, %d are allowed; report fewer", len(addresses), maxAddresses)
	}
	var out []string
	for _, s := range addresses {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, refuse(san.KindInvalid, "%q is no IP address; write it like 192.0.2.1", clip(s))
		}
		if s = a.String(); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, nil
}
