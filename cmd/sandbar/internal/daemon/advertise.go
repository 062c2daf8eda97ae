package daemon

import (
	"net"
	"net/netip"

	"github.com/sandbar-san/sandbar/cmd/sandbar/internal/config"
)

// advertised is where others reach what listens under the name's keys. Without a word about
// it, a listener on all addresses of a machine that has just one is reached there; with several,
// the answer is empty, and the daemon asks for it.
func advertised(v *config.Values, name string, machine func() []netip.Addr) string {
	if given := v.Text(name + "-advertise"); given != "" {
		return given
	}
	host, port, err := net.SplitHostPort(v.Text(name + "-listen"))
	if err != nil {
		return "" // the daemon says what is wrong with it
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		return ""
	}
	addrs := machine()
	if len(addrs) != 1 {
		return ""
	}
	return net.JoinHostPort(addrs[0].String(), port)
}

// machineAddrs are the addresses at which other machines may reach this one; IPv6 ones
// only if there are no others.
func machineAddrs() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil // then the operator is asked
	}
	var v4, v6 []netip.Addr
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		switch ip := prefix.Addr().Unmap(); {
		case ip.IsLoopback() || !ip.IsGlobalUnicast():
		case ip.Is4():
			v4 = append(v4, ip)
		default:
			v6 = append(v6, ip)
		}
	}
	if len(v4) > 0 {
		return v4
	}
	return v6
}
