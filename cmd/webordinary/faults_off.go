//go:build !faults

package main

import "github.com/webordinary/claude-code-container/internal/journal"

// faults is nil in a program for use: see faults_on.go.
func faults([]string) func(journal.Mark) { return nil }
