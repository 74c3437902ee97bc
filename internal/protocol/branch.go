package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
)

// maxBranch keeps the ref's file name, with git's .lock behind it, below what
// file systems allow.
const maxBranch = 200

// Branch is the git branch of a thread: thread-<id>. An id that already begins
// with thread- is not prefixed twice. Where the id is no ref as it is, what git
// or we refuse is replaced by - and a short hash of the id is appended, so that
// no two ids that were changed share a branch.
func Branch(threadID string) string {
	name := threadID
	if !strings.HasPrefix(name, "thread-") {
		name = "thread-" + name
	}
	safe := strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII || !isAlnum(r) && !strings.ContainsRune("._@+=,%!-", r) {
			return '-'
		}
		return r
	}, name)
	for _, bad := range []string{"..", "@{"} {
		safe = strings.ReplaceAll(safe, bad, "-")
	}
	if strings.HasSuffix(safe, ".") {
		safe = strings.TrimRight(safe, ".") + "-"
	}
	if strings.HasSuffix(strings.ToLower(safe), ".lock") {
		safe = safe[:len(safe)-len(".lock")] + "-lock"
	}
	if len(safe) > maxBranch {
		safe = safe[:maxBranch]
	}
	if safe == name {
		return name
	}
	sum := sha256.Sum256([]byte(threadID))
	return safe + "-" + hex.EncodeToString(sum[:5])
}
