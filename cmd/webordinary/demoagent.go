package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// demoAgentCommand is the agent of a demo without Claude: a small scripted edit.
// It knows colours, and otherwise adds the instruction to the page.
func demoAgentCommand(sys system) *cobra.Command {
	return &cobra.Command{
		Use: "demo-agent", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := io.ReadAll(io.LimitReader(sys.stdin, 1<<20))
			if err != nil {
				return err
			}
			summary, err := scriptedEdit(string(text))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), summary)
			return err
		},
	}
}

// scriptedEdit edits the example site in the working directory.
func scriptedEdit(instruction string) (string, error) {
	colours := map[string]string{
		"blue": "#1d4ed8", "green": "#15803d", "red": "#b91c1c", "purple": "#6d28d9", "orange": "#c2410c", "black": "#111827", "teal": "#0f766e",
	}
	root, err := os.OpenRoot(".")
	if err != nil {
		return "", err
	}
	defer root.Close() //nolint:errcheck // written files are closed by themselves
	if name := strings.ToLower(colourName().FindString(instruction)); name != "" {
		code := colours[name]
		file := filepath.Join("src", "components", "Header.astro")
		was, err := root.ReadFile(file)
		if err != nil {
			return "", wrongSite(err)
		}
		is := headerColour().ReplaceAllString(string(was), "${1}"+code+";")
		if is == string(was) && !strings.Contains(is, code) {
			return "", errors.New("the header's colour was not found")
		}
		if err := root.WriteFile(file, []byte(is), 0o644); err != nil {
			return "", wrongSite(err)
		}
		return "Made the header " + name + ".", nil
	}
	line, _, _ := strings.Cut(strings.TrimSpace(instruction), "\n")
	if err := root.WriteFile(filepath.Join("public", "note.txt"), []byte(line+"\n"), 0o644); err != nil {
		return "", wrongSite(err)
	}
	return "Wrote the instruction to note.txt: this agent knows colours and nothing else.", nil
}

func wrongSite(err error) error {
	return fmt.Errorf("this agent can only edit the example site: %w", err)
}

// colourName finds the colour that is named first.
func colourName() *regexp.Regexp {
	return regexp.MustCompile(`(?i)\b(?:blue|green|red|purple|orange|black|teal)\b`)
}

// headerColour finds where Header.astro sets its background.
func headerColour() *regexp.Regexp {
	return regexp.MustCompile(`(--header-(?:bg|background|colou?r):\s*)[^;]+;`)
}
