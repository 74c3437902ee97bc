package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/webordinary/claude-code-container/internal/process"
)

const (
	lockFile       = "package-lock.json"
	shrinkwrapFile = "npm-shrinkwrap.json"
	// treeFile is npm's own record of what is in node_modules; it changes with
	// every install, also with one that an agent made.
	treeFile    = "node_modules/.package-lock.json"
	imageCache  = "node_modules/.astro"
	imageRescue = ".astro/kept-cache" // where the image cache waits while npm replaces node_modules
)

// stamp says what node_modules was made from. It lies in the cache, where no
// child can write: a tree that lacks it, or differs, is made anew.
type stamp struct {
	Inputs string `json:"inputs"` // hash of what decides about the tree
	Tree   string `json:"tree"`   // hash of npm's record of it
}

// install makes node_modules what package.json and the lock file ask for, if it
// is not.
func (s *site) install(ctx context.Context, result *Result) error {
	inputs, err := s.inputs(ctx)
	if err != nil {
		return err
	}
	s.restoreImages(ctx)
	if s.current(inputs) {
		return nil
	}
	before := s.hash(lockFile)
	s.forget(ctx)
	if err := s.root.Rename(imageCache, imageRescue); err == nil {
		s.logger().DebugContext(ctx, "image cache set aside")
	}
	if !s.restore(ctx, inputs) {
		if err := s.npmInstall(ctx); err != nil {
			return err
		}
	}
	s.restoreImages(ctx)
	// The install may have written the lock file, so what decides is read again.
	if inputs, err = s.inputs(ctx); err != nil {
		return err
	}
	result.Installed, result.LockChanged = true, before != s.hash(lockFile)
	return s.remember(stamp{Inputs: inputs, Tree: s.hash(treeFile)})
}

// prepare installs what the lock file says, where no agent has worked yet, and
// keeps it for other checkouts. The site's own install scripts can do what the
// inputs do not tell; with any, nothing is kept.
func (s *site) prepare(ctx context.Context) error {
	inputs, err := s.inputs(ctx)
	if err != nil || inputs == "" || s.hash(lockFile) == "" || s.current(inputs) {
		return err
	}
	if s.restore(ctx, inputs) {
		return s.remember(stamp{Inputs: inputs, Tree: s.hash(treeFile)})
	}
	out, err := s.npmCi(ctx)
	if err != nil {
		return s.installError(out, err)
	}
	pkg, err := s.manifest()
	if err != nil {
		return err
	}
	if len(installScripts(pkg)) == 0 {
		s.keep(ctx, inputs)
	}
	return s.remember(stamp{Inputs: inputs, Tree: s.hash(treeFile)})
}

func npmFlags() []string { return []string{"--include=dev", "--no-audit", "--no-fund"} }

func (s *site) npmCi(ctx context.Context) (*output, error) {
	return s.run(ctx, "npm", append([]string{"ci"}, npmFlags()...)...)
}

// npmInstall installs exactly what the lock file says; without one, or with one
// that does not fit package.json, what package.json asks for.
func (s *site) npmInstall(ctx context.Context) error {
	if s.hash(lockFile) != "" {
		out, err := s.npmCi(ctx)
		// npm's account may be longer than what is kept of it.
		stderr := out.stderr.String()
		if err == nil || !strings.Contains(stderr, "EUSAGE") && !strings.Contains(stderr, `Run "npm help ci"`) {
			return s.installError(out, err)
		}
		s.logger().DebugContext(ctx, "lock file does not fit package.json")
	}
	out, err := s.run(ctx, "npm", append([]string{"install"}, npmFlags()...)...)
	return s.installError(out, err)
}

func (s *site) installError(out *output, err error) error {
	if _, ok := errors.AsType[*process.ExitError](err); !ok {
		return err
	}
	return &Error{CodeInstall, "The packages could not be installed.\n" + explainNpm(out, s.request)}
}

// inputs is a hash of all that decides about node_modules: what package.json
// asks for, the lock file, Node's version, npm's configuration. It is empty, so
// never equal, where that is not all: workspaces have a package.json each.
func (s *site) inputs(ctx context.Context) (string, error) {
	pkg, err := s.manifest()
	if err != nil {
		return "", err
	}
	if _, ok := pkg["workspaces"]; ok {
		return "", nil
	}
	version, err := s.nodeVersion(ctx)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	add := func(name, value string) { fmt.Fprintf(h, "%s %d %s\n", name, len(value), value) } //nolint:errcheck // a hash takes everything
	for _, name := range []string{
		"dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "bundleDependencies",
		"bundledDependencies", "overrides", "engines", "allowScripts",
	} {
		add(name, string(pkg[name]))
	}
	for _, script := range installScripts(pkg) {
		add("script", script)
	}
	for _, name := range []string{lockFile, shrinkwrapFile, ".npmrc"} {
		add(name, s.hash(name))
	}
	add("node", version)
	config := slices.DeleteFunc(slices.Clone(s.Env), func(kv string) bool {
		return !strings.HasPrefix(strings.ToLower(kv), "npm_config_")
	})
	slices.Sort(config)
	add("config", strings.Join(config, "\n"))
	return hex.EncodeToString(h.Sum(nil)), nil
}

// installScripts are the site's own scripts that npm runs when it installs.
func installScripts(pkg map[string]json.RawMessage) []string {
	var scripts map[string]string
	if json.Unmarshal(pkg["scripts"], &scripts) != nil {
		return nil
	}
	var found []string
	for _, name := range []string{"preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare"} {
		if scripts[name] != "" {
			found = append(found, name+": "+scripts[name])
		}
	}
	return found
}

// hash is the hash of a file of the checkout, empty if there is none.
func (s *site) hash(name string) string {
	raw, err := s.read(name)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func (s *site) stampFile() string { return filepath.Join(s.request.Cache, "installed.json") }

// current reports whether node_modules is what the inputs ask for.
func (s *site) current(inputs string) bool {
	raw, err := os.ReadFile(s.stampFile())
	if err != nil {
		return false
	}
	var had stamp
	return json.Unmarshal(raw, &had) == nil && had.Inputs != "" && had.Tree != "" &&
		had == stamp{Inputs: inputs, Tree: s.hash(treeFile)}
}

// remember writes the stamp, whole or not at all.
func (s *site) remember(now stamp) error {
	raw, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("remember the install: %w", err)
	}
	temp := s.stampFile() + ".new"
	if err := os.WriteFile(temp, raw, 0o600); err != nil {
		return fmt.Errorf("remember the install: %w", err)
	}
	if err := os.Rename(temp, s.stampFile()); err != nil {
		return fmt.Errorf("remember the install: %w", err)
	}
	return nil
}

// forget makes the next build install.
func (s *site) forget(ctx context.Context) {
	if err := os.Remove(s.stampFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.logger().WarnContext(ctx, "stamp of the install not removed", slog.Any("error", err))
	}
}

// restoreImages puts Astro's cache of scaled images back, which npm ci deletes
// with all of node_modules; also after a crash. It is only a cache: where it
// cannot be put back, images are scaled again.
func (s *site) restoreImages(ctx context.Context) {
	if _, err := s.root.Lstat(imageRescue); err != nil {
		return
	}
	if _, err := s.root.Lstat("node_modules"); err != nil {
		return // not yet: after the install
	}
	var err error
	if _, missing := s.root.Lstat(imageCache); missing == nil {
		err = s.root.RemoveAll(imageRescue) // an older one
	} else {
		err = s.root.Rename(imageRescue, imageCache)
	}
	if err != nil {
		s.logger().WarnContext(ctx, "image cache not restored", slog.Any("error", err))
	}
}
