package build

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// maxLines bounds a message: who needs more reads the log of a build at home.
const maxLines = 40

// maxLine bounds a line of it, in bytes: code that was made small is one line.
const maxLine = 400

// explain cuts a failed build's output down to what a person needs: from the
// first line of the error to the stack trace, and the file it is about.
func explain(out *output, r Request) string {
	stdout, stderr := clean(out.stdout.String()), clean(out.stderr.String())
	lines := errorLines(stderr)
	if len(lines) == 0 {
		lines = lastLines(errorLines(stdout), maxLines-1) // the page may follow
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
	// npm's words, the script it runs (not the marked line of a code frame), and
	// warnings of Node itself.
	noise := regexp.MustCompile(`^\s*npm |^> [^\s\d]|^\(node:\d+\) |^\(Use .node --trace-`)
	inStack, keep := false, 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		bare := strings.TrimSpace(line)
		switch {
		case noise.MatchString(line), bare == "" && len(lines) == 0:
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
	// Of no use to who cannot read them.
	aboutLogs := regexp.MustCompile(`A complete log of this run|Log files were not written|full report see:|-eresolve-report\.txt`)
	for line := range strings.Lines(clean(out.stderr.String())) {
		line = strings.TrimRight(line, " \t\r\n")
		text, ok := strings.CutPrefix(line, "npm error")
		if !ok {
			text, ok = strings.CutPrefix(line, "npm ERR!")
		}
		if !ok || aboutLogs.MatchString(text) {
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
	for _, sign := range []string{"Cannot find module", "Cannot find package", "ERR_MODULE_NOT_FOUND", "failed to resolve import"} {
		if strings.Contains(message, sign) {
			return true
		}
	}
	return false
}

// finish makes paths relative to the checkout and bounds the whole.
func finish(lines []string, r Request) string {
	// What an error is about is said at its beginning or, after warnings, at the
	// end.
	if over := len(lines) - maxLines; over > 0 {
		lines = slices.Replace(slices.Clone(lines), maxLines/2, maxLines/2+over+1, "…")
	}
	for i, line := range lines {
		if len(line) > maxLine {
			lines[i] = strings.ToValidUTF8(line[:maxLine], "") + "…"
		}
	}
	text := strings.Trim(strings.Join(lines, "\n"), "\n")
	for _, dir := range []string{r.Site, r.Job, r.Cache, r.Downloads} {
		if dir == "" {
			continue
		}
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
	const half = (maxMessage - len("\n…\n")) / 2
	head, tail := text[:half], text[len(text)-half:]
	return strings.ToValidUTF8(head, "") + "\n…\n" + strings.ToValidUTF8(tail, "")
}
