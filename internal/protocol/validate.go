package protocol

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sizes of what comes in.
const (
	MaxInstruction = 200 * 1024
	maxID          = 256
	maxPairID      = 64
	maxURL         = 2048
)

// InvalidError says which rule a message breaks. Its text may be shown to the
// sender.
type InvalidError struct {
	Code   ErrorCode
	Reason string
}

// Error implements error.
func (e *InvalidError) Error() string { return e.Reason }

func invalid(format string, args ...any) error {
	return &InvalidError{Code: InvalidMessage, Reason: fmt.Sprintf(format, args...)}
}

// Validate checks the ids by themselves and returns an *InvalidError; Names.Check
// checks what is made of them.
func (p Pair) Validate() error {
	for _, f := range []struct{ name, id string }{{"projectId", p.ProjectID}, {"userId", p.UserID}} {
		if err := validatePairID(f.name, f.id); err != nil {
			return err
		}
	}
	return nil
}

func validatePairID(name, id string) error {
	switch {
	case id == "":
		return invalid("%s is missing", name)
	case len(id) > maxPairID:
		return invalid("%s has more than %d characters", name, maxPairID)
	case !isAlnum(rune(id[0])):
		return invalid("%s must begin with a letter or a digit", name)
	case strings.Contains(id, ".."):
		return invalid("%s has two dots in a row", name)
	}
	for _, r := range id {
		if !isAlnum(r) && !strings.ContainsRune("._@+-", r) {
			return invalid("%s has a character other than letters, digits and ._@+-", name)
		}
	}
	return nil
}

func isAlnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

// Rules are what the operator allows.
type Rules struct {
	// AllowedRepoHosts are "host" or "host:port"; none means github.com.
	// http is allowed for a loopback host listed with its port.
	AllowedRepoHosts []string
	// AllowFile allows file:// repositories; only the program itself sets it.
	AllowFile bool
	// Names are checked to be possible with the message's ids.
	Names Names
}

// Answerable reports whether the ids name an output queue, so that the message
// gets an answer also when it is refused.
func (m InputMessage) Answerable() bool { return m.Pair().Validate() == nil }

// Validate returns an *InvalidError if the message breaks a rule.
func (m InputMessage) Validate(r Rules) error {
	if err := m.Pair().Validate(); err != nil {
		return err
	}
	if err := r.Names.Check(m.Pair()); err != nil {
		return err
	}
	for _, f := range []struct{ name, id string }{
		{"threadId", m.ThreadID}, {"sessionId", m.SessionID}, {"commandId", m.CommandID},
	} {
		if err := validateID(f.name, f.id); err != nil {
			return err
		}
	}
	switch {
	case m.Defect != "":
		return invalid("%s", m.Defect)
	case m.Instruction == "":
		return invalid("instruction is missing")
	case len(m.Instruction) > MaxInstruction:
		return invalid("instruction has %d bytes; at most %d are allowed", len(m.Instruction), MaxInstruction)
	case !utf8.ValidString(m.Instruction):
		return invalid("instruction is not valid UTF-8")
	case strings.TrimSpace(m.Instruction) == "":
		return invalid("instruction is blank")
	}
	if m.RepoURL == "" {
		return nil
	}
	return r.CheckRepo(m.RepoURL)
}

func validateID(name, id string) error {
	switch {
	case id == "":
		return invalid("%s is missing", name)
	case utf8.RuneCountInString(id) > maxID:
		return invalid("%s has more than %d characters", name, maxID)
	}
	for _, r := range id {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return invalid("%s has a character that cannot be printed", name)
		}
	}
	return nil
}

func notAllowed(format string, args ...any) error {
	return &InvalidError{Code: RepoNotAllowed, Reason: fmt.Sprintf(format, args...)}
}

// neverInPath are the runes that a path must not hold when its escapes are undone.
func neverInPath(r rune) bool {
	return r == '\\' || r == utf8.RuneError || unicode.IsControl(r)
}

// CheckRepo returns an *InvalidError for a repository that is not allowed. It never
// repeats the URL: that may hold a credential.
func (r Rules) CheckRepo(raw string) error {
	if len(raw) > maxURL {
		return notAllowed("repoUrl has more than %d characters", maxURL)
	}
	for _, c := range raw {
		if c <= ' ' || c == '\\' || c >= unicode.MaxASCII {
			return notAllowed("repoUrl has a character that no URL has")
		}
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		return notAllowed("repoUrl is not a URL such as https://github.com/owner/name.git")
	}
	switch {
	case u.User != nil:
		return notAllowed("repoUrl holds a user name or password; the worker has credentials of its own")
	case u.RawQuery != "" || u.ForceQuery:
		return notAllowed("repoUrl has a query")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return notAllowed("repoUrl has a fragment")
	case u.Path == "" || u.Path == "/":
		return notAllowed("repoUrl names no repository")
	case path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") || strings.ContainsFunc(u.Path, neverInPath):
		return notAllowed("repoUrl has a path that leads elsewhere")
	}
	return r.checkHost(u)
}

func (r Rules) checkHost(u *url.URL) error {
	hosts := r.AllowedRepoHosts
	if len(hosts) == 0 {
		hosts = []string{"github.com"}
	}
	listed := slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, u.Host) })
	switch u.Scheme {
	case "https":
		if !listed {
			return notAllowed("the host of repoUrl is not one of %s", strings.Join(hosts, ", "))
		}
	case "http":
		if !listed || u.Port() == "" || !isLoopback(u.Hostname()) {
			return notAllowed("repoUrl is not encrypted; use https")
		}
	case "file":
		if !r.AllowFile || u.Host != "" {
			return notAllowed("repoUrl is a file; use https")
		}
	default:
		return notAllowed("repoUrl must begin with https://")
	}
	return nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// CheckRepoHost returns an error if h cannot stand in AllowedRepoHosts.
func CheckRepoHost(h string) error {
	u, err := url.Parse("https://" + h)
	if err != nil || u.Host != h || u.Hostname() == "" || strings.HasSuffix(h, ":") || strings.ContainsFunc(h, unicode.IsSpace) {
		return fmt.Errorf("%q is not a host or host:port", h)
	}
	return nil
}
