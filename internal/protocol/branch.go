package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
)

const (
	branchPrefix = "thread-"
	// maxBranch keeps the ref's file name, with a hash, a suffix of the
	// workspace's and git's .lock behind it, below what file systems allow.
	maxBranch = 160
	// branchHash is the number of hexadecimal digits of a hash: one that the
	// ids of the world rarely end in, as they do in 8, 10, 12, 13 or 16.
	branchHash = 15
)

// Branch is the git branch of a thread: thread-<id>. An id that already begins
// with thread- is not prefixed twice, so 7 and thread-7 are one thread. Where
// the id is no ref as it is, what git or we refuse is replaced by - and a short
// hash of the id is appended. So is one to an id that looks as if it had one,
// which would else be another's branch.
func Branch(threadID string) string {
	name := threadID
	if !strings.HasPrefix(name, branchPrefix) {
		name = branchPrefix + name
	}
	safe := refSafe(name)
	if safe == name && !endsInHash(name) {
		return name
	}
	sum := sha256.Sum256([]byte(threadID))
	return safe + "-" + hex.EncodeToString(sum[:])[:branchHash]
}

// refSafe returns a name that git takes for a branch.
func refSafe(name string) string {
	safe := strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII || !isAlnum(r) && !strings.ContainsRune("._@+=,%!-", r) {
			return '-'
		}
		return r
	}, name)
	safe = strings.ReplaceAll(safe, "..", "-")
	if s, ok := strings.CutSuffix(safe, "."); ok {
		safe = s + "-"
	}
	if i := len(safe) - len(".lock"); strings.EqualFold(safe[max(i, 0):], ".lock") {
		safe = safe[:i] + "-lock"
	}
	return safe[:min(len(safe), maxBranch)]
}

func endsInHash(name string) bool {
	i := len(name) - branchHash
	return i > 0 && name[i-1] == '-' && strings.Trim(name[i:], "0123456789abcdef") == ""
}
