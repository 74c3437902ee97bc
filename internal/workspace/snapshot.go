package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/webordinary/claude-code-container/internal/leftover"
)

// snapshot is the checkout as a tree of the repository.
type snapshot struct {
	tree  string
	files []string // that differ from the parent
	left  []string // that differ and are not in the tree, since they are not allowed
	clean bool     // nothing differs at all
}

// snapshot writes the checkout's tree. The index holds the tree of parent, which the
// checkout was made from. A file that is too large is an error; among leftovers it is
// removed: whoever comes next is not to blame for it.
//
// On a slow file system each look at a file counts. All of them are looked at once,
// by the first git; what follows touches only what has changed.
func (w *Workspace) snapshot(ctx context.Context, parent string, leftovers bool) (snapshot, error) {
	if err := w.heal(); err != nil {
		return snapshot{}, err
	}
	if err := w.settleIndex(ctx, parent); err != nil {
		return snapshot{}, err
	}
	changed, err := w.differing(ctx)
	if err != nil {
		return snapshot{}, err
	}
	s := snapshot{clean: len(changed) == 0}
	if s.tree, err = w.treeOf(parent); err != nil || s.clean {
		return s, err
	}
	large, isPlain, err := w.look(changed)
	if err != nil {
		return snapshot{}, err
	}
	if len(large) > 0 {
		if !leftovers {
			return snapshot{}, &Error{Code: "file_too_large", Reason: strings.Join(large, ", ") + ": at most 100 MB can be committed"}
		}
		if err := w.removeFiles(large); err != nil {
			return snapshot{}, err
		}
	}
	if err := os.WriteFile(w.indexMark(), nil, 0o600); err != nil {
		return snapshot{}, err
	}
	if isPlain && len(large) == 0 {
		return s, w.stage(ctx, &s, changed)
	}
	return s, w.stageAll(ctx, &s, parent, large)
}

// look says of files that have changed which are too large for any remote, and
// whether all are plain: regular or gone, and none could be taken for something else.
func (w *Workspace) look(names []string) (large []string, isPlain bool, err error) {
	root, err := leftover.Open(w.Site())
	if err != nil {
		return nil, false, fmt.Errorf("open checkout: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read from
	isDir := map[string]bool{".": true}
	isPlain = true
	for _, name := range names {
		info, err := root.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			dir := path.Dir(name) // a directory, or gone as well
			for ; !isDir[dir]; dir = path.Dir(dir) {
				above, err := root.Lstat(dir)
				isPlain = isPlain && (errors.Is(err, fs.ErrNotExist) || err == nil && above.IsDir())
				isDir[dir] = true
			}
		case err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o400 == 0:
			isPlain = false
		case info.Size() > maxBlob:
			large = append(large, name)
		}
		isPlain = isPlain && !isSpecial(name)
	}
	return large, isPlain, nil
}

// isSpecial reports whether git may refuse a name, or the platform: one that some file
// system takes for .git, or one that has to do with workflows.
func isSpecial(name string) bool {
	ascii := strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return -1
		}
		return r
	}, strings.ToLower(name))
	if strings.HasPrefix(ascii, ".github") {
		return true
	}
	for part := range strings.SplitSeq(ascii, "/") {
		if strings.HasPrefix(part, "git~") || strings.HasPrefix(part, ".git") && part != ".gitignore" && part != ".gitkeep" {
			return true
		}
	}
	return false
}

// differing lists the files that are not as the index has them, sorted.
func (w *Workspace) differing(ctx context.Context) ([]string, error) {
	const deepest = 8 // repositories in repositories
	for depth := 0; ; depth++ {
		out, err := w.git(ctx, "ls-files", "--others", "--modified", "--exclude-standard", "-z")
		if err != nil {
			return nil, err
		}
		changed := split(out)
		slices.Sort(changed)
		changed = slices.Compact(changed) // one that became a directory is listed twice
		dirs, err := w.directories(changed)
		switch {
		case err != nil || len(dirs) == 0:
			return changed, err
		case depth == deepest:
			return slices.DeleteFunc(changed, func(name string) bool { return strings.HasSuffix(name, "/") }), nil
		}
		// A repository in the checkout is listed as a directory.
		if err := w.flatten(ctx, dirs...); err != nil {
			return nil, err
		}
	}
}

func (w *Workspace) directories(names []string) (dirs []string, err error) {
	root, err := leftover.Open(w.Site())
	if err != nil {
		return nil, fmt.Errorf("open checkout: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read from
	for _, name := range names {
		info, err := root.Lstat(name)
		if err != nil || !info.IsDir() {
			continue
		}
		if _, err := root.Lstat(path.Join(name, ".git")); err == nil {
			dirs = append(dirs, name)
		}
	}
	return dirs, nil
}

// stage brings plain files into the index, and makes a tree of it.
func (w *Workspace) stage(ctx context.Context, s *snapshot, changed []string) error {
	names := strings.Join(changed, "\x00") + "\x00"
	if _, err := w.gitRun(ctx, gitCall{stdin: names}, "update-index", "-z", "--add", "--remove", "--replace", "--stdin"); err != nil {
		return err
	}
	had := s.tree
	tree, err := w.git(ctx, "write-tree")
	if err != nil {
		return err
	}
	if s.tree = strings.TrimSpace(tree); s.tree != had {
		s.files = changed
	}
	return nil
}

// stageAll does so with whatever there is.
func (w *Workspace) stageAll(ctx context.Context, s *snapshot, parent string, large []string) error {
	if err := w.flatten(ctx); err != nil {
		return err
	}
	unfit, err := w.add(ctx)
	if err != nil {
		return err
	}
	if len(large) > 0 { // those that the parent has stay as they were
		if _, err := w.git(ctx, append([]string{"reset", "--quiet", parent, "--"}, large...)...); err != nil {
			return err
		}
	}
	if s.left, err = w.leaveOut(ctx, parent); err != nil {
		return err
	}
	s.left = append(s.left, unfit...)
	tree, err := w.git(ctx, "write-tree")
	if err != nil {
		return err
	}
	s.tree = strings.TrimSpace(tree)
	s.files, err = w.Files(ctx, parent, s.tree)
	return err
}

// add takes the checkout into the index, and lists what git takes into none: a
// file called .GIT/config, or one that cannot be read. Else a single such file
// would keep all others from ever being saved.
func (w *Workspace) add(ctx context.Context) (unfit []string, err error) {
	_, err = w.git(ctx, "add", "--all", "--ignore-errors")
	if exitCode(err) != 1 {
		return nil, err
	}
	out, err := w.git(ctx, "ls-files", "--others", "--modified", "--exclude-standard", "-z")
	return split(out), err
}

// leaveOut takes changes out of the index that the platform does not allow.
func (w *Workspace) leaveOut(ctx context.Context, parent string) ([]string, error) {
	if w.store.config.AllowWorkflowChanges {
		return nil, nil
	}
	out, err := w.git(ctx, "diff-index", "--cached", "--name-only", "--no-renames", "-z", parent)
	if err != nil {
		return nil, err
	}
	var left, dirs []string
	for _, name := range split(out) {
		dir, isWorkflow := workflows(name)
		if !isWorkflow {
			continue
		}
		left = append(left, name)
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	_, err = w.git(ctx, append([]string{"reset", "--quiet", parent, "--"}, dirs...)...)
	return left, err
}

// workflows reports whether a file is one of .github/workflows, in whatever case: a
// remote may not care for it. The directory is as the file has it.
func workflows(name string) (dir string, isWorkflow bool) {
	const want = ".github/workflows"
	if len(name) < len(want) || !strings.EqualFold(name[:len(want)], want) || len(name) > len(want) && name[len(want)] != '/' {
		return "", false
	}
	return name[:len(want)], true
}

// indexMark is a file that is there while the index may hold something else than the
// tree of the commit that the checkout was made from.
func (w *Workspace) indexMark() string {
	if w.index != "" {
		return w.index + ".staged"
	}
	return filepath.Join(w.gitDir(), "index.staged")
}

// settleIndex makes the index hold a commit's tree, if a crash came between staging
// and the commit.
func (w *Workspace) settleIndex(ctx context.Context, commit string) error {
	if _, err := os.Lstat(w.indexMark()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := w.git(ctx, "read-tree", commit); err != nil {
		return err
	}
	return w.unmarkIndex()
}

func (w *Workspace) unmarkIndex() error {
	if err := os.Remove(w.indexMark()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unmark the index: %w", err)
	}
	return nil
}
