package gateway

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Hosts are the hosts that a child may reach. The zero value is none.
//
// One that is listed without a port may be reached at 80 and 443, at public
// addresses alone. One that is listed with its port is meant: it may have a
// private or a loopback address, too.
type Hosts struct {
	plain map[string]bool
	exact map[target]bool
}

// target is what a child wants to reach. Its host is in the form that parseHost
// returns.
type target struct {
	host string
	port uint16
}

// String is the usual form.
func (t target) String() string {
	if strings.Contains(t.host, ":") {
		return "[" + t.host + "]:" + strconv.Itoa(int(t.port))
	}
	return t.host + ":" + strconv.Itoa(int(t.port))
}

// ParseHosts reads a list of host or host:port. A host is a name, or an address;
// one of IPv6 with a port stands in brackets. The error says which is wrong.
func ParseHosts(list []string) (Hosts, error) {
	h := Hosts{plain: map[string]bool{}, exact: map[target]bool{}}
	for _, s := range list {
		host, port, err := parseHost(strings.TrimSpace(s))
		if err != nil {
			return Hosts{}, err
		}
		if port == 0 {
			h.plain[host] = true
		} else {
			h.exact[target{host, port}] = true
		}
	}
	return h, nil
}

// Allow reports whether a host:port is listed.
func (h Hosts) Allow(hostPort string) bool {
	host, port, err := parseHost(hostPort)
	listed, _ := h.listed(target{host, port})
	return err == nil && listed
}

// listed reports whether a target is listed, and whether it is with its port.
func (h Hosts) listed(t target) (listed, exact bool) {
	if h.exact[t] {
		return true, true
	}
	return h.plain[t.host] && (t.port == portHTTP || t.port == portHTTPS), false
}

// direct are the names of this machine that are not listed: what a child calls by
// them is its own, and not beyond the proxy.
func (h Hosts) direct() []string {
	var names []string
next:
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		if h.plain[name] {
			continue
		}
		for t := range h.exact {
			if t.host == name {
				continue next
			}
		}
		names = append(names, name)
	}
	return names
}

const (
	portHTTP  = 80
	portHTTPS = 443
	maxName   = 253
)

// parseHost takes host or host:port apart; the port is zero if there is none.
// Names become lower case without a last dot, addresses what netip writes. What is
// neither is an error: numbers that some resolvers take for addresses, such as
// 2130706433 or 0x7f.1, and addresses with a zone.
func parseHost(s string) (host string, port uint16, err error) {
	host, rest := s, ""
	if inside, ok := strings.CutPrefix(s, "["); ok {
		host, rest, ok = strings.Cut(inside, "]")
		if !ok || !strings.Contains(host, ":") {
			return "", 0, notHost(s)
		}
	} else if strings.Count(s, ":") == 1 {
		i := strings.IndexByte(s, ':')
		host, rest = s[:i], s[i:]
	}
	if rest != "" {
		n, err := strconv.ParseUint(strings.TrimPrefix(rest, ":"), 10, 16)
		if err != nil || n == 0 || rest[0] != ':' {
			return "", 0, notHost(s)
		}
		port = uint16(n)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return "", 0, notHost(s)
		}
		return a.String(), port, nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if !isName(host) {
		return "", 0, notHost(s)
	}
	return host, port, nil
}

func notHost(s string) error {
	return fmt.Errorf("%q is not a host or host:port", s[:min(len(s), maxName)])
}

// isName reports whether a text is a name of the DNS in lower case, and can be
// nothing else.
func isName(s string) bool {
	if len(s) > maxName {
		return false
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		strange := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' }
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, strange) || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	last := labels[len(labels)-1] // that of no name is a number
	return last[0] < '0' || last[0] > '9'
}

// isPublic reports whether an address is somebody's on the internet: not this
// machine's, not of its networks or of a cloud's services, and not one that stands
// for another address.
func isPublic(a netip.Addr) bool {
	if a.Zone() != "" || a.Is4In6() || !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	special := []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	}
	if a.Is6() {
		// Teredo, 6to4 and documentation; NAT64 is outside of 2000::/3.
		special = []string{"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"}
		if !netip.MustParsePrefix("2000::/3").Contains(a) {
			return false
		}
	}
	for _, p := range special {
		if netip.MustParsePrefix(p).Contains(a) {
			return false
		}
	}
	return true
}

// mayBe reports whether a target may have an address. One that is listed with its
// port may have any, but a name none of those that lead to a cloud's services or to
// nobody in particular: these have to be listed themselves.
func mayBe(t target, exact bool, a netip.Addr) bool {
	if isPublic(a) {
		return true
	}
	if !exact {
		return false
	}
	if literal, err := netip.ParseAddr(t.host); err == nil {
		return literal == a
	}
	a = a.Unmap()
	return !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified()
}
