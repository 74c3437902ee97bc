package protocol

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Names are the patterns of names; the zero value has the platform's.
type Names struct {
	// Queues, with {projectId} and {userId}.
	InputPattern      string // empty means webordinary-input-{projectId}-{userId}
	OutputPattern     string // empty means webordinary-output-{projectId}-{userId}
	DLQPattern        string // empty means webordinary-dlq-{projectId}-{userId}
	InterruptsPattern string // empty means webordinary-interrupts-{projectId}-{userId}
	ProgressPattern   string // empty means webordinary-progress-{projectId}-{userId}
	// UnclaimedDLQ is for messages that name no usable pair; empty means
	// webordinary-unclaimed-dlq. It may be a queue's URL.
	UnclaimedDLQ string
	// BucketPattern has {projectId}; empty means edit.{projectId}.webordinary.com.
	BucketPattern string
	// S3URLPattern has {bucket}; empty means https://{bucket}.
	S3URLPattern string
}

// Input is the queue of a pair's commands.
func (n Names) Input(p Pair) string { return n.queue(n.InputPattern, "input", p) }

// Output is the queue of a pair's answers.
func (n Names) Output(p Pair) string { return n.queue(n.OutputPattern, "output", p) }

// DLQ is the dead-letter queue of a pair.
func (n Names) DLQ(p Pair) string { return n.queue(n.DLQPattern, "dlq", p) }

// DLQOf is the dead-letter queue that belongs to an input or interrupts queue;
// empty for a queue that is neither.
func (n Names) DLQOf(queue string) string {
	for _, pattern := range []string{
		first(n.InputPattern, defaultPattern("input")), first(n.InterruptsPattern, defaultPattern("interrupts")),
	} {
		quoted := regexp.QuoteMeta(pattern)
		quoted = strings.Replace(quoted, `\{projectId\}`, "(?P<project>.+)", 1)
		quoted = strings.Replace(quoted, `\{userId\}`, "(?P<user>.+)", 1)
		re, err := regexp.Compile("^" + quoted + "$")
		if err != nil {
			continue
		}
		if m := re.FindStringSubmatch(queue); m != nil {
			return n.DLQ(Pair{ProjectID: m[re.SubexpIndex("project")], UserID: m[re.SubexpIndex("user")]})
		}
	}
	return ""
}

// Interrupts is the queue of a pair's interrupts.
func (n Names) Interrupts(p Pair) string { return n.queue(n.InterruptsPattern, "interrupts", p) }

// Progress is the queue of a pair's progress events.
func (n Names) Progress(p Pair) string { return n.queue(n.ProgressPattern, "progress", p) }

// Unclaimed is the dead-letter queue for messages without a usable pair.
func (n Names) Unclaimed() string { return first(n.UnclaimedDLQ, "webordinary-unclaimed-dlq") }

// Bucket is where a project's site is.
func (n Names) Bucket(projectID string) string {
	return strings.ReplaceAll(first(n.BucketPattern, "edit.{projectId}.webordinary.com"), "{projectId}", projectID)
}

// SiteURL is the address of the site in a bucket.
func (n Names) SiteURL(bucket string) string {
	return strings.ReplaceAll(first(n.S3URLPattern, "https://{bucket}"), "{bucket}", bucket)
}

func (n Names) queue(pattern, kind string, p Pair) string {
	pattern = first(pattern, defaultPattern(kind))
	return strings.NewReplacer("{projectId}", queueSafe(p.ProjectID), "{userId}", queueSafe(p.UserID)).Replace(pattern)
}

func defaultPattern(kind string) string { return "webordinary-" + kind + "-{projectId}-{userId}" }

// queueSafe replaces what no queue name may have. Two ids may become one.
func queueSafe(id string) string {
	return strings.Map(func(r rune) rune {
		if isAlnum(r) || r == '-' {
			return r
		}
		return '-'
	}, id)
}

const maxQueueName = 80

// queues are the names of a pair's queues.
func (n Names) queues(p Pair) []string {
	return []string{n.Input(p), n.Output(p), n.DLQ(p), n.Interrupts(p), n.Progress(p)}
}

// Check returns an *InvalidError if a pair cannot have queues or a bucket.
func (n Names) Check(p Pair) error {
	for _, q := range n.queues(p) {
		if len(q) > maxQueueName {
			return invalid("projectId and userId are too long together: a queue name would have %d characters, at most %d are allowed", len(q), maxQueueName)
		}
	}
	if err := checkBucket(n.Bucket(p.ProjectID)); err != nil {
		return invalid("projectId cannot be part of a bucket name: %v", err)
	}
	return nil
}

// Validate returns an error that says of each pattern that cannot work, why.
func (n Names) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	sample := Pair{ProjectID: "project0", UserID: "user0"}
	queues := n.queues(sample)
	for i, q := range queues {
		switch {
		case !strings.Contains(q, sample.ProjectID) || !strings.Contains(q, sample.UserID):
			bad("the queue pattern that gives %q must have {projectId} and {userId}", q)
		case !isQueueName(q):
			bad("the queue pattern that gives %q may have {projectId}, {userId}, letters, digits, - and _ only", q)
		case slices.Contains(queues[:i], q):
			bad("two queue patterns give %q", q)
		}
	}
	if q := n.Unclaimed(); !isQueueName(q) && !isSiteURL(q) {
		bad("%q is no name for a queue", q)
	}
	if b := n.Bucket(sample.ProjectID); checkBucket(b) != nil {
		bad("the bucket pattern gives %q: %w", b, checkBucket(b))
	} else if !strings.Contains(b, sample.ProjectID) {
		bad("the bucket pattern gives %q for every project: it must have {projectId}", b)
	}
	if s := n.SiteURL("bucket0"); !isSiteURL(s) {
		bad("the site URL pattern gives %q: want http:// or https://, a host, and no braces but {bucket}", s)
	}
	return errors.Join(errs...)
}

func isQueueName(q string) bool {
	return q != "" && len(q) <= maxQueueName && !strings.ContainsFunc(q, func(r rune) bool {
		return !isAlnum(r) && r != '-' && r != '_'
	})
}

func isSiteURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && !strings.ContainsAny(s, "{}")
}

// checkBucket follows the rules S3 has for bucket names.
func checkBucket(name string) error {
	switch {
	case len(name) < 3 || len(name) > 63:
		return fmt.Errorf("%d characters; S3 wants 3 to 63", len(name))
	case strings.Contains(name, "..") || strings.Contains(name, ".-") || strings.Contains(name, "-."):
		return errors.New("a dot beside a dot or a hyphen")
	case !isLowerAlnum(name[0]) || !isLowerAlnum(name[len(name)-1]):
		return errors.New("it must begin and end with a small letter or a digit")
	case isReserved(name):
		return errors.New("it begins or ends with what S3 keeps for itself")
	}
	for i := range len(name) {
		if c := name[i]; !isLowerAlnum(c) && c != '.' && c != '-' {
			return errors.New("S3 wants small letters, digits, dots and hyphens")
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return errors.New("it is an IP address")
	}
	return nil
}

// isReserved reports whether S3 has a use of its own for such a name.
func isReserved(name string) bool {
	for _, prefix := range []string{"xn--", "sthree-", "amzn-s3-demo-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	for _, suffix := range []string{"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
