package protocol

import (
	"fmt"
	"net/netip"
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
	// webordinary-unclaimed-dlq.
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
	pattern = first(pattern, "webordinary-"+kind+"-{projectId}-{userId}")
	return strings.NewReplacer("{projectId}", queueSafe(p.ProjectID), "{userId}", queueSafe(p.UserID)).Replace(pattern)
}

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

// Check returns an *InvalidError if a pair cannot have queues or a bucket.
func (n Names) Check(p Pair) error {
	for _, q := range []string{n.Input(p), n.Output(p), n.DLQ(p), n.Interrupts(p), n.Progress(p)} {
		if len(q) > maxQueueName {
			return invalid("projectId and userId are too long together: a queue name would have %d characters, at most %d are allowed", len(q), maxQueueName)
		}
	}
	if err := checkBucket(n.Bucket(p.ProjectID)); err != nil {
		return invalid("projectId cannot be part of a bucket name: %v", err)
	}
	return nil
}

// CheckPatterns returns an error for each pattern that cannot work.
func (n Names) CheckPatterns() error {
	p := Pair{ProjectID: "p0", UserID: "u0"}
	for _, q := range []string{n.Input(p), n.Output(p), n.DLQ(p), n.Interrupts(p), n.Progress(p)} {
		if !strings.Contains(q, "p0") || !strings.Contains(q, "u0") {
			return fmt.Errorf("the queue pattern that gives %q must have {projectId} and {userId}", q)
		}
		if strings.ContainsAny(q, "{}") {
			return fmt.Errorf("the queue pattern that gives %q has braces other than {projectId} and {userId}", q)
		}
	}
	if err := checkBucket(n.Bucket("p0")); err != nil {
		return fmt.Errorf("the bucket pattern gives %q: %w", n.Bucket("p0"), err)
	}
	if u := n.SiteURL("b0"); !strings.HasPrefix(u, "http") || strings.ContainsAny(u, "{}") {
		return fmt.Errorf("the site URL pattern gives %q: want a URL with {bucket}", u)
	}
	return nil
}

// checkBucket follows the rules S3 has for bucket names.
func checkBucket(name string) error {
	switch {
	case len(name) < 3 || len(name) > 63:
		return fmt.Errorf("%d characters; S3 wants 3 to 63", len(name))
	case strings.Contains(name, "..") || strings.Contains(name, ".-") || strings.Contains(name, "-."):
		return fmt.Errorf("a dot beside a dot or a hyphen")
	case !isLowerAlnum(name[0]) || !isLowerAlnum(name[len(name)-1]):
		return fmt.Errorf("it must begin and end with a small letter or a digit")
	case strings.HasPrefix(name, "xn--"):
		return fmt.Errorf("it begins with xn--")
	}
	for i := range len(name) {
		if c := name[i]; !isLowerAlnum(c) && c != '.' && c != '-' {
			return fmt.Errorf("S3 wants small letters, digits, dots and hyphens")
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Errorf("it is an IP address")
	}
	return nil
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
