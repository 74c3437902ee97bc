package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/webordinary/claude-code-container/tests/program"
)

// binary is the program, built as for use: it starts itself as its keeper, which
// the test binary cannot do.
var binary string

func TestMain(m *testing.M) {
	code, err := program.With(func(path string) (int, error) {
		binary = path
		return m.Run(), nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "webordinary:", err)
		code = 1
	}
	os.Exit(code)
}

// childEnv is what npm needs of the developer's environment, and nothing that
// configures the program.
func childEnv() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "npm_config_registry", "npm_config_cafile"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// TestScripts runs whole programs: see testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			for _, kv := range childEnv() {
				name, value, _ := strings.Cut(kv, "=")
				e.Setenv(name, value)
			}
			e.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+e.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"steps": cmdSteps, "onejson": cmdOneJSON, "exit": cmdExit,
		},
		RequireExplicitExec: true, UpdateScripts: *update,
		RequireUniqueNames: true,
	})
}

// cmdSteps is `steps name...`: lines of stdout begin with these names, in this
// order, each once. Deploy and push go on side by side, so either may come first.
func cmdSteps(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("steps cannot be negated")
	}
	var got []string
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		const width = 11 // of the column with the names
		if len(line) > width && slices.Contains(args, strings.TrimRight(line[:width], " ")) {
			got = append(got, strings.TrimRight(line[:width], " "))
		}
	}
	if i := slices.Index(got, "push"); i >= 0 && i+1 < len(got) && got[i+1] == "deploy" {
		got[i], got[i+1] = got[i+1], got[i]
	}
	if !slices.Equal(got, args) {
		ts.Fatalf("the steps are %q, want %q", got, args)
	}
}

// cmdOneJSON is `onejson`: stdout is one JSON object and a newline; it is an
// answer of success that changed no file.
func cmdOneJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("onejson takes nothing")
	}
	in := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	var out struct {
		Type              string    `json:"type"`
		Success           bool      `json:"success"`
		FilesChanged      *[]string `json:"filesChanged"`
		FilesChangedTotal int       `json:"filesChangedTotal"`
	}
	ts.Check(in.Decode(&out))
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		ts.Fatalf("more than one JSON value on stdout")
	}
	if out.Type != "response" || !out.Success || out.FilesChanged == nil || len(*out.FilesChanged) != 0 || out.FilesChangedTotal != 0 {
		ts.Fatalf("not an answer of success without changes: %+v", out)
	}
}

// cmdExit is `exit code program args...`: the program ends with just this code.
func cmdExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit code program [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

func TestSecondDemoOnADirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	first := exec.CommandContext(t.Context(), binary, "demo", "--stdin", "--dir", dir)
	first.Env, first.Dir = childEnv(), t.TempDir()
	stdin, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := first.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stderr)
	if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "agent is") {
		t.Fatalf("the first demo began with %q, %v", line, err)
	}

	code, out := demoOn(t, dir)
	if code != 1 || !strings.Contains(out, "webordinary: another demo works in "+dir+"; wait for it, or name another --dir\n") {
		t.Errorf("the second demo ended with %d and said %q", code, out)
	}

	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("the first demo ended with %v", err)
	}
	if code, out := demoOn(t, dir); code != 0 {
		t.Errorf("a demo after the first ended with %d and said %q", code, out)
	}
}

// demoOn runs a demo that is sent nothing, and returns its exit code and stderr.
func demoOn(t *testing.T, dir string) (int, string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, "demo", "--stdin", "--dir", dir)
	var stderr bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stderr = childEnv(), t.TempDir(), &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

func TestFaultsBuild(t *testing.T) {
	t.Parallel()
	if out, err := exec.CommandContext(t.Context(), "go", "vet", "-tags", "faults", ".").CombinedOutput(); err != nil {
		t.Errorf("go vet -tags faults: %v\n%s", err, out)
	}
}
