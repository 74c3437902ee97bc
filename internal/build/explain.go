package build

import (
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxLines bounds a message: who needs more reads the log of a build at home.
const maxLines = 40

// explain cuts a failed build's output down to what a person needs: from the
// first line of the error to the stack trace, and the file it is about.
func explain(out *output, r Request) string {
	stdout, stderr := clean(out.stdout.String()), clean(out.stderr.String())
	lines := errorLines(stderr)
	if len(lines) == 0 {
		lines = lastLines(errorLines(stdout), maxLines)
	}
	if page := lastPage(stdout); page != "" && !strings.Contains(strings.Join(lines, "\n"), "src/") {
		lines = append(lines, "while building the page "+page)
	}
	if len(lines) == 0 {
		lines = []string{"The build failed without saying why."}
	}
	return finish(lines, r)
}

// errorLines are the lines of an error as Astro and Vite print it.
func errorLines(text string) []string {
	var lines []string
	frame := regexp.MustCompile(`^\s+at .+[:(]`)
	inStack, keep := false, 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		bare := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(bare, "npm "), strings.HasPrefix(line, "> "), bare == "" && len(lines) == 0:
		case strings.HasPrefix(bare, "Stack trace:"):
			inStack = true
		case frame.MatchString(line):
		case bare == "Location:":
			keep = 1
			lines = append(lines, line)
		case inStack && keep == 0 && !strings.HasPrefix(strings.ToLower(bare), "file:"):
		default:
			keep = max(keep-1, 0)
			lines = append(lines, line)
		}
	}
	return lines
}

// explainNpm keeps npm's own account of an error.
func explainNpm(out *output, r Request) string {
	var lines []string
	for line := range strings.Lines(clean(out.stderr.String())) {
		line = strings.TrimRight(line, " \t\r\n")
		text, ok := strings.CutPrefix(line, "npm error")
		if !ok {
			text, ok = strings.CutPrefix(line, "npm ERR!")
		}
		if !ok || strings.Contains(text, "A complete log of this run") || strings.Contains(text, "-debug-0.log") {
			continue
		}
		if text = strings.TrimPrefix(text, " "); strings.TrimSpace(text) != "" {
			lines = append(lines, text)
		}
	}
	if len(lines) == 0 {
		lines = lastLines(errorLines(clean(out.stderr.String())), maxLines)
	}
	return finish(lines, r)
}

// lastPage is the page Astro was about to write when it ended: a page that fails
// while it is rendered is not named in the error.
func lastPage(stdout string) string {
	i := strings.LastIndex(stdout, "▶ ")
	if i < 0 || strings.Contains(stdout[i:], "Completed in") {
		return ""
	}
	page, _, _ := strings.Cut(stdout[i+len("▶ "):], "\n")
	return strings.TrimSpace(page)
}

// clean removes colours and other escapes, the time of day before a line, and
// what Vite and Astro say before they say what is wrong.
func clean(text string) string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for _, pattern := range []string{
		`\x1b\[[0-9;?]*[ -/]*[@-~]`,
		`\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)`,
		`[\x00-\x08\x0b-\x1f\x7f]`,
		`(?m)^\d{1,2}:\d{2}:\d{2}(?: [AP]M)? `,
		`(?m)^\[ERROR\] `,
		`(?m)^\[vite\] ✗ Build failed in .*\n`,
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, "")
	}
	return text
}

func lastLines(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }

// lacksPackage reports whether an error looks like a package that is not there.
func lacksPackage(message string) bool {
	for _, sign := range []string{"Cannot find module", "Cannot find package", "ERR_MODULE_NOT_FOUND", "MODULE_NOT_FOUND"} {
		if strings.Contains(message, sign) {
			return true
		}
	}
	return false
}

// finish makes paths relative to the checkout and bounds the whole.
func finish(lines []string, r Request) string {
	if len(lines) > maxLines {
		lines = append(lines[:maxLines:maxLines], "…")
	}
	text := strings.Trim(strings.Join(lines, "\n"), "\n")
	for _, dir := range []string{r.Site, r.Job, r.Cache} {
		names := []string{filepath.Clean(dir)}
		if target, err := filepath.EvalSymlinks(dir); err == nil && target != names[0] {
			names = append(names, target)
		}
		for _, name := range names {
			text = strings.ReplaceAll(text, "file://"+name+"/", "")
			text = strings.ReplaceAll(text, name+"/", "")
			text = strings.ReplaceAll(text, name, filepath.Base(name))
		}
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxMessage {
		return text
	}
	end := maxMessage - len("…")
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
