package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// fileAttacks are those on files that are not the job's.
func fileAttacks() []attack {
	return []attack{
		{"victim_site_read", func(p plan) (string, error) { return readFile(filepath.Join(p.Victim, "site", "secret.txt")) }},
		{"victim_site_write", func(p plan) (string, error) { return touch(filepath.Join(p.Victim, "site")) }},
		{"victim_job_read", func(p plan) (string, error) { return list(filepath.Join(p.Victim, "job")) }},
		{"victim_transcript", func(p plan) (string, error) {
			return search(filepath.Join(p.Victim, "worker", "conversations"))
		}},
		{"victim_cache_write", func(p plan) (string, error) { return touch(filepath.Join(p.Victim, "worker", "cache")) }},
		{"victim_downloads_write", func(p plan) (string, error) { return touch(filepath.Join(p.Victim, "cache")) }},
		{"victim_repository", func(p plan) (string, error) {
			return list(filepath.Join(p.Victim, "worker", "git", "objects"))
		}},
		{"workspaces_list", func(p plan) (string, error) {
			names, err := list(p.Workspaces)
			if err == nil && !strings.Contains(names, filepath.Base(p.Victim)) {
				err = errors.New("the other pair is not in it")
			}
			return names, err
		}},
		{"own_state_write", func(p plan) (string, error) { return openForWrite(filepath.Join(p.Own, "worker", "current.json")) }},
		{"own_owner_write", func(p plan) (string, error) { return openForWrite(filepath.Join(p.Own, "worker", "owner.json")) }},
		{"own_conversations", func(p plan) (string, error) { return list(filepath.Join(p.Own, "worker", "conversations")) }},
		{"own_cache_write", func(p plan) (string, error) { return touch(filepath.Join(p.Own, "worker", "cache")) }},
		{"own_git_config", func(p plan) (string, error) { return openForWrite(filepath.Join(p.Own, "worker", "git", "config")) }},
		{"own_git_hooks", func(p plan) (string, error) {
			git := filepath.Join(p.Own, "worker", "git")
			if _, err := os.Stat(filepath.Join(git, "HEAD")); err != nil { // it is not the repository
				return "", err
			}
			return touch(git)
		}},
		{"own_git_refs", func(p plan) (string, error) { return touch(filepath.Join(p.Own, "worker", "git", "refs", "heads")) }},
		{"own_git_objects", func(p plan) (string, error) { return touch(filepath.Join(p.Own, "worker", "git", "objects")) }},
		{"own_state_modes", func(p plan) (string, error) {
			path := filepath.Join(p.Own, "worker", "current.json")
			info, err := os.Stat(path)
			if err != nil {
				return "", err
			}
			return "could be made unreadable", os.Chmod(path, info.Mode().Perm())
		}},
		{"site_replaced", func(p plan) (string, error) { return replace(filepath.Join(p.Own, "site"), p.Home) }},
		{"job_replaced", func(p plan) (string, error) { return replace(filepath.Join(p.Own, "job"), p.Home) }},
		{"home_read", func(p plan) (string, error) { return readFile(filepath.Join(p.Home, ".aws", "credentials")) }},
		{"home_write", func(p plan) (string, error) { return touch(p.Home) }},
		{"journal_write", func(p plan) (string, error) { return touch(filepath.Join(p.State, "journal")) }},
		{"live_site_write", func(p plan) (string, error) { return touch(filepath.Join(p.State, "sites")) }},
		{"shadow_read", func(plan) (string, error) {
			b, err := os.ReadFile("/etc/shadow")
			return fmt.Sprintf("%d bytes", len(b)), err
		}},
		{"temporary_files", func(p plan) (string, error) { // the test looks whether they are outside
			return "", errors.Join(os.WriteFile("/tmp/"+p.Mark, nil, 0o666), os.WriteFile("/dev/shm/"+p.Mark, nil, 0o666))
		}},
	}
}

func readFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return secretIn(b)
}

// search looks for a secret in all files below a directory.
func search(dir string) (string, error) {
	found, last := "", error(nil)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			last = err
			return nil //nolint:nilerr // others are looked at
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if secret, err := readFile(path); err == nil {
			found = secret
			return fs.SkipAll
		}
		return nil
	})
	if found == "" && err == nil {
		err = errors.Join(errors.New("nothing found"), last)
	}
	return found, err
}

// touch makes a file, and removes it.
func touch(dir string) (string, error) {
	path := filepath.Join(dir, ".touched-by-hostile")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		return "", err
	}
	return "made a file in it", os.Remove(path)
}

func list(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " "), err
}

func openForWrite(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return "", err
	}
	return "could be written", f.Close()
}

// replace puts a link in a directory's place, and takes it away again.
func replace(dir, target string) (string, error) {
	aside := dir + ".was"
	if err := os.Rename(dir, aside); err != nil {
		return "", err
	}
	lerr := os.Symlink(target, dir)
	if lerr == nil {
		lerr = os.Remove(dir)
	}
	if err := os.Rename(aside, dir); err != nil {
		return "", fmt.Errorf("it is broken now: %w", err)
	}
	return "a link was in its place", lerr
}
