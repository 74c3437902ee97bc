package bucket_test

import (
	"strings"
	"testing"

	"github.com/webordinary/claude-code-container/internal/aws/bucket"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/deploy/deploytest"
)

func TestBucket(t *testing.T) {
	for name, pathStyle := range map[string]bool{"path style": true, "virtual host": false} {
		t.Run(name, func(t *testing.T) {
			client := connect(t, gateway(t), pathStyle)
			deploytest.Run(t, func(t *testing.T) deploytest.Harness {
				t.Helper()
				b := create(t, client)
				return deploytest.Harness{
					Bucket: bucket.Open(client, b, bucket.Options{}),
					Get: func(t *testing.T, key string) (deploy.Object, []byte, bool) {
						t.Helper()
						return get(t, client, b, key)
					},
				}
			})
		})
	}
}

func TestVirtualHost(t *testing.T) {
	p := startProxy(t)
	name := create(t, connect(t, gateway(t), true))
	for pathStyle, want := range map[bool]string{true: "localhost:", false: name + ".localhost:"} {
		if _, err := bucket.Open(connect(t, p.URL, pathStyle), name, bucket.Options{}).List(t.Context()); err != nil && pathStyle {
			t.Fatal(err)
		}
		p.mu.Lock()
		if !strings.HasPrefix(p.host, want) {
			t.Errorf("path style %t: host is %q, want %q", pathStyle, p.host, want)
		}
		p.mu.Unlock()
	}
}
