package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/webordinary/claude-code-container/examples"
)

func (d *demo) remoteDir() string { return filepath.Join(d.dir, "remote.git") }

// createRemote makes a bare repository that holds the example site, unless it is
// there, and returns its URL.
func (d *demo) createRemote() (string, error) {
	url := "file://" + filepath.ToSlash(d.remoteDir())
	if _, err := os.Stat(d.remoteDir()); err == nil {
		return url, nil
	}
	work, err := os.MkdirTemp(d.dir, ".remote-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work) //nolint:errcheck // it lies in the demo's own directory
	if err := commitSite(work); err != nil {
		return "", fmt.Errorf("create the demo's remote: %w", err)
	}
	if err := os.Rename(filepath.Join(work, ".git"), d.remoteDir()); err != nil {
		return "", fmt.Errorf("create the demo's remote: %w", err)
	}
	return url, nil
}

// commitSite makes a repository of the example site whose .git can stand alone.
func commitSite(work string) error {
	repo, err := git.PlainInitWithOptions(work, &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName("main")}})
	if err != nil {
		return err
	}
	site, err := fs.Sub(examples.Site, "site")
	if err != nil {
		return err
	}
	if err := copyOut(site, work); err != nil {
		return err
	}
	tree, err := repo.Worktree()
	if err != nil {
		return err
	}
	if err := tree.AddGlob("."); err != nil {
		return err
	}
	who := &object.Signature{Name: "WebOrdinary", Email: "noreply@webordinary.com", When: time.Now()}
	if _, err := tree.Commit("Begin the site\n", &git.CommitOptions{Author: who, Committer: who}); err != nil {
		return err
	}
	c, err := repo.Config()
	if err != nil {
		return err
	}
	c.Core.IsBare = true
	return errors.Join(repo.SetConfig(c), os.Remove(filepath.Join(work, ".git", "index")))
}

// copyOut writes embedded files. Embedded ones are read-only; these are not.
func copyOut(from fs.FS, to string) error {
	return fs.WalkDir(from, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		body, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		path := filepath.Join(to, filepath.FromSlash(strings.TrimPrefix(name, "./")))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return err
		}
		return os.WriteFile(path, body, 0o600)
	})
}
