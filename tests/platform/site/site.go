// Package site is the small website of the tests that run many workers: what is
// in its repository, what its build makes of it, and how the scripted agent
// changes it.
//
// An instruction is "add TOKEN work=300ms build=100ms". The agent adds it as a line
// to content.txt, and takes as long as work says; the build takes as long as build
// says. Every page names a stylesheet with a hash in its name, as Astro's do.
package site

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Content is the file that the agent adds lines to.
const Content = "content.txt"

// Files is what is in a new repository. It builds without a package: by the
// program that SITE_TOOL names.
func Files() map[string]string {
	return map[string]string{
		"package.json":      `{"name":"site","version":"1.0.0","scripts":{"build":"\"$SITE_TOOL\" build"}}` + "\n",
		"package-lock.json": `{"name":"site","version":"1.0.0","lockfileVersion":3,"requires":true,"packages":{"":{"name":"site","version":"1.0.0"}}}` + "\n",
		".gitignore":        "node_modules/\ndist/\n",
		Content:             "start\n",
	}
}

// Add is an instruction. The token is what the agent knows it by.
type Add struct {
	Token string
	Work  time.Duration // of the agent
	Build time.Duration // of the build that follows
}

// String returns the instruction's text.
func (a Add) String() string {
	return fmt.Sprintf("add %s work=%s build=%s", a.Token, a.Work, a.Build)
}

// Parse is the inverse of String.
func Parse(line string) (Add, error) {
	fields := strings.Fields(line)
	if len(fields) != 4 || fields[0] != "add" {
		return Add{}, fmt.Errorf("%q is no instruction: want add TOKEN work=D build=D", line)
	}
	work, err1 := time.ParseDuration(strings.TrimPrefix(fields[2], "work="))
	build, err2 := time.ParseDuration(strings.TrimPrefix(fields[3], "build="))
	return Add{Token: fields[1], Work: work, Build: build}, errors.Join(err1, err2)
}

// Apply returns the content with the instruction carried out. What was carried
// out before it leaves as it is.
func (a Add) Apply(content string) string {
	line := a.String()
	if slices.Contains(strings.Split(content, "\n"), line) {
		return content
	}
	return content + line + "\n"
}

// Last returns what was added last; false if nothing was.
func Last(content string) (Add, bool) {
	lines := strings.Split(strings.TrimSpace(content), "\n")
	a, err := Parse(lines[len(lines)-1])
	return a, err == nil
}

// Tokens returns what was added, in order.
func Tokens(content string) []string {
	var tokens []string
	for line := range strings.Lines(content) {
		if a, err := Parse(strings.TrimSpace(line)); err == nil {
			tokens = append(tokens, a.Token)
		}
	}
	return tokens
}

// Build returns the files of the built site, by their paths.
func Build(content string) map[string]string {
	sum := sha256.Sum256([]byte(content))
	asset := "_astro/style." + hex.EncodeToString(sum[:])[:12] + ".css"
	page := func(title string) string {
		return "<!doctype html>\n<link rel=\"stylesheet\" href=\"/" + asset + "\">\n<h1>" + title + "</h1>\n<pre>\n" + content + "</pre>\n"
	}
	return map[string]string{
		asset:              "/* " + content + " */\n",
		"index.html":       page("Home"),
		"about/index.html": page("About"),
		"robots.txt":       "User-agent: *\n# " + asset + "\n",
	}
}

var assetLink = regexp.MustCompile(`href="/(_astro/[^"]+)"`)

// Assets returns the hashed assets that a page names.
func Assets(page string) []string {
	var keys []string
	for _, m := range assetLink.FindAllStringSubmatch(page, -1) {
		keys = append(keys, m[1])
	}
	return keys
}
