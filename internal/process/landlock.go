package process

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	abi "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// The versions of Landlock that matter: what it must have, and with what it
// closes unix sockets by itself.
const (
	leastLandlock = 6 // Linux 6.12: signals and abstract sockets
	resolvesUnix  = 9
)

// landlockVersion is what the kernel has; 0 means nothing.
func landlockVersion() int {
	v, err := abi.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return v
}

// landlock restricts this process to what its access says.
func (s spec) landlock() error {
	if v := landlockVersion(); v < leastLandlock {
		return fmt.Errorf("the kernel has version %d of Landlock; %d, of Linux 6.12, is needed", v, leastLandlock)
	}
	return s.restrict()
}

// restrict does so with what the kernel has of Landlock.
func (s spec) restrict() error {
	rules := []landlock.Rule{
		landlock.RWFiles("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty").WithIoctlDev().IgnoreIfMissing(),
		// What of it belongs to processes outside, Landlock closes, but for what
		// ps shows.
		landlock.RODirs("/proc"),
		landlock.RWDirs(s.Access.Write...).WithRefer().IgnoreIfMissing(),
	}
	for _, path := range s.readable() {
		info, err := os.Stat(path)
		switch {
		case err != nil: // it is not there, or not ours to read
		case info.IsDir():
			rules = append(rules, landlock.RODirs(path))
		default:
			rules = append(rules, landlock.ROFiles(path))
		}
	}
	if s.Access.Proxy != "" {
		proxy, err := netip.ParseAddrPort(s.Access.Proxy)
		if err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
		rules = append(rules, landlock.ConnectTCP(proxy.Port()))
	}
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

// readable is what a child may read without being able to change it.
func (s spec) readable() []string {
	paths := append(systemDirs(), systemFiles()...)
	return append(append(paths, s.Read...), s.Access.Read...)
}

// systemDirs hold programs and libraries.
func systemDirs() []string {
	return []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
}

// systemFiles are what programs look up in /etc, and nothing that may hold a
// secret.
func systemFiles() []string {
	return []string{
		"/etc/alternatives", "/etc/ca-certificates", "/etc/fonts", "/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf",
		"/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types", "/etc/nsswitch.conf", "/etc/os-release", "/etc/passwd", "/etc/pki/tls/certs",
		"/etc/protocols", "/etc/services", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/timezone",
	}
}
