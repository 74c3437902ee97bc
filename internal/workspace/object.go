package workspace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// What is asked of few objects is read by go-git, without a process. What may
// need many is the git program's.

// nearby is how many commits are looked at here before git is asked.
const nearby = 64

func (w *Workspace) hasCommit(sha string) bool {
	repo, err := w.repository()
	if err != nil {
		return false
	}
	_, err = repo.CommitObject(plumbing.NewHash(sha))
	return err == nil
}

// parentOf is a commit's first parent; empty if it has none, or is not there.
func (w *Workspace) parentOf(sha string) (string, error) {
	repo, err := w.repository()
	if err != nil {
		return "", err
	}
	c, err := repo.CommitObject(plumbing.NewHash(sha))
	if errors.Is(err, plumbing.ErrObjectNotFound) || err == nil && len(c.ParentHashes) == 0 {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read commit %s: %w", sha, err)
	}
	return c.ParentHashes[0].String(), nil
}

// treeOf is a commit's tree.
func (w *Workspace) treeOf(sha string) (string, error) {
	repo, err := w.repository()
	if err != nil {
		return "", err
	}
	c, err := repo.CommitObject(plumbing.NewHash(sha))
	if err != nil {
		return "", fmt.Errorf("read commit %s: %w", sha, err)
	}
	return c.TreeHash.String(), nil
}

// localHead is the branch in our repository; empty if it is not there.
func (w *Workspace) localHead() (string, error) {
	repo, err := w.repository()
	if err != nil {
		return "", err
	}
	ref, err := repo.Storer.Reference(headRef(w.branch))
	switch {
	case errors.Is(err, plumbing.ErrReferenceNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read branch %s: %w", w.branch, err)
	}
	return ref.Hash().String(), nil
}

// isAncestor reports whether a is b or one of its ancestors. A commit that is not
// there is an error.
func (w *Workspace) isAncestor(ctx context.Context, a, b string) (bool, error) {
	if a == b {
		return true, nil
	}
	repo, err := w.repository()
	if err != nil {
		return false, err
	}
	if found, whole := reaches(repo, plumbing.NewHash(b), plumbing.NewHash(a)); found || whole && w.hasCommit(a) {
		return found, nil
	}
	if err := w.related(ctx, a, b); err != nil {
		return false, err
	}
	_, err = w.git(ctx, "merge-base", "--is-ancestor", a, b)
	if err != nil && exitCode(err) != 1 {
		return false, err
	}
	return err == nil, nil
}

// reaches looks for a commit among those nearest to another; whole says that there
// are no more.
func reaches(repo *git.Repository, from, to plumbing.Hash) (found, whole bool) {
	queue, seen := []plumbing.Hash{from}, map[plumbing.Hash]bool{from: true}
	for n := 0; len(queue) > 0; n++ {
		if queue[0] == to {
			return true, false
		}
		c, err := repo.CommitObject(queue[0])
		if err != nil || n == nearby {
			return false, false
		}
		queue = queue[1:]
		for _, p := range c.ParentHashes {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	return false, true
}

// missing lists what a repository lacks that has the commits in haves, and shall
// have tip: it costs what changed, not what there is.
func missing(s storer.EncodedObjectStorer, tip plumbing.Hash, haves map[plumbing.Hash]bool) ([]plumbing.Hash, error) {
	m := &missingObjects{storer: s, seen: map[plumbing.Hash]bool{}}
	for queue := []plumbing.Hash{tip}; len(queue) > 0; queue = queue[1:] {
		if haves[queue[0]] || m.seen[queue[0]] {
			continue
		}
		c, err := object.GetCommit(s, queue[0])
		if err != nil {
			return nil, fmt.Errorf("read commit %s: %w", queue[0], err)
		}
		m.add(c.Hash)
		var known []*object.Tree
		for _, p := range c.ParentHashes {
			parent, err := object.GetCommit(s, p)
			if errors.Is(err, plumbing.ErrObjectNotFound) && haves[p] {
				continue // the remote has it, and we don't
			}
			if err != nil {
				return nil, fmt.Errorf("read commit %s: %w", p, err)
			}
			if size, err := s.EncodedObjectSize(parent.TreeHash); err != nil || size > maxTree {
				return nil, cmp.Or(err, errMuch)
			}
			tree, err := parent.Tree()
			if err != nil {
				return nil, fmt.Errorf("read tree of %s: %w", p, err)
			}
			known = append(known, tree)
		}
		if err := m.tree(c.TreeHash, known); err != nil {
			return nil, err
		}
		queue = append(queue, c.ParentHashes...)
	}
	return m.list, nil
}

// What is read here at most: of a tree, in bytes, and of objects. The git program
// does not hold them all.
const (
	maxTree    = 4 << 20
	maxObjects = 20_000
)

var errMuch = errors.New("too much changed to be looked through here")

type missingObjects struct {
	storer storer.EncodedObjectStorer
	seen   map[plumbing.Hash]bool
	list   []plumbing.Hash
}

func (m *missingObjects) add(h plumbing.Hash) {
	m.seen[h] = true
	m.list = append(m.list, h)
}

// tree adds what is in a tree and in none of those at the same place that are
// known.
func (m *missingObjects) tree(h plumbing.Hash, known []*object.Tree) error {
	for _, k := range known {
		if k.Hash == h {
			return nil
		}
	}
	if m.seen[h] {
		return nil
	}
	if size, err := m.storer.EncodedObjectSize(h); err != nil || size > maxTree || len(m.list) > maxObjects {
		return cmp.Or(err, errMuch)
	}
	t, err := object.GetTree(m.storer, h)
	if err != nil {
		return fmt.Errorf("read tree %s: %w", h, err)
	}
	m.add(h)
	for _, e := range t.Entries {
		if e.Mode == filemode.Submodule || m.seen[e.Hash] {
			continue
		}
		if isKnown(known, e) {
			continue
		}
		if e.Mode != filemode.Dir {
			m.add(e.Hash)
			continue
		}
		if err := m.tree(e.Hash, m.below(known, e.Name)); err != nil {
			return err
		}
	}
	return nil
}

func isKnown(trees []*object.Tree, e object.TreeEntry) bool {
	for _, t := range trees {
		if k, err := t.FindEntry(e.Name); err == nil && k.Hash == e.Hash {
			return true
		}
	}
	return false
}

// below returns the trees of one name in others.
func (m *missingObjects) below(trees []*object.Tree, name string) []*object.Tree {
	var all []*object.Tree
	for _, t := range trees {
		if strings.Contains(name, "/") {
			continue // FindEntry would take it for a path
		}
		e, err := t.FindEntry(name)
		if err != nil || e.Mode != filemode.Dir {
			continue
		}
		if size, err := m.storer.EncodedObjectSize(e.Hash); err != nil || size > maxTree {
			continue
		}
		if sub, err := object.GetTree(m.storer, e.Hash); err == nil {
			all = append(all, sub)
		}
	}
	return all
}
