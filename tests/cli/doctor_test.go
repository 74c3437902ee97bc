package cli

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/webordinary/claude-code-container/tests/emulators"
	"github.com/webordinary/claude-code-container/tests/platform"
)

type finding struct{ Check, Level, Found, Do string }

// examined is what doctor prints for programs, and its exit code.
type examined struct {
	OK, Warn, Fail int
	Findings       []finding
	code           int
}

// doctor runs doctor on the pair, with some variables set otherwise.
func (w *world) doctor(env ...string) examined {
	w.t.Helper()
	o := w.runWith("", env, "doctor", "--project", "amelia", "--user", "scott", "--repo", w.Git.URL+"/"+w.j.Repo, "--output", "json")
	e := examined{code: o.code}
	if err := json.Unmarshal([]byte(o.stdout), &e); err != nil {
		w.t.Fatalf("doctor printed %q and %q: %v", o.stdout, o.stderr, err)
	}
	return e
}

// unlike returns the findings of e that a healthy platform does not have.
func (e examined) unlike(healthy examined) []finding {
	usual := map[finding]bool{}
	for _, f := range healthy.Findings {
		usual[f] = true
	}
	var all []finding
	for _, f := range e.Findings {
		if !usual[f] && f.Level != "ok" {
			all = append(all, f)
		}
	}
	return all
}

// programs are those that a site is built with, such that a test can take one away.
func (w *world) programs() string {
	w.t.Helper()
	dir := w.t.TempDir()
	for name, version := range map[string]string{"git": "git version 2.43.0", "node": "v20.11.1", "npm": "10.2.4", "claude": "2.1.328 (Claude Code)"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho '"+version+"'\n"), 0o700); err != nil {
			w.t.Fatal(err)
		}
	}
	if wall, err := exec.LookPath("bwrap"); err == nil {
		if err := os.Symlink(wall, filepath.Join(dir, "bwrap")); err != nil {
			w.t.Fatal(err)
		}
	}
	return dir
}

func TestDoctorOnAHealthyPlatform(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	path := "PATH=" + w.programs()
	e := w.doctor(path, "AGENT=claude", "ANTHROPIC_API_KEY=sk-ant-key-of-the-test")
	if e.code != 0 || e.Fail != 0 {
		t.Errorf("doctor ended with %d: %+v", e.code, e.Findings)
	}
	o := w.runWith("", []string{path, "AGENT=claude", "ANTHROPIC_API_KEY=sk-ant-key-of-the-test"}, "doctor")
	for _, words := range [][]string{
		{"ok", "credentials", "EnvConfigCredentials"},
		{"ok", "queues", "1 good input queue found"},
		{"ok", "table", "has TTL on ttl"},
		{"ok", "table", "has containerId-index"},
		{"ok", "git token", "--repo tries"},
		{"ok", "model", "ANTHROPIC_API_KEY is set"},
		{"ok", "agent", "2.1.328"},
		{"ok", "node", "20.11.1"},
		{"wall", " holds. "},
		{"ok", "workspaces", "can be written"},
		{"ok,", "0 failures"},
	} {
		if line(o.stdout, words...) == "" {
			t.Errorf("no line with %q in\n%s", words, o.stdout)
		}
	}
	if strings.Contains(o.stdout, "key-of-the-test") || strings.Contains(o.stdout, emulators.SecretKey) {
		t.Error("a secret is shown")
	}
	left, err := os.ReadDir(w.Workspaces)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the workspaces: %v, %v", left, err)
	}
}

// breakage is one thing that is wrong, and the one finding it makes.
type breakage struct {
	name string
	// break returns variables that are set otherwise.
	breaks func(w *world) []string
	want   finding // Found and Do are parts of it
}

func breakages() []breakage {
	set := func(env ...string) func(*world) []string { return func(*world) []string { return env } }
	return []breakage{
		{"no key", set("AGENT=claude", "CLAUDE_PATH=claude"), finding{"model", "fail", "ANTHROPIC_API_KEY is missing", "set it"}},
		{"no agent", set("AGENT_COMMAND=no-such-agent"), finding{"agent", "fail", "no such program", "install"}},
		{"no wall", set("SANDBOX=off"), finding{"wall", "warn", "SANDBOX=off", "leave SANDBOX out"}},
		{"no node", without("node"), finding{"node", "fail", "no such program", "Node.js"}},
		{"old git", func(w *world) []string { return replaced(w, "git", "git version 2.30.2") }, finding{"git", "fail", "2.30.2; at least 2.38", "apt-get"}},
		{"no workspaces", set("WORKSPACE_PATH=/no/such/directory"), finding{"workspaces", "fail", "is not there", "mount"}},
		{"wrong token", set("GITHUB_TOKEN=ghp_wrong"), finding{"git token", "fail", "may not push", "write access"}},
		{"other hosts", set("ALLOWED_REPO_HOSTS=example.com"), finding{"git token", "fail", "repoUrl", "ALLOWED_REPO_HOSTS"}},
		{"no unclaimed queue", set("UNCLAIMED_QUEUE_URL="), finding{"queue", "fail", "UNCLAIMED_QUEUE_URL is missing", "set it"}},
		{"resources are created", set("CREATE_RESOURCES=true"), finding{"settings", "warn", "CREATE_RESOURCES", "leave it out"}},
		{"no output queue", set("OUTPUT_QUEUE_PATTERN=none-{projectId}-{userId}"), finding{"queue", "fail", "is not there", "create it"}},
		{"five receives", redrivePolicy(`"maxReceiveCount":5`, ""), finding{"queue", "fail", "has maxReceiveCount 5", "set it to 3"}},
		{"another target", redrivePolicy(`"maxReceiveCount":3`, "elsewhere"), finding{"queue", "fail", "dead-letters to", "-dlq-"}},
		{"a day's retention", attribute("MessageRetentionPeriod", "86400"), finding{"queue", "warn", "keeps messages for 24h00m only", "4 days"}},
		{"short visibility", attribute("VisibilityTimeout", "30"), finding{"queue", "warn", "has visibility 30s", "300 s"}},
		{"no table", set("CONTAINER_OWNERSHIP_TABLE=no-such-table"), finding{"table", "fail", "is not there", "projectKey"}},
		{"no TTL", otherTable("projectKey", true, ""), finding{"table", "fail", "has no TTL", "turn it on"}},
		{"TTL elsewhere", otherTable("projectKey", true, "expires"), finding{"table", "fail", "has TTL on expires", "ttl"}},
		{"no index", otherTable("projectKey", false, "ttl"), finding{"table", "fail", "has no index containerId-index", "create it"}},
		{"another key", otherTable("id", true, "ttl"), finding{"table", "fail", "has another key than projectKey", "anew"}},
		{"no bucket", set("S3_BUCKET_PATTERN={projectId}.none.test"), finding{"bucket", "fail", "is not there", "create it"}},
		{"no website", func(w *world) []string {
			_, err := w.Set.S3Client(w.t).DeleteBucketWebsite(w.t.Context(), &s3.DeleteBucketWebsiteInput{Bucket: otherBucket(w)})
			return otherPattern(w, err)
		}, finding{"bucket", "warn", "is no website", "index.html"}},
		{"private", func(w *world) []string {
			_, err := w.Set.S3Client(w.t).DeleteBucketPolicy(w.t.Context(), &s3.DeleteBucketPolicyInput{Bucket: otherBucket(w)})
			return otherPattern(w, err)
		}, finding{"bucket", "warn", "is not for everybody", "s3:GetObject"}},
		{
			"an emulator that cannot", func(w *world) []string {
				return []string{"AWS_ENDPOINT_URL_S3=" + answering(w, http.StatusNotImplemented)}
			},
			finding{"bucket", "warn", "is not known there", "emulator"},
		},
	}
}

func TestDoctorFindsEachBreakage(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	w.env = append(w.env, "PATH="+w.programs())
	healthy := w.doctor()
	if healthy.code != 0 {
		t.Fatalf("healthy: %+v", healthy)
	}
	for _, b := range breakages() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			here := *w
			here.t = t
			e := here.doctor(b.breaks(&here)...)
			found := e.unlike(healthy)
			if len(found) != 1 {
				t.Fatalf("%d findings: %+v", len(found), found)
			}
			f := found[0]
			if f.Check != b.want.Check || f.Level != b.want.Level || !strings.Contains(f.Found, b.want.Found) || !strings.Contains(f.Do, b.want.Do) {
				t.Errorf("found %+v, want %+v", f, b.want)
			}
			if want := map[string]int{"fail": 1, "warn": 0}[f.Level]; e.code != want {
				t.Errorf("exit code %d, want %d", e.code, want)
			}
		})
	}
}

// TestDoctorWithoutAWS has no credentials, a refusal, and nobody at all.
func TestDoctorWithoutAWS(t *testing.T) {
	w := newWorld(t, platform.Options{Unread: true})
	for _, tt := range []struct {
		name  string
		env   []string
		words []string
	}{
		{"no credentials", []string{"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="}, []string{"fail", "credentials", "none", "AWS_ACCESS_KEY_ID"}},
		{"nobody", []string{"AWS_ENDPOINT_URL_SQS=http://127.0.0.1:1"}, []string{"fail", "queue", "no answer"}},
		{"no region", []string{"AWS_REGION="}, []string{"fail", "configuration", "AWS_REGION is missing"}},
		{"wrong configuration", []string{"MAX_CLAIMS=0"}, []string{"fail", "configuration", "MAX_CLAIMS is 0"}},
		{"wrong secret", []string{"AWS_SECRET_ACCESS_KEY=wrong"}, []string{"fail", "bucket", "not allowed"}},
	} {
		o := w.runWith("", tt.env, "doctor", "--project", "amelia", "--user", "scott")
		if o.code != 1 || line(o.stdout, tt.words...) == "" {
			t.Errorf("%s: %d, no line with %q in\n%s%s", tt.name, o.code, tt.words, o.stdout, o.stderr)
		}
	}
}

func without(program string) func(*world) []string {
	return func(w *world) []string {
		dir := w.programs()
		if err := os.Remove(filepath.Join(dir, program)); err != nil {
			w.t.Fatal(err)
		}
		return []string{"PATH=" + dir}
	}
}

func replaced(w *world, program, version string) []string {
	dir := w.programs()
	if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\necho '"+version+"'\n"), 0o700); err != nil {
		w.t.Fatal(err)
	}
	return []string{"PATH=" + dir}
}

// otherInput is an input queue of its own, right in all that changed does not change.
func otherInput(w *world, changed map[string]string) []string {
	w.t.Helper()
	pattern := emulators.Unique(w.t, "in") + "-{projectId}-{userId}"
	name := strings.NewReplacer("{projectId}", "amelia", "{userId}", "scott").Replace(pattern)
	target := w.Set.CreateQueue(w.t, name, w.Names.DLQ(w.j.Pair))
	if _, err := w.sqs.SetQueueAttributes(w.t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &target, Attributes: changed}); err != nil {
		w.t.Fatal(err)
	}
	return []string{"INPUT_QUEUE_PATTERN=" + pattern}
}

func attribute(name, value string) func(*world) []string {
	return func(w *world) []string { return otherInput(w, map[string]string{name: value}) }
}

func redrivePolicy(count, target string) func(*world) []string {
	return func(w *world) []string {
		arn := "arn:aws:sqs:" + emulators.Region + ":000000000000:"
		if target == "" {
			target = w.Names.DLQ(w.j.Pair)
		} else {
			target = emulators.Unique(w.t, target)
			w.Set.CreateQueue(w.t, target, "")
		}
		return otherInput(w, map[string]string{"RedrivePolicy": `{"deadLetterTargetArn":"` + arn + target + `",` + count + `}`})
	}
}

// otherTable creates a table with another key, without the index, or with TTL on
// another attribute or none.
func otherTable(key string, indexed bool, ttl string) func(*world) []string {
	return func(w *world) []string {
		name := emulators.Unique(w.t, "table")
		db := w.Set.DynamoDBClient(w.t)
		in := &dynamodb.CreateTableInput{
			TableName: &name, BillingMode: ddbtypes.BillingModePayPerRequest,
			AttributeDefinitions: []ddbtypes.AttributeDefinition{{AttributeName: &key, AttributeType: ddbtypes.ScalarAttributeTypeS}},
			KeySchema:            []ddbtypes.KeySchemaElement{{AttributeName: &key, KeyType: ddbtypes.KeyTypeHash}},
		}
		if indexed {
			in.AttributeDefinitions = append(in.AttributeDefinitions, ddbtypes.AttributeDefinition{AttributeName: aws.String("containerId"), AttributeType: ddbtypes.ScalarAttributeTypeS})
			in.GlobalSecondaryIndexes = []ddbtypes.GlobalSecondaryIndex{{
				IndexName: aws.String("containerId-index"), Projection: &ddbtypes.Projection{ProjectionType: ddbtypes.ProjectionTypeAll},
				KeySchema: []ddbtypes.KeySchemaElement{{AttributeName: aws.String("containerId"), KeyType: ddbtypes.KeyTypeHash}},
			}}
		}
		if _, err := db.CreateTable(w.t.Context(), in); err != nil {
			w.t.Fatal(err)
		}
		if ttl != "" {
			_, err := db.UpdateTimeToLive(w.t.Context(), &dynamodb.UpdateTimeToLiveInput{TableName: &name, TimeToLiveSpecification: &ddbtypes.TimeToLiveSpecification{
				AttributeName: &ttl, Enabled: aws.Bool(true),
			}})
			if err != nil {
				w.t.Fatal(err)
			}
		}
		return []string{"CONTAINER_OWNERSHIP_TABLE=" + name}
	}
}

// otherBucket creates a bucket that is right, for the test to break.
func otherBucket(w *world) *string {
	w.t.Helper()
	name := "amelia." + strings.ToLower(strings.ReplaceAll(filepath.Base(w.t.Name()), "_", "-")) + "." + strings.TrimPrefix(w.j.Bucket, "edit.amelia.")
	w.Set.CreateBucket(w.t, name)
	return &name
}

func otherPattern(w *world, err error) []string {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return []string{"S3_BUCKET_PATTERN={projectId}." + strings.ToLower(strings.ReplaceAll(filepath.Base(w.t.Name()), "_", "-")) + "." + strings.TrimPrefix(w.j.Bucket, "edit.amelia.")}
}

// answering is an S3 that answers what is asked about a website with a status.
func answering(w *world, status int) string {
	return before(w.t, w.Set.S3, func(rw http.ResponseWriter, r *http.Request) bool {
		if !r.URL.Query().Has("website") {
			return false
		}
		rw.WriteHeader(status)
		rw.Write([]byte(`<?xml version="1.0"?><Error><Code>NotImplemented</Code><Message>no</Message></Error>`)) //nolint:errcheck // the client may be gone
		return true
	})
}
