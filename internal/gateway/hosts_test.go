package gateway

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseHost(t *testing.T) {
	type parsed struct {
		Host string
		Port uint16
	}
	for s, want := range map[string]parsed{
		"registry.npmjs.org":     {"registry.npmjs.org", 0},
		"Registry.NPMjs.org.":    {"registry.npmjs.org", 0},
		"registry.npmjs.org:443": {"registry.npmjs.org", 443},
		"localhost:4873":         {"localhost", 4873},
		"a_b.example:1":          {"a_b.example", 1},
		"xn--bcher-kva.example":  {"xn--bcher-kva.example", 0},
		"10.0.0.1":               {"10.0.0.1", 0},
		"10.0.0.1:65535":         {"10.0.0.1", 65535},
		"::1":                    {"::1", 0},
		"[::1]":                  {"::1", 0},
		"[0:0::0:1]:80":          {"::1", 80},
		"[::ffff:127.0.0.1]:80":  {"::ffff:127.0.0.1", 80},
		"[::ffff:7f00:1]:80":     {"::ffff:127.0.0.1", 80},
		"2001:DB8::1":            {"2001:db8::1", 0},
	} {
		host, port, err := parseHost(s)
		if d := cmp.Diff(want, parsed{host, port}); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", s, err, d)
		}
	}
	for _, s := range []string{
		"", ".", ":443", "a:", "a:0", "a:+1", "a:65536", "a:b", "a:1:2", "http://a", "a/b", "a b", "a@b", "*.a", "-a", "a-", "a..b",
		"2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "1.2.3.4.5", "256.1.1.1", "a.0x7f",
		"[::1", "[::1]x", "[::1]80", "[a]:80", "[127.0.0.1]:80", "[fe80::1%eth0]:80", "fe80::1%1", "[]:80", "a\x00b", "a\nb", "ä.example",
		strings.Repeat("a", 64), strings.Repeat("a.", 127) + "ab", "ⓛocalhost", "a%2eb",
	} {
		if host, port, err := parseHost(s); err == nil {
			t.Errorf("%q is taken for %q, %d", s, host, port)
		}
	}
}

// FuzzParseHost checks that what comes out means the same when it is parsed
// again, and is an address or a name and nothing in between.
func FuzzParseHost(f *testing.F) {
	for _, s := range []string{"a.b:1", "[::1]:80", "127.0.0.1", "0x7f.1:80", "[::ffff:1.2.3.4]", "A.b.:443", "[fe80::1%a]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := parseHost(s)
		if err != nil {
			return
		}
		again, p, err := parseHost(target{host, port}.String())
		if port == 0 {
			again, p, err = parseHost(host)
		}
		if err != nil || again != host || p != port {
			t.Fatalf("%q: %q %d, then %q %d, %v", s, host, port, again, p, err)
		}
		if _, err := netip.ParseAddr(host); err == nil {
			return
		}
		last := host[strings.LastIndexByte(host, '.')+1:]
		if _, err := strconv.ParseUint(last, 0, 64); err == nil || strings.ContainsAny(host, " /@:%[]") || host != strings.ToLower(host) {
			t.Fatalf("%q is taken for the name %q", s, host)
		}
	})
}

func TestIsPublic(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1",
		"169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1",
		"198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.80", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1",
		"100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
	} {
		if isPublic(netip.MustParseAddr(s)) {
			t.Errorf("%s is taken for public", s)
		}
	}
	for _, s := range []string{"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "104.16.0.1", "2606:4700::1", "2a00:1450::1"} {
		if !isPublic(netip.MustParseAddr(s)) {
			t.Errorf("%s is not taken for public", s)
		}
	}
}

func TestListed(t *testing.T) {
	h, err := ParseHosts([]string{"Fonts.example", " 10.1.2.3:4873", "[::1]:99", "localhost:8080"})
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]bool{
		"fonts.example:443": true, "fonts.example:80": true, "fonts.example.:443": true, "FONTS.example:443": true,
		"fonts.example:22": false, "fonts.example:8443": false, "x.fonts.example:443": false, "example:443": false, "fonts.example.evil:443": false,
		"10.1.2.3:4873": true, "10.1.2.3:443": false, "[::1]:99": true, "[0::1]:99": true, "[::1]:80": false, "127.0.0.1:8080": false, "localhost:8080": true,
		"[::ffff:10.1.2.3]:4873": false, "fonts.example": false, "nonsense:": false,
	} {
		if got := h.Allow(s); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
	if d := cmp.Diff([]string{"127.0.0.1"}, h.direct()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"localhost", "127.0.0.1", "::1"}, Hosts{}.direct()); d != "" {
		t.Error(d)
	}
	if _, err := ParseHosts([]string{"a", "https://b"}); err == nil {
		t.Error("an URL is taken for a host")
	}
}

// TestMayBe checks what addresses a listed host may have.
func TestMayBe(t *testing.T) {
	for _, tt := range []struct {
		host  string
		exact bool
		addr  string
		want  bool
	}{
		{"a.example", false, "1.1.1.1", true},
		{"a.example", false, "10.0.0.1", false},
		{"a.example", false, "127.0.0.1", false},
		{"a.example", true, "10.0.0.1", true},
		{"a.example", true, "127.0.0.1", true},
		{"a.example", true, "169.254.169.254", false},
		{"a.example", true, "::ffff:169.254.169.254", false},
		{"a.example", true, "0.0.0.0", false},
		{"a.example", true, "224.0.0.1", false},
		{"a.example", true, "fe80::1", false},
		{"169.254.169.254", true, "169.254.169.254", true},
		{"169.254.169.254", false, "169.254.169.254", false},
	} {
		if got := mayBe(target{tt.host, 443}, tt.exact, netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
