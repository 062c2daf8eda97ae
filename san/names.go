package san

import (
	"fmt"
	"strings"
)

// Limits on what users name and ask for.
const (
	// MaxNameLength bounds names of volumes, hosts, units, stations and tokens; a
	// name of this length still fits one DNS label (RFC 1035 §2.3.4).
	MaxNameLength = 63
	// MaxInitiatorNameLength is iSCSI's bound on a name (RFC 7143 §4.2.7.1).
	MaxInitiatorNameLength = 223
	// MaxInitiatorsPerHost bounds a host's list of initiator names.
	MaxInitiatorsPerHost = 32
	// MaxAllowFromPerHost bounds a host's list of allowed source prefixes.
	MaxAllowFromPerHost = 64
)

// CheckName reports whether s can name a what (a volume, a host …): 1 to 63 letters,
// digits, dots, dashes and underscores, beginning with a letter or a digit.
func CheckName(what, s string) error {
	if s == "" {
		return Errorf(KindInvalid, "%s name is empty; give 1 to %d letters, digits, '.', '-' or '_'", what, MaxNameLength)
	}
	if len(s) > MaxNameLength {
		return Errorf(KindInvalid, "%s name has %d characters; at most %d are allowed", what, len(s), MaxNameLength)
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return Errorf(KindInvalid, "%s name %q has %q at position %d; use letters, digits, '.', '-' and '_', beginning with a letter or digit", what, s, string(rune(c)), i+1)
		}
	}
	return nil
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// CheckInitiatorName reports whether s is a well-formed iSCSI name: type designator
// iqn., eui. or naa. followed by printable characters without spaces, at most 223
// bytes (RFC 7143 §4.2.7). Names compare in lower case; NormalizeInitiator folds them.
func CheckInitiatorName(s string) error {
	switch {
	case s == "":
		return Errorf(KindInvalid, "initiator name is empty; give one like iqn.2004-10.com.example:host1")
	case len(s) > MaxInitiatorNameLength:
		return Errorf(KindInvalid, "initiator name has %d bytes; RFC 7143 allows %d", len(s), MaxInitiatorNameLength)
	}
	low := strings.ToLower(s)
	if !strings.HasPrefix(low, "iqn.") && !strings.HasPrefix(low, "eui.") && !strings.HasPrefix(low, "naa.") {
		return Errorf(KindInvalid, "initiator name %q does not begin with iqn., eui. or naa. (RFC 7143 §4.2.7)", s)
	}
	for _, c := range []byte(low) {
		if c <= ' ' || c >= 0x7f && c < 0x80 || c == ',' || c == ';' {
			return Errorf(KindInvalid, "initiator name %q has a character that RFC 7143 §4.2.7 does not allow", s)
		}
	}
	return nil
}

// NormalizeInitiator folds an initiator name to the form in which names compare.
func NormalizeInitiator(s string) string { return strings.ToLower(s) }

// TargetName is the iSCSI name of the target through which unit u serves volume v:
// one target per logical unit and unit, the logical unit at LUN 0.
func TargetName(u UnitID, v VolumeID) string {
	return fmt.Sprintf("iqn.2026-11.io.sandbar:%s:%s", v, strings.ToLower(string(u)))
}

// HostInitiatorName is the initiator name of a host agent that was given none.
func HostInitiatorName(h HostID) string {
	return "iqn.2026-11.io.sandbar.host:" + strings.ToLower(string(h))
}
