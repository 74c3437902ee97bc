package deploy_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/webordinary/claude-code-container/internal/deploy"
)

func ExampleSync() {
	tmp, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // the example is over
	build := filepath.Join(tmp, "dist")
	if err := os.Mkdir(build, 0o750); err != nil {
		fmt.Println(err)
		return
	}
	if err := os.WriteFile(filepath.Join(build, "index.html"), []byte("<h1>Hello</h1>"), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	bucket, err := deploy.OpenDirectory(filepath.Join(tmp, "bucket"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer bucket.Close() //nolint:errcheck // the example is over

	for range 2 {
		result, err := deploy.Sync(context.Background(), bucket, deploy.Options{Dir: build})
		fmt.Println(result.Uploaded, "uploaded,", result.Unchanged, "unchanged", err)
	}
	// Output:
	// 1 uploaded, 0 unchanged <nil>
	// 0 uploaded, 1 unchanged <nil>
}
