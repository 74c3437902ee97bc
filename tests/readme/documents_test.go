package readme

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/program"
)

const root = "../.."

// documents returns the texts of all documents, by their paths from the root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(names) < 5 {
		t.Fatal(names, err)
	}
	all := map[string]string{}
	for _, name := range append(names, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md"), filepath.Join(root, "CHANGELOG.md")) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		path, err := filepath.Rel(root, name)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = string(text)
	}
	return all
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```")
	code    = regexp.MustCompile("`[^`\n]*`")
	heading = regexp.MustCompile(`(?m)^#+ +(.*?) *$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// anchors returns those that GitHub gives to the headings of a document.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		slug := strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
		all[slug] = true
	}
	return all
}

// broken lists the links of a document that lead to no file of the repository, or to no
// heading in it.
func broken(t *testing.T, path string, all map[string]string) (wrong []string) {
	t.Helper()
	prose := code.ReplaceAllString(fence.ReplaceAllString(all[path], ""), "")
	for _, m := range link.FindAllStringSubmatch(prose, -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		file, anchor, hasAnchor := strings.Cut(m[1], "#")
		target := path
		if file != "" {
			target = filepath.Join(filepath.Dir(path), file)
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				wrong = append(wrong, m[1])
				continue
			}
		}
		if text, known := all[target]; hasAnchor && (!known || !anchors(text)[anchor]) {
			wrong = append(wrong, m[1])
		}
	}
	return wrong
}

func TestLinks(t *testing.T) {
	all := documents(t)
	for path := range all {
		for _, to := range broken(t, path, all) {
			t.Errorf("%s points to %s, which is not there", path, to)
		}
	}
	all["made-up.md"] = "# Here it's\n[a](#here-its) [b](#there) [c](docs/design.md#children) [d](docs/design.md#no) [e](nowhere.md) `[f](no.md)` [g](https://x#y)\n"
	if d := cmp.Diff([]string{"#there", "docs/design.md#no", "nowhere.md"}, broken(t, "made-up.md", all)); d != "" {
		t.Error("links that lead nowhere:", d)
	}
}

var (
	makeCall = regexp.MustCompile("(?m)(?:^|`)(?:[A-Z_]+=\\S+ )*make ([a-z][a-z0-9-]*)")
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)\(`)
	testCall = regexp.MustCompile("(?m)(?:^|`)go test ([^`#\n]*)")
)

// TestTargetsAndTests: what documents tell people to run is there.
func TestTargetsAndTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	makes, tests := 0, 0
	for path, doc := range documents(t) {
		for _, m := range makeCall.FindAllStringSubmatch(doc, -1) {
			makes++
			if !strings.Contains(string(text), "\n"+m[1]+": ") {
				t.Errorf("%s has `make %s`, which is no target", path, m[1])
			}
		}
		for _, m := range testCall.FindAllStringSubmatch(doc, -1) {
			tests++
			if err := selects(strings.Fields(m[1])); err != nil {
				t.Errorf("%s has `go test %s`: %v", path, m[1], err)
			}
		}
	}
	if makes < 15 || tests < 5 {
		t.Errorf("only %d calls of make and %d of go test were found", makes, tests)
	}
}

// selects says why the arguments of go test would run nothing.
func selects(args []string) error {
	var dirs []string
	name := regexp.MustCompile("Test|Benchmark")
	for i, arg := range args {
		switch {
		case strings.HasPrefix(arg, "./"):
			dirs = append(dirs, filepath.Join(root, arg))
		case (arg == "-run" || arg == "-bench") && args[i+1] != "'^$'":
			name = regexp.MustCompile(strings.Trim(args[i+1], "'"))
		}
	}
	if len(dirs) == 0 {
		return errors.New("no package")
	}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			return err
		}
		found := slices.ContainsFunc(files, func(file string) bool {
			text, err := os.ReadFile(file)
			return err == nil && slices.ContainsFunc(testFunc.FindAllSubmatch(text, -1), func(m [][]byte) bool { return name.Match(m[1]) })
		})
		if !found {
			return errors.New("nothing fits in " + dir)
		}
	}
	return nil
}

// TestReadmeListsCommandsThatAre compares the README's table with the binary.
func TestReadmeListsCommandsThatAre(t *testing.T) {
	readme := documents(t)["README.md"]
	got := map[string]bool{}
	for usage := range commands(t, program.Build(t)) {
		got[strings.Fields(usage)[0]] = true
	}
	listed := regexp.MustCompile("(?m)^\\| `webordinary ([a-z]+)` \\|").FindAllStringSubmatch(readme, -1)
	if len(listed) < 5 {
		t.Errorf("only %d commands are listed", len(listed))
	}
	for _, m := range listed {
		if !got[m[1]] {
			t.Errorf("the README lists %q, which is no command", m[1])
		}
	}
	if n := strings.Count(readme, "\n"); n >= 200 {
		t.Errorf("the README has %d lines, want fewer than 200", n)
	}
}

var variable = regexp.MustCompile("(?m)^\\| `([A-Z][A-Z0-9_]+)` \\| (.*?) \\|")

// TestReadmeHasTheDefaults compares the README's table of variables with the whole one,
// which is made from the program.
func TestReadmeHasTheDefaults(t *testing.T) {
	all := documents(t)
	defaults := map[string]string{}
	for _, m := range variable.FindAllStringSubmatch(all["docs/configuration.md"], -1) {
		defaults[m[1]] = m[2]
	}
	listed := variable.FindAllStringSubmatch(all["README.md"], -1)
	if len(listed) < 10 {
		t.Errorf("only %d variables are listed", len(listed))
	}
	for _, m := range listed {
		if got, ok := defaults[m[1]]; !ok || got != m[2] {
			t.Errorf("the README gives %s the default %s, the program %q (known: %v)", m[1], m[2], got, ok)
		}
	}
}

// TestDesignListsThePackages: each package of the product has its row in the table of
// who imports whom, and each row its package.
func TestDesignListsThePackages(t *testing.T) {
	_, table, _ := strings.Cut(documents(t)["docs/design.md"], "\n## Who imports whom\n")
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| (`.*?`) \\|").FindAllStringSubmatch(table, -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			listed = append(listed, strings.Trim(name, "`"))
		}
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "../../cmd/...", "../../handlers", "../../router", "../../middleware", "../../internal/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for dir := range strings.FieldsSeq(string(out)) {
		name, err := filepath.Rel(top, dir)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(name, "test") && !slices.Contains(listed, name) { // conformance suites aside
			t.Errorf("%s is not in the table", name)
		}
	}
	for _, name := range listed {
		if _, err := os.Stat(filepath.Join(root, name)); errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the table has %s, which is not there", name)
		}
	}
}
