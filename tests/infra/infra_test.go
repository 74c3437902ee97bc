// Package infra checks the files of infra/ecs against the program, its image and the
// API calls that it makes.
package infra

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/apicall"
)

const root = "../.."

func read(t *testing.T, name string, v any) string {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(root, "infra", "ecs", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(body)
}

// listed are the calls of a file: calls.txt has the worker's.
func listed(t *testing.T, file string) []string {
	t.Helper()
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	for line := range strings.Lines(string(body)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			calls = append(calls, line)
		}
	}
	return calls
}

func TestPoliciesAreJustEnough(t *testing.T) {
	for policy, calls := range map[string]string{"policy.json": "calls.txt", "operator-policy.json": "operator-calls.txt"} {
		var p apicall.Policy
		read(t, policy, &p)
		if err := apicall.Compare(p, listed(t, calls)); err != nil {
			t.Errorf("%s: %v", policy, err)
		}
	}
}

// TestRecordedCallsAreListed compares with what other suites wrote to the file that
// the environment names, if it does.
func TestRecordedCallsAreListed(t *testing.T) {
	file := os.Getenv(apicall.Variable)
	if file == "" {
		file = os.DevNull
	}
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	calls := listed(t, "calls.txt")
	for call := range strings.Lines(string(body)) {
		if call = strings.TrimSpace(call); !slices.Contains(calls, call) {
			t.Errorf("the worker calls %s; tests/infra/calls.txt and infra/ecs/policy.json do not know it", call)
		}
	}
}

// TestPoliciesNameResources, and the platform's alone.
func TestPoliciesNameResources(t *testing.T) {
	for _, name := range []string{"policy.json", "execution-policy.json", "operator-policy.json"} {
		var p apicall.Policy
		read(t, name, &p)
		for _, s := range p.Statement {
			for _, a := range s.Action {
				if strings.Contains(a, "*") {
					t.Errorf("%s: %s allows %s", name, s.Sid, a)
				}
			}
			for _, r := range s.Resource {
				if r == "*" && !slices.Equal(s.Action, []string{"ecr:GetAuthorizationToken"}) && !slices.Equal(s.Action, []string{"sqs:ListQueues"}) { // which know no resource
					t.Errorf("%s: %s is for every resource", name, s.Sid)
				}
			}
		}
	}
}

type pair struct{ Name, Value string }

type taskDefinition struct {
	RuntimePlatform      struct{ CPUArchitecture string }
	ContainerDefinitions []struct {
		ReadonlyRootFilesystem bool
		StopTimeout            int
		LinuxParameters        struct{ InitProcessEnabled *bool }
		Environment            []pair
		Secrets                []struct{ Name, ValueFrom string }
		MountPoints            []struct{ SourceVolume, ContainerPath string }
		HealthCheck            struct {
			Command                                 []string
			Interval, Timeout, Retries, StartPeriod int
		}
		LogConfiguration struct {
			LogDriver string
			Options   map[string]string
		}
		PortMappings []any
	}
	Volumes []struct{ Name string }
}

func TestTaskDefinition(t *testing.T) {
	var d taskDefinition
	read(t, "task-definition.json", &d)
	if len(d.ContainerDefinitions) != 1 || d.RuntimePlatform.CPUArchitecture != "X86_64" {
		t.Fatalf("%d containers on %q", len(d.ContainerDefinitions), d.RuntimePlatform.CPUArchitecture)
	}
	c := d.ContainerDefinitions[0]
	var grace time.Duration
	for _, v := range c.Environment {
		if v.Name == "SHUTDOWN_GRACE" {
			grace, _ = time.ParseDuration(v.Value)
		}
		if strings.Contains(v.Name, "TOKEN") || strings.Contains(v.Name, "KEY") {
			t.Errorf("%s is in the environment for all to read; it belongs to the secrets", v.Name)
		}
	}
	if stop := time.Duration(c.StopTimeout) * time.Second; grace == 0 || stop <= grace || stop > 2*time.Minute {
		t.Errorf("stopTimeout %v for a SHUTDOWN_GRACE of %v; Fargate's most is 2m", stop, grace)
	}
	if init := c.LinuxParameters.InitProcessEnabled; init == nil || *init {
		t.Error("another init process would hold the worker's environment")
	}
	if c.LogConfiguration.LogDriver != "awslogs" || c.LogConfiguration.Options["awslogs-group"] != "/ecs/webordinary/edit" {
		t.Errorf("logs go to %v", c.LogConfiguration)
	}
	if !c.ReadonlyRootFilesystem || len(c.PortMappings) > 0 || len(c.Secrets) != 1 {
		t.Errorf("read-only %v, ports %v, secrets %v", c.ReadonlyRootFilesystem, c.PortMappings, c.Secrets)
	}
}

// TestTaskDefinitionAgreesWithTheImage about volumes and health.
func TestTaskDefinitionAgreesWithTheImage(t *testing.T) {
	var d taskDefinition
	read(t, "task-definition.json", &d)
	c := d.ContainerDefinitions[0]
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	var volumes, health []string
	if m := regexp.MustCompile(`(?m)^VOLUME (.*)$`).FindSubmatch(dockerfile); m == nil || json.Unmarshal(m[1], &volumes) != nil {
		t.Fatal("the Dockerfile has no VOLUME")
	}
	m := regexp.MustCompile(`(?m)^HEALTHCHECK --interval=(\S+) --timeout=(\S+) --start-period=(\S+) --retries=(\S+) CMD (.*)$`).FindStringSubmatch(string(dockerfile))
	if m == nil || json.Unmarshal([]byte(m[5]), &health) != nil {
		t.Fatal("the Dockerfile has no HEALTHCHECK")
	}
	var mounted []string
	for _, p := range c.MountPoints {
		mounted = append(mounted, p.ContainerPath)
		if !slices.ContainsFunc(d.Volumes, func(v struct{ Name string }) bool { return v.Name == p.SourceVolume }) {
			t.Errorf("the volume %s is not declared", p.SourceVolume)
		}
	}
	slices.Sort(mounted)
	slices.Sort(volumes)
	if d := cmp.Diff(volumes, mounted); d != "" {
		t.Errorf("what is writable in the image, and in the task:\n%s", d)
	}
	if d := cmp.Diff(append([]string{"CMD"}, health...), c.HealthCheck.Command); d != "" {
		t.Error(d)
	}
	seconds := func(n int) string { return (time.Duration(n) * time.Second).String() }
	interval, err := time.ParseDuration(m[1])
	if err != nil || interval.String() != seconds(c.HealthCheck.Interval) || c.HealthCheck.Retries != 3 || m[4] != "3" {
		t.Errorf("checked every %s in the image, every %s in the task", m[1], seconds(c.HealthCheck.Interval))
	}
}

// TestVariablesAreKnown to the program, and the placeholders to who fills them in.
func TestVariablesAreKnown(t *testing.T) {
	var d taskDefinition
	read(t, "task-definition.json", &d)
	help, err := os.ReadFile(filepath.Join(root, "cmd", "webordinary", "testdata", "run-help.golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range d.ContainerDefinitions[0].Environment {
		if !strings.Contains(string(help), "  "+v.Name+" ") {
			t.Errorf("the program does not know %s", v.Name)
		}
	}
	guide, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "infra", "ecs", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		var v any
		body := read(t, filepath.Base(file), &v)
		for _, m := range regexp.MustCompile(`\$\{(\w+)\}`).FindAllStringSubmatch(body, -1) {
			if !strings.Contains(string(guide), "`"+m[1]+"`") {
				t.Errorf("docs/operations.md does not say what %s in %s is", m[1], filepath.Base(file))
			}
		}
		if !strings.Contains(string(guide), filepath.Base(file)) {
			t.Errorf("docs/operations.md does not say what %s is for", filepath.Base(file))
		}
	}
}

// TestScaling watches what the worker and SQS report.
func TestScaling(t *testing.T) {
	type metric struct {
		MetricStat struct {
			Metric struct {
				Namespace, MetricName string
				Dimensions            []pair
			}
		}
	}
	type side struct {
		Policy struct{ ResourceID, PolicyType string }
		Alarm  struct {
			Metrics []metric
		}
	}
	var s struct {
		Target  struct{ ResourceID string }
		Out, In side
	}
	read(t, "scaling.json", &s)
	var service struct{ Cluster, ServiceName string }
	read(t, "service.json", &service)
	id := "service/" + service.Cluster + "/" + service.ServiceName
	for name, side := range map[string]side{"out": s.Out, "in": s.In} {
		if side.Policy.ResourceID != id || s.Target.ResourceID != id {
			t.Errorf("%s scales %s, the service is %s", name, side.Policy.ResourceID, id)
		}
		var watched []string
		for _, m := range side.Alarm.Metrics[1:] {
			watched = append(watched, m.MetricStat.Metric.Namespace+" "+m.MetricStat.Metric.MetricName)
		}
		if d := cmp.Diff([]string{"AWS/SQS ApproximateNumberOfMessagesVisible", "WebOrdinary orphans"}, watched); d != "" {
			t.Errorf("%s watches:\n%s", name, d)
		}
	}
}
