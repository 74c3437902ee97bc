package infra

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// creating are the calls that CREATE_RESOURCES alone makes, which is for emulators.
var creating = []string{"dynamodb:CreateTable", "dynamodb:UpdateTimeToLive", "s3:CreateBucket", "sqs:CreateQueue"}

// TestSourceCallsWhatIsListed reads which operations of AWS the source names by their
// inputs, so that none is missed that no suite calls. What stands in cmd is called for
// an operator alone.
func TestSourceCallsWhatIsListed(t *testing.T) {
	operators := listed(t, "operator-calls.txt")
	anybodys := slices.Concat(operators, listed(t, "calls.txt"), creating)
	adapters, err := filepath.Glob(filepath.Join(root, "internal", "aws", "*"))
	if err != nil || len(adapters) == 0 {
		t.Fatal("no adapters", err)
	}
	for _, dir := range append(adapters, filepath.Join(root, "cmd", "webordinary")) {
		known, file := anybodys, "calls.txt or operator-calls.txt"
		if filepath.Base(dir) == "webordinary" {
			known, file = operators, "operator-calls.txt"
			if len(operationsIn(t, dir)) < 2 {
				t.Error("no operation was found in cmd/webordinary; what is looked for?")
			}
		}
		for _, call := range operationsIn(t, dir) {
			if !slices.Contains(known, call) {
				t.Errorf("%s calls %s, which tests/infra/%s does not know, nor the policy", strings.TrimPrefix(dir, root+"/"), call, file)
			}
		}
	}
}

// operationsIn returns the operations whose input types the package in dir uses.
func operationsIn(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		services := servicesOf(f)
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			of, ok := s.X.(*ast.Ident)
			operation, isInput := strings.CutSuffix(s.Sel.Name, "Input")
			if ok && isInput && services[of.Name] != "" {
				calls = append(calls, services[of.Name]+":"+operation)
			}
			return true
		})
	}
	slices.Sort(calls)
	return slices.Compact(calls)
}

// servicesOf returns the prefixes of permissions by the names of the imports that call
// the service.
func servicesOf(f *ast.File) map[string]string {
	services := map[string]string{}
	for _, i := range f.Imports {
		from, err := strconv.Unquote(i.Path.Value)
		if err != nil || path.Dir(from) != "github.com/aws/aws-sdk-go-v2/service" {
			continue
		}
		name := path.Base(from)
		prefix := map[string]string{"cloudwatchlogs": "logs", "bedrockruntime": "bedrock"}[name]
		if prefix == "" {
			prefix = name
		}
		if i.Name != nil {
			name = i.Name.Name
		}
		services[name] = prefix
	}
	return services
}
