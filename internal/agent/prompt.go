package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/webordinary/claude-code-container/internal/leftover"
)

// The repository's own advice for agents is in these files. The CLI would read
// them, but is told to take no settings from the repository.
const (
	guideFile       = "CLAUDE.md"
	hiddenGuideFile = ".claude/CLAUDE.md"
	maxGuide        = 64 << 10 // of each, in bytes
)

// preamble stands before every prompt, so that none begins with a slash, which
// the CLI would take for a command of its own.
const preamble = `You are working on the source of a website, in the current directory, for its owner.
Change the files as the instruction below asks. Do not commit, push or deploy: that is done for you afterwards.
End with a short summary of what you changed, written for the owner.
`

// restarted is the note of a conversation whose predecessor is lost.
const restarted = "Your earlier conversation about this work could not be continued. What was done so far is in the files and in `git log`."

// prompt is what the agent is asked: preamble, notes, the repository's guides,
// and last the instruction.
func prompt(r Request, notes []string) (string, error) {
	site, err := leftover.Open(r.Site)
	if err != nil {
		return "", err
	}
	defer site.Close() //nolint:errcheck // it was only read
	var b strings.Builder
	b.WriteString(preamble)
	for _, n := range notes {
		fmt.Fprintf(&b, "\nNote: %s\n", n)
	}
	for _, name := range []string{guideFile, hiddenGuideFile} {
		guide, err := readGuide(site, name)
		if err != nil {
			return "", err
		}
		if guide != "" {
			fmt.Fprintf(&b, "\nThe repository's %s says:\n<guide>\n%s\n</guide>\n", name, guide)
		}
	}
	b.WriteString("\nThe instruction:\n")
	b.WriteString(r.Instruction)
	return b.String(), nil
}

// readGuide returns a guide of the repository, cut to its bound; empty if there is
// none that is a regular file.
func readGuide(site *os.Root, name string) (string, error) {
	f, err := leftover.File(site, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, leftover.ErrIrregular) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxGuide))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "")), nil
}
