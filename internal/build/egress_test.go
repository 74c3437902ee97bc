package build_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/build"
	"github.com/webordinary/claude-code-container/internal/gateway"
	"github.com/webordinary/claude-code-container/internal/process"
)

// egress is a way out to hosts. It tells when it is closed.
func egress(t *testing.T, closed *int, list ...string) func(context.Context) (process.Egress, error) {
	t.Helper()
	hosts, err := gateway.ParseHosts(list)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) (process.Egress, error) {
		j, err := gateway.New(gateway.Config{Hosts: hosts}).OpenProxy(ctx)
		if err != nil {
			return process.Egress{}, err
		}
		return process.Egress{Address: j.Address, Env: j.Env(), Close: func() { j.Close(); *closed++ }}, nil
	}
}

// TestGoesOut installs a real package by the proxy, and cannot where the registry is
// not listed. The repository's own settings do not lead past the proxy.
func TestGoesOut(t *testing.T) {
	registry := "registry.npmjs.org:443"
	if address := os.Getenv("npm_config_registry"); address != "" {
		_, registry, _ = strings.Cut(strings.TrimSuffix(address, "/"), "://")
	}
	files := map[string]string{
		"package.json": `{"name":"s","private":true,"dependencies":{"ms":"2.1.3"},"scripts":{"build":"mkdir -p dist && cp node_modules/ms/package.json dist/index.html"}}`,
		".npmrc":       "noproxy=registry.npmjs.org\nproxy=null\nhttps-proxy=null\nfetch-retries=0\n",
	}
	closed := 0
	p := newPlace(t, files)
	p.Egress = egress(t, &closed, registry)
	if _, err := p.Run(t.Context(), p.Request); err != nil {
		t.Errorf("listed: %v", err)
	}
	p = newPlace(t, files)
	p.Egress = egress(t, &closed)
	_, err := p.Run(t.Context(), p.Request)
	if e, ok := errors.AsType[*build.Error](err); !ok || e.Code != build.CodeInstall || !strings.Contains(e.Message, "403") {
		t.Errorf("not listed: %v", err)
	}
	if closed != 2 {
		t.Errorf("closed %d times", closed)
	}
}

// TestTooMuch checks what is said of a build that uses more than it may.
func TestTooMuch(t *testing.T) {
	for name, tt := range map[string]struct {
		build  string
		limits process.Limits
		code   string
		says   string
	}{
		"memory":    {"head -c 600m /dev/zero | tail", process.Limits{Memory: 400 << 20}, build.CodeOutOfMemory, "more than 400 MB of memory"},
		"processes": {"for i in $(seq 100); do sleep 60 & done; wait", process.Limits{Processes: 30}, build.CodeFailed, "more than 30 processes"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, map[string]string{"package.json": `{"name":"s","private":true,"scripts":{"build":"` + tt.build + `"}}`})
			p.Runner.Limits = tt.limits
			_, err := p.Run(t.Context(), p.Request)
			if e, ok := errors.AsType[*build.Error](err); !ok || e.Code != tt.code || !strings.Contains(e.Message, tt.says) {
				t.Errorf("error = %v", err)
			}
		})
	}
}
