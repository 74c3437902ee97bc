package deploy_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/deploy/deploytest"
)

// openDirectory opens a directory bucket in a temporary directory, closed with
// the test.
func openDirectory(t *testing.T, now func() time.Time) (*deploy.Directory, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bucket")
	d, err := deploy.OpenDirectory(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, dir
}

func TestDirectory(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Harness {
		t.Helper()
		d, _ := openDirectory(t, nil)
		return deploytest.Harness{
			Bucket: d,
			Get: func(t *testing.T, key string) (deploy.Object, []byte, bool) {
				t.Helper()
				o, body, err := d.Get(key)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				return o, body, err == nil
			},
			KnowsHash:    true,
			KnowsHeaders: true,
		}
	})
}

func put(t *testing.T, b deploy.Bucket, key, content string) {
	t.Helper()
	if _, err := b.Put(t.Context(), deploytest.Object(key, content), strings.NewReader(content), deploy.Condition{}); err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
}

func TestDirectoryRefusesKeysThatLeaveIt(t *testing.T) {
	d, dir := openDirectory(t, nil)
	for _, key := range []string{"../out.txt", "a/../../out.txt", "/etc/out.txt", "", ".", "a//b", "a/", "./a"} {
		_, err := d.Put(t.Context(), deploytest.Object(key, "x"), strings.NewReader("x"), deploy.Condition{})
		if !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("put %q: %v, want ErrInvalid", key, err)
		}
		if err := d.Delete(t.Context(), key); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("delete %q: %v, want ErrInvalid", key, err)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "out.txt")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was written outside: %v", err)
	}
}

// A link in the bucket's directory does not lead a put out of it.
func TestDirectoryDoesNotFollowLinksOut(t *testing.T) {
	d, dir := openDirectory(t, nil)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	put(t, d, "link/a.txt", "x")
	left, err := os.ReadDir(outside)
	if err != nil || len(left) != 0 {
		t.Errorf("outside holds %v, %v", left, err)
	}
}

// Who opens the directory sees the website and nothing else.
func TestDirectoryIsAPlainWebsite(t *testing.T) {
	d, dir := openDirectory(t, nil)
	put(t, d, "index.html", "home")
	put(t, d, "about/index.html", "about")
	put(t, d, "old/deep/page.html", "old")
	if err := d.Delete(t.Context(), "old/deep/page.html"); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, _ fs.DirEntry, err error) error {
		got = append(got, p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".", "about", "about/index.html", "index.html"}, got); diff != "" {
		t.Errorf("directory (-want +got):\n%s", diff)
	}
}

func TestDirectoryFileAndDirectoryOfOneName(t *testing.T) {
	d, _ := openDirectory(t, nil)
	put(t, d, "about", "a file")
	put(t, d, "about/index.html", "a page")
	if _, body, err := d.Get("about/index.html"); err != nil || string(body) != "a page" {
		t.Errorf("about/index.html: %q, %v", body, err)
	}
	if err := d.Delete(t.Context(), "about"); err != nil { // as the deploy that replaced it does
		t.Error(err)
	}
	if _, _, err := d.Get("about/index.html"); err != nil {
		t.Errorf("after the delete of about: %v", err)
	}
	put(t, d, "about", "a file again")
	if _, body, err := d.Get("about"); err != nil || string(body) != "a file again" {
		t.Errorf("about: %q, %v", body, err)
	}
}

func TestDirectoryRemovesWhatACrashLeft(t *testing.T) {
	_, dir := openDirectory(t, nil)
	left := filepath.Join(dir+".meta", "new", "put-123")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := deploy.OpenDirectory(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // nothing was written
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the half file is still there: %v", err)
	}
}

func TestDirectorySeesEditsByHand(t *testing.T) {
	d, dir := openDirectory(t, nil)
	put(t, d, "index.html", "ours")
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("hers"), 0o600); err != nil {
		t.Fatal(err)
	}
	objects, err := d.List(t.Context())
	if err != nil || len(objects) != 1 || objects[0].SHA256 != deploytest.Object("", "hers").SHA256 {
		t.Errorf("list is %+v, %v, want the hash of the edited content", objects, err)
	}
}
