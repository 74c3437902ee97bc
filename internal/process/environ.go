package process

import (
	"slices"
	"strings"
	"sync"
)

// Environ picks from all what a child may see: what every program needs to run
// here, and the variables named in extra. No credential is among the former.
func Environ(all, extra []string) []string {
	allowed := []string{
		"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"npm_config_registry", "npm_config_cafile",
	}
	var env []string
	for _, kv := range all {
		name, _, ok := strings.Cut(kv, "=")
		if ok && (slices.Contains(allowed, name) || slices.Contains(extra, name) || strings.HasPrefix(name, "LC_")) {
			env = append(env, kv)
		}
	}
	return env
}

// With returns env with some variables set, replacing what they were.
func With(env []string, set ...string) []string {
	out := make([]string, 0, len(env)+len(set))
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(set, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
			out = append(out, kv)
		}
	}
	return append(out, set...)
}

// Tail is a writer that keeps the last Max bytes; its zero value keeps 64 KB. It
// may be written to by several goroutines.
type Tail struct {
	Max int

	mu   sync.Mutex
	kept []byte
}

// Write implements io.Writer; it never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	limit := t.Max
	if limit == 0 {
		limit = 64 * 1024
	}
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - limit; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

// String returns what is kept.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
