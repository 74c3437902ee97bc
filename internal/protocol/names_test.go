package protocol_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

func TestNames(t *testing.T) {
	p := protocol.Pair{ProjectID: "a.b", UserID: "scott_1@x+1"}
	own := protocol.Names{
		InputPattern: "in_{userId}_{projectId}", UnclaimedDLQ: "dead", BucketPattern: "{projectId}-site", S3URLPattern: "http://{bucket}.s3.localhost:1234/",
	}
	var n protocol.Names
	got := []string{
		n.Input(p), n.Output(p), n.DLQ(p), n.Interrupts(p), n.Progress(p), n.Unclaimed(),
		n.Bucket("a.b"), n.SiteURL(n.Bucket("a.b")), p.Key(), p.Dir(),
		own.Input(p), own.Unclaimed(), own.Bucket("a"), own.SiteURL(own.Bucket("a")),
	}
	want := []string{
		"webordinary-input-a-b-scott-1-x-1", "webordinary-output-a-b-scott-1-x-1", "webordinary-dlq-a-b-scott-1-x-1",
		"webordinary-interrupts-a-b-scott-1-x-1", "webordinary-progress-a-b-scott-1-x-1", "webordinary-unclaimed-dlq",
		"edit.a.b.webordinary.com", "https://edit.a.b.webordinary.com", "a.b#scott_1@x+1", "a.b-scott_1@x+1",
		"in_scott-1-x-1_a-b", "dead", "a-site", "http://a-site.s3.localhost:1234/",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestNamesValidate(t *testing.T) {
	for _, good := range []protocol.Names{
		{},
		{InputPattern: "in_{projectId}{userId}", BucketPattern: "{projectId}", S3URLPattern: "http://localhost:8080/{bucket}/"},
		{S3URLPattern: "https://preview.example"},
	} {
		if err := good.Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []protocol.Names{
		{InputPattern: "in"},
		{OutputPattern: "out-{projectId}"},
		{ProgressPattern: "{userId}"},
		{DLQPattern: "{projectId}-{userId}-{x}"},
		{InterruptsPattern: "{projectId}-{userId}.fifo"},
		{InterruptsPattern: "{projectId}/{userId}"},
		{DLQPattern: "{projectId}-{userId}-" + strings.Repeat("x", 80)},
		{DLQPattern: "webordinary-input-{projectId}-{userId}"},
		{UnclaimedDLQ: "sqs/dead"},
		{BucketPattern: "Edit.{projectId}"},
		{BucketPattern: "edit.{projectId}.{userId}"},
		{BucketPattern: "everybody"},
		{S3URLPattern: "{bucket}"},
		{S3URLPattern: "https://{bucket}.{x}"},
		{S3URLPattern: "javascript:{bucket}"},
	} {
		if bad.Validate() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	err := protocol.Names{InputPattern: "in", BucketPattern: "B", S3URLPattern: "s"}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not every pattern is named: %v", err)
	}
}

func TestBucketRules(t *testing.T) {
	whole := protocol.Names{BucketPattern: "{projectId}"}
	for id, ok := range map[string]bool{
		"abc": true, "a.b.c": true, "0-9": true, strings.Repeat("a", 63): true, "1.2.3": true,
		"ab": false, strings.Repeat("a", 64): false, "1.2.3.4": false, "xn--abc": false, "sthree-a": false,
		"abc-s3alias": false, "abc--ol-s3": false, "a.-b": false, "a-.b": false, "abc-": false, "aBc": false, "a+b": false,
	} {
		// Ids longer than an input queue's name allows never get this far.
		p := protocol.Pair{ProjectID: id, UserID: "u"}
		names := whole
		if err := names.Check(p); ok != (err == nil) && len(id) < 50 {
			t.Errorf("bucket %q: %v", id, err)
		}
	}
}

// TestCheckedPairsHaveGoodNames: what Check lets through is a name everywhere.
func TestCheckedPairsHaveGoodNames(t *testing.T) {
	id := rapid.StringMatching(`[A-Za-z0-9][a-z0-9._@+-]{0,63}`)
	rapid.Check(t, func(t *rapid.T) {
		p := protocol.Pair{ProjectID: id.Draw(t, "project"), UserID: id.Draw(t, "user")}
		var n protocol.Names
		if p.Validate() != nil || n.Check(p) != nil {
			return
		}
		for _, q := range []string{n.Input(p), n.Output(p), n.DLQ(p), n.Interrupts(p), n.Progress(p)} {
			if len(q) > 80 || strings.Trim(q, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
				t.Fatalf("queue %q", q)
			}
		}
		if b := n.Bucket(p.ProjectID); len(b) > 63 || strings.ToLower(b) != b || strings.ContainsAny(b, "_@+") || strings.Contains(b, "..") {
			t.Fatalf("bucket %q", b)
		}
		if d := p.Dir(); strings.ContainsAny(d, "/\\\x00") || strings.HasPrefix(d, ".") || strings.Contains(d, "..") && !strings.Contains(d, "-.") {
			t.Fatalf("directory %q", d)
		}
	})
}

func TestDLQOf(t *testing.T) {
	for _, tt := range []struct {
		names       protocol.Names
		queue, want string
	}{
		{protocol.Names{}, "webordinary-input-amelia-scott", "webordinary-dlq-amelia-scott"},
		{protocol.Names{}, "webordinary-interrupts-a-b-c", "webordinary-dlq-a-b-c"},
		{protocol.Names{}, "webordinary-output-amelia-scott", ""},
		{protocol.Names{}, "webordinary-input-", ""},
		{protocol.Names{InputPattern: "in_{userId}_{projectId}", DLQPattern: "dead_{projectId}_{userId}"}, "in_scott_amelia", "dead_amelia_scott"},
	} {
		if got := tt.names.DLQOf(tt.queue); got != tt.want {
			t.Errorf("DLQOf(%q) = %q, want %q", tt.queue, got, tt.want)
		}
	}
}
